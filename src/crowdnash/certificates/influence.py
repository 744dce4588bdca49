"""What an agent's own influence on the population is worth to it, to first order in 1/N (Def. 2).

Frozen paths hold the population still while agent i deviates. In the N-player game the others
feel what i does. With T_{h->k} the population's linear response and

    g_k(s,a) = dR^i/dz + sum_s' dP^i(s'|s,a,z_k)/dz V_{k+1}(s'),

what one more unit of the aggregate at step k is worth to i in (s,a), V the value of what it plays,

    D_h(s,a) = (1/(N-1)) sum_{k>h} E[ g_k(s_k,a_k) | s_h=s, a_h=a ] . T_{h->k} (c^i(s,a) - c_h)

is what playing (s,a) at step h instead of the policy (mean contribution c_h) does to the agent's
own future, and for every own policy pi' the return is the frozen value plus sum_h E_pi'[D_h].

Axes: n agents, H steps, S states, X = S*A pairs, K components of the aggregate.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from crowdnash.certificates.path_values import MeanModel, Plan, backup, expected, plan_against
from crowdnash.certificates.response import Response, Slopes
from crowdnash.games.base import PopulationGame

_ROUNDS = 3


class Means(NamedTuple):
    """What an agent contributes: `table` [n,X,K], and `expected` [H,n,K] under the policy."""

    table: Float[Array, "n X K"]
    expected: Float[Array, "H n K"]


class FirstOrder(NamedTuple):
    """Own influence of a policy: `effects` D [H,X,n] and in total `predicted` [n]."""

    effects: Float[Array, "H X n"]
    predicted: Float[Array, " n"]


@eqx.filter_jit
def mean_contributions(
    game: PopulationGame, model: MeanModel, policy: Float[Array, "H X n"], table: Array
) -> Means:
    """Expected contributions of the agents under the policy, in the mean model."""
    initial = game.initial_distribution.astype(jnp.float32)

    def forward(states: Array, now: tuple) -> tuple[Array, Array]:
        probs, moves = now
        weight = jnp.repeat(states, game.num_actions, 0) * probs
        return jnp.einsum("xn,xtn->tn", weight, moves), jnp.einsum("xn,nxk->nk", weight, table)

    start = jnp.broadcast_to(initial[:, None], (game.num_states, policy.shape[-1]))
    _, means = jax.lax.scan(forward, start, (policy, model.transition))
    return Means(table, means)


@eqx.filter_jit
def first_order(
    game: PopulationGame,
    model: MeanModel,
    slopes: Slopes,
    response: Response,
    means: Means,
    probs: Float[Array, "H X n"],
) -> FirstOrder:
    """What own influence adds to the return of agents who play `probs`."""
    count, actions = probs.shape[-1], game.num_actions

    def back(carry: tuple, now: tuple) -> tuple[tuple, Array]:
        values, worth, total = carry  # [S,n]; E[g_k | s_h = s], [H,S,K,n]; sum of D, [S,n]
        step, moves, pays, policy, slope, pay_slope, answer, mean = now
        ahead = jnp.einsum("xsn,hskn->hxkn", moves, worth)
        excess = means.table - mean[:, None]  # [n,X,K]
        reaction = jnp.einsum("hjk,nxk->hxjn", answer, excess)
        effect = (ahead * reaction).sum((0, 2)) / (game.num_agents - 1)
        here = _worth(slope, pay_slope, values)
        over_actions = (policy[:, None] * ahead).reshape(
            len(ahead), game.num_states, actions, *ahead.shape[2:]
        )
        worth = over_actions.sum(2)
        own = (policy[:, None] * here).reshape(game.num_states, actions, *here.shape[1:]).sum(1)
        worth = worth.at[step].set(own)
        values = expected(policy, backup(moves, pays, values), actions)
        total = expected(policy, backup(moves, effect, total), actions)
        return (values, worth, total), effect

    zero = jnp.zeros((game.num_states, count), jnp.float32)
    units = means.table.shape[-1]
    worth = jnp.zeros((game.horizon, game.num_states, units, count), jnp.float32)
    steps = jnp.arange(game.horizon, dtype=jnp.int32)
    over = (steps, *model, probs, *slopes, response.totals, means.expected)
    (_, _, total), effects = jax.lax.scan(back, (zero, worth, zero), over, reverse=True)
    return FirstOrder(effects, game.initial_distribution.astype(jnp.float32) @ total)


def _worth(slope: Array, pay_slope: Array, values: Array) -> Float[Array, "X K n"]:
    """g: what one more unit of the aggregate is worth, V the values of the next step."""
    return pay_slope.swapaxes(0, 1) + jnp.einsum("kxsn,sn->xkn", slope, values)


@eqx.filter_jit
def largest_bonus(
    game: PopulationGame, plan: Plan, slopes: Slopes, response: Response, means: Means
) -> Float[Array, "H X n"]:
    """An upper end of what any own past can have added to one step's reward, [H,X,n].

    At step k in (s,a): (1/(N-1)) sum_{h<k} max_x g_k(s,a) . T_{h->k} (c^i(x) - c_h), whatever the
    agent did before. `plan` is its best response: a policy that is not nearly best against frozen
    paths cannot be best, and one that is has its values where it goes.
    """
    by_pair = means.table.transpose(1, 2, 0)  # [X,K,n]
    expected_there = means.expected.swapaxes(1, 2)  # [H,K,n]

    def at_step(now: tuple) -> Array:
        slope, pay_slope, values, answers = now  # answers [H,K,K], of every h, to this step
        worth = _worth(slope, pay_slope, values)
        price = jnp.einsum("xjn,hjk->hxkn", worth, answers)

        def most(highest: Array, own: Array) -> tuple[Array, None]:
            return jnp.maximum(highest, (price * own).sum(2)), None

        start = jnp.full_like(price[:, :, 0], -jnp.inf)
        highest, _ = jax.lax.scan(most, start, by_pair)
        excess = highest - (price * expected_there[:, None]).sum(2)
        return excess.sum(0) / (game.num_agents - 1)

    ahead = jnp.concatenate([plan.values[1:], jnp.zeros_like(plan.values[:1])])
    return jax.lax.map(at_step, (*slopes, ahead, response.totals.swapaxes(0, 1)))


@eqx.filter_jit
def largest_share(game: PopulationGame, response: Response, means: Means) -> Float[Array, " n"]:
    """The largest share of the others that an agent displaces at any step, whatever it plays."""

    def caused(total: Array, cause: tuple) -> tuple[Array, None]:
        displaced, mean = cause  # [H,K], [n,K]
        excess = jnp.abs(means.table - mean[:, None])
        return total + jnp.einsum("nxk,hk->hxn", excess, displaced).max(1), None

    start = jnp.zeros((game.horizon, means.table.shape[0]), jnp.float32)
    total, _ = jax.lax.scan(caused, start, (response.displaced, means.expected))
    return total.max(0) / (game.num_agents - 1)


def influence_aware_plan(
    game: PopulationGame,
    model: MeanModel,
    slopes: Slopes,
    response: Response,
    means: Means,
    start: Plan,
) -> tuple[Plan, FirstOrder]:
    """A deviation that counts its own influence: D is added to the reward, and solved again.

    g and D are those of the deviation itself, hence a few rounds, from `start`; the plan returned
    is the best of them, agent by agent, by frozen value plus predicted influence.
    """
    plan, order = start, first_order(game, model, slopes, response, means, start.probs)
    best, best_order = plan, order
    for _ in range(_ROUNDS):
        aware = MeanModel(model.transition, model.reward + order.effects)
        probs = plan_against(game, aware, None).probs
        if np.array_equal(probs, plan.probs):
            break
        plan = plan_against(game, model, probs)
        order = first_order(game, model, slopes, response, means, plan.probs)
        better = _total(game, plan, order) > _total(game, best, best_order) + 1e-6
        best, best_order = jax.tree_util.tree_map(
            lambda new, old, better=better: jnp.where(better, new, old),
            (plan, order),
            (best, best_order),
        )
    return best, best_order


def _total(game: PopulationGame, plan: Plan, order: FirstOrder) -> Float[Array, " n"]:
    return game.initial_distribution.astype(jnp.float32) @ plan.values[0] + order.predicted
