"""Interquartile means over seeds with bootstrap intervals, as is usual for learning curves.

The interquartile mean leaves out the lowest and the highest quarter. Its interval resamples whole
seeds within each stratum (here one: a game), as Agarwal et al., "Deep Reinforcement Learning at
the Edge of the Statistical Precipice" (2021), advise; percentiles of the resampled means.

Axes: R seeds, E places on a curve.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float

_RESAMPLES = 2000


class RobustMean(NamedTuple):
    """Interquartile means [E] with the ends of their 95% intervals; with one seed all are equal."""

    mean: Float[np.ndarray, " E"]
    low: Float[np.ndarray, " E"]
    high: Float[np.ndarray, " E"]

    def text(self, place: int = -1) -> str:
        """One of the means with its interval, for readers."""
        return f"{self.mean[place]:.3g} [{self.low[place]:.3g}, {self.high[place]:.3g}]"


def interquartile_mean(values: Float[np.ndarray, "R E"]) -> RobustMean:
    """Over seeds, at every place; the same values give the same interval.

    Raises:
        ValueError: there are no seeds, or values that are not finite.
    """
    if len(values) < 1:
        raise ValueError("values must have at least one seed, not 0")
    if not np.isfinite(values).all():
        raise ValueError("values must be finite")
    mean = _middle(values, axis=0)
    if len(values) == 1:
        return RobustMean(mean, mean, mean)
    # One draw of seeds serves all places: curves are resampled whole.
    drawn = np.random.default_rng(0).integers(len(values), size=(_RESAMPLES, len(values)))
    low, high = np.quantile(_middle(values[drawn], axis=1), (0.025, 0.975), axis=0)
    return RobustMean(mean, low, high)


def _middle(values: np.ndarray, axis: int) -> np.ndarray:
    return np.asarray(scipy.stats.trim_mean(values, 0.25, axis=axis), np.float64)
