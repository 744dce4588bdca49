"""Any game stepped from a plain Python loop: what goes out to other libraries stands on it.

Axes: N agents, A actions.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from crowdnash.games.base import DynamicGame
from crowdnash.games.legal import legal_now, limits_actions
from crowdnash.policies.base import Policy, rows_of
from crowdnash.policies.features import table_rows
from crowdnash.simulators.contract import spawned
from crowdnash.simulators.game import OutsideGame, as_game


class SteppedGame:
    """A game in JAX as a `Simulator`: it holds the state, one compiled call a step."""

    def __init__(self, game: DynamicGame) -> None:
        self.game, self.name = game, game.name or type(game).__name__
        self.num_agents, self.num_actions = game.num_agents, game.num_actions
        self.horizon, self.num_states = game.horizon, game.num_states
        self.agent_features = game.agent_features

        @eqx.filter_jit
        def begin(game: DynamicGame, seed: jax.Array) -> tuple[PyTree, PyTree]:
            state = game.reset(jax.random.key(seed))
            return state, game.observe(state)

        @eqx.filter_jit
        def legal(game: DynamicGame, seen: PyTree, step: jax.Array) -> jax.Array | None:
            return legal_now(game, jnp.arange(game.num_agents, dtype=jnp.int32), seen, step)

        @eqx.filter_jit
        def advance(
            game: DynamicGame, state: PyTree, actions: jax.Array, seed: jax.Array, step: jax.Array
        ) -> tuple[PyTree, PyTree, jax.Array]:
            key = jax.random.fold_in(jax.random.key(seed), step)
            state, rewards = game.step(state, actions, key)
            return state, game.observe(state), rewards

        self._begin, self._advance, self._legal = begin, advance, legal

    def spawn(self) -> "SteppedGame":
        """Another one."""
        return SteppedGame(self.game)

    def reset(self, seed: int) -> PyTree:
        """Begin an episode."""
        self._seed, self._count = jnp.asarray(seed, jnp.uint32), 0
        self._state, self._seen = self._begin(self.game, self._seed)
        return jax.device_get(self._seen)

    def legal(self) -> np.ndarray | None:
        """Which actions agents have now, [N,A]; None where the game limits none."""
        if not limits_actions(self.game):
            return None
        step = min(self._count, self.horizon - 1)  # after the last step nobody acts
        return np.asarray(self._legal(self.game, self._seen, jnp.asarray(step, jnp.int32)))

    def step(self, actions: np.ndarray) -> tuple[PyTree, np.ndarray, np.ndarray, np.ndarray | None]:
        """Play one step.

        Raises:
            ValueError: an action is illegal.
        """
        legal = self.legal()
        if legal is not None:
            wrong = ~legal[np.arange(self.num_agents), actions]
            if wrong.any():
                agent = int(np.argmax(wrong))
                raise ValueError(
                    f"{self.name}: agent {agent} at step {self._count} must not play action "
                    f"{int(actions[agent])}, which is illegal there"
                )
        self._count += 1
        self._state, self._seen, rewards = self._advance(
            self.game,
            self._state,
            jnp.asarray(actions, jnp.int32),
            self._seed,
            jnp.asarray(self._count, jnp.int32),
        )
        alive = np.full(self.num_agents, self._count < self.horizon)
        return jax.device_get(self._seen), np.asarray(rewards), alive, self.legal()


def as_simulator(game: Any) -> tuple[Any, DynamicGame]:
    """A simulator of one's own that plays `game`, and the game that describes it.

    Raises:
        ValueError: it is neither a game nor a simulator.
    """
    described = as_game(game)
    if not isinstance(described, OutsideGame):
        return SteppedGame(described), described
    sim = described.source.sim
    return spawned(sim) or sim, described


def stepped_rows(policy: Policy) -> Callable[[PyTree, int], Float[np.ndarray, "N A"]]:
    """All agents' action probabilities for what they observe at a step of one play."""
    table = table_rows(policy)
    if table is not None:
        return lambda observations, step: table(np.asarray(observations), step)

    def rows(observations: PyTree, step: int) -> np.ndarray:
        agents = jnp.arange(len(jax.tree.leaves(observations)[0]), dtype=jnp.int32)
        return np.asarray(rows_of(policy, observations, agents, jnp.asarray(step, jnp.int32)))

    return rows
