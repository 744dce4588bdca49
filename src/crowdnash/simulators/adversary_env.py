"""One agent against a crowd that plays a fixed policy, as an environment of Gymnasium (1.4).

What an agent can gain here is its exploitability (Def. 2): any library's learner may try.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from crowdnash.checks import check_count
from crowdnash.policies.base import check_policy
from crowdnash.policies.drawing import draw_legal
from crowdnash.policies.observations import ObservationFeatures
from crowdnash.simulators.as_simulator import as_simulator, stepped_rows
from crowdnash.simulators.contract import library


def best_response_env(game: Any, policy: Any, agent: int = 0) -> Any:
    """A `gymnasium.Env` in which one agent acts and all others play `policy`.

    What is earned beyond the policy's own return is a lower bound on E^i of Def. 2.

    An observation is the vector that networks of this library see, `ObservationFeatures`: of
    integer states a one-hot code of the state and one of the step, else all numbers that the agent
    observes and h/H. The horizon is a true end (`terminated`). Legal actions are in the info as
    `action_mask`; an illegal action raises. `gymnasium.vector.SyncVectorEnv([make] * n,
    autoreset_mode=...)` makes a vector environment of it, in every mode.

    Args:
        game: any game, or a simulator outside JAX.
        policy: of all agents; the agent's own part is not played.
        agent: the index i of who acts.

    Raises:
        ImportError: Gymnasium is not installed.
        ValueError: `game` or `policy` is none, they do not fit, or there is no such agent.
    """
    gymnasium = library("gymnasium")
    sim, described = as_simulator(game)
    check_count("agent", agent, 0, described.num_agents - 1)
    check_policy(described, policy)
    features = ObservationFeatures.of(described)
    rows, see = stepped_rows(policy), eqx.filter_jit(features)
    low, high = (0.0, 1.0) if features.num_states is not None else (-np.inf, np.inf)

    class AdversaryEnv(gymnasium.Env):
        """The game, seen by one agent."""

        metadata = {"render_modes": []}  # noqa: RUF012
        observation_space = gymnasium.spaces.Box(low, high, (features.num_features,), np.float32)
        action_space = gymnasium.spaces.Discrete(described.num_actions)

        def reset(
            self, *, seed: int | None = None, options: dict[str, Any] | None = None
        ) -> tuple[np.ndarray, dict[str, Any]]:
            super().reset(seed=seed)
            self._seen = sim.reset(int(self.np_random.integers(2**31)))
            self._legal = sim.legal() if hasattr(sim, "legal") else None
            self._count = 0
            return self._observation(), self._info()

        def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
            action = int(action)
            if self._legal is not None and not self._legal[agent][action]:
                raise ValueError(f"action {action} is illegal for agent {agent} now")
            numbers = self.np_random.random(described.num_agents)
            actions = draw_legal(rows(self._seen, self._count), numbers, self._legal)
            actions[agent] = action
            self._seen, rewards, alive, self._legal = sim.step(actions)
            self._count += 1
            over = self._count >= described.horizon or not bool(alive[agent])
            return self._observation(), float(rewards[agent]), over, False, self._info()

        def _observation(self) -> np.ndarray:
            own = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[agent]), self._seen)
            step = jnp.asarray(min(self._count, described.horizon - 1), jnp.int32)
            return np.array(see(own, step))

        def _info(self) -> dict[str, Any]:
            if self._legal is None:
                return {}
            return {"action_mask": np.asarray(self._legal[agent], np.int8)}

    return AdversaryEnv()
