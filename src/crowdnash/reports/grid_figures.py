"""A figure of a grid's table: any metric against any axis, a line for each of the other values."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from crowdnash.messages import nearest
from crowdnash.reports.chart import COLOURS, DASHES, Axis, Chart, Dash, Marker, Panels, Series

_MARKERS: tuple[Marker, ...] = ("circle", "square", "triangle-up", "diamond", "x")
_WIDE = 20.0
_SEED = "seed"


def default_metric(rows: Sequence[Mapping[str, Any]]) -> str:
    """What to draw if nobody says: the mean exploitability where there is one, else the return."""
    certified = any("exploitability_mean_lower" in row for row in rows)
    return "exploitability_mean" if certified else "mean_return"


def default_axis(rows: Sequence[Mapping[str, Any]], axes: Sequence[str]) -> str:
    """What to draw it against: the first axis with several values that is not the seed."""
    several = [axis for axis in axes if len({row[axis] for row in rows}) > 1]
    return next((axis for axis in several if axis != _SEED), (several or list(axes))[0])


def check_axis(against: str, axes: Sequence[str]) -> None:
    """Check that a table can be drawn against something.

    Raises:
        ValueError: it is no axis.
    """
    if against not in axes:
        raise ValueError(f"no setting {against!r} in [grid]{nearest(against, axes) or _list(axes)}")


def metric_against(
    rows: Sequence[Mapping[str, Any]], axes: Sequence[str], metric: str, against: str
) -> Panels:
    """A metric against an axis, with a line for each combination of the other axes' values.

    Seeds are averaged, with their standard error as bars. A metric that has two ends, as
    "exploitability_max" has "exploitability_max_lower" and "_upper", is drawn as a band between
    the ends' means, with a line through its middle.

    Args:
        rows: of the table; those that are not finished are left out.
        axes: the columns that hold settings.
        metric: a column of numbers, or two columns' name without "_lower" and "_upper".
        against: one of `axes`.

    Raises:
        ValueError: there is no such metric or axis, or nothing is finished.
    """
    rows = [row for row in rows if row["status"] == "finished"]
    if not rows:
        raise ValueError("no cell is finished: there is nothing to draw")
    check_axis(against, axes)
    columns = _columns(rows, axes, metric)
    others = [axis for axis in axes if axis not in (against, _SEED)]
    ticks = list(dict.fromkeys(row[against] for row in rows))
    is_text = any(isinstance(tick, str | bool) for tick in ticks)
    places = {tick: float(k) if is_text else float(tick) for k, tick in enumerate(ticks)}
    lines: dict[str, dict[float, list[Float[np.ndarray, " _"]]]] = {}
    for row in rows:
        values = np.array([math.nan if row.get(c) is None else row[c] for c in columns], float)
        name = ", ".join(f"{axis} {row[axis]}" for axis in others) or metric
        lines.setdefault(name, {}).setdefault(places[row[against]], []).append(values)
    looks = list(itertools.product(DASHES, COLOURS))
    series = [
        _line(name, points, *looks[k % len(looks)], _MARKERS[k % len(_MARKERS)])
        for k, (name, points) in enumerate(lines.items())
    ]
    x = _axis(against, list(places.values()), [str(tick) for tick in ticks] if is_text else [])
    title = f"{_words(metric)} against {_words(against)}"
    y = Axis(_words(metric), from_zero=all((one.y >= 0).all() for one in series))
    legend: Any = "below" if len(series) > 1 else "inside"
    return Panels([Chart(title, x, y, series)], "", 1, (7.6, 4.3), legend=legend)


def _columns(rows: Sequence[Mapping[str, Any]], axes: Sequence[str], metric: str) -> list[str]:
    """The columns behind a metric: one, or its two ends."""
    known = {
        name
        for row in rows
        for name, value in row.items()
        if isinstance(value, int | float) and name not in axes
    }
    if metric in known:
        return [metric]
    ends = [f"{metric}_lower", f"{metric}_upper"]
    if known.issuperset(ends):
        return ends
    stems = {name.removesuffix("_lower") for name in known if name.endswith("_lower")}
    names = sorted(known | stems)
    raise ValueError(f"no metric {metric!r}{nearest(metric, names) or _list(names)}")


def _line(
    name: str,
    points: Mapping[float, Sequence[Float[np.ndarray, " _"]]],
    dash: Dash,
    colour: str,
    marker: Marker,
) -> Series:
    x = np.array(sorted(points))
    ends = np.stack([np.mean(points[place], axis=0) for place in x])  # [n, columns]
    middles = [np.mean(points[place], axis=1) for place in x]
    errors = np.array([m.std(ddof=1) / len(m) ** 0.5 if len(m) > 1 else 0.0 for m in middles])
    return Series(
        name,
        x,
        ends.mean(1),
        colour,
        dash,
        marker,
        interval=ends if ends.shape[1] == 2 and np.isfinite(ends).all() else None,
        error=errors if errors.any() else None,
    )


def _axis(name: str, places: Sequence[float], labels: Sequence[str]) -> Axis:
    if labels:
        return Axis(_words(name), ticks=tuple(places), labels=tuple(labels))
    low, high = min(places), max(places)
    scale: Any = "log" if low > 0 and high / low >= _WIDE else "linear"
    return Axis(_words(name), scale=scale, ticks=tuple(places) if len(places) <= 12 else ())


def _words(name: str) -> str:
    return name.replace("_", " ")


def _list(names: Sequence[str]) -> str:
    return f"; there are {', '.join(names)}"
