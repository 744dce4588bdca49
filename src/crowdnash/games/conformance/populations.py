"""The laws of a game at populations that its N agents can really form, for `conformance.laws`.

Joint profiles are drawn, and each agent meets what the *others* of its profile do. The profiles
are all agents in one pair (the vertices of the simplex over S x A), agents spread evenly over the
pairs, and a few skewed random ones.

Axes: P profiles, n agents that are looked at, h steps that are looked at, N agents, S states,
A actions, K components of the aggregate.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from crowdnash.games.base import PopulationGame, TabularGame
from crowdnash.games.vectorised import (
    Law,
    aggregates_of_others,
    all_pairs,
    contributions,
    laws_of_agents,
    sum_over_agents,
)

_MAX_NUMBERS = 2**23
_MAX_STEPS = 32
_MAX_VERTICES = 32
_NUM_RANDOM_PROFILES = 4
_MIN_AGENTS = 4


class Profiles(NamedTuple):
    """Joint state-actions, each [P,N]."""

    states: Int[np.ndarray, "P N"]
    actions: Int[np.ndarray, "P N"]


class Others(NamedTuple):
    """What everyone but agent n does, in ascending order of the agents."""

    states: Int[np.ndarray, "P n others"]
    actions: Int[np.ndarray, "P n others"]


class Laws(NamedTuple):
    """`transitions` and `rewards` for every own pair (s,a) in every population."""

    transitions: Float[np.ndarray, "P n h S A S"]
    rewards: Float[np.ndarray, "P n h S A"]


class Sample(NamedTuple):
    """Which agents [n] and which steps [h] are looked at: all of them unless that is too much."""

    agents: Int[np.ndarray, " n"]
    steps: Int[np.ndarray, " h"]

    def place(self, index: Sequence[Any]) -> str:
        """The entry [p,n,h,s,a] of `Laws` in words."""
        _, agent, step, state, action = (int(k) for k in index[:5])
        return (
            f"agent {self.agents[agent]} at step {self.steps[step]} "
            f"in state {state} with action {action}"
        )


def draw_profiles(game: TabularGame, key: PRNGKeyArray) -> Profiles:
    """The joint profiles that laws are evaluated at, pairs counted s*A + a."""
    n, pairs = game.num_agents, game.num_states * game.num_actions
    generator = numpy_generator(key)
    corners = spread_over(pairs, _MAX_VERTICES)
    drawn = [np.full(n, corner) for corner in corners]
    drawn.append(generator.permutation(np.arange(n) % pairs))
    for _ in range(_NUM_RANDOM_PROFILES):
        # Heavy-tailed weights: some pairs are crowded, others almost empty.
        weights = generator.gamma(0.3, size=pairs) + 1e-9
        drawn.append(generator.choice(pairs, n, p=weights / weights.sum()))
    indices = np.stack(drawn).astype(np.int32)
    return Profiles(indices // game.num_actions, indices % game.num_actions)


def numpy_generator(key: PRNGKeyArray) -> np.random.Generator:
    """A NumPy generator that `key` decides: many small draws without compiling any."""
    return np.random.default_rng(np.asarray(jax.random.bits(key, (4,), jnp.uint32)))


def choose_sample(game: TabularGame, num_profiles: int) -> Sample:
    """As many agents and steps as keep the laws at 2^23 numbers; at least a few."""
    steps = spread_over(game.horizon, _MAX_STEPS)
    width = game.num_states if isinstance(game, PopulationGame) else game.num_agents
    pairs = game.num_states * game.num_actions
    each = num_profiles * len(steps) * pairs * max(width, game.num_states)
    return Sample(spread_over(game.num_agents, max(_MIN_AGENTS, _MAX_NUMBERS // each)), steps)


def spread_over(size: int, most: int) -> Int[np.ndarray, " n"]:
    """At most `most` of 0..size-1, first and last among them."""
    return np.unique(np.linspace(0, size - 1, min(size, most)).round().astype(np.int32))


def take(tree: PyTree, index: Any) -> PyTree:
    """Entries `index` of the leading axis of every array."""
    return jax.tree_util.tree_map(lambda x: x[index], tree)


def others(game: TabularGame, profiles: Profiles, agents: Int[np.ndarray, " n"]) -> Others:
    """States and actions of everyone but agent n, in ascending order, each [P,n,N-1]."""
    index = np.arange(game.num_agents - 1)[None]
    index = index + (index >= agents[:, None])
    return Others(*(x[:, index] for x in profiles))


def aggregates(
    game: PopulationGame, profiles: Profiles, agents: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "P n K"]:
    """The mean contribution of the others that each of the agents meets."""
    return np.asarray(_aggregates(game, profiles, jnp.asarray(agents)))


@eqx.filter_jit
def _aggregates(game: PopulationGame, profiles: Profiles, agents: Array) -> Array:
    def of_one(profile: Profiles) -> Array:
        states, actions = (jnp.asarray(x)[None] for x in profile)
        contributed = contributions(game, game.agents, states, actions)
        own, total = contributed[:, :, agents], sum_over_agents(contributed)
        return aggregates_of_others(total, own, game.num_agents)[:, 0].T

    return jax.lax.map(of_one, profiles)


def evaluate_laws(game: TabularGame, populations: PyTree, sample: Sample) -> Laws:
    """Laws of the sample's agents and steps for every own pair.

    `populations` [P,n,...] are the `aggregates` that the agents of a `PopulationGame` meet,
    otherwise the `others`.
    """
    agents, steps = jnp.asarray(sample.agents), jnp.asarray(sample.steps)
    probs, rewards = _evaluate(game, populations, agents, steps)
    return Laws(np.asarray(probs), np.asarray(rewards))


@eqx.filter_jit
def _evaluate(
    game: TabularGame, populations: PyTree, agents: Array, steps: Array
) -> tuple[Array, Array]:
    def at(population: Any, step: Array) -> tuple[Array, Array]:  # [n,S,A,S] and [n,S,A]
        if isinstance(game, PopulationGame):
            own = take(game.agents, agents)
            probs, rewards = (
                laws_of_agents(game, law, own, population, step) for law in get_args(Law)
            )
            return probs, rewards
        states, actions = all_pairs(game)
        over_pairs = jax.vmap(game.law, in_axes=(None, 0, 0, None, None, None))
        over_agents = jax.vmap(over_pairs, in_axes=(0, None, None, 0, 0, None))
        probs, rewards = over_agents(
            agents, states, actions, population.states, population.actions, step
        )
        shape = (len(agents), game.num_states, game.num_actions)
        return probs.reshape(*shape, -1), rewards.reshape(shape)

    over_steps = jax.vmap(at, in_axes=(None, 0), out_axes=1)
    return jax.vmap(over_steps, in_axes=(0, None))(populations, steps)
