"""Games that `equilibrium.py` learns beside the library's own: variants of A-SIS, and routes."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import crowdnash as cn


class PaidSIS(cn.games.SIS):
    """A-SIS with a constant added to all rewards, which changes no equilibrium."""

    bonus: ClassVar[float] = 2.0

    def reward(self, agent: Any, state: Any, action: Any, aggregate: Any, step: Any) -> Any:
        """A-SIS's, and the bonus."""
        return super().reward(agent, state, action, aggregate, step) + self.bonus


class TaxedSIS(PaidSIS):
    """The same with a constant taken away."""

    bonus: ClassVar[float] = -2.0


class NoisySIS(cn.games.SIS):
    """A-SIS whose agents have five more parameters, which mean nothing."""

    @property
    def agent_features(self) -> Float[Array, "N 8"]:
        """The three that mean something, and five that do not."""
        noise = np.random.default_rng(7).normal(size=(self.num_agents, 5))
        return jnp.concatenate([jnp.stack(self.agents, axis=1), jnp.asarray(noise)], axis=1)


class Driver(NamedTuple):
    """What tells drivers apart: costs of the three routes, known, and a type, which is not."""

    costs: Array
    kind: Array


class Routes(cn.PopulationGame):
    """Every step, drivers choose one of three routes; the state is the one they came by.

    A route costs its length, what the driver has against it, what drivers of its hidden kind have
    against it, twice the share of the others who take it, and 0.1 for a change.
    """

    transition_in_aggregate = "free"
    reward_in_aggregate = "affine"
    num_states: ClassVar[int] = 3
    num_actions: ClassVar[int] = 3

    agents: Driver
    initial_distribution: Float[Array, " 3"]
    horizon: int = eqx.field(static=True)

    def __init__(self, agents: Driver):
        self.agents = agents
        self.initial_distribution = jnp.full(3, 1 / 3)
        self.horizon = 10

    @classmethod
    def sample(cls, key: Any, num_agents: int = 1000) -> "Routes":
        """Costs uniform in [0,1], kinds uniform."""
        costs, kind = jax.random.split(key)
        drivers = Driver(
            jax.random.uniform(costs, (num_agents, 3)),
            jax.random.randint(kind, (num_agents,), 0, 3, jnp.int32),
        )
        return cls(drivers)

    @property
    def agent_features(self) -> Float[Array, "N 3"]:
        """The costs; not the kind."""
        return self.agents.costs

    def contribution(self, agent: Driver, state: Array, action: Array) -> Array:
        """The route that is taken."""
        return jnp.arange(3) == action

    def transition(
        self, agent: Driver, state: Array, action: Array, aggregate: Array, step: Array
    ) -> Array:
        """To where one came from."""
        return jax.nn.one_hot(action, 3)

    def reward(
        self, agent: Driver, state: Array, action: Array, aggregate: Array, step: Array
    ) -> Array:
        """Less the costs."""
        lengths = jnp.array([1.0, 1.2, 1.5])
        against = jnp.array([[0.0, 1.0, 2.0], [2.0, 0.0, 1.0], [1.0, 2.0, 0.0]])
        cost = lengths[action] + agent.costs[action] + against[agent.kind, action]
        return -cost - 2 * aggregate[action] - 0.1 * (action != state)
