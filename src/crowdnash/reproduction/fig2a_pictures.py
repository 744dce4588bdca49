"""The picture of `fig2a`: exploitability against alpha and beta, from its saved facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from crowdnash.reports.chart import Axis, Chart, Series
from crowdnash.reports.still import draw as draw_panels
from crowdnash.reproduction.pictures import panels
from crowdnash.runs.metrics_log import Row

SWEEPS = MappingProxyType(
    {
        "transitions": ("Transitions differ, beta = 0", "alpha"),
        "rewards": ("Rewards differ, alpha = 0", "beta"),
    }
)
"""What is swept: title and symbol."""

POLICIES = MappingProxyType(
    {
        "exact": ("exact MFG-NE", "blue"),
        "exact-other": ("another one, by fictitious play", "cyan"),
        "learned": ("learned by Symm-PMD", "red"),
        "mixed": ("learned by the mixed model", "green"),
    }
)
"""Whose exploitability: title and colour."""

_LOOKS: Any = {
    "exact": ("solid", "circle"),
    "exact-other": ("dashed", "square"),
    "learned": ("long", "triangle-up"),
    "mixed": ("dash-dotted", "diamond"),
}


def draw(_rows: Sequence[Row], facts: Mapping[str, Any]) -> dict[str, Figure]:
    """A panel for either statistic and sweep: largest and mean over agents."""
    charts = []
    for column in ("largest", "mean"):
        for sweep, (name, symbol) in SWEEPS.items():
            series = []
            for policy, (who, colour) in POLICIES.items():
                fact = facts[sweep][policy]
                mean, low, high = (np.asarray(fact[column][end]) for end in ("mean", "low", "high"))
                x, ends = np.asarray(fact["difference"]), np.stack([low, high], 1)
                series.append(Series(who, x, mean, colour, *_LOOKS[policy], interval=ends))
            y = Axis(f"{column} exploitability", from_zero=True)
            charts.append(Chart(name, Axis(symbol), y, series, verticals=(0.1,)))
    title = "A-SIS: N-player exploitability as agents differ (Fig. 2a)"
    return {"fig2a": draw_panels(panels(charts, len(SWEEPS), title, share_y=True))}
