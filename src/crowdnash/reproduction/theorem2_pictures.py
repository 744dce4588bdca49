"""Pictures of `theorem2`, from its saved rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from crowdnash.reports.chart import Chart, Panels, Series
from crowdnash.reports.still import draw as draw_panels
from crowdnash.reproduction.fits import sample
from crowdnash.reproduction.pictures import guide, log, measured, panels
from crowdnash.runs.metrics_log import Row

_TITLES = MappingProxyType(
    {"sis": "A-SIS", "rock-paper-scissors": "A-RPS", "kink": "kink game (2 steps)"}
)
_LEARNERS: Any = (
    ("own", "own data, the theorem's steps", "blue", "circle", "solid"),
    ("pooled", "all agents' data, the theorem's steps", "red", "square", "solid"),
    ("pooled-adaptive", "all agents' data, adaptive steps", "green", "triangle-up", "dashed"),
)
_SHADES = ("blue", "cyan", "green", "yellow", "red", "purple")
_ERROR = log("squared error (reward²)")
_TRAJECTORIES = log("trajectories M")


def draw(rows: Sequence[Row], facts: Mapping[str, Any]) -> dict[str, Figure]:
    """Error over M, squared bias over N, and what heterogeneity leaves."""
    drawn = {
        "trajectories": _over_trajectories(_sweep(rows, "trajectories")),
        "agents": _over_agents(_sweep(rows, "agents")),
        "differences": _over_differences(_sweep(rows, "differences"), facts),
    }
    return {name: draw_panels(charts) for name, charts in drawn.items()}


def _sweep(rows: Sequence[Row], name: str) -> list[Row]:
    return [row for row in rows if row["sweep"] == name]


def _by(rows: Sequence[Row], column: str) -> dict[Any, list[Row]]:
    parts: dict[Any, list[Row]] = {}
    for row in rows:
        parts.setdefault(row[column], []).append(row)
    return parts


def _over_trajectories(rows: Sequence[Row]) -> Panels:
    charts = []
    for game, part in _by(rows, "game").items():
        by_learner = _by(part, "learner")
        series = []
        for learner, *look in _LEARNERS:
            error = sample(by_learner[learner], "num_epochs", "error")
            series.append(measured(error, *look))
            if learner == "own":
                end = (float(error.x[-1]), float(error.mean[-1]))
                series.append(guide(error.x, end, -1.0, "slope of 1/M"))
        charts.append(Chart(_TITLES[game], _TRAJECTORIES, _ERROR, series))
    title = f"Error of TD learning against trajectories ({rows[0]['num_agents']} identical agents)"
    return panels(charts, 2, title)


def _over_agents(rows: Sequence[Row]) -> Panels:
    charts = []
    for game, part in _by(rows, "game").items():
        by_learner = _by(part, "learner")
        own, pooled = (
            sample(by_learner[learner], "num_agents", "squared_bias")
            for learner in ("own", "pooled")
        )
        whole = sample(by_learner["own"], "num_agents", "error")
        first = (float(pooled.x[0]), float(pooled.mean[0]))
        series = [
            # What noise hides is left out: its logarithm would say nothing.
            measured(own.at(own.mean > own.error), "squared bias, own data", "blue", "circle"),
            measured(
                pooled.at(pooled.mean > pooled.error),
                "squared bias, all agents' data",
                "red",
                "square",
            ),
            measured(whole, "whole squared error, own data", "cyan", "triangle-down", "dotted"),
            guide(pooled.x, first, -1.0, "slope of 1/N"),
        ]
        x = log("number of agents N", whole.x.tolist())
        charts.append(Chart(_TITLES[game], x, _ERROR, series))
    title = f"Error of TD learning against agents ({rows[0]['num_epochs']:,} trajectories)"
    return panels(charts, min(3, max(2, len(charts))), title)


def _over_differences(rows: Sequence[Row], facts: Mapping[str, Any]) -> Panels:
    own = _by([row for row in rows if row["learner"] == "own"], "difference")
    series = [
        measured(
            sample(part, "num_epochs", "error"),
            f"own data, alpha ≈ beta ≈ {difference:g}",
            colour,
            "circle",
        )
        for (difference, part), colour in zip(own.items(), _SHADES, strict=False)
    ]
    charts = [
        Chart("against trajectories", _TRAJECTORIES, _ERROR, series),
        Chart(
            f"at {facts['longest']:,} trajectories",
            log("alpha² + beta²"),
            _ERROR,
            [*_floors(facts, "own"), *_floors(facts, "pooled")],
        ),
    ]
    return panels(charts, 2, "A-SIS whose agents differ: error of TD learning")


def _floors(facts: Mapping[str, Any], learner: str) -> list[Series]:
    """What is left at the end over how much agents differ."""
    floors = [f for f in facts["floors"] if f["learner"] == learner and f["squares"] > 0]

    def column(name: str) -> np.ndarray:
        return np.asarray([fact[name] for fact in floors])

    x, y, error = column("squares"), column("error"), column("standard_error")
    if learner == "pooled":
        return [Series("all agents' data", x, y, "red", marker="square", error=error)]
    end = (float(x[-1]), float(y[-1]))
    worst: Any = {"marker": "triangle-up", "dash": "dashed"}
    return [
        Series("own data, mean over agents", x, y, "blue", marker="circle", error=error),
        Series("own data, worst agent", x, column("largest_error"), "purple", **worst),
        guide(x, end, 1.0, "slope of alpha² + beta²"),
    ]
