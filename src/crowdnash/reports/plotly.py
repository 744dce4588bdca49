"""Charts written for Plotly, which draws them in the page.

Why Plotly: it draws bands, error bars, stacks and heat maps, reads out and zooms by itself, its
buttons can be reached and heard without a mouse, it is kept by a company and many users, and its
licence (MIT) allows a copy in every page. Its "cartesian" bundle needs neither network nor `eval`,
so the page can forbid both. Compressed, it adds 0.66 MB to a page. The full bundle, which the
Python package `plotly` brings, would add 4.8 MB and a dependency at run time; Bokeh 1.4 MB and
several dependencies; Vega needs `eval` or an interpreter; ECharts (1.1 MB) has no bands or error
bars; uPlot (51 kB) has no stacks, heat maps or error bars. Plotly reads nothing out by keyboard;
`assets/report.js` adds that, and a table of the numbers beside every chart.

The copy is `assets/plotly-cartesian.min.js.gz` (licence beside it), version 4.1.1, packed with
`gzip --best --no-name`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
from jaxtyping import Num

from crowdnash.reports.chart import Axis, Chart, HeatMap, Series
from crowdnash.reports.style import COLOURS

_DIGITS = 6
_DASHES = {
    "solid": "solid",
    "dashed": "dash",
    "dotted": "dot",
    "dash-dotted": "dashdot",
    "long": "longdash",
}
_SOFT_LINE = {"gridcolor": "var(--grid)", "linecolor": "var(--soft)", "zeroline": False}


def content(chart: Chart | HeatMap) -> dict[str, Any]:
    """Return a chart as JSON can hold it.

    Colours are written "var(--name)": the page puts in those of day or night. "figure" is Plotly's
    own; the rest is for the script: title, axes' names, menu entry, and the floor that stands for 0
    on a logarithmic axis if the reader may choose it.
    """
    if isinstance(chart, HeatMap):
        unit, floor, figure = chart.unit, None, _heat_map(chart)
    else:
        unit, figure = chart.y.name, _chart(chart)
        floor = numbers(np.array([chart.floor]))[0] if chart.y.switch else None
    return {
        "title": chart.title,
        "x_name": chart.x.name,
        "y_name": unit,
        "choice": chart.choice,
        "log_floor": floor,
        "figure": figure,
    }


def _chart(chart: Chart) -> dict[str, Any]:
    if chart.kind == "stack":
        traces = [_bar(series, chart.y) for series in chart.series]
    else:
        traces = [trace for series in chart.series for trace in _lines(series.thinned(), chart.y)]
    points = all(series.dash == "none" for series in chart.series)
    values = np.concatenate([np.asarray(series.x, float) for series in chart.series])
    layout: dict[str, Any] = {
        **_layout(),
        "xaxis": _axis(chart.x, values),
        "yaxis": {**_axis(chart.y, np.array([0.0, np.inf])), "fixedrange": True},
        "barmode": "stack",
        "bargap": 0.06,
        "hovermode": "closest" if points else "x unified",
        "showlegend": len(chart.series) > 1,
        "shapes": [_vertical(x) for x in chart.verticals],
    }
    if chart.kind == "stack" and chart.y.unit == "share":
        layout["yaxis"]["range"] = [0, 1]
    return {"data": traces, "layout": layout}


def _layout() -> dict[str, Any]:
    return {
        "uirevision": "kept",  # what the reader hid or magnified, when the chart is drawn again
        "height": 310,
        "margin": {"l": 62, "r": 22, "t": 12, "b": 48},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": "var(--ink)"},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "hoverlabel": {
            "bgcolor": "var(--page)",
            "bordercolor": "var(--line)",
            "font": {"color": "var(--ink)"},
        },
        "modebar": {
            "bgcolor": "rgba(0,0,0,0)",
            "color": "var(--soft)",
            "activecolor": "var(--ink)",
        },
    }


def _axis(axis: Axis, values: Num[np.ndarray, " n"]) -> dict[str, Any]:
    drawn: dict[str, Any] = {
        **_SOFT_LINE,
        "title": {"text": _text(axis.name), "standoff": 8},
        "automargin": True,
        "exponentformat": "power",
        "type": axis.scale,
        "tickformat": "~g" if axis.scale == "log" or axis.switch else "",
        "rangemode": "tozero" if axis.from_zero else "normal",
    }
    if axis.unit == "share":
        drawn |= {"tickformat": ".0%", "hoverformat": ".1%"}
    elif axis.unit == "count" and np.ptp(values) <= 12:
        drawn |= {"dtick": 1}
    if axis.ticks:
        texts = [_text(label) for label in axis.labels] or [f"{tick:g}" for tick in axis.ticks]
        drawn |= {"tickvals": list(axis.ticks), "ticktext": texts}
    return drawn


def _vertical(x: float) -> dict[str, Any]:
    line = {"color": "var(--grey)", "width": 1, "dash": "dot"}
    return {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "line": line}


def colour_of(name: str) -> str:
    """A colour of the page's palette by name, which differs by day and night, or itself."""
    return f"var(--{name})" if name in COLOURS else name


def _lines(series: Series, axis: Axis) -> list[dict[str, Any]]:
    """The line or points, and the band around it."""
    colour = colour_of(series.colour)
    look = "markers" if series.dash == "none" else "lines"
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines+markers" if series.symbol and look == "lines" else look,
        "name": _text(series.name),
        "legendgroup": series.name,
        "x": numbers(series.x),
        "y": numbers(series.y),
        "opacity": series.opacity,
        "line": {
            "color": colour,
            "width": 1.4 if series.reference else 2,
            "dash": _DASHES.get(series.dash, "solid"),
        },
        "marker": {"color": colour, "size": 6, "symbol": series.symbol or "circle"},
        "hovertemplate": f"%{{fullData.name}}: %{{y:{_format(axis)}}}<extra></extra>",
    }
    if series.error is not None:
        trace["error_y"] = {"type": "data", "array": numbers(series.error), "thickness": 1}
    if series.interval is None:
        return [trace]
    low, high = series.interval.T
    if not np.array_equal(low, high):
        trace["customdata"] = list(zip(numbers(low), numbers(high), strict=True))
        ends = " – ".join(f"%{{customdata[{k}]:{_format(axis)}}}" for k in (0, 1))
        trace["hovertemplate"] = f"%{{fullData.name}}: {ends}<extra></extra>"
    if series.reference:
        return [trace]
    there = np.isfinite(low) & np.isfinite(high)
    x, low, high = series.x[there], low[there], high[there]
    band = {
        "type": "scatter",
        "mode": "lines",
        "fill": "toself",
        "legendgroup": series.name,
        "showlegend": False,
        "hoverinfo": "skip",
        "x": numbers(np.concatenate([x, x[::-1]])),
        "y": numbers(np.concatenate([high, low[::-1]])),
        "line": {"width": 0},
        "fillcolor": colour,
        "opacity": 0.22,
    }
    return [band, trace]


def _text(name: str) -> str:
    """Plotly reads some markup in names; ours are to be seen as they are."""
    return escape(name, quote=False)


def _format(axis: Axis) -> str:
    return ".1%" if axis.unit == "share" else ".4~g"


def _bar(series: Series, axis: Axis) -> dict[str, Any]:
    return {
        "type": "bar",
        "name": _text(series.name),
        "x": numbers(series.x),
        "y": numbers(series.y),
        "marker": {"color": colour_of(series.colour)},
        "hovertemplate": f"%{{fullData.name}}: %{{y:{_format(axis)}}}<extra></extra>",
    }


def _heat_map(chart: HeatMap) -> dict[str, Any]:
    steps = chart.first + np.arange(chart.values.shape[1])
    trace = {
        "type": "heatmap",
        "x": numbers(steps),
        "y": [_text(row) for row in chart.rows],
        "z": [numbers(row) for row in chart.values],
        "zmin": 0,
        "zmax": chart.top,
        "xgap": 1,
        "ygap": 1,
        "colorscale": [[0, "var(--panel)"], [1, colour_of(chart.colour)]],
        "colorbar": {"thickness": 10, "outlinewidth": 0, "title": {"text": _text(chart.unit)}},
        "hovertemplate": "%{x}, %{y}: %{z:.4~g}<extra></extra>",
    }
    layout = {
        **_layout(),
        "height": 110 + 34 * len(chart.rows),
        "xaxis": {**_axis(chart.x, steps), "showgrid": False},
        "yaxis": {**_SOFT_LINE, "automargin": True, "autorange": "reversed", "fixedrange": True}
        | {"type": "category", "showgrid": False},
    }
    return {"data": [trace], "layout": layout}


def numbers(values: Num[np.ndarray, " n"]) -> list[int | float | None]:
    """Return numbers for JSON: whole ones as they are, others to six digits, None if not finite."""
    if np.issubdtype(values.dtype, np.integer):
        return [int(value) for value in values]
    return [float(f"{value:.{_DIGITS}g}") if np.isfinite(value) else None for value in values]


def page_data(data: Mapping[str, Any]) -> str:
    """Return JSON that can stand inside a script element, whatever text is in it."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    # ASCII only (as json.dumps writes), and nothing that could open or close an element.
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
