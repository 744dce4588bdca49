"""Play of very many agents, block by block, of which only the pairs played are kept.

`simulate_chunk` keeps a chunk's random numbers and rewards and, for its sampler, the tables of all
agents: about a kilobyte an agent. Here a policy's probabilities are made for one block of agents
at one step, used and dropped. What stays of an agent are M H bytes, the pairs x = (s,a) that it
played; rewards follow from them and the aggregates. Draws are those of `simulate_chunk`: the same
policy plays the same.

Axes: M trajectories, H steps, N agents, b agents of a block, S states, A actions, K components of
the aggregate.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, UInt

from crowdnash.games.base import PopulationGame
from crowdnash.games.random_draws import step_words
from crowdnash.games.vectorised import (
    aggregates_of_others,
    contributions,
    sum_over_agents,
    transitions,
)
from crowdnash.simulation.devices import ALONE, Devices
from crowdnash.simulation.rollouts import are_distributions, draws
from crowdnash.simulation.samplers import draw_from_rows, draw_index
from crowdnash.simulation.trajectories import pair_dtype
from crowdnash.tuning import tuning


class Block(NamedTuple):
    """Some agents. The last block overlaps the one before: all have one size.

    Attributes:
        start: place of the first of them.
        agent: their numbers.
        counts: False for those that the block before had.
    """

    start: Int[Array, ""]
    agent: Int[Array, " b"]
    counts: Bool[Array, " b"]

    def read(self, x: Array, axis: int = 0) -> Array:
        """These agents' part of an array with the places of all along `axis`."""
        return jax.lax.dynamic_slice_in_dim(x, self.start, self.agent.shape[0], axis)

    def write(self, x: Array, part: Array) -> Array:
        """The array with this part, the places of all along the last axis."""
        return jax.lax.dynamic_update_slice_in_dim(x, part.astype(x.dtype), self.start, x.ndim - 1)

    def records(self, game: PopulationGame) -> PyTree:
        """What the game knows of these agents."""
        return jax.tree.map(lambda x: x[self.agent], game.agents)


class Blocks(NamedTuple):
    """The agents of this device, in blocks of `size`.

    Attributes:
        agent: their numbers.
        size: b.
    """

    agent: Int[Array, " N"]
    size: int

    @classmethod
    def of(cls, agent: Int[Array, " N"], num_trajectories: int) -> "Blocks":
        """Even blocks, of which so many plays at one step stay in a CPU's cache."""
        most = max(1, tuning().block_lanes // num_trajectories)
        count = -(-agent.shape[0] // most)
        return cls(agent, -(-agent.shape[0] // count))

    def fold(self, add: Callable[[Any, Block], Any], start: Any) -> Any:
        """`add` one block after the other to what was gathered."""

        def body(index: Array, gathered: Any) -> Any:
            first = index * self.size
            place = jnp.minimum(first, self.agent.shape[0] - self.size)
            agent = jax.lax.dynamic_slice_in_dim(self.agent, place, self.size)
            counts = place + jnp.arange(self.size, dtype=jnp.int32) >= first
            return add(gathered, Block(place, agent, counts))

        return jax.lax.fori_loop(0, -(-self.agent.shape[0] // self.size), body, start)


class BlockPlay(NamedTuple):
    """What M trajectories leave.

    Attributes:
        pairs: that agents played, by place.
        totals: of all agents' contributions.
        is_sound: whether all transitions were distributions.
    """

    pairs: UInt[Array, "H M N"]
    totals: Array
    is_sound: Bool[Array, ""]


def play_by_blocks(
    game: PopulationGame,
    policy: Callable[[Block, Array], Float[Array, "S A b"]],
    blocks: Blocks,
    key: PRNGKeyArray,
    trajectories: UInt[Array, " M"],
    devices: Devices = ALONE,
) -> BlockPlay:
    """Simulate the trajectories with these numbers; inside `jit`.

    Args:
        game: the game.
        policy: probabilities of a block's agents at a step.
        blocks: the agents; where `devices` share them, this device's.
        key: of all draws.
        trajectories: which ones.
        devices: who plays; the totals are of the agents of all.
    """
    words = step_words(key, game.horizon + 1)
    states = jnp.zeros((len(trajectories), len(blocks.agent)), pair_dtype(game.num_states))

    def numbers(words: Array, block: Block) -> tuple[Array, Array]:
        act, move = draws(words[None], block.agent[None].astype(jnp.uint32), trajectories)
        return act[0, :, 0], move[0, :, 0]  # each [M,b]

    def begin(states: Array, block: Block) -> Array:
        initial = game.initial_distribution.astype(jnp.float32)
        rows = initial[block.agent].T if initial.ndim == 2 else initial[:, None]
        drawn, _ = numbers(words[game.horizon], block)
        rows = jnp.broadcast_to(rows[:, None], (game.num_states, *drawn.shape))
        return block.write(states, draw_index(rows, drawn))

    def act(step: Array, states: Array) -> Callable:
        def add(gathered: tuple[Array, Array], block: Block) -> tuple[Array, Array]:
            pairs, total = gathered
            here = block.read(states, 1).astype(jnp.int32)
            drawn, _ = numbers(words[step], block)
            actions = draw_from_rows(policy(block, step), here, drawn)
            own = contributions(game, block.records(game), here, actions)
            own = jnp.where(block.counts, own, jnp.zeros((), own.dtype))
            total = total + sum_over_agents(own)
            return block.write(pairs, here * game.num_actions + actions), total

        return add

    def move(step: Array, pairs: Array, total: Array) -> Callable:
        def add(gathered: tuple[Array, Array], block: Block) -> tuple[Array, Array]:
            states, is_sound = gathered
            here = met(game, block, pairs, total, step)
            probs = transitions(game, *here)
            _, drawn = numbers(words[step], block)
            right = are_distributions(probs).all()
            return block.write(states, draw_index(probs, drawn)), is_sound & right

        return add

    def advance(carry: tuple[Array, Array], step: Array) -> tuple[tuple, tuple[Array, Array]]:
        states, is_sound = carry
        pairs = jnp.zeros(states.shape, pair_dtype(game.num_states * game.num_actions))
        pairs, total = blocks.fold(act(step, states), (pairs, _no_contribution(game, states)))
        total = devices.sum_over_agents(total)
        return blocks.fold(move(step, pairs, total), (states, is_sound)), (pairs, total)

    start = (blocks.fold(begin, states), jnp.array(True))
    steps = jnp.arange(game.horizon, dtype=jnp.int32)
    (_, is_sound), (pairs, totals) = jax.lax.scan(advance, start, steps)
    return BlockPlay(pairs, totals, is_sound)


def met(
    game: PopulationGame, block: Block, pairs: UInt[Array, "M N"], total: Array, step: Array
) -> tuple[PyTree, Array, Array, Array, Array]:
    """What laws ask of a block's agents: their records, states, actions, aggregates and step."""
    played = block.read(pairs, 1).astype(jnp.int32)
    states, actions = played // game.num_actions, played % game.num_actions
    agents = block.records(game)
    own = contributions(game, agents, states, actions)
    return agents, states, actions, aggregates_of_others(total, own, game.num_agents), step


def _no_contribution(game: PopulationGame, states: Array) -> Array:
    """Zeros [K,M], in the type in which contributions are summed."""

    def total(states: Array) -> Array:
        agents = jax.tree.map(lambda x: x[:1], game.agents)
        return sum_over_agents(contributions(game, agents, states, states))

    shape = jax.eval_shape(total, jnp.zeros((states.shape[0], 1), jnp.int32))
    return jnp.zeros(shape.shape, shape.dtype)
