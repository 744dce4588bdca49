"""Worker processes that play a simulator, side by side, in this interpreter or in another.

Axes: B lanes, N agents.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import mmap
import os
import pickle
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np

from crowdnash.checks import check_count, check_instance, check_number, shown
from crowdnash.simulators.contract import Form, SimulatorError, rebuilt
from crowdnash.simulators.lanes import Arrays, Lanes, bytes_of, carver
from crowdnash.simulators.processes import START_SECONDS, Process, Task


class Workers:
    """A simulator in worker processes: use it where the simulator would be.

    The results are those of the simulator in this process, bit for bit. Arrays are exchanged in
    shared memory. A worker that dies, does not answer in time or returns nonsense is one
    `SimulatorError` that names step and seed; it is started anew at the next call, so that
    `solve(state=...)` goes on from the last epoch (a `callback` can keep its state). POSIX systems
    only. Close it, or use it in a `with` block.

    Args:
        sim: the simulator, or a function that makes it; both are pickled (with cloudpickle, where
            that is installed). Or a text "package.module:name" or "/path/file.py:name" that says
            where the workers find such a function: for another interpreter, which may lack what
            this one has.
        num_workers: processes.
        python: path of the interpreter that runs them (Python 3.10 or newer, with NumPy); by
            default this one. They need neither JAX nor crowdnash.
        time_limit: seconds that a step may take in all lanes of a worker.
        executor: runs the workers instead, one task each that ends when they are closed: any
            `concurrent.futures.Executor` whose tasks run in processes of their own, of a whole
            cluster too. There crowdnash and NumPy must be installed, not JAX.
        host: the address of this machine at which an executor's tasks reach it.

    Raises:
        ValueError: naming the argument, the rule and the value.
        SimulatorError: a worker cannot be started, or cannot make the simulator.
    """

    def __init__(
        self,
        sim: Any,
        num_workers: int = 2,
        python: str | os.PathLike[str] | None = None,
        time_limit: float = 60.0,
        executor: Executor | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        check_count("num_workers", num_workers, 1)
        check_number("time_limit", time_limit, above=0)
        if executor is not None:
            check_instance("executor", executor, Executor)
            if python is not None:
                raise ValueError("python must be None beside executor, which has its own")
        self._executor, self._host = executor, host
        self._python = sys.executable if python is None else os.fspath(python)
        self._source = _source(sim, other_interpreter=python is not None)
        self.num_workers, self.time_limit = num_workers, float(time_limit)
        self._is_other = python is not None
        first = self._new_process()
        described = first.described
        self.name = str(described["name"])
        self.num_agents: int = described["num_agents"]
        self.num_actions: int = described["num_actions"]
        self.horizon: int = described["horizon"]
        self.num_states: int | None = described["num_states"]
        if described["agent_features"] is not None:
            self.agent_features = np.array(described["agent_features"])
        self.form = Form(*described["form"])
        self._spare: Process | Task | None = first
        self._lanes: list[_WorkerLanes] = []

    def open_lanes(self, form: Form, most: int) -> Lanes:
        """Lanes in all workers, for `most` episodes side by side.

        Raises:
            SimulatorError: a worker cannot be started.
        """
        self._close_lanes()
        lanes = _WorkerLanes(self, form, max(most, self.num_workers))
        self._lanes.append(lanes)
        return lanes

    def _start(self) -> Process | Task:
        """A process that has made the simulator; raises as the class does."""
        spare, self._spare = self._spare, None
        return spare or self._new_process()

    def _new_process(self) -> Process | Task:
        if self._executor is not None:
            return Task(self._executor, self._source, self._host)
        return Process(self._python, self._source, self.num_workers, self._is_other)

    def close(self) -> None:
        """End all processes; raises nothing."""
        self._close_lanes()
        if self._spare is not None:
            self._spare.kill()
            self._spare = None

    def _close_lanes(self) -> None:
        for lanes in self._lanes:
            lanes.close()
        self._lanes.clear()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reset(self, seed: int) -> Any:
        """See `Simulator.reset`.

        Raises:
            SimulatorError: as the class says.
        """
        if not self._lanes:
            self.open_lanes(self.form, 1)
        self._lanes[-1].begin([seed])
        return self._now()

    def step(self, actions: np.ndarray) -> tuple[Any, Any, Any, Any]:
        """See `Simulator.step`.

        Raises:
            SimulatorError: as the class says.
        """
        arrays = self._lanes[-1].arrays
        arrays.actions[0] = actions
        self._lanes[-1].advance([0])
        legal = arrays.legal[0].copy() if self.form.limited else None
        return self._now(), arrays.rewards[0].copy(), arrays.alive[0].copy(), legal

    def _now(self) -> Any:
        arrays = self._lanes[-1].arrays
        return rebuilt(self.form.structure, [x[0].copy() for x in arrays.observations])


class _WorkerLanes(Lanes):
    """Rows dealt out among processes, which play at the same time."""

    def __init__(self, workers: Workers, form: Form, count: int) -> None:
        self._workers, self._form, self.count = workers, form, count
        rows = [list(range(k, count, workers.num_workers)) for k in range(workers.num_workers)]
        self._rows = [own for own in rows if own]
        self._processes: list[Process | Task | None] = [None] * len(self._rows)
        sizes = (count, workers.num_agents, workers.num_actions, form)
        self._memory = _shared_memory(bytes_of(Arrays.make(*sizes)))
        with open(self._memory, "r+b") as file:
            self.arrays = Arrays.make(*sizes, carver(mmap.mmap(file.fileno(), 0)))
        self._seeds: list[int] = []
        self._step = 0

    def begin(self, seeds: Sequence[int]) -> None:
        """See `Lanes.begin`."""
        if not self._memory.exists():
            raise SimulatorError(f"{self._workers.name}: these workers are closed")
        self._seeds, self._step = list(seeds), 0
        for k, rows in enumerate(self._rows):
            if self._processes[k] is None:
                self._processes[k] = process = self._workers._start()
                memory = str(self._memory) if process.shares_memory else None
                process.send("open", memory, self.count, tuple(self._form), rows)
                self._answer(k, rows, START_SECONDS)
        self._all("begin", [{r: seeds[r] for r in rows if r < len(seeds)} for rows in self._rows])

    def advance(self, active: Sequence[int]) -> None:
        """See `Lanes.advance`."""
        playing = set(active)
        self._all("advance", [[r for r in rows if r in playing] for rows in self._rows])
        self._step += 1

    def _all(self, command: str, parts: list[Any]) -> None:
        """Send every process its part, then wait for all of them."""
        asked = [k for k, part in enumerate(parts) if part]
        errors, waiting = [], set()
        try:
            for k in asked:
                process = self._processes[k]
                waiting.add(k)
                if process is not None:
                    far = command == "advance" and not process.shares_memory
                    actions = self.arrays.actions[parts[k]] if far else None
                    with contextlib.suppress(OSError):  # then there is no answer either
                        process.send(command, parts[k], actions)
            for k in asked:
                try:
                    self._answer(k, list(parts[k]), self._workers.time_limit)
                except SimulatorError as error:
                    errors.append(error)
                waiting.discard(k)
        finally:
            # After Ctrl-C: an answer that comes late would be taken for that of the next command.
            for k in waiting:
                self._end(k)
        if errors:
            raise errors[0]

    def _answer(self, k: int, rows: list[int], seconds: float) -> None:
        process = self._processes[k]
        if process is None:
            raise self._died(k, rows)
        try:
            answer = process.receive(seconds)
        except TimeoutError:
            self._end(k)
            raise SimulatorError(
                f"{self._workers.name}: a worker did not answer within {seconds:g} s and was "
                f"ended, {self._place(rows)}"
            ) from None
        except (EOFError, OSError):
            raise self._died(k, rows) from None
        if answer[0] == "error":
            raise SimulatorError(answer[1])
        if answer[0] == "sent":  # by a task, which has no part in our memory
            flat = [*self.arrays.observations, *self.arrays[2:]]
            for array, part in zip(flat, answer[1], strict=True):
                array[rows] = part

    def _died(self, k: int, rows: list[int]) -> SimulatorError:
        process = self._processes[k]
        how = "died" if process is None else process.how_it_ended()
        self._end(k)
        return SimulatorError(f"{self._workers.name}: a worker {how}, {self._place(rows)}")

    def _place(self, rows: list[int]) -> str:
        seeds = [str(self._seeds[row]) for row in rows if row < len(self._seeds)]
        episodes = "episode with seed" if len(seeds) == 1 else "episodes with seeds"
        return f"at step {self._step} of the {episodes} {', '.join(seeds)}"

    def _end(self, k: int) -> None:
        process, self._processes[k] = self._processes[k], None
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the processes."""
        for k in range(len(self._processes)):
            self._end(k)
        self._memory.unlink(missing_ok=True)


def _shared_memory(size: int) -> Path:
    """A file of zeros that processes map: in memory, where the system has a place for that."""
    folder = Path("/dev/shm")
    number, name = tempfile.mkstemp(prefix="crowdnash-", dir=folder if folder.is_dir() else None)
    with open(number, "wb") as file:
        file.truncate(max(size, 1))
    path = Path(name)
    atexit.register(path.unlink, missing_ok=True)
    return path


def _source(sim: Any, *, other_interpreter: bool) -> tuple[str, Any]:
    """What a worker makes the simulator from."""
    if isinstance(sim, str):
        if not sim.rpartition(":")[0]:
            raise ValueError(f"sim must be 'package.module:name' or 'file.py:name', not {sim!r}")
        return "name", sim
    if not hasattr(sim, "reset") and not callable(sim):
        raise ValueError(f"sim must be a simulator or make one, not {shown(sim)}")
    try:
        if other_interpreter:  # what cloudpickle writes is for one version of Python
            return "pickle", pickle.dumps(sim, 4)
        return "pickle", _pickler().dumps(sim)
    except Exception as error:
        raise ValueError(
            f"sim must be pickled to reach the workers, and cannot be ({error}): give a function "
            "that makes it, or 'file.py:name'"
        ) from error


def _pickler() -> Any:
    """cloudpickle, which takes lambdas and what a notebook defines, or pickle."""
    try:
        return importlib.import_module("cloudpickle")
    except ModuleNotFoundError:
        return pickle
