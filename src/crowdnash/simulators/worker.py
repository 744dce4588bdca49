"""What a worker process runs: lanes of a simulator, in shared memory, at the player's command.

This file is started by its path, perhaps in another interpreter than the one that learns: it uses
Python and NumPy alone, and `contract` and `lanes` beside it. Commands and answers are pickled
tuples on a socket; arrays are not sent, they are in memory that both map.
"""

from __future__ import annotations

import importlib
import importlib.util
import mmap
import multiprocessing.connection
import os
import pickle
import signal
import socket
import sys
import types
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np


def main() -> None:
    """Answer commands of the process that started this one."""
    sys.path.pop(0)  # the folder of this file, whose modules have common names
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the player's to handle
    _answer_commands(Connection(int(sys.argv[1])))


def serve(address: tuple[str, int], password: bytes) -> None:
    """Answer commands of the player at an address: what a task of an executor runs.

    Raises:
        OSError: there is nobody.
    """
    there = socket.create_connection(address, timeout=60)
    there.setblocking(True)
    connection = Connection(there.detach())
    multiprocessing.connection.answer_challenge(connection, password)
    multiprocessing.connection.deliver_challenge(connection, password)
    _answer_commands(connection)


def _answer_commands(connection: Connection) -> None:
    """Until the player closes the socket."""
    worker: Any = None
    while True:
        try:
            command, *rest = pickle.loads(connection.recv_bytes())  # noqa: S301 (from our parent)
        except (EOFError, OSError):
            return
        try:
            if command == "load":
                worker = _Worker(*rest)
                answer = worker.describe()
            else:
                answer = getattr(worker, command)(*rest)
        except BaseException as error:
            answer = ("error", _line(error))
        connection.send_bytes(pickle.dumps(answer, 4))


class _Worker:
    """The lanes of one process."""

    def __init__(
        self, paths: list[str], package: str | None, is_other: bool, source: tuple
    ) -> None:
        sys.path += [path for path in paths if path not in sys.path]
        if package is not None:
            _find_package(package, is_other)
        self._contract = importlib.import_module("crowdnash.simulators.contract")
        self._lanes = importlib.import_module("crowdnash.simulators.lanes")
        self._make = _maker(*source)
        self._sim = self._make()
        self._contract.check_simulator_sizes(self._sim)

    def describe(self) -> tuple[str, dict[str, Any]]:
        """Sizes and shapes."""
        sim = self._sim
        features = getattr(sim, "agent_features", None)
        return "described", {
            "name": self._contract.simulator_name(sim),
            "num_agents": int(sim.num_agents),
            "num_actions": int(sim.num_actions),
            "horizon": int(sim.horizon),
            "num_states": getattr(sim, "num_states", None),
            "agent_features": None if features is None else np.asarray(features, float).tolist(),
            "form": tuple(self._contract.form_of(sim)),
        }

    def open(self, memory: str | None, count: int, form: tuple, rows: list[int]) -> tuple[str]:
        """Make a copy of the simulator for every row of this process.

        Their arrays are in the memory, which is mapped, or here (None), and are then sent.
        """
        form, sim = self._contract.Form(*form), self._sim
        sizes = (count, sim.num_agents, sim.num_actions, form)
        if memory is None:
            arrays = self._lanes.Arrays.make(*sizes)
        else:
            with open(memory, "r+b") as file:
                buffer = mmap.mmap(file.fileno(), 0)
            arrays = self._lanes.Arrays.make(*sizes, self._lanes.carver(buffer))
        self._here: Any = arrays if memory is None else None
        sims = [sim, *(self._make() for _ in rows[1:])]
        self._rows = {
            row: self._lanes.Lane(one, form, arrays, row)
            for row, one in zip(rows, sims, strict=True)
        }
        return ("opened",)

    def begin(self, seeds: dict[int, int], actions: None = None) -> tuple:
        """Reset the lanes in these rows."""
        for row, seed in seeds.items():
            self._rows[row].begin(seed)
        return self._done(list(seeds))

    def advance(self, rows: list[int], actions: np.ndarray | None) -> tuple:
        """Play one step in these rows, by actions that are in the memory or sent here."""
        if actions is not None:
            self._here.actions[rows] = actions
        for row in rows:
            self._rows[row].advance()
        return self._done(rows)

    def _done(self, rows: list[int]) -> tuple:
        if self._here is None:
            return ("done",)
        flat = [*self._here.observations, *self._here[2:]]
        return ("sent", [array[rows] for array in flat])


def _find_package(directory: str, is_other: bool) -> None:
    """Make this crowdnash importable; in another interpreter, without what it needs itself."""
    if not is_other:
        sys.path.insert(0, os.path.dirname(directory))
        return
    for name in ("crowdnash", "crowdnash.simulators"):
        module = types.ModuleType(name)
        module.__path__ = [os.path.join(directory, *name.split(".")[1:])]
        sys.modules[name] = module


def _maker(kind: str, content: Any) -> Callable[[], Any]:
    """A function that makes the simulator anew, from a pickle or from "file.py:name"."""
    if kind == "pickle":

        def unpickled() -> Any:
            made = pickle.loads(content)  # noqa: S301 (from our parent)
            return made() if not hasattr(made, "reset") or isinstance(made, type) else made

        return unpickled
    place, _, name = content.rpartition(":")
    if place.endswith(".py"):
        spec = importlib.util.spec_from_file_location("_simulator", place)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(place)
    return getattr(module, name)


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if type(error).__name__ == "SimulatorError" else f"{type(error).__name__}: {text}"


if __name__ == "__main__":
    main()
