"""How a population answers to one agent, to first order in 1/N: linear responses of its flow.

One unit of contribution at step h changes every other agent's transition there, hence what they
contribute later, hence what their neighbours meet, and so on. T_{h->k} [K,K] is the change of the
total contribution at step k. It is pushed forward agent by agent, with P at the flow and at every
step the kick mu^j pi^j dP^j/dz . dz; nobody's own contribution is in the aggregate that it meets.

Axes: n agents, p population paths at which slopes are averaged, H steps, S states, X = S*A pairs,
K components of the aggregate.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from crowdnash.certificates.path_values import at_every_step
from crowdnash.certificates.plans import MeanModel, Numbers
from crowdnash.games.base import PopulationGame
from crowdnash.games.starts import spread_at_start
from crowdnash.games.vectorised import contribution_table


class Slopes(NamedTuple):
    """Derivatives of the laws in the aggregate: dP/dz [H,K,X,S,n] and dR/dz [H,K,X,n]."""

    transition: Float[Numbers, "H K X S n"]
    reward: Float[Numbers, "H K X n"]


class Response(NamedTuple):
    """What one unit of contribution at step h does at step k, zero for k <= h.

    `totals` [H,H,K,K]: T_{h->k}, the change of the total contribution, is `totals[h, k]`, its last
    axis the component of the unit. `displaced` [H,H,K]: how many others it moves elsewhere, the sum
    of their total variation distances.
    """

    totals: Float[np.ndarray, "H H K K"]
    displaced: Float[np.ndarray, "H H K"]


@eqx.filter_jit
def slopes_at(
    game: PopulationGame, agents: Int[Array, " n"], aggregates: Float[Array, "H K p"]
) -> Slopes:
    """Mean over p populations of the derivatives of the agents' laws."""
    units = jnp.eye(aggregates.shape[1], dtype=jnp.float32)

    def slopes(laws: Callable, met: Array) -> Slopes:
        def along(unit: Array) -> Slopes:
            tangent = jnp.broadcast_to(unit[:, None, None], met.shape)
            _, (moves, pays) = jax.jvp(laws, (met,), (tangent,))
            return Slopes(moves.mean(2), pays.mean(1))

        return jax.lax.map(along, units)

    return at_every_step(game, agents, aggregates, slopes)


def population_response(
    game: PopulationGame,
    policy: Float[np.ndarray, "H X n"],
    model: MeanModel,
    slopes: Float[np.ndarray, "H K X S n"],
    table: Float[np.ndarray, "n X K"],
    start: Float[np.ndarray, "S *n"],
) -> Response:
    """T_{h->k} of a population of which some agents are a sample (or all of it).

    Args:
        game: The game.
        policy: What these agents play.
        model: Their mean model.
        slopes: dP/dz of their transitions.
        table: What they contribute at every pair.
        start: Where they begin (`starts.start_of`).
    """
    horizon, num_states, count = game.horizon, game.num_states, policy.shape[-1]
    by_state = table.reshape(count, num_states, game.num_actions, -1).transpose(1, 2, 3, 0)
    units = by_state.shape[2]
    states = spread_at_start(start, count)
    moved = np.zeros((horizon, units, num_states, count), np.float32)  # (N-1) times the changes
    totals = np.zeros((horizon, horizon, units, units), np.float32)
    displaced = np.zeros((horizon, horizon, units), np.float32)
    for k in range(horizon):
        acts = policy[k].reshape(num_states, game.num_actions, count)
        own = np.einsum("san,sakn->skn", acts, by_state)
        closed = acts[:, :, None] * model.transition[k].reshape(*acts.shape[:2], num_states, count)
        closed = closed.sum(1)
        weight = (states[:, None] * acts).reshape(-1, count)
        kick = np.einsum("xn,kxtn->ktn", weight, slopes[k])
        each = np.einsum("hmsn,skn->hkmn", moved[:k], own)
        totals[:k, k] = each.mean(-1)
        displaced[:k, k] = np.abs(moved[:k]).sum(2).mean(-1) / 2
        met = totals[:k, k][..., None] - each / np.float32(game.num_agents - 1)
        moved[:k] = np.einsum("hmsn,stn->hmtn", moved[:k], closed)
        moved[:k] += np.einsum("hkmn,ktn->hmtn", met, kick)
        moved[k] = kick
        states = np.einsum("sn,stn->tn", states, closed)
    return Response(totals, displaced)


def mean_contributions(
    game: PopulationGame,
    model: MeanModel,
    policy: Float[np.ndarray, "H X n"],
    table: Float[np.ndarray, "n X K"],
    start: Float[np.ndarray, "S *n"],
) -> Float[np.ndarray, "H n K"]:
    """What the agents are expected to contribute under the policy, in the mean model."""
    states, means = spread_at_start(start, policy.shape[-1]), []
    by_pair = table.transpose(1, 2, 0)
    for h in range(game.horizon):
        weight = np.repeat(states, game.num_actions, 0) * policy[h]
        means.append(np.einsum("xn,xkn->nk", weight, by_pair))
        states = np.einsum("xn,xtn->tn", weight, model.transition[h])
    return np.stack(means)


@eqx.filter_jit
def agent_contributions(game: PopulationGame, agents: Int[Array, " n"]) -> Float[Array, "n X K"]:
    """What these agents contribute at every pair."""
    records: PyTree = jax.tree_util.tree_map(lambda x: x[agents], game.agents)
    return contribution_table(game, records).astype(jnp.float32)
