"""PettingZoo's environments as simulators (1.27; `pettingzoo.farama.org`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from crowdnash.checks import check_flag
from crowdnash.simulators.contract import SimulatorError, library


def pettingzoo(
    make: Callable[[], Any], *, horizon: int, agent_features: Any = None, fresh: bool = False
) -> PettingZooSimulator:
    """A parallel environment of PettingZoo as a simulator; the order is that of `possible_agents`.

    Observations are flattened, and padded with zeros where agents see differently much; if every
    agent sees one integer (`Discrete`), they are states and tables are possible. Fewer actions than
    the largest number, and an `action_mask` in an agent's observation or info, limit what is
    legal. Who leaves `env.agents` has ended.

    Args:
        make: makes one environment, e.g. `lambda: simple_spread_v3.parallel_env(N=3)`. One of the
            turn-based kind (AEC) goes through PettingZoo's own `aec_to_parallel`.
        horizon: steps to play at most.
        agent_features: [N,d], what tells agents apart.
        fresh: make a new environment for every episode, where `reset` leaves something of the last
            one behind (knights, archers and zombies: the time to the next zombie).

    Raises:
        ImportError: PettingZoo is not installed.
        ValueError: an action space is not `Discrete`, or `fresh` is neither True nor False.
    """
    check_flag("fresh", fresh)
    return PettingZooSimulator(make, horizon, agent_features, fresh)


class PettingZooSimulator:
    """See `pettingzoo`."""

    def __init__(
        self,
        make: Callable[[], Any],
        horizon: int,
        agent_features: Any = None,
        fresh: bool = False,
    ) -> None:
        self._make, self.horizon, self._fresh = make, horizon, fresh
        self._env = env = self._made()
        self.name = str(env)
        self._agents = list(env.possible_agents)
        self.num_agents = len(self._agents)
        counts = []
        for agent in self._agents:
            space = env.action_space(agent)
            if not hasattr(space, "n") or np.ndim(space.n):
                raise ValueError(
                    f"{self.name}: the action space of {agent} must be Discrete, not {space}"
                )
            counts.append(int(space.n))
        self._first_action = [int(getattr(env.action_space(a), "start", 0)) for a in self._agents]
        self.num_actions = max(counts)
        self._own = np.arange(self.num_actions) < np.array(counts)[:, None]
        spaces = [_seen_space(env.observation_space(agent)) for agent in self._agents]
        self._masked = [masked for _, masked in spaces]
        self._spaces = [space for space, _ in spaces]
        self.num_states = None
        if all(hasattr(space, "n") and not np.ndim(space.n) for space in self._spaces):
            self.num_states = max(int(space.n) for space in self._spaces)
        else:
            flatdim = library("gymnasium.spaces", "gymnasium").flatdim
            self._width = max(flatdim(space) for space in self._spaces)
        if agent_features is not None:
            self.agent_features = agent_features
        self._limited = bool(not self._own.all() or any(self._masked))
        self._legal, self._alive = self._own, np.ones(self.num_agents, bool)

    def spawn(self) -> PettingZooSimulator:
        """Another one."""
        features = getattr(self, "agent_features", None)
        return PettingZooSimulator(self._make, self.horizon, features, self._fresh)

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def alive(self) -> np.ndarray:
        """Who is in `env.agents`."""
        return self._alive

    def legal(self) -> np.ndarray | None:
        """Which actions the agents have now."""
        return self._legal if self._limited else None

    def reset(self, seed: int) -> np.ndarray:
        """Begin an episode."""
        if self._fresh:
            # The last one is not closed: pygame's would shut down what all others draw with.
            self._env = self._made()
        seen, infos = self._env.reset(seed=seed)
        return self._note(seen, infos)

    def step(self, actions: np.ndarray) -> tuple[Any, Any, Any, Any]:
        """Play one step."""
        moves = {
            agent: int(actions[k]) + self._first_action[k]
            for k, agent in enumerate(self._agents)
            if self._alive[k]
        }
        seen, rewards, _, _, infos = self._env.step(moves)
        if unknown := rewards.keys() - set(self._agents):
            raise SimulatorError(f"{self.name}: {sorted(unknown)} are not in possible_agents")
        earned = np.array([rewards.get(agent, 0.0) for agent in self._agents], np.float32)
        observations = self._note(seen, infos)
        return observations, earned, self._alive, self.legal()

    def _made(self) -> Any:
        """A new environment, of the parallel kind."""
        env: Any = self._make()
        if hasattr(env, "agent_iter"):
            return library("pettingzoo.utils.conversions", "pettingzoo").aec_to_parallel(env)
        return env

    def _note(self, seen: dict[Any, Any], infos: dict[Any, Any]) -> np.ndarray:
        """Observations as an array; who is alive and what is legal are kept."""
        present = set(self._env.agents)
        self._alive = np.array([agent in present for agent in self._agents])
        shape = (self.num_agents,) if self.num_states else (self.num_agents, self._width)
        observations = np.zeros(shape, np.int64 if self.num_states else np.float32)
        self._legal = self._own
        for k, agent in enumerate(self._agents):
            if not self._alive[k]:
                continue
            own, mask = seen[agent], infos.get(agent, {}).get("action_mask")
            if self._masked[k]:
                own, mask = own["observation"], own["action_mask"]
            if mask is not None:
                if self._legal is self._own:
                    self._legal = self._own.copy()
                self._legal[k] = False
                self._legal[k, : len(mask)] = np.asarray(mask, bool)
                self._limited = True
            if self.num_states:
                observations[k] = own
            else:
                flat = _flat(self._spaces[k], own)
                observations[k, : len(flat)] = flat
        return observations


def _seen_space(space: Any) -> tuple[Any, bool]:
    """What an agent sees, and whether its legal actions come with it."""
    inner = getattr(space, "spaces", None)
    if isinstance(inner, dict) and set(inner) == {"observation", "action_mask"}:
        return inner["observation"], True
    return space, False


def _flat(space: Any, value: Any) -> np.ndarray:
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return value.reshape(-1)
    flatten = library("gymnasium.spaces", "gymnasium").flatten
    return np.asarray(flatten(space, value), np.float32).reshape(-1)
