"""Charts as plain records: what is in them, not how they are drawn.

A chart is described once. `still` draws it with matplotlib, for the picture files and for readers
without scripts; `plotly` writes it for the page. Neither adds data of its own.

Axes: n values along x, R rows and T columns of a heat map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Num
from matplotlib.figure import Figure

Dash = Literal["solid", "dashed", "dotted", "dash-dotted", "long", "none"]
Marker = Literal["", "circle", "square", "triangle-up", "triangle-down", "diamond", "x"]

COLOURS = ("blue", "red", "green", "purple", "yellow", "cyan")
DASHES: tuple[Dash, ...] = ("solid", "dashed", "dotted", "dash-dotted")
"""In this order where a chart has several lines that are alike."""

_MAX_POINTS = 1500
_MAX_MARKERS = 60


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        name: what is on it, with units.
        unit: how its numbers are written: "count" in whole numbers, "share" in per cent.
        scale: how they are spaced.
        from_zero: whether a linear axis starts at 0.
        ticks: the numbers to write, instead of round ones.
        labels: what to write there, instead of the numbers.
        switch: whether the reader of a page may change `scale`.
    """

    name: str = ""
    unit: Literal["number", "count", "share"] = "number"
    scale: Literal["linear", "log"] = "linear"
    from_zero: bool = False
    ticks: Sequence[float | int] = ()
    labels: Sequence[str] = ()
    switch: bool = False


@dataclass(frozen=True)
class Series:
    """One line, one layer of a stack, or one set of points.

    Attributes:
        name: for the legend; series of one name share an entry.
        x: positions, [n].
        y: values, [n]; NaN where there is none.
        colour: a name in `style.COLOURS`, which suits day and night, or "#rrggbb".
        dash: of the line; "none" draws the markers alone.
        marker: its shape, left out where there are many points; "" for none.
        interval: lower and upper ends around `y`, [n,2], or None; drawn as a band.
        error: standard errors of `y`, [n], or None; drawn as bars.
        reference: a thin line to compare with; its interval is read out but not drawn.
        opacity: of everything, 0 to 1.
    """

    name: str
    x: Num[np.ndarray, " n"]
    y: Num[np.ndarray, " _"]
    colour: str = "blue"
    dash: Dash = "solid"
    marker: Marker = ""
    interval: Num[np.ndarray, "_ 2"] | None = None
    error: Num[np.ndarray, " _"] | None = None
    reference: bool = False
    opacity: float = 1.0

    def __post_init__(self) -> None:
        for name in ("y", "interval", "error"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.x):
                raise ValueError(
                    f"{name} must be as long as x, {len(self.x)}, but that of {self.name!r} has "
                    f"{len(values)} values"
                )

    @property
    def symbol(self) -> Marker:
        """The marker, if there are few enough points to draw it."""
        return self.marker if len(self.x) <= _MAX_MARKERS or self.dash == "none" else ""

    def thinned(self) -> Series:
        """At most 1500 of many points, evenly spaced, with both ends."""
        if len(self.x) <= _MAX_POINTS:
            return self
        kept = np.linspace(0, len(self.x) - 1, _MAX_POINTS).round().astype(int)
        columns = ("x", "y", "interval", "error")
        some = {name: v[kept] for name in columns if (v := getattr(self, name)) is not None}
        return replace(self, **some)


@dataclass(frozen=True)
class Chart:
    """Lines or points, or bars that are stacked, one at each whole x.

    Attributes:
        title: what it shows.
        x: the axis.
        y: the axis of the values.
        series: at least one.
        kind: "lines" (points too) or "stack".
        verticals: x at which a thin line is drawn.
        choice: which entry of its picture's menu shows it, if there is a menu.
    """

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    kind: Literal["lines", "stack"] = "lines"
    verticals: Sequence[float] = ()
    choice: str = ""

    @property
    def floor(self) -> float:
        """What stands for 0 and below on a logarithmic axis: half the least positive value."""
        values = np.concatenate([series.y for series in self.series])
        positive = values[values > 0]
        return float(positive.min()) / 2 if positive.size else 0.5


@dataclass(frozen=True)
class HeatMap:
    """Values by row and column, as colours from 0 to `top`.

    Attributes:
        title: what it shows.
        x: the axis of the columns, which are counted from `first`.
        rows: the names of the rows, the first on top.
        values: the values, [R,T].
        unit: what the values are.
        top: the value of the strongest colour.
        colour: of that, "blue" or "red".
        choice: which entry of its picture's menu shows it, if there is a menu.
        first: the number of the first column.
    """

    title: str
    x: Axis
    rows: Sequence[str]
    values: Float[np.ndarray, "R T"]
    unit: str
    top: float = 1.0
    colour: Literal["blue", "red"] = "blue"
    choice: str = ""
    first: int = 0


@dataclass(frozen=True)
class Panels:
    """Charts that belong together, row by row.

    Attributes:
        charts: the charts.
        title: of all of them; one chart has its own.
        columns: how many stand beside each other.
        size: width and height of one of them, inches.
        share_y: whether charts in a row have one range of values.
        legend: where the names of all series stand in the picture: "inside" of every chart, or
            once for all "right" of or "below" them.
    """

    charts: Sequence[Chart | HeatMap]
    title: str = ""
    columns: int = 1
    size: tuple[float, float] = (7.6, 3.8)
    share_y: bool = False
    legend: Literal["inside", "right", "below"] = "inside"


@dataclass(frozen=True)
class Picture:
    """One picture of a report.

    Attributes:
        name: its file name without suffix.
        caption: what it shows and how to read it.
        content: its charts, or a drawing that only matplotlib can make.
        choice_name: what the reader of the page picks, if the charts have different `choice`s.
        choices: those that the still picture shows; all if empty.
        still_note: what the still picture needs said.
    """

    name: str
    caption: str
    content: Panels | Figure
    choice_name: str = ""
    choices: Sequence[str] = field(default=())
    still_note: str = ""

    @property
    def title(self) -> str:
        """The title over all its charts."""
        return "" if isinstance(self.content, Figure) else self.content.title

    @property
    def charts(self) -> Sequence[Chart | HeatMap]:
        """The charts, none for a drawing."""
        return () if isinstance(self.content, Figure) else self.content.charts
