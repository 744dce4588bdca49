"""A game as a parallel environment of PettingZoo (1.27). Axes: N agents, S states, A actions."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from crowdnash.simulators.as_simulator import as_simulator
from crowdnash.simulators.contract import library


def to_pettingzoo(game: Any) -> Any:
    """A game, or a simulator, as a `pettingzoo.ParallelEnv` with agents "agent_0", "agent_1", ...

    Agents that observe one of S states have a `Discrete` space, all others a `Box` of what they
    observe, flattened. The horizon is a true end: nothing comes after it, and `terminated` says so.
    Where a simulator limits actions, an agent's info has an `action_mask`.

    Args:
        game: any game, or a simulator outside JAX.

    Raises:
        ImportError: PettingZoo is not installed.
        ValueError: `game` is neither.
    """
    gymnasium, pettingzoo = library("gymnasium"), library("pettingzoo")
    sim, described = as_simulator(game)
    states = described.num_states

    class CrowdEnv(pettingzoo.ParallelEnv):
        """The game."""

        metadata = {"name": described.name or type(described).__name__, "render_modes": []}  # noqa: RUF012

        def __init__(self) -> None:
            self.possible_agents = [f"agent_{k}" for k in range(described.num_agents)]
            self.agents: list[str] = []
            width = len(_rows(sim.reset(0), states)[0]) if states is None else 0
            seen: Any = gymnasium.spaces.Box(-np.inf, np.inf, (width,), np.float32)
            if states is not None:
                seen = gymnasium.spaces.Discrete(states)
            self.observation_spaces = dict.fromkeys(self.possible_agents, seen)
            self.action_spaces = {
                agent: gymnasium.spaces.Discrete(described.num_actions)
                for agent in self.possible_agents
            }
            self._seeds = np.random.default_rng()

        def observation_space(self, agent: str) -> Any:
            return self.observation_spaces[agent]

        def action_space(self, agent: str) -> Any:
            return self.action_spaces[agent]

        def reset(
            self, seed: int | None = None, options: dict[str, Any] | None = None
        ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
            if seed is not None:
                self._seeds = np.random.default_rng(seed)
            seen = sim.reset(int(self._seeds.integers(2**31)))
            alive = sim.alive() if hasattr(sim, "alive") else np.ones(described.num_agents, bool)
            self._count = 0
            self._alive = np.array(alive)
            self.agents = [self.possible_agents[k] for k in np.flatnonzero(self._alive)]
            legal = sim.legal() if hasattr(sim, "legal") else None
            return self._by_agent(_rows(seen, states)), self._infos(legal)

        def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
            joint = np.array([int(actions.get(agent, 0)) for agent in self.possible_agents])
            seen, rewards, alive, legal = sim.step(joint)
            self._count += 1
            over = self._count >= described.horizon
            ended = {a: bool(over or not alive[self._number(a)]) for a in self.agents}
            parts = (
                self._by_agent(_rows(seen, states)),
                {agent: float(rewards[self._number(agent)]) for agent in self.agents},
                ended,
                dict.fromkeys(self.agents, False),
                self._infos(legal),
            )
            self.agents = [
                agent for k, agent in enumerate(self.possible_agents) if alive[k] and not over
            ]
            return parts

        def render(self) -> None:
            return None

        def close(self) -> None:
            return None

        def _number(self, agent: str) -> int:
            return int(agent.rpartition("_")[2])

        def _by_agent(self, rows: Any) -> dict[str, Any]:
            return {agent: rows[self._number(agent)] for agent in self.agents}

        def _infos(self, legal: Any) -> dict[str, dict[str, Any]]:
            if legal is None:
                return {agent: {} for agent in self.agents}
            masks = np.asarray(legal, np.int8)
            return {agent: {"action_mask": masks[self._number(agent)]} for agent in self.agents}

    return CrowdEnv()


def _rows(observations: Any, states: int | None) -> np.ndarray:
    """What every agent observes: a state, or a vector."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(observations)]
    if states is not None:
        return leaves[0].astype(np.int64)
    flat = [leaf.reshape(len(leaf), -1).astype(np.float32) for leaf in leaves]
    return np.concatenate(flat, axis=1)
