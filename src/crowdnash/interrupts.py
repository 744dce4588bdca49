"""Ctrl-C that is never lost.

Python raises `KeyboardInterrupt` wherever the main thread happens to be. Where that is a callback
of the garbage collector, of a weak reference or a `__del__`, Python prints the exception and goes
on: JAX has a callback that runs with every garbage collection, hence often while it traces an
epoch. A callback inside compiled code turns it into another error. So a Ctrl-C is also written
down here, and whoever loops asks `check` between two steps.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_SHOW_CURSOR = b"\x1b[?25h"


class _Watch:
    """The handler of SIGINT while `watching` lasts."""

    def __init__(self, second_ends_process: bool) -> None:
        self.is_pressed = False
        self.num_holds = 0
        self._second_ends_process = second_ends_process

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.is_pressed = True
        if self._second_ends_process:
            # The operating system's own action: it works inside compiled code, too.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            if sys.stderr is not None and sys.stderr.isatty():
                os.write(sys.stderr.fileno(), _SHOW_CURSOR)  # a progress bar may hide it
        if self.num_holds == 0:
            raise KeyboardInterrupt


_watch: _Watch | None = None


@contextlib.contextmanager
def watching(*, second_ends_process: bool = False) -> Iterator[None]:
    """Write down every Ctrl-C until the end of the block, besides raising `KeyboardInterrupt`.

    Nothing happens inside another `watching`, in a thread that receives no signals, and where the
    program ignores Ctrl-C or has a handler of its own.

    Args:
        second_ends_process: a second Ctrl-C ends the process at once.
    """
    global _watch
    if (
        _watch is not None
        or threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    _watch, report = _Watch(second_ends_process), sys.unraisablehook
    try:
        sys.unraisablehook = lambda dropped: _report_unless_ours(dropped, report)
        signal.signal(signal.SIGINT, _watch)
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.unraisablehook = report
        _watch = None


def _report_unless_ours(dropped: Any, report: Callable[[Any], object]) -> None:
    """Keep quiet of a Ctrl-C that Python drops: it is written down."""
    if not issubclass(dropped.exc_type, KeyboardInterrupt):
        report(dropped)


@contextlib.contextmanager
def holding() -> Iterator[None]:
    """Put Ctrl-C off to the next `check`, so that it cannot split the block."""
    watch = _current()
    if watch is None:
        yield
        return
    watch.num_holds += 1
    try:
        yield
    finally:
        watch.num_holds -= 1


def is_pressed() -> bool:
    """Whether Ctrl-C was pressed since `watching` began."""
    watch = _current()
    return watch is not None and watch.is_pressed


def check() -> None:
    """Stop where Ctrl-C was pressed and has not stopped anything yet.

    Raises:
        KeyboardInterrupt: it was.
    """
    if is_pressed():
        raise KeyboardInterrupt


def _current() -> _Watch | None:
    return _watch if threading.current_thread() is threading.main_thread() else None
