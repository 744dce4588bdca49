"""Copies of a simulator that play side by side, step by step, into arrays that they share.

A lane is one copy with one row of the arrays. Lanes of this process are called one after the other;
those of worker processes (`workers`) run at the same time. No JAX here; see `contract`.

Axes: B lanes, N agents, A actions.
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from crowdnash.simulators.contract import (
    Form,
    Generators,
    SimulatorError,
    arrays_of,
    called,
    kept_generators,
    simulator_name,
    spawned,
)


class Arrays(NamedTuple):
    """What lanes and the player exchange: `actions` go in, the rest comes out.

    Attributes:
        observations: arrays [B,N,...], in the order of `contract.arrays_of`.
        actions: int32 [B,N].
        rewards: float32 [B,N], of the last step.
        alive: bool [B,N], who acts next.
        legal: bool [B,N,A], which actions there are next; all True where nothing is limited.
    """

    observations: tuple[np.ndarray, ...]
    actions: np.ndarray
    rewards: np.ndarray
    alive: np.ndarray
    legal: np.ndarray

    @classmethod
    def make(
        cls,
        count: int,
        num_agents: int,
        num_actions: int,
        form: Form,
        empty: Callable[..., np.ndarray] = np.zeros,
    ) -> Arrays:
        """Arrays for `count` lanes; `empty(shape, dtype)` makes each."""
        shape = (count, num_agents)
        return cls(
            tuple(
                empty((*shape, *own), dtype)
                for own, dtype in zip(form.shapes, form.dtypes, strict=True)
            ),
            empty(shape, "int32"),
            empty(shape, "float32"),
            empty(shape, "bool"),
            empty((*shape, num_actions), "bool"),
        )


_ALIGNMENT = 64


def bytes_of(arrays: Arrays) -> int:
    """What a buffer must hold for `carver` to make arrays of these sizes in it."""
    flat = [*arrays.observations, *arrays[1:]]
    return sum(-(-array.nbytes // _ALIGNMENT) * _ALIGNMENT for array in flat)


def carver(buffer: Any) -> Callable[..., np.ndarray]:
    """Makes one array after the other in a buffer, for `Arrays.make`."""
    offset = 0

    def carve(shape: tuple[int, ...], dtype: str) -> np.ndarray:
        nonlocal offset
        array = np.ndarray(shape, dtype, buffer, offset)
        offset += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
        return array

    return carve


class Lane:
    """One copy of a simulator, writing into row `row` of the arrays."""

    def __init__(self, sim: Any, form: Form, arrays: Arrays, row: int) -> None:
        self.sim = sim
        self._name, self._form = simulator_name(sim), form
        self._observations = [x[row] for x in arrays.observations]
        self._actions, self._rewards = arrays.actions[row], arrays.rewards[row]
        self._alive, self._legal = arrays.alive[row], arrays.legal[row]
        self._generators = Generators()
        self.seed, self.step = 0, 0

    def begin(self, seed: int) -> None:
        """Reset the simulator.

        Raises:
            SimulatorError: it raises, or returns something of a wrong shape.
        """
        self.seed, self.step = seed, 0
        self._generators.begin(seed)
        observations = called(self.sim, "reset", 0, seed, lambda: self.sim.reset(seed))
        self._generators.leave()
        legal = self.sim.legal() if hasattr(self.sim, "legal") else None
        alive = self.sim.alive() if hasattr(self.sim, "alive") else None
        self._rewards[:] = 0
        if legal is None:
            self._legal[:] = True
        else:
            self._take("legal", legal, self._legal)
        if alive is None:
            self._alive[:] = True
        else:
            self._take("alive", alive, self._alive)
        self._see(observations)

    def advance(self) -> None:
        """Play one step by the actions in the arrays.

        Raises:
            SimulatorError: as `begin`.
        """
        self._generators.resume(self.step)
        observations, rewards, alive, legal = called(
            self.sim, "step", self.step, self.seed, lambda: self.sim.step(self._actions.copy())
        )
        self._generators.leave()
        self._take("rewards", rewards, self._rewards)
        self._take("alive", alive, self._alive)
        if (legal is not None) is not self._form.limited and self._alive.any():
            self._fail("step must return legal actions at every step, or None at every step")
        if legal is not None:
            self._take("legal", legal, self._legal)
        self._see(observations)
        self.step += 1

    def _see(self, observations: Any) -> None:
        arrays = [observations] if type(observations) is np.ndarray else arrays_of(observations)
        if len(arrays) != len(self._observations):
            self._fail(
                f"observations must be {len(self._observations)} arrays, as they were at first, "
                f"not {len(arrays)}"
            )
        for array, target in zip(arrays, self._observations, strict=True):
            if array.shape != target.shape:
                self._fail(
                    f"observations must have shape {list(target.shape)}, as they had at first, "
                    f"not {list(array.shape)}"
                )
            target[...] = array

    def _take(self, what: str, value: Any, target: np.ndarray) -> None:
        array = np.asarray(value)
        kinds = "b" if target.dtype.kind == "b" else "biuf"
        if array.shape != target.shape or array.dtype.kind not in kinds:
            kind = "bool" if kinds == "b" else "numbers"
            self._fail(
                f"{what} must be {kind} of shape {list(target.shape)}, not {array.dtype} of shape "
                f"{list(array.shape)}"
            )
        target[...] = array

    def _fail(self, rule: str) -> None:
        raise SimulatorError(
            f"{self._name}: at step {self.step} of the episode with seed {self.seed}: {rule}"
        )


class Lanes(abc.ABC):
    """Copies of one simulator that play together.

    Attributes:
        arrays: what they exchange with the player.
        count: B.
        can_grow: whether there could be more of them.
    """

    arrays: Arrays
    count: int
    can_grow: bool = True

    def playing(self) -> contextlib.AbstractContextManager[None]:
        """In whose `with` block episodes are played: what that disturbs is then put back."""
        return contextlib.nullcontext()

    @abc.abstractmethod
    def begin(self, seeds: Sequence[int]) -> None:
        """Begin an episode in lane 0, 1, ... for every seed; the other lanes rest.

        Raises:
            SimulatorError: the simulator breaks its contract, or its process died or hangs.
        """

    @abc.abstractmethod
    def advance(self, active: Sequence[int]) -> None:
        """Play one step in these lanes.

        Raises:
            SimulatorError: as `begin`.
        """


class LocalLanes(Lanes):
    """Lanes of this process, as many as can be copied, `most` at most."""

    def __init__(self, sim: Any, form: Form, most: int) -> None:
        sims = [sim]
        while len(sims) < most and (another := spawned(sim)) is not None:
            sims.append(another)
        self.count = len(sims)
        self.can_grow = self.count == most
        self.arrays = Arrays.make(self.count, sim.num_agents, sim.num_actions, form)
        self.lanes = [Lane(one, form, self.arrays, row) for row, one in enumerate(sims)]

    def playing(self) -> contextlib.AbstractContextManager[None]:
        """See `Lanes.playing`: the global generators are those of the lanes meanwhile."""
        return kept_generators()

    def begin(self, seeds: Sequence[int]) -> None:
        """See `Lanes.begin`."""
        for lane, seed in zip(self.lanes, seeds, strict=False):
            lane.begin(seed)

    def advance(self, active: Sequence[int]) -> None:
        """See `Lanes.advance`."""
        for row in active:
            self.lanes[row].advance()
