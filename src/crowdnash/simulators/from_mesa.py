"""Mesa's agent-based models as simulators (3; `mesa.readthedocs.io`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from crowdnash.simulators.contract import SimulatorError


def mesa(
    make: Callable[[int], Any],
    agents: type,
    *,
    act: Callable[[Any, int], Any],
    observe: Callable[[Any], Any],
    reward: Callable[[Any], float],
    num_actions: int,
    horizon: int,
    num_states: int | None = None,
    features: Sequence[str] = (),
    legal: Callable[[Any], Sequence[bool]] | None = None,
) -> MesaSimulator:
    """A model of Mesa as a simulator, with a choice where the model has a rule.

    At every step `act(agent, action)` is called for all agents of the class that are still in the
    model, in the order of their `unique_id`, then `model.step()`, then `reward` and `observe`. An
    agent that is removed from the model has ended.

    Args:
        make: makes the model of a seed: in Mesa, a new model is the reset.
        agents: the class of the agents that choose; others follow their own rules.
        act: lets an agent do an action of 0..A-1, or notes it for the agent's own `step`.
        observe: what an agent sees: one integer, or numbers in an array or list.
        reward: what an agent earned in the step that was played.
        num_actions: A.
        horizon: H.
        num_states: S, where `observe` gives one integer of 0..S-1.
        features: names of the agents' attributes that tell them apart; the same in every episode,
            so `make` must draw them by a seed of their own.
        legal: which actions an agent has, [A]; all without it.

    Raises:
        SimulatorError: the model has no agents of the class.
    """
    rules = _Rules(
        make, agents, act, observe, reward, num_actions, horizon, num_states, tuple(features), legal
    )
    return MesaSimulator(rules)


class _Rules(NamedTuple):
    """The arguments of `mesa`."""

    make: Callable[[int], Any]
    agents: type
    act: Callable[[Any, int], Any]
    observe: Callable[[Any], Any]
    reward: Callable[[Any], float]
    num_actions: int
    horizon: int
    num_states: int | None
    features: tuple[str, ...]
    legal: Callable[[Any], Sequence[bool]] | None


class MesaSimulator:
    """See `mesa`."""

    def __init__(self, rules: _Rules) -> None:
        self._rules = rules
        self.num_actions, self.horizon = rules.num_actions, rules.horizon
        self.num_states = rules.num_states
        self.name = getattr(rules.agents, "__name__", str(rules.agents))
        self.num_agents, self._agents = 0, []
        self._begin(0)
        self.num_agents = len(self._agents)
        if rules.features:
            self.agent_features = self._read_features()

    def spawn(self) -> MesaSimulator:
        """Another one: models cannot always be copied."""
        return MesaSimulator(self._rules)

    def alive(self) -> np.ndarray:
        """Who is in the model."""
        present = self._model.agents
        return np.array([agent in present for agent in self._agents])

    def legal(self) -> np.ndarray | None:
        """Which actions the agents have now."""
        if self._rules.legal is None:
            return None
        alive = self.alive()
        return np.array(
            [
                np.asarray(self._rules.legal(agent), bool)
                if lives
                else np.ones(self.num_actions, bool)
                for agent, lives in zip(self._agents, alive, strict=True)
            ]
        )

    def reset(self, seed: int) -> np.ndarray:
        """Make a new model."""
        self._begin(seed)
        if len(self._agents) != self.num_agents:
            raise SimulatorError(
                f"{self.name}: the model of seed {seed} has {len(self._agents)} agents, the first "
                f"had {self.num_agents}"
            )
        names = self._rules.features
        if names and not np.array_equal(self._read_features(), self.agent_features):
            raise SimulatorError(
                f"{self.name}: {', '.join(names)} must be the same in every episode; the "
                f"model of seed {seed} has others (draw them by a seed of their own)"
            )
        return self._see(self.alive())

    def step(self, actions: np.ndarray) -> tuple[Any, Any, Any, Any]:
        """Play one step."""
        acts = self.alive()
        for k in np.flatnonzero(acts):
            self._rules.act(self._agents[k], int(actions[k]))
        self._model.step()
        rewards = np.zeros(self.num_agents)
        for k in np.flatnonzero(acts):
            rewards[k] = self._rules.reward(self._agents[k])
        alive = self.alive()
        return self._see(alive), rewards, alive, self.legal()

    def _begin(self, seed: int) -> None:
        self._model = self._rules.make(seed)
        members = self._model.agents_by_type.get(self._rules.agents)
        if members is None:
            raise SimulatorError(f"the model of seed {seed} has no agents of class {self.name}")
        self._agents = sorted(members, key=lambda agent: agent.unique_id)

    def _read_features(self) -> np.ndarray:
        return np.array(
            [
                [float(getattr(agent, name)) for name in self._rules.features]
                for agent in self._agents
            ]
        )

    def _see(self, alive: np.ndarray) -> np.ndarray:
        """What those in the model see; zeros for the others."""
        seen = [
            self._rules.observe(self._agents[k]) if alive[k] else None for k in range(len(alive))
        ]
        if self.num_states is not None:
            return np.array([0 if one is None else one for one in seen], np.int64)
        rows = [None if one is None else np.atleast_1d(np.asarray(one, np.float32)) for one in seen]
        known = next((row for row in rows if row is not None), None)
        if known is not None:
            self._zeros = np.zeros_like(known)
        return np.stack([self._zeros if row is None else row for row in rows])
