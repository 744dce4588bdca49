"""Confidence intervals over agents: the largest gain and the mean gain (Def. 2).

Axes: n agents examined, K population paths.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float

from crowdnash.interval import Interval


def maximum_interval(
    lower: np.ndarray,
    lower_error: np.ndarray,
    upper: np.ndarray,
    upper_error: np.ndarray,
    planned_gain: np.ndarray,
    confidence: float,
    num_paths: int,
) -> Interval:
    """The largest gain over the agents, two-sided at `confidence`.

    The agent is picked on the planning paths, so that fresh paths judge it without bias. The
    upper end must hold for whichever agent is the worst: a union bound over all of them.
    """
    tail = (1 - confidence) / 2
    pick = int(np.argmax(planned_gain))
    one = scipy.stats.t.ppf(1 - tail, num_paths - 1)
    all_ = scipy.stats.t.ppf(1 - tail / len(lower), num_paths - 1)
    return Interval(
        float(lower[pick] - one * lower_error[pick]), float((upper + all_ * upper_error).max())
    )


def mean_interval(
    lower_by_path: np.ndarray, upper_by_path: np.ndarray, confidence: float
) -> Interval:
    """The mean gain over the agents, two-sided at `confidence`, from its value on every path [K].

    Agents share paths: the error of a mean over agents is that of the per-path means.
    """
    if np.isinf(lower_by_path).any():
        return Interval(np.inf, np.inf)
    count = len(lower_by_path)
    wide = scipy.stats.t.ppf(1 - (1 - confidence) / 2, count - 1) / np.sqrt(count)
    lower = lower_by_path.mean() - wide * lower_by_path.std(ddof=1)
    if np.isinf(upper_by_path).any():
        return Interval(float(lower), np.inf)
    upper = upper_by_path.mean() + wide * upper_by_path.std(ddof=1)
    return Interval(float(lower), float(upper))


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
    averages = [mean_interval(e.by_path, e.by_path, 1 - 2 * tail).upper for e in estimates]
    return UpperEnds(
        np.take_along_axis(means, best, 0)[0],
        np.take_along_axis(errors, best, 0)[0],
        float(ends.min(0).max()),
        min(averages),
    )
