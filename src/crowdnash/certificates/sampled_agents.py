"""Crowds too large to examine everybody: a random sample for the mean, the worst for the maximum.

A coarse pass plans for all N agents in blocks, against the aggregates of a few simulated paths,
which are [H,K] each whatever N is. The agents for whom it promises the largest gains are examined,
and so is a random sample, whose sampling error goes into the interval of the mean (Def. 2).

Axes: N agents, n of them examined, m of them drawn at random, H steps, K components, p paths.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jaxtyping import Float, Int, PRNGKeyArray

from crowdnash.certificates.path_values import laws_at_aggregates, tabulate
from crowdnash.certificates.paths import exploitability_on_paths
from crowdnash.certificates.planning import Setting, mean_model
from crowdnash.certificates.plans import best_values, plan_against
from crowdnash.certificates.result import Exploitability, FrozenGains, Influence
from crowdnash.games.base import PopulationGame
from crowdnash.games.starts import double_start, mean_at_start
from crowdnash.interval import Interval
from crowdnash.policies.base import Policy

_WORST_AGENTS = 32
_COARSE_PATHS = 4
_BLOCK = 65_536


def exploitability_of_sample(
    game: PopulationGame,
    policy: Policy,
    key: PRNGKeyArray,
    num_paths: int,
    num_sampled: int,
    confidence: float,
    own_influence_agents: int,
) -> Exploitability:
    """The certificate by method "paths" of the worst agents and a random sample.

    `maximum` is about the agents examined, among them those whom the coarse pass over everybody
    finds worst; `mean` about all N.
    """
    setting = Setting.of(game, policy, key, num_paths)
    order = np.argsort(-coarse_gains(setting), kind="stable")
    worst = np.sort(order[: min(_WORST_AGENTS, game.num_agents)])
    seed = np.asarray(jax.random.key_data(setting.planning_key)).ravel()
    rng = np.random.default_rng([*seed, num_sampled])
    drawn = np.sort(rng.choice(game.num_agents, num_sampled, replace=False))
    examine = (game, policy, key, num_paths)
    some = exploitability_on_paths(*examine, drawn, confidence, 0)
    largest = exploitability_on_paths(*examine, worst, confidence, own_influence_agents)
    mean = _with_sampling_error(some.mean, some.lower, some.upper, game.num_agents, confidence)
    assert some.frozen is not None  # method "paths" has frozen figures
    assert largest.frozen is not None
    frozen_mean = _with_sampling_error(
        some.frozen.mean, some.frozen.lower, some.frozen.upper, game.num_agents, confidence
    )
    both = _joined(largest, some, np.flatnonzero(~np.isin(drawn, worst)))
    frozen = dataclasses.replace(
        both.frozen,
        maximum=_either(largest.frozen.maximum, some.frozen.maximum),
        mean=frozen_mean,
    )
    return dataclasses.replace(
        both, maximum=_either(largest.maximum, some.maximum), mean=mean, frozen=frozen
    )


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


def _with_sampling_error(
    interval: Interval, lower: np.ndarray, upper: np.ndarray, num_agents: int, confidence: float
) -> Interval:
    """An interval for the sample's mean made one for that of all N agents."""
    count = len(lower)
    if count == num_agents:
        return interval
    left = (1 - count / num_agents) ** 0.5
    wide = scipy.stats.t.ppf(0.5 + confidence / 2, count - 1) * left / count**0.5
    high = upper.std(ddof=1) if np.isfinite(upper).all() else 0.0
    return Interval(
        float(interval.lower - wide * lower.std(ddof=1)), float(interval.upper + wide * high)
    )


def _either(one: Interval, other: Interval) -> Interval:
    """For the largest over two sets of agents; each upper end holds for its own."""
    return Interval(one.lower, max(one.upper, other.upper))


def _joined(first: Any, second: Any, rows: Int[np.ndarray, " r"]) -> Any:
    """The first record with some rows of the second's per-agent arrays below its own."""
    changed = {}
    for item in dataclasses.fields(first):
        value, other = getattr(first, item.name), getattr(second, item.name)
        if isinstance(value, FrozenGains):
            changed[item.name] = _joined(value, other, rows)
        elif isinstance(value, Influence):
            names = ("predicted", "largest", "share")
            added = {k: np.concatenate([getattr(value, k), getattr(other, k)[rows]]) for k in names}
            changed[item.name] = dataclasses.replace(value, **added)
        elif isinstance(value, np.ndarray):
            changed[item.name] = np.concatenate([value, other[rows]])
    return dataclasses.replace(first, **changed)
