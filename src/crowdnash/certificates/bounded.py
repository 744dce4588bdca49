"""A lower end for a mean of bounded numbers that holds however few of them there are.

By betting (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting",
JRSS B 2024). Of independent X_1..X_n in [0,1] whose mean is at most m, whoever stakes a share c of
all he has on each, at odds that m makes fair, ends with

    K_c(m) = prod_i ( 1 - c + c X_i / m ),      E K_c(m) <= 1,

so that K >= 1/delta has probability delta at most (Markov), for the average of K over several c as
well. The lower end is the largest m at which that happens. It knows the variance, as empirical
Bernstein bounds do (Maurer and Pontil 2009), at a quarter of their width for a few hundred numbers
that are close together.
"""

import numpy as np
import scipy.special
from jaxtyping import Float

from crowdnash.interval import Interval

_STAKES = 2.0 ** -np.arange(12)
"""Stakes c; large ones win where numbers lie close together, small ones where there are many."""

_HALVINGS = 60


def bounded_lower_end(samples: Float[np.ndarray, " n"], limits: Interval, tail: float) -> float:
    """What the mean exceeds with probability 1 - `tail`, for independent samples within `limits`.

    Nothing else is assumed, and n >= 1 may be small. For the largest gain over agents: that of an
    agent who was picked on other samples (Def. 2).
    """
    width = limits.upper - limits.lower
    scaled = np.clip((np.asarray(samples, np.float64) - limits.lower) / width, 0.0, 1.0)
    # At the samples' own mean nobody wins (the geometric mean is at most the arithmetic one).
    low, high = 0.0, float(scaled.mean())
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _log_wealth(scaled, middle) >= -np.log(tail):
            low = middle
        else:
            high = middle
    return limits.lower + width * low


def _log_wealth(samples: Float[np.ndarray, " n"], mean: float) -> float:
    """Logarithm of the average of K_c(mean) over the stakes; minus infinity for ruin at all."""
    if mean <= 0:
        return np.inf if samples.any() else 0.0
    with np.errstate(divide="ignore"):
        each = np.log1p(_STAKES[:, None] * (samples / mean - 1)).sum(1)
    return float(scipy.special.logsumexp(each) - np.log(len(_STAKES)))
