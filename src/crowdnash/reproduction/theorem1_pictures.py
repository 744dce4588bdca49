"""Pictures of `theorem1`, from its saved rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from crowdnash.reports.style import BLUE, CYAN, GREY, PURPLE, RED
from crowdnash.reproduction.fits import Sample, sample
from crowdnash.reproduction.pictures import (
    DASHED,
    DOTTED,
    Curve,
    finish_log_y,
    guide,
    log_log,
    panels,
    plot,
)
from crowdnash.reproduction.theorem1_games import CASES
from crowdnash.runs.metrics_log import Row

_FLOOR, _FLOOR_OF_DIFFERENCES = 1e-6, 1e-3
_EXPLOITABILITY = "exploitability (total reward)"


def draw(rows: Sequence[Row], facts: Mapping[str, Any]) -> dict[str, Figure]:
    """The sweep over N, and those over alpha and beta."""
    return {"agents": _over_agents(rows), "heterogeneity": _over_differences(rows)}


def _of(rows: Sequence[Row], sweep: str) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row["sweep"] == sweep:
            found.setdefault(str(row["game"]), []).append(row)
    return found


def _over_agents(rows: Sequence[Row]) -> Figure:
    by_game = _of(rows, "agents")
    title = "The exact mean-field equilibrium, played by N identical agents"
    with panels(len(by_game), 2, title) as (figure, axes):
        for ax, (game, part) in zip(axes, by_game.items(), strict=True):
            achieved = sample(part, "num_agents", "achieved")
            advance = sample(part, "num_agents", "seen_in_advance")
            plot(
                ax, _curve(advance, "gain of one who sees the crowd in advance", CYAN, "s"), _FLOOR
            )
            plot(ax, _curve(achieved, "gain of a known deviation", BLUE, "o"), _FLOOR)
            if game != "rock-paper-scissors":
                # Drawn where there is something to compare: through the first gain seen in advance.
                first = (float(advance.x[0]), float(advance.mean[0]))
                guide(ax, list(advance.x), first, -0.5, "slope of $N^{-1/2}$")
            _bounds(ax, part, "num_agents")
            log_log(ax, CASES[game].title, "number of agents N", _EXPLOITABILITY, list(achieved.x))
    return figure


def _over_differences(rows: Sequence[Row]) -> Figure:
    drawn = [
        (sweep, game, part)
        for sweep in ("transitions", "rewards")
        for game, part in _of(rows, sweep).items()
    ]
    columns = max(len(_of(rows, sweep)) for sweep in ("transitions", "rewards"))
    number = drawn[0][2][0]["num_agents"]
    title = f"The exact mean-field equilibrium, played by {number} agents who differ"
    with panels(len(drawn), max(columns, 2), title) as (figure, axes):
        for ax, (sweep, game, part) in zip(axes, drawn, strict=True):
            symbol = "alpha" if sweep == "transitions" else "beta"
            # Replicates share the nominal difference; alpha and beta are then averaged too.
            x = sample(part, sweep, symbol).mean
            low, high = (sample(part, sweep, f"largest_{end}").mean for end in ("lower", "upper"))
            mean_low, mean_high = (
                sample(part, sweep, f"mean_{e}").mean for e in ("lower", "upper")
            )
            achieved = sample(part, sweep, "achieved")
            plot(
                ax,
                Curve(
                    x,
                    achieved.mean,
                    "largest gain over agents (shaded: interval)",
                    BLUE,
                    "o",
                    error=achieved.error,
                    ends=(low, high),
                ),
                _FLOOR_OF_DIFFERENCES,
            )
            label = "mean gain over agents (shaded: interval)"
            plot(
                ax,
                Curve(x, mean_low, label, PURPLE, "^", ends=(mean_low, mean_high)),
                _FLOOR_OF_DIFFERENCES,
            )
            _bounds(ax, part, sweep, x)
            label = f"{symbol} (measured)" if sweep == "transitions" else "beta (reward a step)"
            finish_log_y(ax, CASES[game].title, label, _EXPLOITABILITY)
    return figure


def _curve(measured: Sample, label: str, colour: str, marker: str) -> Curve:
    return Curve(measured.x, measured.mean, label, colour, marker, error=measured.error)


def _bounds(ax: Axes, rows: Sequence[Row], by: str, x: np.ndarray | None = None) -> None:
    for column, label, colour, dash in (
        ("bound_sharper", "Theorem 1, sharper constants", RED, "-"),
        ("bound_mended", "Theorem 1, mended constants", RED, DASHED),
        ("bound_trivial", "trivial bound", GREY, DOTTED),
    ):
        found = sample(rows, by, column)
        plot(ax, Curve(found.x if x is None else x, found.mean, label, colour, dash=dash))
