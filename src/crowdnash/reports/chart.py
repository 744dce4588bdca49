"""Charts that a report's script draws in the page: what is in them, and as JSON.

The script is ours, some five hundred lines in `assets/`, and not one of the libraries: those
that can do this weigh megabytes, which every page would carry, and bring far more than read-outs,
zoom and a table. A chart always stands in for a picture, which stays for readers without scripts.

Axes: n values along x.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Num

_DIGITS = 6
_MAX_POINTS = 1500


@dataclass(frozen=True)
class Series:
    """One line, one layer of bars, or one set of points.

    Attributes:
        name: for the legend.
        y: the values, [n]; NaN where there is none.
        colour: a colour of the page by name ("blue", "red", "green", "yellow", "cyan", "purple",
            "grey"), which suits day and night, or "#rrggbb".
        interval: lower and upper ends around `y`, [n,2], or None.
        dash: of a line: "solid", "dashed", "dotted", "dash-dotted".
        reference: a thin dashed line to compare with; its interval is read out but not drawn.
    """

    name: str
    y: Float[np.ndarray, " n"]
    colour: str = "blue"
    interval: Float[np.ndarray, "n 2"] | None = None
    dash: Literal["solid", "dashed", "dotted", "dash-dotted"] = "solid"
    reference: bool = False


@dataclass(frozen=True)
class Chart:
    """One chart; all series are over the same x.

    Attributes:
        title: what it shows.
        x_name: what x is.
        y_name: what the values are, with units.
        x: positions, [n], increasing.
        series: at least one.
        kind: "lines", or "bars", which are stacked, one each whole x.
        x_whole: whether x counts something, so that ticks are whole numbers.
        x_share: whether x is a share, shown in per cent.
        share: whether the values are.
        from_zero: whether the axis of values starts at 0.
        choice: which choice of the figure's menu shows it, if there is a menu.
    """

    title: str
    x_name: str
    y_name: str
    x: Num[np.ndarray, " n"]
    series: Sequence[Series]
    kind: Literal["lines", "bars"] = "lines"
    x_whole: bool = True
    x_share: bool = False
    share: bool = False
    from_zero: bool = False
    choice: str = ""

    def __post_init__(self) -> None:
        for series in self.series:
            if len(series.y) != len(self.x):
                raise ValueError(
                    f"series must be as long as x, {len(self.x)}, but {series.name!r} has "
                    f"{len(series.y)} values"
                )

    def content(self) -> dict[str, Any]:
        """Return the chart as JSON can hold it, long lines thinned out, six digits a number."""
        kept = np.arange(len(self.x))
        if self.kind == "lines" and len(kept) > _MAX_POINTS:
            kept = np.linspace(0, len(kept) - 1, _MAX_POINTS).round().astype(int)
        return {
            "title": self.title,
            "x_name": self.x_name,
            "y_name": self.y_name,
            "kind": self.kind,
            "x_whole": self.x_whole,
            "x_share": self.x_share,
            "share": self.share,
            "from_zero": self.from_zero,
            "choice": self.choice,
            "x": numbers(self.x[kept]),
            "series": [_series(one, kept) for one in self.series],
        }


def _series(series: Series, kept: np.ndarray) -> dict[str, Any]:
    content = {
        "name": series.name,
        "colour": series.colour,
        "dash": series.dash,
        "reference": series.reference,
        "y": numbers(series.y[kept]),
    }
    if series.interval is not None:
        content["low"], content["high"] = (numbers(end[kept]) for end in series.interval.T)
    return content


def numbers(values: Num[np.ndarray, " n"]) -> list[int | float | None]:
    """Return numbers for JSON: whole ones as they are, others to six digits, None if not finite."""
    if np.issubdtype(values.dtype, np.integer):
        return [int(value) for value in values]
    return [float(f"{value:.{_DIGITS}g}") if np.isfinite(value) else None for value in values]


def page_data(content: Mapping[str, Any]) -> str:
    """Return JSON that can stand inside a script element, whatever text is in it."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    # ASCII only (as json.dumps writes), and nothing that could open or close an element.
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
