"""Pictures of learning with neural policies; as in `plotting`, every function returns a `Figure`.

Axes: E epochs, H steps.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from crowdnash.reports.style import BLUE, CYAN, GREEN, PURPLE, RED, YELLOW, new_figure

_COLOURS = (BLUE, RED, GREEN, PURPLE, YELLOW, CYAN)
_DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)))


def lines_over(
    x: Int[np.ndarray, " E"],
    lines: Mapping[str, Float[np.ndarray, " E"]],
    *,
    x_name: str,
    y_name: str,
    title: str,
) -> Figure:
    """Draw one or more lines over epochs or steps.

    Args:
        x: epochs or steps.
        lines: values by name; a legend is drawn if there are several.
        x_name: what x is.
        y_name: what the values are, with units.
        title: of the picture.
    """
    with new_figure(7.6, 3.6) as (figure, axes):
        ax = axes[0, 0]
        for k, (name, values) in enumerate(lines.items()):
            dash = _DASHES[k % len(_DASHES)]
            ax.plot(x, values, color=_COLOURS[k % len(_COLOURS)], linestyle=dash, label=name)
        _finish(ax, x_name, y_name, title)
        if len(lines) > 1:
            figure.legend(loc="outside right center")
    return figure


def diagnostics_over_epochs(
    epochs: Int[np.ndarray, " E"], rows: Mapping[str, Float[np.ndarray, " E"]]
) -> Figure:
    """Draw PPO's own figures, each in a panel: one for every name in `rows`.

    Args:
        epochs: epoch numbers.
        rows: values by name, with units.
    """
    columns = 2
    lines = -(-len(rows) // columns)
    with new_figure(7.6, 2.3 * lines, lines, columns, sharex=True) as (figure, axes):
        for k, ax in enumerate(axes.flat):
            if k >= len(rows):
                ax.axis("off")
                continue
            name = list(rows)[k]
            ax.plot(epochs, rows[name], color=BLUE, linewidth=1.4)
            _finish(ax, "epoch" if k >= len(rows) - columns else "", "", name)
            ax.title.set_size(10)
    return figure


def _finish(ax: Axes, x_name: str, y_name: str, title: str) -> None:
    ax.set_xlabel(x_name)
    ax.set_ylabel(y_name)
    ax.set_title(title)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(True)
