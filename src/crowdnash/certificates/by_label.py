"""Who gains: a certificate's gains by group or type of agent (Def. 2).

Axes: n agents examined, N agents of the game.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.stats

from crowdnash.certificates.intervals import of_best_deviations
from crowdnash.interval import Interval

if TYPE_CHECKING:
    from crowdnash.certificates.result import Exploitability


@dataclass(frozen=True)
class LabelGains:
    """What the agents of one label could gain (Def. 2).

    `maximum` and `mean` cover the largest and the mean gain of the `num_agents` agents examined
    that have this label, each at the certificate's confidence; `value` is their mean return.
    """

    label: Any
    num_agents: int
    maximum: Interval
    mean: Interval
    value: float


def gains_by_label(certificate: "Exploitability", labels: Any) -> tuple[LabelGains, ...]:
    """See `Exploitability.by`."""
    labels, agents = np.asarray(labels), certificate.agents
    if labels.ndim != 1 or len(labels) <= agents.max():
        raise ValueError(
            f"labels must have one entry an agent of the game, more than {agents.max()}, not "
            f"{list(labels.shape)}"
        )
    own = labels[agents]
    return tuple(_gains(certificate, label, own == label) for label in np.unique(own))


def _gains(certificate: "Exploitability", label: Any, some: np.ndarray) -> LabelGains:
    count = int(some.sum())
    lower, upper = certificate.lower[some], certificate.upper[some]
    errors = certificate.standard_error[some], certificate.upper_standard_error[some]
    tail = (1 - certificate.confidence) / 2
    samples = max(2, certificate.num_trajectories)
    plays = np.full(count, samples)
    if certificate.influence is not None and certificate.lower_kind is not None:
        # Gains that were really played rest on fewer plays.
        plays[certificate.lower_kind[some] == "played"] = certificate.influence.num_plays
    # Whichever agent of the label is the worst: none of them was picked beforehand. An upper end is
    # the smaller of two where foresight is priced, each at half of the error.
    each, half = tail / count, tail / count / 2
    lowest = lower - scipy.stats.t.ppf(1 - each, plays - 1) * errors[0]
    highest = upper + scipy.stats.t.ppf(1 - half, samples - 1) * errors[1]
    # Agents share paths: the error of a mean is at most the mean of the errors.
    average = lower - scipy.stats.t.ppf(1 - tail, plays - 1) * errors[0]
    return LabelGains(
        label=label.item() if isinstance(label, np.generic) else label,
        num_agents=count,
        maximum=of_best_deviations(float(lowest.max()), float(highest.max())),
        mean=of_best_deviations(float(average.mean()), float(highest.mean())),
        value=float(certificate.value[some].mean()),
    )
