"""The picture of `fig2a`: exploitability against alpha and beta, from its saved facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from crowdnash.reports.style import BLUE, GREY, RED
from crowdnash.reproduction.pictures import DASHED, DOTTED, Curve, panels, plot
from crowdnash.runs.metrics_log import Row

SWEEPS = MappingProxyType(
    {
        "transitions": ("Transitions differ, beta = 0", "alpha"),
        "rewards": ("Rewards differ, alpha = 0", "beta"),
    }
)
"""What is swept: title and symbol."""

POLICIES = MappingProxyType(
    {"exact": ("exact MFG-NE", BLUE), "learned": ("learned by Symm-PMD", RED)}
)
"""Whose exploitability: title and colour."""

_COLUMNS = {"largest": ("o", "-"), "mean": ("s", DASHED)}


def draw(_rows: Sequence[Row], facts: Mapping[str, Any]) -> dict[str, Figure]:
    """A panel for either sweep: largest and mean over agents, exact and learned."""
    title = "A-SIS: N-player exploitability as agents differ (Fig. 2a)"
    with panels(len(SWEEPS), len(SWEEPS), title, height=3.6) as (figure, axes):
        for ax, (sweep, (name, symbol)) in zip(axes, SWEEPS.items(), strict=True):
            for policy, (who, colour) in POLICIES.items():
                fact = facts[sweep][policy]
                for column, (marker, dash) in _COLUMNS.items():
                    mean, low, high = (
                        np.asarray(fact[column][end]) for end in ("mean", "low", "high")
                    )
                    label = f"{who}, {column} over agents"
                    x = np.asarray(fact["difference"])
                    plot(ax, Curve(x, mean, label, colour, marker, dash, ends=(low, high)))
            ax.axvline(0.1, color=GREY, linestyle=DOTTED, linewidth=1.2)
            ax.set_title(name, fontsize=10.5)
            ax.set_xlabel(symbol)
            ax.set_ylabel("exploitability (total reward)")
            ax.set_ylim(bottom=0)
            ax.grid(True)
        highest = max(ax.get_ylim()[1] for ax in axes)
        for ax in axes:
            ax.set_ylim(0, highest)
    return {"fig2a": figure}
