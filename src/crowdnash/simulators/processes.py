"""Workers as the player has them: a process of this machine, or a task of somebody's executor.

Both make the simulator when they start, and answer commands (`worker`) on a socket. A process maps
the player's memory; a task may run on another machine, and is sent arrays.
"""

from __future__ import annotations

import multiprocessing.connection
import os
import pickle
import secrets
import signal
import socket
import subprocess
import sys
import time
import weakref
from concurrent.futures import Executor, Future
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from crowdnash.simulators import worker as worker_module
from crowdnash.simulators.contract import SimulatorError

START_SECONDS = 120.0


def _own_paths() -> list[str]:
    """Where this process finds its user's modules, what is installed left out."""
    installed = tuple({sys.prefix, sys.base_prefix, os.path.dirname(os.__file__)})
    paths = [os.path.abspath(path or os.getcwd()) for path in sys.path]
    return [path for path in paths if not path.startswith(installed)]


class Process:
    """One worker process of this machine, started and asked to make the simulator."""

    shares_memory = True

    def __init__(
        self, python: str, source: tuple[str, Any], num_workers: int, is_other: bool
    ) -> None:
        ours, theirs = socket.socketpair()
        arguments = [python, worker_module.__file__, str(theirs.fileno())]
        # Some libraries use all cores in every process otherwise.
        threads = str(max(1, (os.cpu_count() or 1) // num_workers))
        environment = {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads} | os.environ
        try:
            self._popen = subprocess.Popen(arguments, pass_fds=(theirs.fileno(),), env=environment)
        except OSError as error:
            ours.close()
            raise SimulatorError(f"python: {python} cannot be started: {error.strerror}") from None
        finally:
            theirs.close()
        self._connection = Connection(ours.detach())
        self._finalizer = weakref.finalize(self, _kill, self._popen, self._connection)
        try:
            package = str(Path(__file__).parents[1])
            self.described = described(self, _own_paths(), package, is_other, source)
        except (EOFError, OSError, TimeoutError):
            how = self.how_it_ended()
            self.kill()
            raise SimulatorError(f"a worker of {python} {how} before it had begun") from None

    def send(self, command: str, *rest: Any) -> None:
        """Give a command; raises `OSError` if the process is gone."""
        _send(self._connection, command, *rest)

    def receive(self, seconds: float) -> Any:
        """The answer.

        Raises:
            TimeoutError: there is none in time.
            EOFError, OSError: the process is gone.
        """
        return _receive(self._connection, seconds)

    def how_it_ended(self) -> str:
        """In words, with exit status or signal."""
        deadline = time.monotonic() + 1.0
        while self._popen.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        status = self._popen.poll()
        if status is None:
            return "stopped answering"
        if status < 0:
            return f"died by {signal.Signals(-status).name}"
        return f"ended with status {status}"

    def kill(self) -> None:
        """End it."""
        self._finalizer()


def _kill(popen: subprocess.Popen[bytes], connection: Connection) -> None:
    connection.close()
    popen.kill()
    popen.wait()


class Task:
    """One task of an executor, which runs until the connection is closed.

    Args:
        executor: where it is submitted.
        source: what the simulator is made from.
        host: the address of this machine at which tasks reach it.

    Raises:
        SimulatorError: it does not begin in time, or cannot make the simulator.
    """

    shares_memory = False

    def __init__(self, executor: Executor, source: tuple[str, Any], host: str) -> None:
        password = secrets.token_bytes(32)
        with socket.create_server((host, 0)) as server:
            address = (host, server.getsockname()[1])
            self._future: Future[None] = executor.submit(worker_module.serve, address, password)
            try:
                self._connection = _accepted(server, self._future, password)
                self._finalizer = weakref.finalize(self, self._connection.close)
                self.described = described(self, [], None, False, source)
            except (EOFError, OSError, TimeoutError, multiprocessing.AuthenticationError):
                how = self.how_it_ended()
                raise SimulatorError(f"a task of the executor {how} before it had begun") from None

    def send(self, command: str, *rest: Any) -> None:
        """As `Process.send`."""
        _send(self._connection, command, *rest)

    def receive(self, seconds: float) -> Any:
        """As `Process.receive`."""
        return _receive(self._connection, seconds)

    def how_it_ended(self) -> str:
        """In words, with what the task raised."""
        try:
            error = self._future.exception(timeout=1.0)
        except BaseException:  # not done, or cancelled
            return "stopped answering"
        if error is None:
            return "ended"
        # Ray's errors hold the task's traceback, in colours; its last line says what it was.
        name, lines = type(error).__name__.partition("(")[0], str(error).strip().splitlines()
        return f"ended by {name}: {lines[-1] if lines else ''}"

    def kill(self) -> None:
        """Close its connection, upon which it ends; what hangs inside only its executor can end."""
        self._finalizer()
        self._future.cancel()


def described(
    worker: Any, paths: list[str], package: str | None, is_other: bool, source: tuple[str, Any]
) -> dict[str, Any]:
    """Let a worker make the simulator and say what it is.

    Raises:
        SimulatorError: it cannot be made.
        TimeoutError: there is no answer in time.
        EOFError, OSError: the worker is gone.
    """
    worker.send("load", paths, package, is_other, source)
    answer = worker.receive(START_SECONDS)
    if answer[0] == "error":
        worker.kill()
        raise SimulatorError(f"a worker cannot make the simulator: {answer[1]}")
    return answer[1]


def _accepted(server: socket.socket, future: Future[None], password: bytes) -> Connection:
    """The task's connection, once both sides have shown that they know the password."""
    server.settimeout(0.5)
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            accepted, _ = server.accept()
        except TimeoutError:
            if future.done() or time.monotonic() > deadline:
                raise
            continue
        accepted.setblocking(True)
        connection = Connection(accepted.detach())
        multiprocessing.connection.deliver_challenge(connection, password)
        multiprocessing.connection.answer_challenge(connection, password)
        return connection


def _send(connection: Connection, command: str, *rest: Any) -> None:
    connection.send_bytes(pickle.dumps((command, *rest), 4))


def _receive(connection: Connection, seconds: float) -> Any:
    if not connection.poll(seconds):
        raise TimeoutError
    return pickle.loads(connection.recv_bytes())  # noqa: S301 (from our own worker)
