"""What an exploitability evaluation found, and its confidence intervals over agents (Def. 2).

Axes: n agents examined, K population paths or trajectories.
"""

from dataclasses import dataclass

import numpy as np
import scipy.stats
from jaxtyping import Float, Int

from crowdnash.interval import Interval


@dataclass(frozen=True)
class OwnInfluence:
    """What holding the population's path fixed leaves out of Def. 2, measured for some agents, [k].

    `difference` is the gain of agent i's deviation when it is really played (the others feel it)
    minus its gain against frozen paths, with `standard_error`; O(1/N). Add it to
    `Exploitability.lower` for an unbiased estimate of what that deviation gains.
    """

    agents: Int[np.ndarray, " k"]
    difference: Float[np.ndarray, " k"]
    standard_error: Float[np.ndarray, " k"]


@dataclass(frozen=True)
class Exploitability:
    """How much single agents can gain by deviating, in units of total reward (Def. 2).

    Per agent, [n]: a known policy gains `lower` over the policy's own return `value`; none gains
    more than `upper` (point estimates, with `standard_error` and `upper_standard_error`; method
    "learned" knows no upper bound, its `upper` is infinite). Over the agents: `maximum` and
    `mean`, intervals that cover at `confidence`. With method "paths" all of this holds against
    frozen population paths; `own_influence` is what that leaves out.
    """

    agents: Int[np.ndarray, " n"]
    value: Float[np.ndarray, " n"]
    lower: Float[np.ndarray, " n"]
    upper: Float[np.ndarray, " n"]
    standard_error: Float[np.ndarray, " n"]
    upper_standard_error: Float[np.ndarray, " n"]
    maximum: Interval
    mean: Interval
    confidence: float
    method: str
    num_trajectories: int
    own_influence: OwnInfluence | None = None

    @property
    def best_response_value(self) -> Float[np.ndarray, " n"]:
        """Return of the deviation behind `lower`."""
        return self.value + self.lower


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
