"""Means over replicates and power laws fitted to them.

Axes: R replicates (seeds), n values of x.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from crowdnash.runs.metrics_log import Row


def number(row: Row, column: str) -> float:
    """A cell that is known to hold a number."""
    value = row[column]
    assert isinstance(value, int | float), column
    return float(value)


class Sample(NamedTuple):
    """Replicated measurements: `values` [R,n] at the sorted `x` [n]."""

    x: Float[np.ndarray, " n"]
    values: Float[np.ndarray, "R n"]

    @property
    def mean(self) -> Float[np.ndarray, " n"]:
        """Over replicates."""
        return self.values.mean(0)

    @property
    def error(self) -> Float[np.ndarray, " n"]:
        """Standard error of the mean; 0 with a single replicate."""
        count = len(self.values)
        if count == 1:
            return np.zeros(self.values.shape[1])
        return self.values.std(0, ddof=1) / np.sqrt(count)

    def at(self, chosen: Bool[np.ndarray, " n"]) -> Sample:
        """The part at some of the x."""
        return Sample(self.x[chosen], self.values[:, chosen])

    @property
    def clear(self) -> Bool[np.ndarray, " n"]:
        """Where every replicate is positive and the mean is more than 3 standard errors."""
        return (self.values > 0).all(0) & (self.mean > 3 * self.error)


def sample(rows: Iterable[Row], x: str, y: str) -> Sample:
    """Gather column `y` by column `x`; every x must have the same number of replicates.

    Raises:
        ValueError: the numbers of replicates differ, or there are no rows.
    """
    cells: dict[float, list[float]] = {}
    for row in rows:
        cells.setdefault(number(row, x), []).append(number(row, y))
    counts = {len(values) for values in cells.values()}
    if len(counts) != 1:
        raise ValueError(f"rows must have as many replicates at every {x}, not {sorted(counts)}")
    places = sorted(cells)
    return Sample(np.asarray(places, float), np.asarray([cells[p] for p in places], float).T)


class PowerLaw(NamedTuple):
    """y = exp(intercept) x^slope, `slope` with a standard error, fitted to `num_points` x."""

    slope: float
    standard_error: float
    intercept: float
    num_points: int


def power_law(measured: Sample) -> PowerLaw | None:
    """Least squares of log y on log x, replicate by replicate; None if that is not possible.

    The slope is the mean of the replicates' slopes, its standard error theirs over sqrt(R); with
    one replicate that of the regression, 0 for two points. Two x at least, and positive y.
    """
    if len(measured.x) < 2 or not (measured.values > 0).all():
        return None
    x, y = np.log(measured.x), np.log(measured.values)
    centred = x - x.mean()
    slopes = y @ centred / (centred @ centred)
    intercepts = y.mean(1) - slopes * x.mean()
    count = len(slopes)
    if count > 1:
        error = slopes.std(ddof=1) / np.sqrt(count)
    elif len(x) > 2:
        residuals = y[0] - intercepts[0] - slopes[0] * x
        error = np.sqrt(residuals @ residuals / (len(x) - 2) / (centred @ centred))
    else:
        error = 0.0
    return PowerLaw(float(slopes.mean()), float(error), float(intercepts.mean()), len(x))


def fit_text(fact: Mapping[str, Any] | None) -> str:
    """A fit, as `as_fact` stored it, for readers."""
    if fact is None:
        return "nothing above noise"
    return f"{fact['slope']:.2f} ± {fact['standard_error']:.2f} ({fact['num_points']} points)"


def as_fact(law: PowerLaw | None) -> dict[str, float | int] | None:
    """A fit for `facts`."""
    return None if law is None else law._asdict()
