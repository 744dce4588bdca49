"""Random games for the tests, of every kind whose laws the library can query.

Transitions are softmaxes, so that every state is reached; rewards are bounded by 1 or 2.
"""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import crowdnash as cn


class RandomAgent(NamedTuple):
    """Laws of one agent: [H,S,A,S] and [H,S,A] at aggregate 0, and how they bend with it."""

    move: Array
    move_slope: Array
    pay: Array
    pay_slope: Array
    weight: Array


class RandomPopulationGame(cn.PopulationGame):
    """Random laws, nonlinear in the aggregate and different for every agent and step.

    `weighted` games have float contributions `weight_i * onehot(s,a)`, K = S*A; the others count.
    """

    agents: RandomAgent
    initial_distribution: Float[Array, " S"]
    horizon: int = eqx.field(static=True)
    num_states: int = eqx.field(static=True)
    num_actions: int = eqx.field(static=True)
    weighted: bool = eqx.field(static=True)

    def transition(self, agent: Any, state, action, aggregate, step):
        logits = agent.move[step, state, action]
        logits = logits + jnp.tanh(agent.move_slope[step, state, action] @ (3.0 * aggregate))
        return jax.nn.softmax(logits)

    def reward(self, agent: Any, state, action, aggregate, step):
        slope = agent.pay_slope[step, state, action]
        return jnp.tanh(agent.pay[step, state, action] + 2.0 * slope @ aggregate) ** 2

    def contribution(self, agent: Any, state, action):
        pair = jnp.arange(self.num_states * self.num_actions) == state * self.num_actions + action
        return agent.weight * pair.astype(jnp.float32) if self.weighted else pair


class RandomFreeGame(RandomPopulationGame):
    """The same with transitions free of the population."""

    transition_in_aggregate: ClassVar[Any] = "free"

    def transition(self, agent: Any, state, action, aggregate, step):
        return jax.nn.softmax(agent.move[step, state, action])


class RandomAffineGame(RandomFreeGame):
    """Transitions free of the population, rewards affine in it."""

    reward_in_aggregate: ClassVar[Any] = "affine"

    def reward(self, agent: Any, state, action, aggregate, step):
        return agent.pay[step, state, action] + agent.pay_slope[step, state, action] @ aggregate


def random_population_game(
    seed: int,
    num_agents: int,
    num_states: int,
    num_actions: int,
    horizon: int,
    *,
    kind: type[RandomPopulationGame] = RandomPopulationGame,
    weighted: bool = False,
) -> RandomPopulationGame:
    rng = np.random.default_rng(seed)
    n, table = num_agents, (num_agents, horizon, num_states, num_actions)
    pairs = num_states * num_actions
    agents = RandomAgent(
        move=rng.normal(size=(*table, num_states)),
        move_slope=rng.normal(size=(*table, num_states, pairs)),
        pay=rng.uniform(-0.5, 0.5, size=table),
        pay_slope=rng.normal(size=(*table, pairs)),
        weight=rng.uniform(0.2, 2.0, size=n),
    )
    return kind(
        agents=RandomAgent(*(jnp.asarray(x, jnp.float32) for x in agents)),
        initial_distribution=jnp.asarray(rng.dirichlet(np.ones(num_states)), jnp.float32),
        horizon=horizon,
        num_states=num_states,
        num_actions=num_actions,
        weighted=weighted,
    )


class RandomTabularGame(cn.TabularGame):
    """An arbitrary law for every agent, asymmetric in the others.

    `probs` [H,N,X,X^(N-1),S], `rewards` [H,N,X,X^(N-1)]; the others' pairs, in ascending order
    of agents, are the digits (base X, first agent first) of the last index.
    """

    probs: Float[Array, "H N X O S"]
    rewards: Float[Array, "H N X O"]
    initial_distribution: Float[Array, " S"]
    num_states: int = eqx.field(static=True)
    num_actions: int = eqx.field(static=True)
    num_agents: int = eqx.field(static=True)
    horizon: int = eqx.field(static=True)

    def law(self, agent, state, action, other_states, other_actions, step):
        others = jnp.asarray(0, jnp.int32)
        for k in range(self.num_agents - 1):
            pair = other_states[k] * self.num_actions + other_actions[k]
            others = others * (self.num_states * self.num_actions) + pair
        where = (step, agent, state * self.num_actions + action, others)
        return self.probs[where], self.rewards[where]


def random_tabular_game(
    seed: int, num_agents: int, num_states: int, num_actions: int, horizon: int
) -> RandomTabularGame:
    rng = np.random.default_rng(seed)
    pairs = num_states * num_actions
    shape = (horizon, num_agents, pairs, pairs ** (num_agents - 1))
    return RandomTabularGame(
        probs=jnp.asarray(rng.dirichlet(0.7 * np.ones(num_states), size=shape), jnp.float32),
        rewards=jnp.asarray(rng.uniform(size=shape), jnp.float32),
        initial_distribution=jnp.asarray(rng.dirichlet(np.ones(num_states)), jnp.float32),
        num_states=num_states,
        num_actions=num_actions,
        num_agents=num_agents,
        horizon=horizon,
    )


def random_policy(seed: int, game: cn.TabularGame, groups: Any) -> cn.TabularPolicy:
    """Random tables for the map `groups` [N]; every probability is positive."""
    groups = np.asarray(groups)
    rng = np.random.default_rng(seed)
    shape = (groups.max() + 1, game.horizon, game.num_states)
    return cn.TabularPolicy.grouped(rng.dirichlet(np.ones(game.num_actions), size=shape), groups)


def groupings(num_agents: int) -> dict[str, np.ndarray]:
    """Symmetric, grouped (unequal groups, out of order where N allows) and independent maps."""
    return {
        "symmetric": np.zeros(num_agents, np.int32),
        "grouped": np.asarray([1, 0, 1, 1, 0, 0][:num_agents], np.int32),
        "independent": np.arange(num_agents, dtype=np.int32),
    }


def permuted(game: RandomPopulationGame, order: np.ndarray) -> RandomPopulationGame:
    """The same game with its agents renumbered: new agent k is old agent `order[k]`."""
    agents = jax.tree_util.tree_map(lambda x: x[order], game.agents)
    return eqx.tree_at(lambda g: g.agents, game, agents)
