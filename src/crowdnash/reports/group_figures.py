"""The charts of `symmetry_against_groups`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from crowdnash.approximate_symmetry.against_groups import GroupCountResult
from crowdnash.reports.chart import Axis, Chart, Dash, Marker, Panels, Series
from crowdnash.reports.still import draw

_REWARD = Axis("total reward", scale="log")


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
    groups = Axis("number of groups G", scale="log", ticks=counts.tolist())

    def curve(name: str, label: str, colour: str, marker: Marker) -> Series:
        ends = np.array([getattr(one, name) for one in results], float)
        return Series(label, counts, ends.mean(1), colour, marker=marker, interval=ends)

    def level(name: str, label: str, colour: str, dash: Dash) -> Series:
        """Single values; what is not there, or 0 on the logarithmic axis, is a gap."""
        values = np.array([getattr(one, name) for one in results], float)  # None becomes NaN
        return Series(label, counts, np.where(values > 0, values, np.nan), colour, dash, "circle")

    charts = [
        Chart(
            "How unlike a group's agents are",
            groups,
            Axis("farthest agent from its group's mean", from_zero=True),
            [
                curve("alpha", "alpha (transitions, L1)", "blue", "circle"),
                curve("beta", "beta (reward per step)", "red", "square"),
            ],
        ),
        Chart(
            "Measured exploitability",
            groups,
            _REWARD,
            [
                curve("maximum", "largest over agents", "blue", "circle"),
                curve("mean", "mean over agents", "red", "square"),
                level("mean_field_exploitability", "in the mean-field game", "grey", "dotted"),
            ],
        ),
        Chart(
            "Theorem 1's bounds on it",
            groups,
            _REWARD,
            [
                level("bound", "mended constants", "purple", "dotted"),
                level("sharper_bound", "sharper constants", "green", "dashed"),
                level("trivial_bound", "trivial bound", "grey", "dash-dotted"),
            ],
        ),
    ]
    title = (
        f"{game}, {num_agents} agents: all play the mean-field equilibrium of G groups "
        f"({confidence:.0%} intervals shaded)"
    )
    return draw(Panels(charts, title, 3, (4.3, 4.0)))
