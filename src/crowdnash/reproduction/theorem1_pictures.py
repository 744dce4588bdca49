"""Pictures of `theorem1`, from its saved rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from crowdnash.reports.chart import Axis, Chart, Dash, Panels, Series
from crowdnash.reports.still import draw as draw_panels
from crowdnash.reproduction.fits import sample
from crowdnash.reproduction.pictures import EXPLOITABILITY, above, guide, log, measured, panels
from crowdnash.reproduction.theorem1_games import CASES
from crowdnash.runs.metrics_log import Row

_FLOOR, _FLOOR_OF_DIFFERENCES = 1e-6, 1e-3


def draw(rows: Sequence[Row], facts: Mapping[str, Any]) -> dict[str, Figure]:
    """The sweep over N, and those over alpha and beta."""
    drawn = {"agents": _over_agents(rows), "heterogeneity": _over_differences(rows)}
    return {name: draw_panels(charts) for name, charts in drawn.items()}


def _of(rows: Sequence[Row], sweep: str) -> dict[str, list[Row]]:
    by_game: dict[str, list[Row]] = {}
    for row in rows:
        if row["sweep"] == sweep:
            by_game.setdefault(str(row["game"]), []).append(row)
    return by_game


def _over_agents(rows: Sequence[Row]) -> Panels:
    charts = []
    for game, part in _of(rows, "agents").items():
        achieved = sample(part, "num_agents", "achieved")
        advance = sample(part, "num_agents", "seen_in_advance")
        seen = measured(advance, "gain of one who sees the crowd in advance", "cyan", "square")
        known = measured(achieved, "gain of a known deviation", "blue", "circle")
        series = [*above(seen, _FLOOR), *above(known, _FLOOR)]
        if game != "rock-paper-scissors":
            # Drawn where there is something to compare: through the first gain seen in advance.
            first = (float(advance.x[0]), float(advance.mean[0]))
            series.append(guide(advance.x, first, -0.5, "slope of $N^{-1/2}$"))
        series += _bounds(part, "num_agents")
        x = log("number of agents N", achieved.x.tolist())
        charts.append(Chart(CASES[game].title, x, log(EXPLOITABILITY), series))
    return panels(charts, 2, "The exact mean-field equilibrium, played by N identical agents")


def _over_differences(rows: Sequence[Row]) -> Panels:
    sweeps = {sweep: _of(rows, sweep) for sweep in ("transitions", "rewards")}
    charts = [
        _over_difference(sweep, game, part)
        for sweep, by_game in sweeps.items()
        for game, part in by_game.items()
    ]
    number = next(iter(sweeps["transitions"].values()))[0]["num_agents"]
    title = f"The exact mean-field equilibrium, played by {number} agents who differ"
    return panels(charts, max(2, *(len(by_game) for by_game in sweeps.values())), title)


def _over_difference(sweep: str, game: str, rows: Sequence[Row]) -> Chart:
    symbol = "alpha" if sweep == "transitions" else "beta"
    # Replicates share the nominal difference; alpha and beta are then averaged too.
    x = sample(rows, sweep, symbol).mean

    def ends(name: str) -> np.ndarray:
        return np.stack([sample(rows, sweep, f"{name}_{e}").mean for e in ("lower", "upper")], 1)

    achieved, mean = sample(rows, sweep, "achieved"), ends("mean")
    label = "largest gain over agents (shaded: interval)"
    errors: Any = {"marker": "circle", "error": achieved.error, "interval": ends("largest")}
    largest = Series(label, x, achieved.mean, "blue", **errors)
    label = "mean gain over agents (shaded: interval)"
    average = Series(label, x, mean[:, 0], "purple", marker="triangle-up", interval=mean)
    series = [part for one in (largest, average) for part in above(one, _FLOOR_OF_DIFFERENCES)]
    name = f"{symbol} (measured)" if sweep == "transitions" else "beta (reward a step)"
    series += _bounds(rows, sweep, x)
    return Chart(CASES[game].title, Axis(name), log(EXPLOITABILITY), series)


def _bounds(rows: Sequence[Row], by: str, x: np.ndarray | None = None) -> list[Series]:
    looks: tuple[tuple[str, str, str, Dash], ...] = (
        ("bound_sharper", "Theorem 1, sharper constants", "red", "solid"),
        ("bound_mended", "Theorem 1, mended constants", "red", "dashed"),
        ("bound_trivial", "trivial bound", "grey", "dotted"),
    )
    series = []
    for column, label, colour, dash in looks:
        bound = sample(rows, by, column)
        series.append(Series(label, bound.x if x is None else x, bound.mean, colour, dash))
    return series
