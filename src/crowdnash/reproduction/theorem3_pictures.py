"""The picture of `theorem3`, from its saved rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from crowdnash.reports.chart import Chart, Series
from crowdnash.reports.still import draw as draw_panels
from crowdnash.reproduction.fits import sample
from crowdnash.reproduction.pictures import EXPLOITABILITY, guide, log, measured, panels
from crowdnash.runs.metrics_log import Row

TITLES = MappingProxyType(
    {
        "congestion": "congestion",
        "rps-scaled": "A-RPS, payoffs / 12",
        "rps-printed": "A-RPS as printed",
    }
)
_AVERAGE = ("theorem", "average", "mean_field")
_CURVES: Any = {
    _AVERAGE: ("theorem's settings, average policy", "blue", "circle"),
    ("theorem", "last", "mean_field"): ("theorem's settings, last iterate", "red", "square"),
    ("practical", "last", "mean_field"): (
        "practical preset, last iterate",
        "green",
        "triangle-up",
    ),
    ("practical", "average", "mean_field"): (
        "practical preset, average policy",
        "yellow",
        "triangle-down",
        "dashed",
    ),
    ("theorem", "average", "largest_upper"): (
        "average policy, largest gain of the N agents",
        "purple",
        "x",
        "dashed",
    ),
}


def draw(rows: Sequence[Row], facts: Mapping[str, Any]) -> dict[str, Figure]:
    """Exploitability against trajectories, a panel for every game."""
    charts = []
    for game, fact in facts["games"].items():
        runs = [row for row in rows if row["kind"] == "run" and row["game"] == game]
        series: list[Series] = []
        for (learner, policy, column), look in _CURVES.items():
            part = [row for row in runs if row["learner"] == learner]
            curve = sample(part, "trajectories", f"{policy}_{column}")
            series.append(measured(curve, *look))
            if (learner, policy, column) == _AVERAGE:
                first = (float(curve.x[0]), float(curve.mean[0]))
                series.append(guide(curve.x, first, -1 / 6, "slope of the guarantee, -1/6"))
        ends = np.asarray([series[0].x.min(), series[0].x.max()])
        series += [
            Series("uniform policy", ends, np.full(2, fact["uniform"]), "grey", "dotted"),
            Series(
                "regularised equilibrium",
                ends,
                np.full(2, fact["regularised"]),
                "grey",
                "dash-dotted",
            ),
        ]
        charts.append(Chart(TITLES[game], log("trajectories T·M"), log(EXPLOITABILITY), series))
    title = "Symm-PMD: exploitability in the induced game against simulated trajectories"
    return {"trajectories": draw_panels(panels(charts, max(2, len(charts)), title))}
