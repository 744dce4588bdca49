"""Gymnasium's vector environments as simulators (1.4; `gymnasium.farama.org`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from crowdnash.checks import shown


def gymnasium(
    make: Callable[[], Any], *, horizon: int, agent_features: Any = None
) -> GymnasiumSimulator:
    """A vector environment whose sub-environments are the agents of one game, as a simulator.

    An agent whose sub-environment terminates or is truncated has ended, whatever the environment's
    autoreset mode does with it then. An `action_mask` in the infos limits what is legal.

    Args:
        make: makes one `gymnasium.vector.VectorEnv` with `Discrete` actions.
        horizon: steps to play at most.
        agent_features: [N,d], what tells agents apart.

    Raises:
        ValueError: it is no vector environment, or its actions are not `Discrete`.
    """
    return GymnasiumSimulator(make, horizon, agent_features)


class GymnasiumSimulator:
    """See `gymnasium`."""

    def __init__(self, make: Callable[[], Any], horizon: int, agent_features: Any = None) -> None:
        self._make, self.horizon, self._env = make, horizon, make()
        self.name = type(self._env).__name__
        if not hasattr(self._env, "num_envs"):
            raise ValueError(
                "make must return a gymnasium.vector.VectorEnv, whose sub-environments are the "
                f"agents, not {shown(self._env)}"
            )
        actions, seen = self._env.single_action_space, self._env.single_observation_space
        if not hasattr(actions, "n") or np.ndim(actions.n):
            raise ValueError(f"{self.name}: single_action_space must be Discrete, not {actions}")
        self.num_agents, self.num_actions = int(self._env.num_envs), int(actions.n)
        self._first_action = int(getattr(actions, "start", 0))
        is_discrete = hasattr(seen, "n") and not np.ndim(seen.n)
        self.num_states = int(seen.n) if is_discrete else None
        if agent_features is not None:
            self.agent_features = agent_features
        self._alive = np.ones(self.num_agents, bool)
        mode = self._env.metadata.get("autoreset_mode")
        self._resets_by_hand = getattr(mode, "value", mode) == "Disabled"

    def spawn(self) -> GymnasiumSimulator:
        """Another one."""
        return GymnasiumSimulator(self._make, self.horizon, getattr(self, "agent_features", None))

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def legal(self) -> np.ndarray | None:
        """Which actions the agents have now."""
        return self._legal

    def reset(self, seed: int) -> Any:
        """Begin an episode."""
        seen, infos = self._env.reset(seed=seed)
        self._alive = np.ones(self.num_agents, bool)
        self._legal = self._mask(infos)
        return self._see(seen)

    def step(self, actions: np.ndarray) -> tuple[Any, Any, Any, Any]:
        """Play one step."""
        if self._resets_by_hand and not self._alive.all():
            self._env.reset(options={"reset_mask": ~self._alive})
        seen, rewards, terminated, truncated, infos = self._env.step(actions + self._first_action)
        rewards = np.where(self._alive, rewards, 0.0)
        self._alive = self._alive & ~(terminated | truncated)
        self._legal = self._mask(infos)
        return self._see(seen), rewards, self._alive, self._legal

    def _see(self, seen: Any) -> Any:
        return np.asarray(seen, np.int64) if self.num_states else seen

    def _mask(self, infos: dict[str, Any]) -> np.ndarray | None:
        if "action_mask" not in infos:
            return None
        rows = [np.asarray(row, bool) for row in infos["action_mask"]]
        return np.stack(rows)
