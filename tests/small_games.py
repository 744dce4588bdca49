"""One small game written three times (a law of one agent, of one against N-1, of all at once).

And one for networks: two kinds of agents, who are paid for different actions.
"""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import crowdnash as cn

PULL = np.array([0.2, 0.9, 0.5, 0.7], np.float32)
KINDS = np.float32([0, 0, 0, 0, 1, 1, 1, 1])


class DriftAgent(NamedTuple):
    pull: Any


class Drift(cn.PopulationGame):
    """Three states, two actions; others draw an agent to state 2; the reward bends and has h.

    With x the share of others in state 2 and y that of others who play 1:
    P(2) = 0.1 + 0.5 pull x, P(1) = 0.3 1[a=1], P(0) the rest; R = pull y^2 - 0.1 s + 0.05 h.
    """

    name: ClassVar[str] = "drift"
    transition_in_aggregate: ClassVar = "affine"
    reward_in_aggregate: ClassVar = "nonlinear"
    agents: DriftAgent
    initial_distribution: Any
    horizon: int = eqx.field(static=True)
    num_states: ClassVar[int] = 3
    num_actions: ClassVar[int] = 2

    def __init__(self, pull: Any = PULL, horizon: int = 4):
        self.agents = DriftAgent(jnp.asarray(pull, jnp.float32))
        self.initial_distribution = jnp.asarray([0.5, 0.0, 0.5])
        self.horizon = horizon

    def contribution(self, agent, state, action):
        return jnp.stack([state == 2, action == 1])

    def transition(self, agent, state, action, aggregate, step):
        drawn = 0.1 + 0.5 * agent.pull * aggregate[0]
        moved = jnp.where(action == 1, 0.3, 0.0)
        return jnp.stack([1.0 - drawn - moved, moved, drawn])

    def reward(self, agent, state, action, aggregate, step):
        return agent.pull * aggregate[1] ** 2 - 0.1 * state + 0.05 * step


class DriftByLaw(cn.TabularGame):
    """`Drift`, as a law that reads the others one by one."""

    name: ClassVar[str] = "drift by law"
    pull: Any
    initial_distribution: Any
    horizon: int = eqx.field(static=True)
    num_states: ClassVar[int] = 3
    num_actions: ClassVar[int] = 2

    def __init__(self, pull: Any = PULL, horizon: int = 4):
        self.pull = jnp.asarray(pull, jnp.float32)
        self.initial_distribution = jnp.asarray([0.5, 0.0, 0.5])
        self.horizon = horizon

    @property
    def num_agents(self) -> int:
        return self.pull.shape[0]

    def law(self, agent, state, action, other_states, other_actions, step):
        drawn = 0.1 + 0.5 * self.pull[agent] * (other_states == 2).mean()
        moved = jnp.where(action == 1, 0.3, 0.0)
        reward = self.pull[agent] * other_actions.mean() ** 2 - 0.1 * state + 0.05 * step
        return jnp.stack([1.0 - drawn - moved, moved, drawn]), reward


class DriftState(NamedTuple):
    place: Any
    step: Any


class DriftSimulator(cn.DynamicGame):
    """`Drift`, as a simulator that says nothing about its laws."""

    name: ClassVar[str] = "drift simulator"
    pull: Any
    horizon: int = eqx.field(static=True)
    num_actions: ClassVar[int] = 2
    num_states: ClassVar[int] = 3

    def __init__(self, pull: Any = PULL, horizon: int = 4):
        self.pull = jnp.asarray(pull, jnp.float32)
        self.horizon = horizon

    @property
    def num_agents(self) -> int:
        return self.pull.shape[0]

    def reset(self, key):
        place = 2 * jax.random.bernoulli(key, 0.5, (self.num_agents,)).astype(jnp.int32)
        return DriftState(place, jnp.asarray(0, jnp.int32))

    def step(self, state, actions, key):
        n = self.num_agents
        crowd = ((state.place == 2).sum() - (state.place == 2)) / (n - 1)
        active = (actions.sum() - actions) / (n - 1)
        drawn = 0.1 + 0.5 * self.pull * crowd
        moved = jnp.where(actions == 1, 0.3, 0.0)
        number = jax.random.uniform(key, (n,))
        place = jnp.where(number < drawn, 2, jnp.where(number < drawn + moved, 1, 0))
        reward = self.pull * active**2 - 0.1 * state.place + 0.05 * state.step
        return DriftState(place.astype(jnp.int32), state.step + 1), reward

    def observe(self, state):
        return state.place


class Kind(NamedTuple):
    kind: Any
    pay: Any


class TwoKinds(cn.PopulationGame):
    """One state; action a pays `pay` to the agents of kind a. A `kind` of 2 pays NaN at h = 1."""

    name: ClassVar[str] = "two kinds"
    transition_in_aggregate: ClassVar = "free"
    reward_in_aggregate: ClassVar = "free"
    agents: Kind
    initial_distribution: Any
    horizon: int = eqx.field(static=True, default=2)
    num_states: ClassVar[int] = 1
    num_actions: ClassVar[int] = 2

    def __init__(self, kind: Any = KINDS, pay: float = 1.0):
        kind = jnp.asarray(kind, jnp.float32)
        self.agents = Kind(kind, jnp.full(kind.shape, pay, jnp.float32))
        self.initial_distribution = jnp.ones(1)
        self.horizon = 2

    @property
    def agent_features(self):
        return self.agents.kind[:, None]

    def transition(self, agent, state, action, aggregate, step):
        return jnp.ones(1)

    def reward(self, agent, state, action, aggregate, step):
        paid = jnp.where(action == agent.kind, agent.pay, 0.0)
        return jnp.where((agent.kind == 2) & (step == 1), jnp.nan, paid)

    def statistics(self, state):
        return {"time": state.step.astype(jnp.float32)}


def random_policy(
    seed: int, groups: Any, *, horizon: int, num_states: int, num_actions: int
) -> cn.TabularPolicy:
    """Random tables for every group of the map `groups`."""
    groups = np.asarray(groups)
    generator = np.random.default_rng(seed)
    shape = (int(groups.max()) + 1, horizon, num_states)
    return cn.TabularPolicy.grouped(generator.dirichlet(np.ones(num_actions), shape), groups)
