"""Small games in which an agent moves the others: affine, kinked, and strongly self-influential.

Two states, two actions, K = 4 one-hot contributions. P(1|s,a,z) is `move[s,a]` plus `bend[s,a]` of
a share of the others, and rewards are `pay[s,a]` plus `price[s,a]` of it; every agent has its own.
"""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import crowdnash as cn


class Neighbour(NamedTuple):
    """Laws of one agent, each [S,A]; `weight` [4] is what it looks at in the aggregate."""

    move: Any
    bend: Any
    pay: Any
    price: Any
    weight: Any


class AffineNeighbours(cn.PopulationGame):
    """Both laws affine in the aggregate."""

    transition_in_aggregate: ClassVar[Any] = "affine"
    reward_in_aggregate: ClassVar[Any] = "affine"
    num_states: ClassVar[int] = 2
    num_actions: ClassVar[int] = 2
    agents: Neighbour
    initial_distribution: Any
    horizon: int = eqx.field(static=True)

    def share(self, agent, aggregate):
        return agent.weight @ aggregate

    def transition(self, agent, state, action, aggregate, step):
        one = agent.move[state, action] + agent.bend[state, action] * self.share(agent, aggregate)
        return jnp.stack([1 - one, one])

    def reward(self, agent, state, action, aggregate, step):
        return agent.pay[state, action] + agent.price[state, action] * self.share(agent, aggregate)


class KinkedNeighbours(AffineNeighbours):
    """The share counts up to a half only: min(1/2, share), doubled."""

    transition_in_aggregate: ClassVar[Any] = "nonlinear"
    reward_in_aggregate: ClassVar[Any] = "nonlinear"

    def share(self, agent, aggregate):
        return 2 * jnp.minimum(0.5, agent.weight @ aggregate)


class Contagion(cn.PopulationGame):
    """The audit's counterexample: frozen paths say that nobody gains, and an agent gains 7.7.

    Healthy 0, infected 1; action 1 infects oneself; a healthy agent who plays 0 catches it with
    probability min(1, 2 z), z the share of infected others; reward z - 0.01 [a = 1].
    """

    transition_in_aggregate: ClassVar[Any] = "nonlinear"
    reward_in_aggregate: ClassVar[Any] = "affine"
    num_states: ClassVar[int] = 2
    num_actions: ClassVar[int] = 2
    agents: Any
    initial_distribution: Any
    horizon: int = eqx.field(static=True)

    def transition(self, agent, state, action, aggregate, step):
        caught = jnp.minimum(1.0, 2 * (aggregate[2] + aggregate[3]))
        one = jnp.where(state == 1, 1.0, jnp.where(action == 1, 1.0, caught))
        return jnp.stack([1 - one, one])

    def reward(self, agent, state, action, aggregate, step):
        return aggregate[2] + aggregate[3] - 0.01 * (action == 1)


def contagion(num_agents: int, horizon: int) -> tuple[Contagion, cn.TabularPolicy]:
    """The counterexample and its policy, always 0."""
    game = Contagion(jnp.zeros(num_agents), jnp.array([1.0, 0.0]), horizon)
    never = np.zeros((horizon, 2, 2), np.float32)
    never[..., 0] = 1
    return game, cn.TabularPolicy.symmetric(never, num_agents)


def neighbours(
    kind: type[AffineNeighbours], num_agents: int, horizon: int, seed: int, strength: float
) -> tuple[AffineNeighbours, cn.TabularPolicy]:
    """A random game of that kind and a random policy; `strength` of influence in [0,1]."""
    rng = np.random.default_rng(seed)
    shape = (num_agents, 2, 2)
    bend = strength * rng.uniform(-0.9, 0.9, size=shape)
    low, high = np.maximum(0, -bend) + 0.02, np.minimum(1, 1 - bend) - 0.02
    agents = Neighbour(
        move=low + (high - low) * rng.uniform(size=shape),
        bend=bend,
        pay=rng.uniform(-0.5, 0.5, size=shape),
        price=2 * strength * rng.uniform(-1, 1, size=shape),
        weight=rng.uniform(size=(num_agents, 4)).round(),
    )
    game = kind(
        jax.tree_util.tree_map(lambda x: jnp.asarray(x, jnp.float32), agents),
        jnp.asarray(rng.dirichlet(np.ones(2)), jnp.float32),
        horizon,
    )
    probs = rng.dirichlet(np.ones(2), size=(num_agents, horizon, 2))
    return game, cn.TabularPolicy.independent(probs.astype(np.float32))


AUDITED = {
    "affine, 3": (AffineNeighbours, 3, 2, 0, 0.4),
    "affine, 4": (AffineNeighbours, 4, 3, 1, 0.4),
    "affine, 6": (AffineNeighbours, 6, 2, 2, 0.4),
    "kinked, 3": (KinkedNeighbours, 3, 3, 3, 0.4),
    "kinked, 4": (KinkedNeighbours, 4, 2, 4, 0.4),
    "self-influential, 3": (AffineNeighbours, 3, 4, 5, 1.0),
    "self-influential, 4": (AffineNeighbours, 4, 3, 6, 1.0),
    "self-influential, kinked, 5": (KinkedNeighbours, 5, 2, 7, 1.0),
}
"""Arguments of `neighbours` for the games whose coverage is measured."""
