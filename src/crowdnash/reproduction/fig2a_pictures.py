"""The picture of `fig2a`: exploitability against alpha and beta, from its saved facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from crowdnash.reports.chart import Axis, Chart, Series
from crowdnash.reports.still import draw as draw_panels
from crowdnash.reproduction.pictures import EXPLOITABILITY, panels
from crowdnash.runs.metrics_log import Row

SWEEPS = MappingProxyType(
    {
        "transitions": ("Transitions differ, beta = 0", "alpha"),
        "rewards": ("Rewards differ, alpha = 0", "beta"),
    }
)
"""What is swept: title and symbol."""

POLICIES = MappingProxyType(
    {"exact": ("exact MFG-NE", "blue"), "learned": ("learned by Symm-PMD", "red")}
)
"""Whose exploitability: title and colour."""

_COLUMNS: Any = {"largest": ("solid", "circle"), "mean": ("dashed", "square")}


def draw(_rows: Sequence[Row], facts: Mapping[str, Any]) -> dict[str, Figure]:
    """A panel for either sweep: largest and mean over agents, exact and learned."""
    charts = []
    for sweep, (name, symbol) in SWEEPS.items():
        series = []
        for policy, (who, colour) in POLICIES.items():
            fact = facts[sweep][policy]
            for column, look in _COLUMNS.items():
                mean, low, high = (np.asarray(fact[column][end]) for end in ("mean", "low", "high"))
                label = f"{who}, {column} over agents"
                x, ends = np.asarray(fact["difference"]), np.stack([low, high], 1)
                series.append(Series(label, x, mean, colour, *look, interval=ends))
        y = Axis(EXPLOITABILITY, from_zero=True)
        charts.append(Chart(name, Axis(symbol), y, series, verticals=(0.1,)))
    title = "A-SIS: N-player exploitability as agents differ (Fig. 2a)"
    return {"fig2a": draw_panels(panels(charts, len(SWEEPS), title, 3.6, share_y=True))}
