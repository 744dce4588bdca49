"""How a population answers to one agent, to first order in 1/N: linear responses of its flow.

One unit of contribution at step h changes every other agent's transition there, hence what they
contribute later, hence what their neighbours meet, and so on. T_{h->k} [K,K] is the change of the
total contribution at step k. It is pushed forward agent by agent, with P at the flow and at every
step the kick mu^j pi^j dP^j/dz . dz; nobody's own contribution is in the aggregate that it meets.

Axes: n agents, p population paths at which slopes are averaged, H steps, S states, X = S*A pairs,
K components of the aggregate.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from crowdnash.certificates.path_values import MeanModel, laws_at
from crowdnash.games.base import PopulationGame
from crowdnash.games.vectorised import contribution_table


class Slopes(NamedTuple):
    """Derivatives of the laws in the aggregate: dP/dz [H,K,X,S,n] and dR/dz [H,K,X,n]."""

    transition: Float[Array, "H K X S n"]
    reward: Float[Array, "H K X n"]


class Response(NamedTuple):
    """What one unit of contribution at step h does at step k, zero for k <= h.

    `totals` [H,H,K,K]: T_{h->k}, the change of the total contribution, is `totals[h, k]`, its last
    axis the component of the unit. `displaced` [H,H,K]: how many others it moves elsewhere, the sum
    of their total variation distances.
    """

    totals: Float[Array, "H H K K"]
    displaced: Float[Array, "H H K"]


@eqx.filter_jit
def slopes_at(
    game: PopulationGame, agents: Int[Array, " n"], aggregates: Float[Array, "H K p"]
) -> Slopes:
    """Mean over p populations of the derivatives of the agents' laws."""
    records = jax.tree_util.tree_map(lambda x: x[agents], game.agents)
    units = jnp.eye(aggregates.shape[1], dtype=jnp.float32)

    def at_step(now: tuple) -> Slopes:
        met, step = now
        met = jnp.broadcast_to(met[..., None], (*met.shape, agents.shape[0]))

        def laws(aggregate: Array) -> tuple[Array, Array]:
            return laws_at(game, records, aggregate, step)

        def along(unit: Array) -> Slopes:
            tangent = jnp.broadcast_to(unit[:, None, None], met.shape)
            _, (moves, pays) = jax.jvp(laws, (met,), (tangent,))
            return Slopes(moves.mean(2), pays.mean(1))

        return jax.lax.map(along, units)

    steps = jnp.arange(game.horizon, dtype=jnp.int32)
    return jax.lax.map(at_step, (aggregates, steps))


@eqx.filter_jit
def population_response(
    game: PopulationGame,
    agents: Int[Array, " n"],
    policy: Float[Array, "H X n"],
    model: MeanModel,
    slopes: Slopes,
) -> Response:
    """T_{h->k} of a population of which these agents are a sample (or all of it)."""
    count, num_states = agents.shape[0], game.num_states
    table = agent_contributions(game, agents)  # [n,X,K]
    units = table.shape[-1]
    initial = game.initial_distribution.astype(jnp.float32)

    def advance(carry: tuple, now: tuple) -> tuple[tuple, tuple]:
        states, moved = carry  # [S,n]; (N-1) times the changes of them, [H,K,S,n]
        probs, moves, slope, step = now
        acts = probs.reshape(num_states, -1, count)
        own = jnp.einsum("san,nsak->skn", acts, table.reshape(count, num_states, -1, units))
        each = jnp.einsum("hmsn,skn->hkmn", moved, own)
        total = each.mean(-1)  # [H,K,K], the last axis the unit
        displaced = jnp.abs(moved).sum(2).mean(-1) / 2
        weight = (states[:, None] * acts).reshape(probs.shape)
        kick = jnp.einsum("xn,kxtn->ktn", weight, slope)
        closed = (probs[:, None] * moves).reshape(num_states, -1, num_states, count).sum(1)
        met = total[..., None] - each / (game.num_agents - 1)
        moved = jnp.einsum("hmsn,stn->hmtn", moved, closed)
        moved = moved + jnp.einsum("hkmn,ktn->hmtn", met, kick)
        moved = moved.at[step].set(kick)
        return (jnp.einsum("sn,stn->tn", states, closed), moved), (total, displaced)

    start = jnp.broadcast_to(initial[:, None], (num_states, count))
    moved = jnp.zeros((game.horizon, units, num_states, count), jnp.float32)
    steps = jnp.arange(game.horizon, dtype=jnp.int32)
    over = (policy, model.transition, slopes.transition, steps)
    _, (totals, displaced) = jax.lax.scan(advance, (start, moved), over)
    return Response(totals.swapaxes(0, 1), displaced.swapaxes(0, 1))


def agent_contributions(game: PopulationGame, agents: Int[Array, " n"]) -> Float[Array, "n X K"]:
    """What these agents contribute at every pair."""
    records: PyTree = jax.tree_util.tree_map(lambda x: x[agents], game.agents)
    return contribution_table(game, records).astype(jnp.float32)
