"""Deviations really played in the N-player game, where the others feel them.

A play is made twice with the same random numbers for everyone but the deviator: once under the
policy (path z, the one that frozen values hold still) and once with the deviation (path z'). With V
the deviation's value along z,

    J(pi') = E[ rho0 . V_0 ] + E[ sum_h [ R_h(z') - R_h(z) + (P_h(z') - P_h(z)) V_{h+1} ] ]

at the pairs (s_h,a_h) that the deviator comes through: a martingale control variate. It holds as
the deviator draws by numbers of its own, on which z does not depend. Others who are not reached by
the disturbance do the same in both plays, so that the second sum has little noise: what is measured
is the influence itself.

Axes: B plays, each with a deviator of its own; H steps, X = S*A pairs.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree, UInt32

from crowdnash.certificates.path_values import backup, expected, laws_at
from crowdnash.games.base import PopulationGame
from crowdnash.games.vectorised import (
    aggregates_of_others,
    contributions,
    rewards,
    transitions,
)
from crowdnash.simulation.layout import AgentLayout
from crowdnash.simulation.rollouts import chunk_size, simulate_chunk
from crowdnash.simulation.samplers import ActionSampler, DeviatingSampler, table_sampler


class Deviations(NamedTuple):
    """Who deviates, from what and how: `agents` [B], both policies as tables [H,X,B]."""

    agents: Int[np.ndarray, " B"]
    base: Float[np.ndarray, "H X B"]
    probs: Float[np.ndarray, "H X B"]


class Played(NamedTuple):
    """Of each play, [B]: the gain against its frozen path, and what own influence adds to it.

    The mean of `frozen` + `influence` over paths is unbiased for the gain in the N-player game.
    """

    frozen: Float[np.ndarray, " B"]
    influence: Float[np.ndarray, " B"]


def play_deviations(
    game: PopulationGame,
    sampler: ActionSampler,
    layout: AgentLayout,
    deviations: Deviations,
    key: PRNGKeyArray,
    paths: UInt32[np.ndarray, " B"],
) -> Played:
    """Play every deviation once, on the path of its number."""
    count = len(paths)
    size = chunk_size(3 * game.num_agents, count)
    parts = []
    for first in range(0, count, size):
        # The last chunk is filled up with plays that nobody looks at: one program serves all.
        index = np.minimum(np.arange(first, first + size), count - 1)
        agents, base, probs = (jnp.asarray(x[..., index]) for x in deviations)
        numbers = jnp.asarray(paths[index])
        played = _play(game, sampler, layout, agents, base, probs, key, numbers)
        parts.append(jax.device_get(played))
    frozen, influence = (np.concatenate(x)[:count] for x in zip(*parts, strict=True))
    return Played(frozen.astype(np.float64), influence.astype(np.float64))


@eqx.filter_jit
def _play(
    game: PopulationGame,
    sampler: ActionSampler,
    layout: AgentLayout,
    agents: Int[Array, " B"],
    base: Float[Array, "H X B"],
    probs: Float[Array, "H X B"],
    key: PRNGKeyArray,
    paths: UInt32[Array, " B"],
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    records = jax.tree_util.tree_map(lambda x: x[agents], game.agents)
    plays, place = len(agents), layout.place[agents]
    # One simulation of three plays: nobody deviates, the deviation, the policy drawn anew.
    tables = jnp.concatenate([base, probs, base], -1)
    places = jnp.concatenate([jnp.full_like(place, -1), place, place])[:, None, None]
    flat = jnp.arange(layout.agent.size, dtype=jnp.int32).reshape(layout.agent.shape)
    number = layout.agent + jnp.where(flat == places, game.num_agents, 0)
    by_play = jnp.moveaxis(tables, -1, 0).reshape(
        -1, game.horizon, game.num_states, game.num_actions
    )
    deviating = DeviatingSampler(sampler, table_sampler(by_play, None), places)
    chunk = simulate_chunk(
        game, deviating, layout, key, jnp.tile(paths, 3), number.astype(jnp.uint32)
    )
    flat_pairs = chunk.pairs.reshape(game.horizon, 3 * plays, -1)
    own = jnp.take_along_axis(flat_pairs, jnp.tile(place, 3)[None, :, None], 2)[:, None, :, 0]
    again = jax.tree_util.tree_map(lambda x: jnp.concatenate([x, x]), records)
    frozen = _met(game, records, own[..., :plays], chunk.totals[..., :plays])
    felt = _met(game, again, own[..., plays:], chunk.totals[..., plays:])
    frozen, both = jnp.concatenate([frozen, frozen], -1), jnp.concatenate([probs, base], -1)
    value, influence = _along(game, again, both, own[..., plays:], felt, frozen)
    return value[:plays] - value[plays:], influence[:plays] - influence[plays:]


def _met(game: PopulationGame, records: PyTree, pairs: Array, totals: Array) -> Array:
    """What every play's deviator meets, [H,K,1,B]."""

    def at_step(now: tuple) -> Array:
        pair, total = now
        index = pair.astype(jnp.int32)
        own = contributions(game, records, index // game.num_actions, index % game.num_actions)
        # One population a play: the axis of agents is that of plays here.
        return aggregates_of_others(total, own[:, 0], game.num_agents)[:, None]

    return jax.lax.map(at_step, (pairs, totals))


def _along(
    game: PopulationGame, records: PyTree, probs: Array, pairs: Array, felt: Array, frozen: Array
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """The value V along the frozen path z, and the sum over h of what z' changes of R + P V."""
    num_plays = pairs.shape[-1]

    def back(carry: tuple, now: tuple) -> tuple[tuple, None]:
        values, total = carry  # [S,1,B], [1,B]
        policy, pair, here, there, step = now
        moves, pays = laws_at(game, records, here, step)
        index = pair.astype(jnp.int32)
        state, action = index // game.num_actions, index % game.num_actions

        def worth(met: Array) -> Array:
            moved = transitions(game, records, state, action, met, step).astype(jnp.float32)
            paid = rewards(game, records, state, action, met, step).astype(jnp.float32)
            return paid + (moved * values).sum(0)

        total = total + worth(there) - worth(here)
        values = expected(policy[:, None], backup(moves, pays, values), game.num_actions)
        return (values, total), None

    start = (jnp.zeros((game.num_states, 1, num_plays), jnp.float32), jnp.zeros((1, num_plays)))
    steps = jnp.arange(game.horizon, dtype=jnp.int32)
    over = (probs, pairs, frozen, felt, steps)
    (values, total), _ = jax.lax.scan(back, start, over, reverse=True)
    return (game.initial_distribution.astype(jnp.float32) @ values[:, 0]), total[0]
