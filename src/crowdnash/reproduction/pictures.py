"""What the pictures of all studies share: curves of measurements, guides, logarithmic axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from crowdnash.reports.chart import Axis, Chart, Dash, Marker, Panels, Series
from crowdnash.reproduction.fits import Sample

EXPLOITABILITY = "exploitability (total reward)"


def panels(
    charts: Sequence[Chart], columns: int, title: str, height: float = 3.3, share_y: bool = False
) -> Panels:
    """Charts in rows of `columns`, with one legend for all below them."""
    return Panels(charts, title, columns, (3.55, height), share_y, "below")


def log(name: str, ticks: Sequence[float] = ()) -> Axis:
    """A logarithmic axis; `ticks` are the numbers to label instead of powers of ten."""
    return Axis(name, scale="log", ticks=ticks)


def measured(
    sample: Sample, label: str, colour: str, marker: Marker = "", dash: Dash = "solid"
) -> Series:
    """Means over replicates with their standard errors."""
    return Series(label, sample.x, sample.mean, colour, dash, marker, error=sample.error)


def above(series: Series, floor: float) -> list[Series]:
    """The part above `floor`, and the rest as triangles there that point down."""
    hidden = series.x[series.y <= floor]
    ends = None if series.interval is None else np.maximum(series.interval, floor)
    parts = [replace(series, y=np.where(series.y > floor, series.y, np.nan), interval=ends)]
    if hidden.size:
        there = np.full(hidden.shape, floor)
        name = f"below {floor:g}"
        parts.append(Series(name, hidden, there, series.colour, "none", "triangle-down"))
    return parts


def guide(
    x: Float[np.ndarray, " n"], through: tuple[float, float], slope: float, label: str
) -> Series:
    """A thin line y ~ x^slope through a point, for comparison."""
    ends = np.asarray([x.min(), x.max()], float)
    y = through[1] * (ends / through[0]) ** slope
    return Series(label, ends, y, "grey", "dashed", reference=True)
