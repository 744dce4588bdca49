"""What a worker process runs: lanes of a simulator, in shared memory, at the player's command.

This file is started by its path, perhaps in another interpreter than the one that learns: it uses
Python and NumPy alone, and `contract` and `lanes` beside it. Commands and answers are pickled
tuples on a socket; arrays are not sent, they are in memory that both map.
"""

from __future__ import annotations

import importlib
import importlib.util
import mmap
import os
import pickle
import signal
import sys
import types
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np


def main() -> None:
    """Answer commands until the player closes the socket."""
    sys.path.pop(0)  # the folder of this file, whose modules have common names
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the player's to handle
    connection = Connection(int(sys.argv[1]))
    worker: Any = None
    while True:
        try:
            command, *rest = pickle.loads(connection.recv_bytes())  # noqa: S301 (from our parent)
        except EOFError:
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

    def __init__(self, paths: list[str], package: str, is_other: bool, source: tuple) -> None:
        sys.path += [path for path in paths if path not in sys.path]
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

    def open(self, memory: str, count: int, form: tuple, rows: list[int]) -> tuple[str]:
        """Map the memory, and make a copy of the simulator for every row of this process."""
        form = self._contract.Form(*form)
        with open(memory, "r+b") as file:
            buffer = mmap.mmap(file.fileno(), 0)
        sim = self._sim
        arrays = self._lanes.Arrays.make(
            count, sim.num_agents, sim.num_actions, form, self._lanes.carver(buffer)
        )
        sims = [sim, *(self._make() for _ in rows[1:])]
        self._rows = {
            row: self._lanes.Lane(one, form, arrays, row)
            for row, one in zip(rows, sims, strict=True)
        }
        return ("opened",)

    def begin(self, seeds: dict[int, int]) -> tuple[str]:
        """Reset the lanes in these rows."""
        for row, seed in seeds.items():
            self._rows[row].begin(seed)
        return ("done",)

    def advance(self, rows: list[int]) -> tuple[str]:
        """Play one step in these rows."""
        for row in rows:
            self._rows[row].advance()
        return ("done",)


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
