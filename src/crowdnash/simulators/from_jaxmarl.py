"""JaxMARL's environments as simulators (0.2; Rutherford et al. 2024). Their steps stay in JAX.

Axes: B lanes, N agents, F numbers that an agent sees, A actions.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from crowdnash.checks import check_count
from crowdnash.simulators.contract import Form
from crowdnash.simulators.lanes import Arrays, Lanes


def jaxmarl(env: Any, *, horizon: int | None = None) -> "JaxMARLSimulator":
    """An environment of JaxMARL (Rutherford et al. 2024) as a simulator.

    All lanes are stepped by one compiled call.

    Steps are those of `step_env`, without JaxMARL's own reset. Observations are flattened and
    padded with zeros; `get_avail_actions`, where the environment has it, says what is legal. An
    agent ends when it is done, and all do when `__all__` is.

    Args:
        env: from `jaxmarl.make`, with `Discrete` actions.
        horizon: steps to play at most; by default the environment's `max_steps`.

    Raises:
        ValueError: there is no horizon, or actions are not `Discrete`.
    """
    return JaxMARLSimulator(env, horizon)


class JaxMARLSimulator:
    """See `jaxmarl`."""

    def __init__(self, env: Any, horizon: int | None = None) -> None:
        self.name = getattr(env, "name", type(env).__name__)
        horizon = getattr(env, "max_steps", None) if horizon is None else horizon
        check_count("horizon", horizon, 1)
        self.env, self.horizon = env, int(horizon or 0)
        self.agents = list(env.agents)
        self.num_agents = len(self.agents)
        spaces = [env.action_space(agent) for agent in self.agents]
        for agent, space in zip(self.agents, spaces, strict=True):
            if not hasattr(space, "n"):
                raise ValueError(f"{self.name}: the actions of {agent} must be Discrete: {space}")
        counts = np.array([int(space.n) for space in spaces])
        self.num_actions = int(counts.max())
        self.own = np.arange(self.num_actions) < counts[:, None]
        seen, state = jax.eval_shape(env.reset, jax.random.key(0))
        self.width = max(int(np.prod(seen[agent].shape)) for agent in self.agents)
        try:
            self.limits = bool(jax.eval_shape(env.get_avail_actions, state))
        except NotImplementedError:
            self.limits = False
        self._reset, self._step = jax.jit(self.begin), jax.jit(self.advance)

    def begin(self, seed: Int[Array, ""]) -> tuple[PyTree, Array, Array]:
        """State, observations and legal actions at step 0; to be compiled."""
        seen, state = self.env.reset(jax.random.key(seed))
        return state, self._stacked(seen), self._legal(state)

    def advance(
        self, state: PyTree, actions: Int[Array, " N"], key: PRNGKeyArray
    ) -> tuple[PyTree, Array, Array, Array, Array]:
        """State, observations, rewards, who is done, legal actions; to be compiled."""
        moves = {agent: actions[k] for k, agent in enumerate(self.agents)}
        seen, state, rewards, dones, _ = self.env.step_env(key, state, moves)
        earned = jnp.stack([jnp.asarray(rewards[agent], jnp.float32) for agent in self.agents])
        done = jnp.stack([jnp.asarray(dones[agent], bool) for agent in self.agents])
        done = done | jnp.asarray(dones["__all__"], bool)
        return state, self._stacked(seen), earned.reshape(-1), done, self._legal(state)

    def _stacked(self, seen: dict[str, Array]) -> Float[Array, "N F"]:
        rows = [jnp.ravel(seen[agent]).astype(jnp.float32) for agent in self.agents]
        return jnp.stack([jnp.pad(row, (0, self.width - row.shape[0])) for row in rows])

    def _legal(self, state: PyTree) -> Bool[Array, "N A"]:
        if not self.limits:
            return jnp.asarray(self.own)
        masks = self.env.get_avail_actions(state)
        rows = [jnp.asarray(masks[agent], bool) for agent in self.agents]
        return jnp.stack([jnp.pad(row, (0, self.num_actions - row.shape[0])) for row in rows])

    def open_lanes(self, form: Form, most: int) -> Lanes:
        """Lanes that advance together."""
        return _CompiledLanes(self, form, most)

    def legal(self) -> np.ndarray | None:
        """Which actions the agents have now."""
        limited = self.limits or not self.own.all()
        return np.asarray(self._now_legal) if limited else None

    def reset(self, seed: int) -> np.ndarray:
        """Begin an episode."""
        self._key, self._count = jax.random.key(seed), 0
        self._state, seen, self._now_legal = self._reset(jnp.asarray(seed))
        self._alive = np.ones(self.num_agents, bool)
        return np.asarray(seen)

    def step(self, actions: np.ndarray) -> tuple[Any, Any, Any, Any]:
        """Play one step."""
        self._count += 1
        key = jax.random.fold_in(self._key, self._count)
        self._state, seen, rewards, done, self._now_legal = self._step(
            self._state, jnp.asarray(actions, jnp.int32), key
        )
        earned = np.where(self._alive, np.asarray(rewards), 0.0)
        self._alive = self._alive & ~np.asarray(done)
        return np.asarray(seen), earned, self._alive, self.legal()


class _CompiledLanes(Lanes):
    """All lanes by one call; those that rest are stepped too, and not looked at."""

    def __init__(self, sim: JaxMARLSimulator, form: Form, count: int) -> None:
        self.count = count
        self.arrays = Arrays.make(count, sim.num_agents, sim.num_actions, form)
        self._reset = jax.jit(jax.vmap(sim.begin))

        def advance(state: PyTree, actions: Array, seeds: Array, step: Array) -> tuple:
            keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), step))(seeds)
            return jax.vmap(sim.advance)(state, actions, keys)

        self._advance, self._step = jax.jit(advance), 0

    def begin(self, seeds: Sequence[int]) -> None:
        """See `Lanes.begin`."""
        padded = [*seeds, *[0] * (self.count - len(seeds))]
        self._seeds, self._step = jnp.asarray(padded, jnp.int32), 0
        self._state, seen, legal = self._reset(self._seeds)
        self.arrays.observations[0][:], self.arrays.legal[:] = jax.device_get((seen, legal))
        self.arrays.alive[:], self.arrays.rewards[:] = True, 0

    def advance(self, active: Sequence[int]) -> None:
        """See `Lanes.advance`."""
        arrays, self._step = self.arrays, self._step + 1
        step, actions = jnp.asarray(self._step, jnp.int32), jnp.asarray(arrays.actions)
        self._state, *played = self._advance(self._state, actions, self._seeds, step)
        seen, rewards, done, legal = jax.device_get(tuple(played))
        arrays.rewards[:] = np.where(arrays.alive, rewards, 0)
        arrays.alive[:] &= ~done
        arrays.observations[0][:], arrays.legal[:] = seen, legal
