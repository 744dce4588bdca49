"""A simulator outside JAX as learners and certificates see it: a game that cannot be compiled.

Axes: N agents, H steps, A actions, d features.
"""

from collections import deque
from typing import Any, NoReturn

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from crowdnash.checks import as_array, check_instance
from crowdnash.games.base import DynamicGame
from crowdnash.simulators.contract import (
    Form,
    Simulator,
    check_simulator_sizes,
    form_of,
    rebuilt,
    simulator_name,
)
from crowdnash.simulators.lanes import Lanes, LocalLanes

MOST_LANES = 32
"""Copies of a simulator that play side by side in one process."""


_RECENT: deque["OutsideGame"] = deque(maxlen=4)
"""Games made of simulators lately: a second call finds its lanes, and what was compiled for it."""


class Source:
    """The simulator behind a game, and the lanes it plays in; made once, kept between calls."""

    def __init__(self, sim: Any) -> None:
        self.sim = sim
        self._lanes: Lanes | None = None

    def lanes(self, form: Form, wanted: int) -> Lanes:
        """Lanes for `wanted` episodes side by side, or as many as there can be."""
        most = min(wanted, MOST_LANES)
        lanes = self._lanes
        if lanes is None or (lanes.count < most and lanes.can_grow):
            make = getattr(self.sim, "open_lanes", None)  # some have lanes of their own
            lanes = LocalLanes(self.sim, form, most) if make is None else make(form, most)
            self._lanes = lanes
        return lanes


class OutsideGame(DynamicGame):
    """A `Simulator` as a game: it has sizes and shapes, and is played outside JAX.

    `simulate`, `solve` and `exploitability` make one of what they are given (`as_game`) and play it
    by `simulation.outside`. Compiled play of it is refused.
    """

    _in_jax = False

    source: Source = eqx.field(static=True)
    form: Form = eqx.field(static=True)
    num_agents: int = eqx.field(static=True)
    num_actions: int = eqx.field(static=True)
    horizon: int = eqx.field(static=True)
    num_states: int | None = eqx.field(static=True)
    features: Float[Array, "N d"] | None

    def __init__(self, sim: Any):
        check_simulator_sizes(sim)
        self.source = Source(sim)
        self.form = sim.form if isinstance(getattr(sim, "form", None), Form) else form_of(sim)
        self.num_agents, self.num_actions = int(sim.num_agents), int(sim.num_actions)
        self.horizon = int(sim.horizon)
        states = getattr(sim, "num_states", None)
        self.num_states = None if states is None else int(states)
        features = getattr(sim, "agent_features", None)
        if features is not None:
            features = jnp.asarray(as_array("agent_features", features), jnp.float32)
            if features.ndim != 2 or features.shape[0] != self.num_agents:
                raise ValueError(
                    f"{simulator_name(sim)}.agent_features must have shape "
                    f"[{self.num_agents},d], not {list(features.shape)}"
                )
        self.features = features

    @property
    def name(self) -> str:
        """The simulator's."""
        return simulator_name(self.source.sim)

    @property
    def agent_features(self) -> Float[Array, "N d"] | None:
        """The simulator's, if it has some."""
        return self.features

    def _has_sizes_of(self, sim: Any) -> bool:
        """Whether the simulator still has the sizes that it had when this game was made."""
        own = (self.num_agents, self.num_actions, self.horizon, self.num_states)
        states = getattr(sim, "num_states", None)
        return own == (sim.num_agents, sim.num_actions, sim.horizon, states)

    def reset(self, key: PRNGKeyArray) -> PyTree:
        """Zeros in the shapes of observations: for the shapes alone."""
        arrays = [
            jnp.zeros((self.num_agents, *shape), dtype)
            for shape, dtype in zip(self.form.shapes, self.form.dtypes, strict=True)
        ]
        return rebuilt(self.form.structure, arrays)

    def observe(self, state: PyTree) -> PyTree:
        """The zeros of `reset`."""
        return state

    def step(
        self, state: PyTree, actions: Int[Array, " N"], key: PRNGKeyArray
    ) -> tuple[PyTree, Float[Array, " N"]]:
        """Refused: the simulator is no compiled program.

        Raises:
            ValueError: always.
        """
        _refuse(self.name)


def _refuse(name: str) -> NoReturn:
    raise ValueError(
        f"{name} is a simulator outside JAX: simulate, solve (PolicyMirrorDescent, PPO) and "
        "exploitability can play it, this function cannot"
    )


def as_game(game: Any) -> DynamicGame:
    """`game` itself, or a simulator as an `OutsideGame`.

    Args:
        game: a game, or anything with the members of `Simulator`.

    Raises:
        ValueError: it is neither, or a size is none that a simulator may have.
        SimulatorError: the simulator's first step is not what it should be.
    """
    if isinstance(game, DynamicGame):
        return game
    if isinstance(game, type) or not isinstance(game, Simulator):
        kinds = (DynamicGame,) if isinstance(game, type) else (DynamicGame, Simulator)
        check_instance("game", game, *kinds)
    for known in _RECENT:
        if known.source.sim is game and known._has_sizes_of(game):
            return known
    _RECENT.appendleft(made := OutsideGame(game))
    return made
