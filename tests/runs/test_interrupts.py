"""Ctrl-C: it stops at once, is put off while files are written, and is never lost."""

import gc
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from crowdnash import interrupts


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def press_in_the_garbage_collector() -> None:
    """Press Ctrl-C where Python prints the exception and goes on, as in JAX's own callback."""

    def callback(phase, info):
        gc.callbacks.remove(callback)
        press()

    gc.callbacks.append(callback)
    gc.collect()


def test_ctrl_c_raises_at_once():
    with interrupts.watching(), pytest.raises(KeyboardInterrupt):
        press()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not interrupts.is_pressed()


def test_ctrl_c_that_python_drops_is_seen_by_the_next_check(monkeypatch):
    printed = []
    monkeypatch.setattr(sys, "unraisablehook", printed.append)
    with interrupts.watching():
        interrupts.check()
        press_in_the_garbage_collector()
        assert interrupts.is_pressed()
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
    interrupts.check()
    assert printed == []


def test_other_exceptions_that_python_drops_are_printed(monkeypatch):
    printed = []
    monkeypatch.setattr(sys, "unraisablehook", lambda dropped: printed.append(dropped.exc_type))

    def callback(phase, info):
        gc.callbacks.remove(callback)
        raise RuntimeError("a bug")

    with interrupts.watching():
        gc.callbacks.append(callback)
        gc.collect()
    assert printed == [RuntimeError]


def test_ctrl_c_is_put_off_to_the_end_of_a_held_block():
    with interrupts.watching():
        with interrupts.holding(), interrupts.holding():
            press()
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()


def test_watching_leaves_other_handlers_and_threads_alone():
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts.watching(), interrupts.holding():
            press()
            interrupts.check()
    finally:
        signal.signal(signal.SIGINT, previous)
    seen = []

    def in_a_thread():
        with interrupts.watching(), interrupts.holding():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=in_a_thread)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


def test_a_second_ctrl_c_ends_the_process_even_where_python_does_not_run():
    # A held block stands for compiled code: the exception of the first waits for its end.
    program = """
        import os, signal
        from crowdnash import interrupts
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with interrupts.watching(second_ends_process=True), interrupts.holding():
            signal.raise_signal(signal.SIGINT)
            print("held", flush=True)
            signal.raise_signal(signal.SIGINT)
            print("still there", flush=True)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "held\n"
    assert done.returncode == -signal.SIGINT


@pytest.mark.parametrize(
    "press",
    [
        "signal.raise_signal(signal.SIGINT)",
        # As in a dataclass that is being made: Python then means to end by the signal.
        "exec('signal.raise_signal(signal.SIGINT)')",
    ],
)
@pytest.mark.parametrize("comes_out_as_another_error", [False, True])
def test_ctrl_c_while_a_command_is_imported_is_one_line(
    tmp_path, press, comes_out_as_another_error
):
    program = f"""
        import os, signal, sys

        class Press:
            def find_spec(self, name, path=None, target=None):
                if name == "jax":
                    sys.meta_path.remove(self)
                    try:
                        {press}
                    except KeyboardInterrupt as error:
                        if {comes_out_as_another_error}:
                            raise ImportError("half a module") from error
                        raise

        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.meta_path.insert(0, Press())
        from crowdnash.cli import main
        sys.exit(main(["solve", "sis", "--out", {str(tmp_path / "run")!r}]))
    """
    # A module, as `python -m crowdnash`: only there Python looks at how `exec` ended.
    (tmp_path / "program.py").write_text(textwrap.dedent(program))
    done = subprocess.run(
        [sys.executable, "-m", "program"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (130, "crowdnash: stopped\n")
    assert not (tmp_path / "run").exists()
