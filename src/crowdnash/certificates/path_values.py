"""Values of single agents along frozen population paths.

A simulated play fixes, for every step, the aggregate that each agent's N-1 opponents produced.
Held against that path, an agent faces an ordinary finite-horizon decision problem, solved exactly
by backward induction; all agents and all paths at once. What this leaves out is the agent's own
influence on the path: `influence` predicts it and `played` measures it.

Axes: n agents examined, B paths of a chunk, H steps, S states, A actions, X = S*A pairs (s,a),
K components of the aggregate. Agents come last: every loop runs along them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from crowdnash.certificates.plans import MeanModel, Numbers, Plan
from crowdnash.certificates.simulated import Paths, own_pairs
from crowdnash.games.base import PopulationGame, TabularGame
from crowdnash.games.legal import ILLEGAL_REWARD, legal_pairs
from crowdnash.games.starts import mean_at_start, start_of
from crowdnash.games.vectorised import (
    Law,
    aggregates_of_others,
    contributions,
    laws_at_pairs,
    transitions,
)
from crowdnash.policies.base import Policy
from crowdnash.simulation.layout import AgentLayout

_MAX_UNROLLED = 16


class Players(NamedTuple):
    """Whose values are computed along every path.

    `base` is the policy itself in the mean model; `planned` [H,X,n] its best response there,
    `deviation` [H,X,n] the deviation that counts the agent's own influence, and `bonus` [H,X,n]
    what that influence adds at most to one step's reward. `worth` W [H,S,n] are values by which
    foresight is priced, and `promised` [H,S,K,N] what every agent contributes in each state on
    average, None where foresight is not priced.
    """

    base: Plan
    planned: Float[Numbers, "H X n"]
    deviation: Float[Numbers, "H X n"]
    bonus: Float[Numbers, "H X n"]
    worth: Float[Numbers, "H S n"]
    promised: Float[Numbers, "H S K N"] | None


class Gains(NamedTuple):
    """Along each path, [B,n]: the policy's frozen value, and what is gained over it.

    `planned` and `deviation` are gains of `Players`, `clairvoyant` that of the best response which
    knows the path, `reach` the same with the bonus. `real` is the policy's own return in the play
    itself, less the frozen value. `priced` and `priced_reach` are as
    `clairvoyant` and `reach` where foresight has its price (`expected_contributions`), else the
    same.
    """

    value: Float[Array, "B n"]
    planned: Float[Array, "B n"]
    clairvoyant: Float[Array, "B n"]
    deviation: Float[Array, "B n"]
    reach: Float[Array, "B n"]
    real: Float[Array, "B n"]
    priced: Float[Array, "B n"]
    priced_reach: Float[Array, "B n"]


@eqx.filter_jit
def tabulate(game: TabularGame, policy: Policy, agents: Int[Array, " n"]) -> Float[Array, "H X n"]:
    """Action probabilities of some agents as tables [H,X,n]."""
    one = policy.probabilities
    over_states = jax.vmap(one, in_axes=(0, None, None), out_axes=0)
    over_steps = jax.vmap(over_states, in_axes=(None, None, 0), out_axes=0)
    over_agents = jax.vmap(over_steps, in_axes=(None, 0, None), out_axes=-1)
    states = jnp.arange(game.num_states, dtype=jnp.int32)
    steps = jnp.arange(game.horizon, dtype=jnp.int32)
    table = over_agents(states, agents, steps)
    return table.reshape(game.horizon, -1, agents.shape[0])


def laws_at(
    game: PopulationGame, records: PyTree, aggregates: Float[Array, "K B n"], step: Int[Array, ""]
) -> tuple[Float[Array, "X S B n"], Float[Array, "X B n"]]:
    """P and R of every pair (s,a) for agents who meet these aggregates.

    An illegal action pays `ILLEGAL_REWARD`: no best response takes it, and no policy has it.
    """
    unroll = game.num_states * game.num_actions <= _MAX_UNROLLED
    probs, reward = (
        laws_at_pairs(game, law, records, aggregates, step, unroll=unroll).astype(jnp.float32)
        for law in get_args(Law)
    )
    if (legal := legal_pairs(game, records, step)) is not None:
        reward = jnp.where(legal[:, None], reward, ILLEGAL_REWARD)
    return probs, reward


def at_every_step(
    game: PopulationGame,
    agents: Int[Array, " n"],
    aggregates: Float[Array, "H K p"],
    what: Callable[..., Any],
    *over: Array,
) -> Any:
    """Ask the laws of some agents step by step, each agent at all p aggregates; inside `jit`.

    Args:
        game: The game.
        agents: Whose laws.
        aggregates: What they meet at every step.
        what: `what(laws, met, *now)` with `laws(met)` the agents' P [X,S,p,n] and R [X,p,n] at the
            aggregates `met` [K,p,n], and one step of each of `over`.
        over: Arrays with leading axis H.

    Returns:
        The outcomes, stacked along H.
    """
    records = jax.tree_util.tree_map(lambda x: x[agents], game.agents)

    def at_step(now: tuple) -> Any:
        met, step, *rest = now
        met = jnp.broadcast_to(met[..., None], (*met.shape, agents.shape[0]))
        return what(lambda z: laws_at(game, records, z, step), met, *rest)

    steps = jnp.arange(game.horizon, dtype=jnp.int32)
    return jax.lax.map(at_step, (aggregates, steps, *over))


@eqx.filter_jit
def laws_at_aggregates(
    game: PopulationGame, agents: Int[Array, " n"], aggregates: Float[Array, "H K p"]
) -> MeanModel:
    """Laws of some agents, averaged over p aggregates that all of them meet."""

    def mean(laws: Callable, met: Array) -> MeanModel:
        moves, pays = laws(met)
        return MeanModel(moves.mean(2), pays.mean(1))

    return at_every_step(game, agents, aggregates, mean)


def backup(
    probs: Float[Array, "X S ..."], reward: Float[Array, "X ..."], values: Float[Array, "S ..."]
) -> Float[Array, "X ..."]:
    """Q = R + P V."""
    if values.shape[0] > _MAX_UNROLLED:
        return reward + jnp.einsum("xs...,s...->x...", probs, values)
    total = reward
    for s in range(values.shape[0]):
        total = total + probs[:, s] * values[s]
    return total


def _by_state(table: Float[Array, "X ..."], num_actions: int) -> Float[Array, "S A ..."]:
    return table.reshape(-1, num_actions, *table.shape[1:])


def expected(probs: Array, action_values: Array, num_actions: int) -> Array:
    """V = sum_a pi(a|s) Q(s,a): [X,...] and [X,...] -> [S,...]."""
    return _by_state(probs * action_values, num_actions).sum(1)


def _aggregates(
    game: PopulationGame, records: PyTree, pairs: Array, total: Array
) -> Float[Array, "K B n"]:
    """What each agent meets at one step: the totals [K,B] without its own share."""
    index = pairs.astype(jnp.int32)
    own = contributions(game, records, index // game.num_actions, index % game.num_actions)
    return aggregates_of_others(total, own, game.num_agents)


@eqx.filter_jit
def add_laws(
    game: PopulationGame,
    layout: AgentLayout,
    agents: Int[Array, " n"],
    paths: Paths,
    weight: Float[Array, " B"],
    sums: MeanModel,
) -> MeanModel:
    """The sums with the agents' laws on these paths, each times its weight."""
    records = jax.tree_util.tree_map(lambda x: x[agents], game.agents)

    def add(_: None, now: tuple) -> tuple[None, MeanModel]:
        pairs, total, step, before = now
        aggregates = _aggregates(game, records, pairs, total)
        probs, reward = laws_at(game, records, aggregates, step)
        probs, reward = (probs * weight[:, None]).sum(2), (reward * weight[:, None]).sum(1)
        return None, MeanModel(before.transition + probs, before.reward + reward)

    steps = jnp.arange(game.horizon, dtype=jnp.int32)
    own = own_pairs(paths.pairs, layout, agents)
    _, sums = jax.lax.scan(add, None, (own, paths.totals, steps, sums))
    return sums


def expected_contributions(
    game: PopulationGame, layout: AgentLayout, paths: Paths, promised: Float[Array, "H S K N"]
) -> Float[Array, "H K B N"]:
    """What every agent was expected to contribute at h, given all pairs of h-1; inside `jit`.

    The price of foresight (information relaxation with a martingale penalty). With z~_h the mean
    of the others' expected contributions and any values W, a player who knows the path z gets

        U_h(s) = max_a [ R(s,a,z~_h) + P(s,a,z~_h) W_{h+1} + P(s,a,z_h) (U_{h+1} - W_{h+1}) ],

    for laws affine in the aggregate an upper end in expectation: what it pays, R + P W at z less
    the same at z~, has mean 0 given the past, whatever it does without foresight.
    """
    everyone = jnp.arange(game.num_agents, dtype=jnp.int32)
    first = mean_at_start(start_of(game, everyone), promised[0])[:, None]  # [K,1,N]

    def at_step(now: tuple) -> Array:
        pairs, total, step, ahead = now
        index = pairs.astype(jnp.int32)
        states, actions = index // game.num_actions, index % game.num_actions
        met = _aggregates(game, game.agents, pairs, total)
        moves = transitions(game, game.agents, states, actions, met, step).astype(jnp.float32)
        return jnp.einsum("sbn,skn->kbn", moves, ahead)

    every = own_pairs(paths.pairs, layout, everyone)
    steps = jnp.arange(game.horizon, dtype=jnp.int32)
    ahead = jnp.concatenate([promised[1:], promised[:1]])  # the last is not looked at
    later = jax.lax.map(at_step, (every, paths.totals, steps, ahead))[:-1]
    start = jnp.broadcast_to(first, (1, first.shape[0], every.shape[1], game.num_agents))
    return jnp.concatenate([start, later])


@eqx.filter_jit
def gains_on_paths(
    game: PopulationGame,
    layout: AgentLayout,
    agents: Int[Array, " n"],
    players: Players,
    paths: Paths,
) -> Gains:
    """Exact values along each path of the base policy and of deviations from it.

    The clairvoyant deviation is the best response that knows the path: no policy gains more on
    it. `real` is what the base policy earned in the play, the agent's own part in the path
    included: with V, Q its values in the mean model, the estimator is

        sum_s rho0(s) V_0(s) + sum_h [ R_h + P_h V_{h+1} - Q_h ](s_h, a_h),

    the expected return whatever V is, as V_h(s) = sum_a pi_h(a|s) Q_h(s,a), and nearly free of
    noise if the model is good.
    """
    records = jax.tree_util.tree_map(lambda x: x[agents], game.agents)
    own = own_pairs(paths.pairs, layout, agents)
    num_actions = game.num_actions
    policies = (players.base.probs, players.planned, players.deviation)

    priced = players.promised is not None
    expected_aggregates = jnp.zeros((game.horizon, 0))
    if players.promised is not None:
        promised_to_all = expected_contributions(game, layout, paths, players.promised)
        mean = promised_to_all.sum(-1, keepdims=True) - promised_to_all[..., agents]
        expected_aggregates = mean / (game.num_agents - 1)

    def back(carry: tuple, now: tuple) -> tuple[tuple, None]:
        values, best, reached, earned, fair = carry
        pairs, total, step, probs_now, bonus, ahead, promised, worth, expected_now = now
        aggregates = _aggregates(game, records, pairs, total)
        probs, reward = laws_at(game, records, aggregates, step)
        values = tuple(
            expected(policy[:, None], backup(probs, reward, value), num_actions)
            for policy, value in zip(probs_now, values, strict=True)
        )
        best = _by_state(backup(probs, reward, best), num_actions).max(1)
        reached = backup(probs, reward + bonus[:, None], reached)
        reached = _by_state(reached, num_actions).max(1)
        if priced:
            priced_probs, priced_reward = laws_at(game, records, expected_now, step)
            known = backup(priced_probs, priced_reward, worth[:, None])
            fair = tuple(
                _by_state(backup(probs, known + more, value - worth[:, None]), num_actions).max(1)
                for more, value in zip((0.0, bonus[:, None]), fair, strict=True)
            )
        error = backup(probs, reward, ahead[:, None]) - promised[:, None]
        earned = earned + jnp.take_along_axis(error, pairs.astype(jnp.int32)[None], 0)[0]
        return (values, best, reached, earned, fair), None

    base = players.base
    zero = jnp.zeros((game.num_states, own.shape[1], agents.shape[0]), jnp.float32)
    start = ((zero, zero, zero), zero, zero, zero[0], (zero, zero))
    steps = jnp.arange(game.horizon, dtype=jnp.int32)
    ahead = jnp.concatenate([base.values[1:], jnp.zeros_like(base.values[:1])])
    worth = jnp.concatenate([players.worth[1:], jnp.zeros_like(players.worth[:1])])
    over = (own, paths.totals, steps, policies, players.bonus, ahead, base.action_values)
    over = (*over, worth, expected_aggregates)
    (values, best, reached, earned, fair), _ = jax.lax.scan(back, start, over, reverse=True)
    initial = start_of(game, agents)
    fair = fair if priced else (best, reached)
    ends = [mean_at_start(initial, v) for v in (*values, best, reached, *fair)]
    value, planned, deviation, best, reached, fair_best, fair_reached = ends
    return Gains(
        value=value,
        planned=planned - value,
        clairvoyant=best - value,
        deviation=deviation - value,
        reach=reached - value,
        real=earned + mean_at_start(initial, base.values[0]) - value,
        priced=fair_best - value,
        priced_reach=fair_reached - value,
    )
