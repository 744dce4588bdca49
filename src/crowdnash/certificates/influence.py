"""What an agent's own influence on the population is worth to it, to first order in 1/N (Def. 2).

Frozen paths hold the population still while agent i deviates. In the N-player game the others
feel what i does. With T_{h->k} the population's linear response and

    g_k(s,a) = dR^i/dz + sum_s' dP^i(s'|s,a,z_k)/dz V_{k+1}(s'),

what one more unit of the aggregate at step k is worth to i in (s,a), V the value of what it plays,

    D_h(s,a) = (1/(N-1)) sum_{k>h} E[ g_k(s_k,a_k) | s_h=s, a_h=a ] . T_{h->k} (c^i(s,a) - c_h)

is what playing (s,a) at step h instead of the policy (mean contribution c_h) does to the agent's
own future, and for every own policy pi' the return is the frozen value plus sum_h E_pi'[D_h].

All of it is small dense algebra on the host, so that nothing has to be compiled.

Axes: n agents, H steps, S states, X = S*A pairs, K components of the aggregate.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from crowdnash.certificates.plans import MeanModel, Plan, expected_next, plan_against
from crowdnash.certificates.response import Response, Slopes
from crowdnash.games.base import PopulationGame
from crowdnash.games.starts import mean_at_start

_ROUNDS = 3
_MOST_ENTRIES = 4_000_000


class Means(NamedTuple):
    """What an agent contributes: `table` [n,X,K], and `expected` [H,n,K] under the policy.

    `start` is where it begins (`starts.start_of`).
    """

    table: Float[np.ndarray, "n X K"]
    expected: Float[np.ndarray, "H n K"]
    start: Float[np.ndarray, "S *n"]


class FirstOrder(NamedTuple):
    """Own influence of a policy: `effects` D [H,X,n] and in total `predicted` [n]."""

    effects: Float[np.ndarray, "H X n"]
    predicted: Float[np.ndarray, " n"]


def first_order(
    game: PopulationGame,
    model: MeanModel,
    slopes: Slopes,
    response: Response,
    means: Means,
    probs: Float[np.ndarray, "H X n"],
) -> FirstOrder:
    """What own influence adds to the return of agents who play `probs`."""
    horizon, num_pairs, count = probs.shape
    num_states, units = game.num_states, means.table.shape[-1]
    by_state = (num_states, game.num_actions, count)
    values = np.zeros((num_states, count), np.float32)
    total = np.zeros((num_states, count), np.float32)
    # E[g_k | s_h = s], agents first: what is carried back is a product of matrices an agent.
    worth = np.zeros((count, num_states, horizon, units), np.float32)
    effects = np.zeros((horizon, num_pairs, count), np.float32)
    for h in reversed(range(horizon)):
        later = horizon - h - 1
        acts = probs[h].T[..., None]  # [n,X,1]
        moves = np.ascontiguousarray(model.transition[h].transpose(2, 0, 1))
        ahead = moves @ worth[:, :, h + 1 :].reshape(count, num_states, later * units)
        excess = means.table - means.expected[h][:, None]
        reaction = excess @ response.totals[h, h + 1 :].reshape(later * units, units).T
        effect = np.einsum("nxk,nxk->xn", ahead, reaction) / np.float32(game.num_agents - 1)
        over_actions = (count, num_states, game.num_actions, -1)
        worth[:, :, h + 1 :] = (acts * ahead).reshape(*over_actions[:3], later, units).sum(2)
        worth[:, :, h] = (acts * _worth(slopes, h, values)).reshape(over_actions).sum(2)
        effects[h] = effect
        moved = effect + expected_next(model.transition[h], total)
        total = (probs[h] * moved).reshape(by_state).sum(1)
        action_values = model.reward[h] + expected_next(model.transition[h], values)
        values = (probs[h] * action_values).reshape(by_state).sum(1)
    return FirstOrder(effects, mean_at_start(means.start, total))


def _worth(
    slopes: Slopes, step: int, values: Float[np.ndarray, "S n"]
) -> Float[np.ndarray, "n X K"]:
    """g: what one more unit of the aggregate is worth, V the values of the next step."""
    moved = np.einsum("kxsn,sn->kxn", slopes.transition[step], values)
    return np.ascontiguousarray((slopes.reward[step] + moved).transpose(2, 1, 0))


def largest_bonus(
    game: PopulationGame, plan: Plan, slopes: Slopes, response: Response, means: Means
) -> Float[np.ndarray, "H X n"]:
    """An upper end of what any own past can have added to one step's reward, [H,X,n].

    At step k in (s,a): (1/(N-1)) sum_{h<k} max_x g_k(s,a) . T_{h->k} (c^i(x) - c_h), whatever the
    agent did before. `plan` is its best response: a policy that is not nearly best against frozen
    paths cannot be best, and one that is has its values where it goes.
    """
    horizon, num_pairs, count = plan.probs.shape
    bonus = np.zeros((horizon, num_pairs, count), np.float32)
    for k in range(1, horizon):
        last = k == horizon - 1
        values = np.zeros_like(plan.values[k]) if last else np.asarray(plan.values[k + 1])
        worth, answers = _worth(slopes, k, values), response.totals[:k, k]
        units = worth.shape[-1]
        by_cause = answers.transpose(1, 0, 2).reshape(units, k * units)
        size = max(1, _MOST_ENTRIES // (k * num_pairs**2))
        for first in range(0, count, size):
            some = slice(first, first + size)
            price = (worth[some] @ by_cause).reshape(-1, num_pairs * k, units)
            highest = (price @ means.table[some].transpose(0, 2, 1)).max(-1)
            by_step = price.reshape(-1, num_pairs, k, units)
            expected = np.einsum("nxhk,hnk->nxh", by_step, means.expected[:k, some])
            excess = highest.reshape(expected.shape) - expected
            bonus[k][:, some] = excess.sum(2).T
    return bonus / np.float32(game.num_agents - 1)


def largest_share(
    game: PopulationGame, response: Response, means: Means
) -> Float[np.ndarray, " n"]:
    """The largest share of the others that an agent displaces at any step, whatever it plays."""
    total = np.zeros((len(means.table), game.horizon), np.float32)
    for h in range(game.horizon - 1):
        excess = np.abs(means.table - means.expected[h][:, None])
        total[:, h + 1 :] += (excess @ response.displaced[h, h + 1 :].T).max(1)
    return total.max(1) / np.float32(game.num_agents - 1)


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
        probs = plan_against(aware, None).probs
        if np.array_equal(probs, plan.probs):
            break
        plan = plan_against(model, probs)
        order = first_order(game, model, slopes, response, means, plan.probs)
        better = _total(means, plan, order) > _total(means, best, best_order) + 1e-6
        best = Plan(*(np.where(better, *x) for x in zip(plan, best, strict=True)))
        best_order = FirstOrder(
            *(np.where(better, *x) for x in zip(order, best_order, strict=True))
        )
    return best, best_order


def _total(means: Means, plan: Plan, order: FirstOrder) -> Float[np.ndarray, " n"]:
    return plan.start(means.start) + order.predicted
