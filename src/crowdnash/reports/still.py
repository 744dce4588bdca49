"""Charts drawn with matplotlib: the picture files, and what a page shows without scripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullFormatter, NullLocator

from crowdnash.reports.chart import Axis, Chart, HeatMap, Panels, Picture, Series
from crowdnash.reports.style import COLOURS, heading, new_figure

_DASHES: dict[str, Any] = {
    "solid": "-",
    "dashed": (0, (4, 2)),
    "dotted": (0, (1, 1.4)),
    "dash-dotted": (0, (4, 1, 1, 1)),
    "long": (0, (7, 2)),
    "none": "none",
}
_MARKERS: dict[str, Any] = {
    "": None,
    "circle": "o",
    "square": "s",
    "triangle-up": "^",
    "triangle-down": "v",
    "diamond": "D",
    "x": "x",
}
_HEATS = {"blue": "Blues", "red": "Oranges"}


def draw_picture(picture: Picture) -> Figure:
    """Draw the still picture: the charts of its `choices` only, named by their choice."""
    if isinstance(picture.content, Figure):
        return picture.content
    return draw(picture.content, picture.choices)


def draw(panels: Panels, choices: Sequence[str] = ()) -> Figure:
    """Draw charts, each in a panel.

    Args:
        panels: the charts.
        choices: draw only the charts of these choices; all if empty.
    """
    charts = [chart for chart in panels.charts if not choices or chart.choice in choices]
    columns = min(panels.columns, len(charts))
    rows = -(-len(charts) // columns)
    aside = {"inside": (0.0, 0.0), "right": (1.5, 0.0), "below": (0.3, 1.0)}[panels.legend]
    titled = 0.4 if panels.title else 0.0
    size = (columns * panels.size[0] + aside[0], rows * panels.size[1] + aside[1] + titled)
    sharing = "row" if panels.share_y else False
    with new_figure(*size, rows, columns, sharey=sharing) as (figure, grid):
        axes = list(grid.ravel())
        heats = {}
        for ax, chart in zip(axes, charts, strict=False):
            if isinstance(chart, HeatMap):
                heats[chart.unit] = _draw_heat_map(ax, chart)
            else:
                _draw_chart(ax, chart)
                if panels.legend == "inside" and len({s.name for s in chart.series}) > 1:
                    ax.legend(ncols=1 if columns > 1 else 2)
            if not choices:
                ax.set_title(chart.title, fontsize=10.5 if panels.title else 12)
        if choices:
            _name_rows_and_columns(grid, charts)
        if panels.share_y:
            for ax in grid[:, 1:].ravel():
                ax.set_ylabel("")
        for ax in axes[len(charts) :]:
            ax.set_visible(False)
        for unit, image in heats.items():
            figure.colorbar(image, ax=axes, label=unit, fraction=0.05, aspect=25)
        if panels.legend != "inside":
            stacked = any(isinstance(chart, Chart) and chart.kind == "stack" for chart in charts)
            _draw_legend(figure, axes[: len(charts)], panels.legend, stacked)
        if panels.title:
            heading(figure, panels.title)
    return figure


def _name_rows_and_columns(grid: np.ndarray, charts: list[Chart | HeatMap]) -> None:
    """Choices over the columns, titles beside the rows, numbers below."""
    columns = grid.shape[1]
    for ax, chart in zip(grid[0], charts, strict=False):
        ax.set_title(chart.choice, fontsize=10)
    for ax, chart in zip(grid[:, 0], charts[::columns], strict=True):
        ax.set_ylabel(chart.title.replace(" ", "\n", 1))
    for ax in grid.ravel():
        ax.label_outer()


def _draw_legend(figure: Figure, axes: list[Axes], place: str, stacked: bool) -> None:
    """One legend for all panels, every name once; of stacks from the top."""
    handles: dict[str, Any] = {}
    for ax in axes:
        for handle, name in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    names = list(handles)[::-1] if stacked else list(handles)
    where: Any = {"right": "outside right center", "below": "outside lower center"}[place]
    ncols = 2 if place == "below" else 1
    figure.legend([handles[name] for name in names], names, loc=where, ncols=ncols)


def _draw_heat_map(ax: Axes, chart: HeatMap) -> Any:
    ax.spines[:].set_visible(True)
    ax.set_yticks(range(len(chart.rows)), list(chart.rows))
    ax.set_xlabel(chart.x.name)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    rows, columns = chart.values.shape
    return ax.imshow(
        chart.values,
        aspect="auto",
        cmap=_HEATS[chart.colour],
        vmin=0,
        vmax=chart.top,
        interpolation="none",
        extent=(chart.first - 0.5, chart.first + columns - 0.5, rows - 0.5, -0.5),
    )


def _draw_chart(ax: Axes, chart: Chart) -> None:
    if chart.kind == "stack":
        _draw_stack(ax, chart)
    else:
        for series in chart.series:
            _draw_series(ax, series.thinned(), chart.floor if chart.y.scale == "log" else None)
        ax.grid(True)
    for x in chart.verticals:
        ax.axvline(x, color=COLOURS["grey"], linestyle=_DASHES["dotted"], linewidth=1.2)
    _finish(ax, ax.xaxis, chart.x)
    _finish(ax, ax.yaxis, chart.y)


def _draw_stack(ax: Axes, chart: Chart) -> None:
    # One bar a step: time is discrete, and an interpolated area would suggest otherwise.
    x = np.asarray(chart.series[0].x, float)
    edges = np.append(x, x[-1] + 1) - 0.5
    below = np.zeros(len(x))
    for series in chart.series:
        above = below + series.y
        colour = COLOURS.get(series.colour, series.colour)
        ax.stairs(above, edges, baseline=below, fill=True, color=colour, label=series.name)
        below = above
    ax.set_xlim(edges[0], edges[-1])
    ax.set_ylim(0, 1 if chart.y.unit == "share" else None)


def _draw_series(ax: Axes, series: Series, floor: float | None) -> None:
    colour = COLOURS.get(series.colour, series.colour)
    ends = series.interval
    if ends is not None and not series.reference:
        low, high = ends.T if floor is None else np.maximum(ends, floor).T
        ax.fill_between(series.x, low, high, color=colour, alpha=0.2, lw=0)
    hollow = series.marker == "triangle-down" and series.dash == "none"
    look: Any = {
        "color": colour,
        "linestyle": _DASHES[series.dash],
        "marker": _MARKERS[series.symbol],
        "markersize": 4.5,
        "markerfacecolor": "white" if hollow else colour,
        "alpha": series.opacity,
        "label": series.name,
    }
    if series.reference:
        look |= {"linewidth": 1.3, "zorder": 3}
    if series.error is None or not series.error.any():
        ax.plot(series.x, series.y, **look)
    else:
        ax.errorbar(series.x, series.y, series.error, capsize=2.5, **look)


def _finish(ax: Axes, drawn: Any, axis: Axis) -> None:
    drawn.set_label_text(axis.name)
    setters = (ax.set_xscale, ax.set_xlim) if drawn is ax.xaxis else (ax.set_yscale, ax.set_ylim)
    if axis.scale == "log":
        setters[0]("log")
        drawn.set_minor_formatter(NullFormatter())
        low, high = drawn.get_view_interval()
        if drawn is ax.yaxis and high / low < 200:  # powers of ten alone would label too little
            drawn.set_major_locator(LogLocator(subs=(1, 2, 5)))
        if low > 1e-4 and high < 1e5:
            drawn.set_major_formatter(lambda x, _: f"{x:g}")
    elif axis.from_zero:
        setters[1](0.0)
    if axis.ticks:
        drawn.set_major_locator(FixedLocator(list(axis.ticks)))
        drawn.set_minor_locator(NullLocator())
        drawn.set_major_formatter(lambda x, _: f"{x:g}")
        if axis.labels:
            drawn.set_ticks(list(axis.ticks), list(axis.labels))
    elif axis.unit == "count" and axis.scale == "linear":
        drawn.set_major_locator(MaxNLocator(integer=True))
    if axis.unit == "share":
        drawn.set_major_formatter(lambda share, _: f"{share:.0%}")
