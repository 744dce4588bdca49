"""What the pictures of all studies share: curves with errors, guides, one legend below."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from crowdnash.reports.style import GREY, heading, new_figure

SOLID, DASHED, DOTTED = "-", (0, (4, 2)), (0, (1, 1.6))


class Curve(NamedTuple):
    """`y` over `x`, both [n], with standard errors or ends of an interval if given."""

    x: Float[np.ndarray, " n"]
    y: Float[np.ndarray, " n"]
    label: str
    colour: str
    marker: str | None = None
    dash: Any = SOLID
    error: Float[np.ndarray, " n"] | None = None
    ends: tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]] | None = None


@contextmanager
def panels(
    count: int, columns: int, title: str, *, height: float = 3.3
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure with `count` panels in rows of `columns`, and one legend for all below them."""
    rows = -(-count // columns)
    with new_figure(3.55 * columns + 0.4, height * rows + 1.2, rows, columns) as (figure, axes):
        used = list(axes.ravel()[:count])
        for unused in axes.ravel()[count:]:
            unused.set_visible(False)
        yield figure, used
        handles: dict[str, Any] = {}
        for ax in used:
            handles |= {
                label: handle
                for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
                if label not in handles
            }
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2)
        heading(figure, title)


def plot(ax: Axes, curve: Curve, floor: float | None = None) -> None:
    """Draw a curve; with a `floor`, smaller values become triangles there that point down."""
    if floor is None:
        shown = np.ones(len(curve.x), bool)
    else:
        shown = curve.y > floor
        hidden = curve.x[~shown]
        if hidden.size:
            ax.plot(
                hidden,
                np.full(hidden.shape, floor),
                linestyle="none",
                marker="v",
                markersize=6,
                color=curve.colour,
                markeredgecolor=GREY,
                markerfacecolor="white",
                label=f"below {floor:g}",
            )
    x, y = curve.x[shown], curve.y[shown]
    if curve.ends is not None:
        low, high = (np.maximum(end, floor or 0) for end in curve.ends)
        ax.fill_between(curve.x, low, high, color=curve.colour, alpha=0.18, lw=0)
    style: Any = {"color": curve.colour, "linestyle": curve.dash, "marker": curve.marker}
    if curve.error is None:
        ax.plot(x, y, label=curve.label, markersize=4.5, **style)
    else:
        ax.errorbar(
            x, y, curve.error[shown], label=curve.label, markersize=4.5, capsize=2.5, **style
        )


def guide(ax: Axes, x: Sequence[float], through: tuple[float, float], slope: float, label: str):
    """A thin line y ~ x^slope through a point, for comparison."""
    ends = np.asarray([min(x), max(x)], float)
    ax.plot(
        ends,
        through[1] * (ends / through[0]) ** slope,
        color=GREY,
        linewidth=1.1,
        linestyle=DASHED,
        label=label,
        zorder=3,
    )


def log_log(
    ax: Axes, title: str, x_label: str, y_label: str, ticks: Sequence[float] | None = None
) -> None:
    """Both axes logarithmic, with names; `ticks` are the x to label instead of powers of ten."""
    ax.set_xscale("log")
    if ticks is not None:
        ax.set_xticks(list(ticks), [f"{x:g}" for x in ticks])
    ax.xaxis.set_minor_formatter(NullFormatter())
    finish_log_y(ax, title, x_label, y_label)


def finish_log_y(ax: Axes, title: str, x_label: str, y_label: str) -> None:
    """Logarithmic values, with names."""
    ax.set_yscale("log")
    ax.set_title(title, fontsize=10.5)
    ax.set_xlabel(x_label)
    ax.set_ylabel(y_label)
    ax.grid(True)
