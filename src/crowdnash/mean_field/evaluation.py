"""Mean-field games and their exact values (Defs. 4, 5, 9).

Everything here takes numbers or traced arrays. With numbers, arguments are checked, the work is
done in float64 and results are NumPy float64 arrays or Python floats. Inside `jax.jit`, `vmap` or
`grad` the same functions are plain traceable arithmetic in the precision of their arguments.

Axes: G populations (groups), H steps, S states, A actions. Policies, flows and Q are [H,S,A], or
[G,H,S,A] (needed if the game has several populations; results then have the axis G too).
"""

from typing import Any, NamedTuple

import numpy as np
from jax.core import Tracer
from jaxtyping import Float

from crowdnash.checks import as_array, check_count, check_flag, check_number
from crowdnash.mean_field.game import (
    MeanFieldGame,
    Numbers,
    by_step,
    check_is_mean_field,
    check_laws,
    checked_distribution,
    grouped_laws,
    in_double,
    is_traced,
)
from crowdnash.mean_field.recursions import (
    Population,
    entropy,
    gains,
    greedy,
    laws_along,
    optimal_q_values,
    population_under,
    q_values_of,
)


class Laws(NamedTuple):
    """P [S,A,S] and R [S,A] at one population (Def. 4); with the axis G if there are several."""

    transition: Float[Numbers, "..."]
    reward: Float[Numbers, "..."]


class BestResponse(NamedTuple):
    """Against a frozen flow (Def. 5): a deterministic `policy` and its `q_values`, [H,S,A]."""

    policy: Float[Numbers, "..."]
    q_values: Float[Numbers, "..."]


class Evaluation(NamedTuple):
    """Per population, [G]: V(Lambda(pi), pi), the best response's value, their gap (Def. 5)."""

    value: Float[Numbers, " G"]
    best_response_value: Float[Numbers, " G"]
    exploitability: Float[Numbers, " G"]


def laws_at(mfg: MeanFieldGame, mu: Any, step: Any = 0) -> Laws:
    """P(.|s,a,mu) [S,A,S] and R(s,a,mu) [S,A] at step h; mu [S,A], or [G,S,A] (Def. 4).

    Raises:
        ValueError: mu does not consist of distributions over S x A or `step` is not in 0..H-1.
        GameError: The game's P is not a distribution.
    """
    check_is_mean_field(mfg)
    if not isinstance(step, Tracer):
        check_count("step", step, 0, mfg.horizon - 1)
    pair = (mfg.num_states, mfg.num_actions)
    mu = as_array("mu", mu)
    single = mfg.num_groups == 1 and mu.ndim != 3
    mu = checked_distribution("mu", mu, pair if single else (mfg.num_groups, *pair), axes=2)
    population = in_double(_laws_once, mfg, mu[None] if single else mu, np.int32(step))
    check_laws(mfg, *population[1:], first_step=0 if is_traced(step) else int(step))
    drop = (0, 0) if single else (0,)
    return Laws(population.transition[drop], population.reward[drop])


def _laws_once(mfg: MeanFieldGame, mu: Any, step: Any) -> Population:
    return Population(*(x[None] for x in (mu, *grouped_laws(mfg, mu, step))))


def population_flow(mfg: MeanFieldGame, probs: Any) -> Float[Numbers, "..."]:
    """Lambda(pi) = (mu_0, .., mu_{H-1}), shaped as `probs`: [H,S,A] or [G,H,S,A] (Def. 5).

    Raises:
        ValueError: `probs` has another shape or is not a policy.
        GameError: The game's laws are not finite or P is not a distribution along the flow.
    """
    policy, single = by_step(mfg, "probs", probs, axes=1)
    population = in_double(population_under, mfg, policy)
    check_laws(mfg, *population[1:])
    return _by_group(population.flow, single)


def q_values(
    mfg: MeanFieldGame,
    probs: Any,
    *,
    temperature: Any = 0.0,
    flow: Any = None,
    own_entropy: bool = True,
) -> Float[Numbers, "..."]:
    """Q^tau_h(s,a) of Def. 9, shaped as `probs`: expected reward to come, in the game's units.

    Args:
        mfg: The mean-field game.
        probs: The agent's policy.
        temperature: tau >= 0.
        flow: The frozen population; by default Lambda(probs).
        own_entropy: False for q^tau = Q^tau - tau H(pi_h), without the entropy of the present step.

    Raises:
        ValueError: `temperature` is out of range, or `probs` or `flow` has another shape or does
            not consist of distributions.
        GameError: As `population_flow`.
    """
    policy, single = by_step(mfg, "probs", probs, axes=1)
    check_number("temperature", temperature, least=0)
    check_flag("own_entropy", own_entropy)
    tau = temperature if isinstance(temperature, Tracer) else np.asarray(temperature, np.float64)
    frozen = None if flow is None else by_step(mfg, "flow", flow, axes=2)[0]
    population, q = in_double(_regularised, mfg, policy, frozen, tau, own_entropy)
    check_laws(mfg, *population[1:])
    return _by_group(q, single)


def _regularised(
    mfg: MeanFieldGame, policy: Any, flow: Any, temperature: Any, own_entropy: bool
) -> tuple[Population, Any]:
    population = population_under(mfg, policy) if flow is None else laws_along(mfg, flow)
    q = q_values_of(population, policy, temperature)
    return population, q if own_entropy else q - temperature * entropy(policy)[..., None]


def values(
    mfg: MeanFieldGame, probs: Any, *, temperature: Any = 0.0, flow: Any = None
) -> Float[Numbers, "..."]:
    """V_h(s) = sum_a pi_h(a|s) Q^tau_h(s,a), [H,S] or [G,H,S].

    V(mu, pi) of Def. 5 is the mean of V_0 over the initial distribution (tau = 0).

    Args:
        mfg: The game.
        probs: The policy, [H,S,A] or [G,H,S,A].
        temperature: As in `q_values`.
        flow: As in `q_values`.

    Raises:
        ValueError: As `q_values`.
    """
    q = q_values(mfg, probs, temperature=temperature, flow=flow)
    policy = probs if is_traced(q, probs) else np.asarray(probs, np.float64)
    return (policy * q).sum(-1)


def best_response(mfg: MeanFieldGame, flow: Any) -> BestResponse:
    """A best response to the population frozen at `flow` [H,S,A] or [G,H,S,A] (Def. 5).

    Deterministic; among equally good actions the first. Illegal actions are worth -inf.

    Raises:
        ValueError: `flow` has another shape or does not consist of distributions.
        GameError: As `population_flow`.
    """
    mu, single = by_step(mfg, "flow", flow, axes=2)
    population, q = in_double(_optimal, mfg, mu)
    check_laws(mfg, *population[1:])
    best = in_double(greedy, q)
    return BestResponse(_by_group(best, single), _by_group(q, single))


def _optimal(mfg: MeanFieldGame, flow: Any) -> tuple[Population, Any]:
    population = laws_along(mfg, flow)
    return population, optimal_q_values(mfg, population)


def evaluate(mfg: MeanFieldGame, probs: Any) -> Evaluation:
    """Values and exploitability (Def. 5), for each population, of a policy `probs` that all play.

    `probs` [H,S,A] or [G,H,S,A].

    Raises:
        ValueError: As `population_flow`.
    """
    policy, _ = by_step(mfg, "probs", probs, axes=1)
    population = in_double(population_under, mfg, policy)
    check_laws(mfg, *population[1:])
    own, best = in_double(gains, mfg, population)
    return Evaluation(own, best, best - own)


def exploitability(mfg: MeanFieldGame, probs: Any) -> Any:
    """E(pi) = max over pi' of V(Lambda(pi), pi') - V(Lambda(pi), pi) (Def. 5), a float.

    `probs` [H,S,A] or [G,H,S,A]; of several populations the largest, and `evaluate` gives each.

    Raises:
        ValueError: As `population_flow`.
    """
    largest = evaluate(mfg, probs).exploitability.max()
    return largest if isinstance(largest, Tracer) else float(largest)


def _by_group(array: Any, single: bool) -> Any:
    return array[:, 0] if single else array.swapaxes(0, 1)
