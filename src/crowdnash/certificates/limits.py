"""Upper ends that hold however large own influence is, where the game's laws permit one (Def. 2).

Two of them. "any crowd": the agent's best return if, at every step, the others were wherever suits
it best. "coupling": couple the play with the deviation to the one without; the expected share d_h
of others who do something else obeys

    d_0 = 0,   d_{h+1} <= rho_h d_h + kappa_h (d_h + 1/(N-1))

(rho: how far two states of one agent are told apart a step later, under its policy; kappa: how far
its step moves when the whole crowd does), and no policy's return exceeds its frozen value by more
than sum_h gamma_h d_h, gamma_h the most that moving the whole crowd changes R + P V.

Laws affine in the aggregate are extreme where everyone does the same; others are asked at every
aggregate that N-1 agents can form, if those are few. Else the highest rewards of all steps are
"any crowd", if they are known.

Axes: n agents, Q aggregates at which laws are asked, M pairs of them that are compared.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from crowdnash.certificates.path_values import at_every_step, backup, laws_at, tabulate
from crowdnash.certificates.response import agent_contributions
from crowdnash.games.base import PopulationGame
from crowdnash.games.legal import legal_pairs
from crowdnash.games.starts import double_start, mean_at_start
from crowdnash.mean_field.simplex_grid import grid_counts, grid_size
from crowdnash.policies.base import Policy

_MOST_VERTICES = 64
_MOST_AGGREGATES = 500
_MOST_WORK = 3_000_000_000
_ALL_AGENTS = 20_000


class Extremes(NamedTuple):
    """Aggregates [Q,K], pairs of them `moves` [M,2], and how many such moves move a whole crowd."""

    aggregates: Float[np.ndarray, "Q K"]
    moves: Int[np.ndarray, "M 2"]
    scale: float


class Limits(NamedTuple):
    """Per agent, [n]: the best return in any crowd, and what own influence can add at most."""

    any_crowd: Float[np.ndarray, " n"]
    influence: Float[np.ndarray, " n"]


def limits(game: PopulationGame, policy: Policy, agents: Int[np.ndarray, " n"]) -> Limits:
    """Both upper ends; infinite where the game's laws give none."""
    nothing = np.full(len(agents), np.inf)
    index, extremes = jnp.asarray(agents, jnp.int32), extreme_aggregates(game)
    if extremes is None:
        return Limits(_highest_rewards(game, index), nothing)
    aggregates = jnp.asarray(extremes.aggregates.T, jnp.float32)
    highest, lowest = _values_in_any_crowd(game, index, aggregates)
    start = double_start(game, agents)
    any_crowd = mean_at_start(start, np.asarray(highest[0], np.float64))
    pairs = game.num_states * game.num_actions
    work = len(extremes.moves) * pairs * game.num_states * game.horizon * game.num_agents
    if game.num_agents > _ALL_AGENTS or work > _MOST_WORK:
        return Limits(any_crowd, nothing)
    moves = jnp.asarray(extremes.moves, jnp.int32)
    everyone = jnp.arange(game.num_agents, dtype=jnp.int32)
    table = tabulate(game, policy, everyone)
    spread, felt = _sensitivity(game, everyone, table, aggregates, moves)
    worth = _worth(game, index, highest, lowest, aggregates, moves)
    felt, worth = (np.asarray(x, np.float64) * extremes.scale for x in (felt, worth))
    share = np.zeros(game.horizon)
    for h in range(1, game.horizon):
        kick = felt[h - 1] * (share[h - 1] + 1 / (game.num_agents - 1))
        share[h] = min(1.0, float(spread[h - 1]) * share[h - 1] + kick)
    return Limits(any_crowd, share @ worth)


def _highest_rewards(game: PopulationGame, agents: Int[Array, " n"]) -> Float[np.ndarray, " n"]:
    """The sum of the highest rewards of all steps, if they are declared or affine."""
    ends = [np.full(agents.shape[0], np.inf)]
    if game.reward_range is not None:
        ends.append(np.full(agents.shape[0], game.horizon * float(game.reward_range[1])))
    vertices = _vertices(game)
    if game.reward_in_aggregate in ("free", "affine") and vertices is not None:
        ends.append(np.asarray(_best_rewards(game, agents, jnp.asarray(vertices.T)), np.float64))
    return np.min(ends, axis=0)


@eqx.filter_jit
def _best_rewards(
    game: PopulationGame, agents: Int[Array, " n"], aggregates: Float[Array, "K Q"]
) -> Float[Array, " n"]:
    def best(laws: Callable, met: Array) -> Array:
        return laws(met)[1].max((0, 1))

    return at_every_step(game, agents, _always(game, aggregates), best).sum(0)


def _always(game: PopulationGame, aggregates: Float[Array, "K Q"]) -> Float[Array, "H K Q"]:
    """The same aggregates at every step."""
    return jnp.broadcast_to(aggregates, (game.horizon, *aggregates.shape))


def _vertices(game: PopulationGame) -> Float[np.ndarray, "Q K"] | None:
    """All different contributions, the extreme points of the aggregates, if they are few."""
    everyone = jnp.arange(game.num_agents, dtype=jnp.int32)
    table = np.asarray(agent_contributions(game, everyone))
    vertices = np.unique(table.reshape(-1, table.shape[-1]), axis=0)
    return vertices if len(vertices) <= _MOST_VERTICES else None


def extreme_aggregates(game: PopulationGame) -> Extremes | None:
    """Where laws have to be asked for their extremes; None if those are not known or too many."""
    affine = {"free", "affine"}
    if {game.transition_in_aggregate, game.reward_in_aggregate} <= affine:
        vertices = _vertices(game)
        if vertices is None:
            return None
        first, second = np.nonzero(~np.eye(len(vertices), dtype=bool))
        return Extremes(vertices, np.stack([first, second], 1), 1.0)
    everyone = jnp.arange(game.num_agents, dtype=jnp.int32)
    table = np.asarray(agent_contributions(game, everyone))
    if (table != table[:1]).any():
        return None
    others, num_pairs = game.num_agents - 1, table.shape[1]
    if grid_size(num_pairs, others) > _MOST_AGGREGATES:
        return None
    counts = np.asarray(grid_counts(num_pairs, others))
    # Two crowds are neighbours if one agent tells them apart.
    apart = np.abs(counts[:, None] - counts[None]).sum(-1)
    moves = np.argwhere(apart == 2)
    return Extremes(counts @ table[0] / others, moves, float(others))


@eqx.filter_jit
def _values_in_any_crowd(
    game: PopulationGame, agents: Int[Array, " n"], aggregates: Float[Array, "K Q"]
) -> tuple[Float[Array, "H S n"], Float[Array, "H S n"]]:
    """The highest and the lowest values, whatever the others and the agent itself do."""
    records = jax.tree_util.tree_map(lambda x: x[agents], game.agents)
    met = jnp.broadcast_to(aggregates[..., None], (*aggregates.shape, agents.shape[0]))

    def back(values: tuple, step: Array) -> tuple[tuple, tuple]:
        moves, pays = laws_at(game, records, met, step)
        high, low = (backup(moves, pays, v[:, None]) for v in values)
        if (legal := legal_pairs(game, records, step)) is not None:
            low = jnp.where(legal[:, None], low, jnp.inf)
        high = high.reshape(game.num_states, -1, agents.shape[0]).max(1)
        low = low.reshape(game.num_states, -1, agents.shape[0]).min(1)
        return (high, low), (high, low)

    zero = jnp.zeros((game.num_states, agents.shape[0]), jnp.float32)
    steps = jnp.arange(game.horizon, dtype=jnp.int32)
    _, values = jax.lax.scan(back, (zero, zero), steps, reverse=True)
    return values


@eqx.filter_jit
def _worth(
    game: PopulationGame,
    agents: Int[Array, " n"],
    highest: Float[Array, "H S n"],
    lowest: Float[Array, "H S n"],
    aggregates: Float[Array, "K Q"],
    moves: Int[Array, "M 2"],
) -> Float[Array, "H n"]:
    """gamma: the most that one of the moves changes R + P V, V between lowest and highest."""

    def most(laws: Callable, met: Array, high: Array, low: Array) -> Array:
        probs, pays = laws(met)

        def one(move: Array) -> Array:
            apart = probs[:, :, move[0]] - probs[:, :, move[1]]  # [X,S,n]
            reached = jnp.where(apart > 0, apart * high, apart * low).sum(1)
            return (pays[:, move[0]] - pays[:, move[1]] + reached).max(0)

        return jax.lax.map(one, moves).max(0)

    def ahead(values: Array) -> Array:
        return jnp.concatenate([values[1:], jnp.zeros_like(values[:1])])

    always = _always(game, aggregates)
    return at_every_step(game, agents, always, most, ahead(highest), ahead(lowest))


@eqx.filter_jit
def _sensitivity(
    game: PopulationGame,
    agents: Int[Array, " n"],
    policy: Float[Array, "H X n"],
    aggregates: Float[Array, "K Q"],
    moves: Int[Array, "M 2"],
) -> tuple[Float[Array, " H"], Float[Array, " H"]]:
    """rho (the largest over agents) and kappa (their mean over N-1 of them), for every step."""
    count, num_states = agents.shape[0], game.num_states

    def sensitivity(laws: Callable, met: Array, acts: Array) -> tuple[Array, Array]:
        probs, _ = laws(met)  # [X,S,Q,n]
        weighted = (acts[:, None, None] * probs).reshape(num_states, -1, *probs.shape[1:]).sum(1)
        between = jnp.abs(weighted[:, None] - weighted[None]).sum(2) / 2  # [S,S,Q,n]

        def one(move: Array) -> Array:
            return jnp.abs(probs[:, :, move[0]] - probs[:, :, move[1]]).sum(1) / 2

        largest = jax.lax.map(one, moves).max(0)  # [X,n]
        felt = (acts * largest).reshape(num_states, -1, count).sum(1).max(0)
        # The others of whichever agent deviates: all but one.
        return between.max(), (felt.sum() - felt.min()) / (count - 1)

    return at_every_step(game, agents, _always(game, aggregates), sensitivity, policy)
