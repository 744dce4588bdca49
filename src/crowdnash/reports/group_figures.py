"""Picture of `symmetry_against_groups`, in the style of `plotting`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from crowdnash.approximate_symmetry.against_groups import GroupCountResult
from crowdnash.interval import Interval
from crowdnash.reports.style import BLUE, GREEN, GREY, PURPLE, RED, new_figure


def symmetry_over_groups(
    results: Sequence[GroupCountResult], game: str, num_agents: int, confidence: float
) -> Figure:
    """Draw alpha and beta, measured exploitability, and its bounds against G; a panel each.

    Args:
        results: by number of groups, in any order.
        game: the game's name.
        num_agents: N.
        confidence: coverage of the intervals.
    """
    results = sorted(results, key=lambda one: one.num_groups)
    counts = np.array([one.num_groups for one in results])
    with new_figure(13.0, 4.2, 1, 3) as (figure, axes):
        alike, measured, bounds = axes[0]
        for ax, name, label, colour, marker in (
            (alike, "alpha", "alpha (transitions, L1)", BLUE, "o"),
            (alike, "beta", "beta (reward per step)", RED, "s"),
            (measured, "maximum", "largest over agents", BLUE, "o"),
            (measured, "mean", "mean over agents", RED, "s"),
        ):
            _curve(ax, counts, [getattr(one, name) for one in results], label, colour, marker)
        alike.set_ylim(bottom=0)
        alike.set_ylabel("farthest agent from its group's mean")
        alike.set_title("How unlike a group's agents are")
        _lines(
            measured,
            counts,
            results,
            (("mean_field_exploitability", "in the mean-field game", GREY, (0, (2, 2))),),
        )
        measured.set_title("Measured exploitability")
        _lines(
            bounds,
            counts,
            results,
            (
                ("bound", "mended constants", PURPLE, (0, (1, 1.5))),
                ("sharper_bound", "sharper constants", GREEN, (0, (4, 2))),
                ("trivial_bound", "trivial bound", GREY, (0, (6, 2, 1, 2))),
            ),
        )
        bounds.set_title("Theorem 1's bounds on it")
        for ax in (measured, bounds):
            ax.set_yscale("log")
            ax.set_ylabel("total reward")
        for ax in (alike, measured, bounds):
            _group_axis(ax, counts)
            low, high = ax.get_ylim()  # room for the legend
            logarithmic = ax.get_yscale() == "log"
            ax.set_ylim(low, high * (high / low) ** 0.3 if logarithmic else high * 1.25)
            ax.legend(loc="upper right", fontsize=9)
        figure.suptitle(
            f"{game}, {num_agents} agents: all play the mean-field equilibrium of G groups "
            f"({confidence:.0%} intervals shaded)",
            x=0.01,
            ha="left",
            size=10.5,
        )
    return figure


def _curve(
    ax: Axes,
    counts: np.ndarray,
    intervals: Sequence[Interval],
    label: str,
    colour: str,
    marker: str,
) -> None:
    ends = np.array(intervals, float)
    ax.fill_between(counts, ends[:, 0], ends[:, 1], color=colour, alpha=0.22, lw=0)
    ax.plot(counts, ends.mean(1), color=colour, marker=marker, markersize=4.5, label=label)


def _lines(
    ax: Axes,
    counts: np.ndarray,
    results: Sequence[GroupCountResult],
    lines: Sequence[tuple[str, str, str, tuple]],
) -> None:
    """Lines of single values; what is not there, or 0 on the logarithmic axis, is left out."""
    for name, label, colour, dash in lines:
        values = np.array([getattr(one, name) for one in results], float)  # None becomes NaN
        values = np.where(values > 0, values, np.nan)
        if np.isfinite(values).any():
            line = {"linestyle": dash, "linewidth": 1.4}
            ax.plot(counts, values, color=colour, marker=".", label=label, **line)


def _group_axis(ax: Axes, counts: np.ndarray) -> None:
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_locator(FixedLocator(list(counts)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.set_xlabel("number of groups G")
    ax.grid(True)
