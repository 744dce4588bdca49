"""A small game with illegal actions and starts of its own for every agent, written twice."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

import crowdnash as cn

PULL = np.array([0.2, 0.9, 0.5], np.float32)
STARTS = np.array([[1.0, 0.0], [0.3, 0.7], [0.0, 1.0]], np.float32)
FORBIDDEN = 2


class DriverAgent(NamedTuple):
    pull: Any
    licence: Any


def _allowed(licence, state, step):
    """Action 2 needs a licence, and nobody has it in state 1; at step 0 action 0 is closed."""
    return jnp.stack([step > 0, jnp.asarray(True), (licence > 0) & (state == 0)])


class Drivers(cn.PopulationGame):
    """Two states, three actions; action 2 pays most, so that whoever may not play it notices."""

    name: ClassVar[str] = "limited drivers"
    transition_in_aggregate: ClassVar = "affine"
    reward_in_aggregate: ClassVar = "nonlinear"
    agents: DriverAgent
    initial_distribution: Any
    horizon: int = eqx.field(static=True)
    num_states: ClassVar[int] = 2
    num_actions: ClassVar[int] = 3

    def __init__(self, pull: Any = PULL, licence: Any = (0, 0, 1), starts: Any = STARTS, horizon=2):
        self.agents = DriverAgent(jnp.asarray(pull, jnp.float32), jnp.asarray(licence, jnp.float32))
        self.initial_distribution = jnp.asarray(starts, jnp.float32)
        self.horizon = horizon

    def legal(self, agent, state, step):
        return _allowed(agent.licence, state, step)

    def contribution(self, agent, state, action):
        return jnp.stack([state == 1, action == 1])

    def transition(self, agent, state, action, aggregate, step):
        up = 0.2 + 0.3 * agent.pull * aggregate[0] + 0.2 * action
        return jnp.stack([1.0 - up, up])

    def reward(self, agent, state, action, aggregate, step):
        return agent.pull * aggregate[1] ** 2 + 0.3 * state + 0.5 * action + 0.05 * step


class DriversByLaw(cn.TabularGame):
    """`Drivers`, as a law that reads the others one by one."""

    name: ClassVar[str] = "limited drivers by law"
    twin: Drivers
    initial_distribution: Any
    horizon: int = eqx.field(static=True)
    num_agents: int = eqx.field(static=True)
    num_states: ClassVar[int] = 2
    num_actions: ClassVar[int] = 3

    def __init__(self, **settings: Any):
        self.twin = Drivers(**settings)
        self.initial_distribution = self.twin.initial_distribution
        self.horizon, self.num_agents = self.twin.horizon, self.twin.num_agents

    def legal(self, agent, state, step):
        return _allowed(self.twin.agents.licence[agent], state, step)

    def law(self, agent, state, action, other_states, other_actions, step):
        return self.twin.law(agent, state, action, other_states, other_actions, step)


def may(licence: float, state: int, step: int) -> list[bool]:
    """The rule once more, in plain Python."""
    return [step > 0, True, licence > 0 and state == 0]
