"""Confidence intervals over agents: the largest gain and the mean gain (Def. 2).

Axes: n agents examined, K population paths.
"""

import numpy as np
import scipy.stats

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
    count = len(lower_by_path)
    wide = scipy.stats.t.ppf(1 - (1 - confidence) / 2, count - 1) / np.sqrt(count)
    lower = lower_by_path.mean() - wide * lower_by_path.std(ddof=1)
    if np.isinf(upper_by_path).any():
        return Interval(float(lower), np.inf)
    upper = upper_by_path.mean() + wide * upper_by_path.std(ddof=1)
    return Interval(float(lower), float(upper))
