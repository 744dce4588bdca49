"""Independent computations on any `concurrent.futures.Executor`: in turn, in processes, on Ray."""

from __future__ import annotations

import importlib
import itertools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from multiprocessing import connection
from typing import Any

from crowdnash import interrupts
from crowdnash.checks import check_count, shown


class InTurn(Executor):
    """One call after the other, in this thread; Ctrl-C goes through to the caller."""

    at_once = 1

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call `fn` now."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class Processes(Executor):
    """Processes of this machine, started afresh ("spawn": JAX's threads do not survive a fork).

    Ctrl-C in the caller is a Ctrl-C to what the processes run, so that it saves what it has; if
    the caller dies, so do they. One that dies breaks the calls in flight, and the next call gets
    new processes. Use as a context manager.

    Args:
        num_workers: how many, at least 1.

    Raises:
        ValueError: `num_workers` is out of range.
    """

    def __init__(self, num_workers: int) -> None:
        check_count("num_workers", num_workers, 1)
        self.at_once = num_workers
        self._context = multiprocessing.get_context("spawn")
        # Its end of file says "stop" to all processes; the caller's death is an end of file, too.
        self._told, self._stop = self._context.Pipe(duplex=False)
        self._pool = self._new_pool()

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self.at_once, self._context, initializer=_prepare, initargs=(self._told,)
        )

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call `fn` in one of the processes."""
        try:
            return self._pool.submit(_interruptible, fn, *args, **kwargs)
        except BrokenExecutor:
            self._pool.shutdown()
            self._pool = self._new_pool()
            return self._pool.submit(_interruptible, fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes when what they run is done, or at once if the futures are cancelled."""
        if cancel_futures:
            self._stop.close()
        self._pool.shutdown(wait, cancel_futures=cancel_futures)

    def __exit__(self, kind: Any, *_: object) -> None:
        self.shutdown(cancel_futures=kind is not None)


def _prepare(told: connection.Connection) -> None:
    """Make a new process deaf to Ctrl-C while it is idle, and end it with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgid"):  # the terminal's Ctrl-C is for the caller, who passes it on
        os.setpgid(0, 0)
    threading.Thread(target=_obey, args=(told,), daemon=True).start()


def _obey(told: connection.Connection) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([told, parent.sentinel])
    if not connection.wait([parent.sentinel], timeout=0.2):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        connection.wait([parent.sentinel])
    os._exit(1)


def _interruptible(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call `fn`, which a Ctrl-C may stop."""
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return fn(*args, **kwargs)
    except KeyboardInterrupt:  # ours may carry what does not travel
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


class RayTasks(Executor):
    """Tasks of Ray, one CPU each: on this machine, or on a cluster that shares a file system.

    Args:
        address: of the cluster, as `ray.init` takes it; None: a new one, on this machine.

    Raises:
        ValueError: Ray is not installed.
        ConnectionError: no cluster answers there.
    """

    def __init__(self, address: str | None = None) -> None:
        try:
            self._ray: Any = importlib.import_module("ray")
        except ImportError:
            raise ValueError("Ray is not installed: pip install 'crowdnash[ray]'") from None
        self._ray.init(address=address or "local", log_to_driver=False)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call `fn` in a task."""
        return self._ray.remote(num_cpus=1)(fn).remote(*args, **kwargs).future()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster; what still runs for this program ends."""
        self._ray.shutdown()


def made_by(factory: str) -> Executor:
    """The executor that a function makes, called without arguments.

    Args:
        factory: "module:function"; the module may lie in the current folder.

    Raises:
        ValueError: there is no such function, or it makes something else.
    """
    module, _, name = factory.partition(":")
    if not module or not name:
        raise ValueError(f"executor must be written module:factory, got {factory!r}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        function = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ValueError(f"executor {factory!r}: {error}") from None
    except AttributeError:
        raise ValueError(f"executor {factory!r}: {module} has no {name}") from None
    if not callable(function):
        raise ValueError(f"executor {factory!r}: {name} is no function but {shown(function)}")
    executor: Any = function()
    check_executor(executor)
    return executor


def check_executor(executor: Any) -> None:
    """Check that something is an executor.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(executor, Executor):
        raise ValueError(
            f"executor must be a concurrent.futures.Executor, got {shown(executor)} "
            f"of type {type(executor).__name__}"
        )


def as_completed(
    executor: Executor, function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]]
) -> Iterator[tuple[int, Future[Any]]]:
    """Submit a call for each task and yield them with their numbers, as they are done.

    An executor may say by `at_once` how many calls to have in flight; others get all of them. What
    has not begun is cancelled if the caller stops early.

    Args:
        executor: where they run.
        function: what is called.
        tasks: its arguments, one tuple a call.
    """
    numbered, at_once = iter(enumerate(tasks)), getattr(executor, "at_once", None)
    pending: dict[Future[Any], int] = {}
    try:
        while True:
            interrupts.check()
            free = None if at_once is None else at_once - len(pending)
            for number, task in itertools.islice(numbered, free):
                pending[_submitted(executor, function, task)] = number
            if not pending:
                return
            done = wait(pending, return_when=FIRST_COMPLETED).done
            for future in sorted(done, key=lambda one: pending[one]):
                yield pending.pop(future), future
    finally:
        for future in pending:
            future.cancel()


def _submitted(
    executor: Executor, function: Callable[..., Any], task: tuple[Any, ...]
) -> Future[Any]:
    """The call's future; where the executor is broken, one that says so."""
    try:
        return executor.submit(function, *task)
    except BrokenExecutor as error:
        broken: Future[Any] = Future()
        broken.set_exception(error)
        return broken
