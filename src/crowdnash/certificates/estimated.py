"""Exploitability of a simulator without laws, from both sides: laws estimated from play (Def. 2).

Lower ends are deviations that were really played in the simulator, so they rest on nothing else.
Upper ends are those of method "paths" in the estimated game, with an error bar from refitting the
laws to resampled trajectories (Efron's bootstrap, 1979): semi-parametric, and no proof. They rest
on agents of equal parameters having equal laws, which are affine in the population and polynomials
of the parameters, of degree 1 or 2, the same at all steps or not: as held-out play has it.

Axes: n agents examined, k of them that deviate, M trajectories, R refits.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jaxtyping import Float, Int, PRNGKeyArray

from crowdnash.certificates.estimated_game import (
    EstimatedGame,
    choose_form,
    estimate_game,
    play_exploring,
    resampled,
)
from crowdnash.certificates.intervals import lower_end, mean_interval, of_best_deviations
from crowdnash.certificates.outside_plan import EstimatePlan
from crowdnash.certificates.path_values import tabulate
from crowdnash.certificates.paths import exploitability_on_paths
from crowdnash.certificates.planning import Setting, mean_model
from crowdnash.certificates.plans import plan_against
from crowdnash.certificates.ppo_deviations import DeviationGains
from crowdnash.certificates.q_deviations import measure_tables
from crowdnash.certificates.result import Exploitability
from crowdnash.certificates.table_deviations import TableDeviations, measure_table_deviations
from crowdnash.games.base import DynamicGame
from crowdnash.games.starts import double_start
from crowdnash.policies.base import Policy
from crowdnash.simulators.game import OutsideGame

_REFITS = 20
_PATHS = 128


class _Spread(NamedTuple):
    """Standard deviations over refits, of gains: each agent's, the largest, the mean."""

    each: Float[np.ndarray, " n"]
    largest: float
    average: float


class _Lower(NamedTuple):
    """What deviations gained in the game itself, [n], and lower ends of largest and mean gain."""

    gain: Float[np.ndarray, " n"]
    error: Float[np.ndarray, " n"]
    kind: np.ndarray
    largest: float
    average: float


def estimated_exploitability(
    game: DynamicGame,
    policy: Policy,
    agents: Int[np.ndarray, " n"],
    key: PRNGKeyArray,
    plan: EstimatePlan,
    confidence: float,
) -> Exploitability:
    """The evaluation by method "estimated"; see `certificate.exploitability`.

    Raises:
        ValueError: an agent leaves, a pair of state and action is never played, or the laws have
            too many numbers.
        SimulatorError: the simulator breaks its contract.
    """
    play_key, paths_key, refit_key, measure_key = jax.random.split(key, 4)
    parts = play_exploring(game, policy, play_key, plan.num_plays)
    form = choose_form(game, parts)
    # From above, half of the error is for the paths and half for the laws.
    tail = (1 - confidence) / 2
    known = (policy, paths_key, _PATHS, agents)
    whole = estimate_game(game, parts, form)
    model = exploitability_on_paths(whole, *known, 1 - tail, plan.num_deviators)
    again = (estimate_game(game, p, form) for p in resampled(parts, refit_key, _REFITS))
    spread = _spread([_mean_gains(x, *known) for x in again])
    quantile = float(scipy.stats.t.ppf(1 - tail / 2, _REFITS - 1))
    lower = _really_played(game, policy, model, measure_key, plan, confidence)
    largest = model.maximum.upper + quantile * spread.largest
    average = model.mean.upper + quantile * spread.average
    return Exploitability(
        agents=agents,
        value=np.asarray(parts[0].rewards, np.float64).sum(1).mean(0)[agents],
        lower=lower.gain,
        upper=np.maximum(model.upper, lower.gain),
        standard_error=lower.error,
        upper_standard_error=np.hypot(model.upper_standard_error, spread.each),
        # What was measured holds whatever was estimated.
        maximum=of_best_deviations(lower.largest, max(lower.largest, largest)),
        mean=of_best_deviations(lower.average, max(lower.average, average)),
        confidence=confidence,
        method="estimated",
        num_trajectories=plan.num_measured,
        lower_kind=lower.kind,
        upper_kind=np.full(len(agents), "estimated"),
        influence=model.influence,
    )


def _mean_gains(
    game: EstimatedGame,
    policy: Policy,
    key: PRNGKeyArray,
    num_paths: int,
    agents: Int[np.ndarray, " n"],
) -> Float[np.ndarray, " n"]:
    """What best responses gain in the mean model of the paths: what foresight adds is left out."""
    model, _ = mean_model(Setting.of(game, policy, key, num_paths), agents)
    probs = np.asarray(tabulate(game, policy, jnp.asarray(agents, jnp.int32)))
    initial = double_start(game, agents)
    best, base = plan_against(model, None), plan_against(model, probs)
    return best.start(initial) - base.start(initial)


def _spread(gains: list[Float[np.ndarray, " n"]]) -> _Spread:
    """How far gains move where laws are fitted to other play; the paths' draws are the same."""
    table = np.stack(gains)
    largest, average = table.max(1).std(ddof=1), table.mean(1).std(ddof=1)
    return _Spread(table.std(0, ddof=1), float(largest), float(average))


def _really_played(
    game: DynamicGame,
    policy: Policy,
    model: Exploitability,
    key: PRNGKeyArray,
    plan: EstimatePlan,
    confidence: float,
) -> _Lower:
    """Play the deviations that the estimate finds most promising, in the game itself."""
    assert model.influence is not None  # method "paths" has it
    agents, count = model.influence.agents, plan.num_measured
    gain, error = np.zeros(len(model.agents)), np.zeros(len(model.agents))
    kind = np.full(len(gain), "none").astype("<U6")
    if not len(agents):
        return _Lower(gain, error, kind, 0.0, 0.0)
    where = {int(agent): k for k, agent in enumerate(model.agents)}
    columns = np.array([where[int(agent)] for agent in agents])
    promise, tables = model.lower[columns], model.influence.deviations.argmax(-1)
    played = _play(game, policy, TableDeviations(agents, tables, promise), key, count)
    gain[columns], kind[columns] = played.gain.mean(1), "played"
    error[columns] = played.gain.std(1, ddof=1) / np.sqrt(count)
    pick = columns[int(np.argmax(promise))]
    largest = lower_end(float(gain[pick]), float(error[pick]), confidence, count)
    # Whoever is not played keeps to the policy, and gains 0.
    average = mean_interval(played.gain.sum(0) / len(gain), confidence).lower
    return _Lower(gain, error, kind, largest, average)


def _play(
    game: DynamicGame, policy: Policy, deviations: TableDeviations, key: PRNGKeyArray, count: int
) -> DeviationGains:
    """Each deviation alone, in a game in JAX or outside it."""
    if isinstance(game, OutsideGame):
        return measure_table_deviations(
            game, policy, deviations, key=key, num_trajectories=count, on_plays=lambda plays: None
        )
    actions = [table.astype(np.int32) for table in deviations.tables]
    return measure_tables(game, policy, deviations.agents, actions, key=key, num_trajectories=count)
