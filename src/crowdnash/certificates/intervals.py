"""Confidence intervals over agents: the largest gain and the mean gain (Def. 2).

Axes: n agents examined, K population paths.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float

from crowdnash.interval import Interval


def lower_end(mean: float, error: float, confidence: float, count: int) -> float:
    """The lower end for one number, two-sided at `confidence`, from `count` samples of it.

    For the largest gain over agents: that of an agent who was picked on other samples.
    """
    return float(mean - scipy.stats.t.ppf(0.5 + confidence / 2, count - 1) * error)


def mean_interval(by_path: np.ndarray, confidence: float) -> Interval:
    """The mean gain over the agents, two-sided at `confidence`, from its value on every path [K].

    Agents share paths: the error of a mean over agents is that of the per-path means.
    """
    if np.isinf(by_path).any():
        return Interval(np.inf, np.inf)
    count = len(by_path)
    wide = scipy.stats.t.ppf(0.5 + confidence / 2, count - 1) / np.sqrt(count)
    wide *= by_path.std(ddof=1)
    return Interval(float(by_path.mean() - wide), float(by_path.mean() + wide))


def of_best_deviations(lower: float, upper: float) -> Interval:
    """The interval for what a best deviation gains (Def. 2), from ends of what some deviation does.

    Whoever keeps to the policy deviates too, and gains exactly 0: no exploitability is below that,
    whatever was measured. Only ends are raised to 0, never the gains of deviations themselves.
    """
    return Interval(max(lower, 0.0), max(upper, 0.0))


class Estimate(NamedTuple):
    """One estimate of upper ends: per agent with standard errors, and their mean on every path."""

    mean: Float[np.ndarray, " n"]
    error: Float[np.ndarray, " n"]
    by_path: Float[np.ndarray, " K"]


class UpperEnds(NamedTuple):
    """Per agent the estimate with the lower end, and upper ends of the largest and the mean."""

    mean: Float[np.ndarray, " n"]
    error: Float[np.ndarray, " n"]
    largest: float
    average: float


def upper_ends(estimates: Sequence[Estimate], confidence: float) -> UpperEnds:
    """The smallest of several upper ends, at confidence split among them.

    The largest must hold for whichever agent is the worst: a union bound over all of them.
    """
    count, num_paths = len(estimates), len(estimates[0].by_path)
    num_agents = len(estimates[0].mean)
    tail = (1 - confidence) / 2 / count
    quantile = scipy.stats.t.ppf(1 - tail / num_agents, num_paths - 1)
    ends = np.stack([e.mean + quantile * e.error for e in estimates])
    best = ends.argmin(0)[None]
    means, errors = (np.stack([e[k] for e in estimates]) for k in range(2))
    averages = [mean_interval(e.by_path, 1 - 2 * tail).upper for e in estimates]
    return UpperEnds(
        np.take_along_axis(means, best, 0)[0],
        np.take_along_axis(errors, best, 0)[0],
        float(ends.min(0).max()),
        min(averages),
    )
