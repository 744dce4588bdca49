"""Crowds too large to examine everybody: a random sample for the mean, the worst for the maximum.

A coarse pass plans for all N agents in blocks, against the aggregates of a few simulated paths,
which are [H,K] each whatever N is. The agents for whom it promises the largest gains are examined,
and so is a random sample, whose sampling error goes into the interval of the mean (Def. 2); what
the coarse pass knows of everybody makes that error small.

Axes: N agents, m of them drawn at random, H steps, K components, p paths.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jaxtyping import Float, Int, PRNGKeyArray

from crowdnash.certificates.intervals import of_best_deviations
from crowdnash.certificates.path_values import laws_at_aggregates, tabulate
from crowdnash.certificates.paths import exploitability_on_paths
from crowdnash.certificates.planning import Setting, mean_model
from crowdnash.certificates.plans import best_values, plan_against
from crowdnash.certificates.result import Exploitability
from crowdnash.games.base import PopulationGame
from crowdnash.games.starts import double_start, mean_at_start
from crowdnash.policies.base import Policy

_WORST_AGENTS = 32
_COARSE_PATHS = 4
_LEAST_TO_REGRESS = 30
_BLOCK = 65_536


def exploitability_of_sample(
    game: PopulationGame,
    policy: Policy,
    key: PRNGKeyArray,
    num_paths: int,
    num_sampled: int,
    confidence: float,
    own_influence_agents: int,
    mesh: Any = None,
) -> Exploitability:
    """The certificate by method "paths" of the worst agents and a random sample.

    `maximum` is about the agents examined, among them those whom the coarse pass over everybody
    finds worst; `mean` about all N.
    """
    setting = Setting.of(game, policy, key, num_paths, mesh=mesh)
    coarse = coarse_gains(setting)
    order = np.argsort(-coarse, kind="stable")
    worst = np.sort(order[: min(_WORST_AGENTS, game.num_agents)])
    seed = np.asarray(jax.random.key_data(setting.planning_key)).ravel()
    rng = np.random.default_rng([*seed, num_sampled])
    drawn = np.sort(rng.choice(game.num_agents, num_sampled, replace=False))
    examined = np.union1d(worst, drawn)
    counted = np.isin(examined, drawn)
    e = exploitability_on_paths(
        game, policy, key, num_paths, examined, confidence, own_influence_agents, counted, mesh
    )
    assert e.frozen is not None  # method "paths" has frozen figures
    mean, frozen_mean = (
        of_best_deviations(
            _for_everybody(x.mean.lower, x.lower[counted], coarse, drawn, -confidence),
            _for_everybody(x.mean.upper, x.upper[counted], coarse, drawn, confidence),
        )
        for x in (e, e.frozen)
    )
    return dataclasses.replace(e, mean=mean, frozen=dataclasses.replace(e.frozen, mean=frozen_mean))


def coarse_gains(setting: Setting) -> Float[np.ndarray, " N"]:
    """What every agent's best response gains in the mean model of a few paths' aggregates.

    An agent's own part in the aggregate, 1/N of it, is left in.
    """
    game = setting.game
    few = setting._replace(num_paths=min(setting.num_paths, _COARSE_PATHS))
    _, totals = mean_model(few, np.arange(1))
    aggregates = jnp.asarray(totals / game.num_agents, jnp.float32)
    gains = []
    for first in range(0, game.num_agents, _BLOCK):
        # The last block starts earlier than it need: one program serves all.
        start = max(0, min(first, game.num_agents - _BLOCK))
        index = jnp.arange(start, min(start + _BLOCK, game.num_agents), dtype=jnp.int32)
        model = laws_at_aggregates(game, index, aggregates)
        own = plan_against(model, np.asarray(tabulate(game, setting.policy, index)))
        more = mean_at_start(double_start(game, index), best_values(model) - own.values[0])
        gains.append(more[first - start :])
    return np.concatenate(gains)


def _for_everybody(
    end: float,
    gains: Float[np.ndarray, " m"],
    coarse: Float[np.ndarray, " N"],
    drawn: Int[np.ndarray, " m"],
    confidence: float,
) -> float:
    """An end of the interval for the sample's mean gain made one for that of all N agents.

    What the coarse pass knows of everybody takes most of the sampling error away: the mean is
    estimated by regression of the sample's gains on its coarse ones. A negative confidence stands
    for the lower end.
    """
    count, num_agents = len(drawn), len(coarse)
    if count == num_agents or not np.isfinite(gains).all():
        return end
    away = coarse[drawn] - coarse[drawn].mean()
    slope, free = 0.0, count - 1
    if count >= _LEAST_TO_REGRESS and away.any():
        slope, free = float(gains @ away / (away @ away)), count - 2
    rest = gains - gains.mean() - slope * away
    error = np.sqrt((rest**2).sum() / free / count * (1 - count / num_agents))
    wide = scipy.stats.t.ppf(0.5 + abs(confidence) / 2, free) * error
    middle = end + slope * (coarse.mean() - coarse[drawn].mean())
    return float(middle + np.copysign(wide, confidence))
