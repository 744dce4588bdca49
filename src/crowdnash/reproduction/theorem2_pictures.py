"""Pictures of `theorem2`, from its saved rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from crowdnash.reports.style import BLUE, CYAN, GREEN, PURPLE, RED, YELLOW
from crowdnash.reproduction.fits import sample
from crowdnash.reproduction.pictures import DASHED, DOTTED, Curve, guide, log_log, panels, plot
from crowdnash.runs.metrics_log import Row

_TITLES = MappingProxyType(
    {"sis": "A-SIS", "rock-paper-scissors": "A-RPS", "kink": "kink game (2 steps)"}
)
_LEARNERS = (
    ("own", "own data, the theorem's steps", BLUE, "o", "-"),
    ("pooled", "all agents' data, the theorem's steps", RED, "s", "-"),
    ("pooled-adaptive", "all agents' data, adaptive steps", GREEN, "^", DASHED),
)
_SHADES = (BLUE, CYAN, GREEN, YELLOW, RED, PURPLE)
_ERROR = "squared error (reward²)"
_TRAJECTORIES = "trajectories M"


def draw(rows: Sequence[Row], facts: Mapping[str, Any]) -> dict[str, Figure]:
    """Error over M, squared bias over N, and what heterogeneity leaves."""
    return {
        "trajectories": _over_trajectories(_sweep(rows, "trajectories")),
        "agents": _over_agents(_sweep(rows, "agents")),
        "differences": _over_differences(_sweep(rows, "differences"), facts),
    }


def _sweep(rows: Sequence[Row], name: str) -> list[Row]:
    return [row for row in rows if row["sweep"] == name]


def _by(rows: Sequence[Row], column: str) -> dict[Any, list[Row]]:
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault(row[column], []).append(row)
    return found


def _over_trajectories(rows: Sequence[Row]) -> Figure:
    by_game = _by(rows, "game")
    title = f"Error of TD learning against trajectories ({rows[0]['num_agents']} identical agents)"
    with panels(len(by_game), 2, title) as (figure, axes):
        for ax, (game, part) in zip(axes, by_game.items(), strict=True):
            by_learner = _by(part, "learner")
            for learner, label, colour, marker, dash in _LEARNERS:
                found = sample(by_learner[learner], "num_epochs", "error")
                plot(ax, Curve(found.x, found.mean, label, colour, marker, dash, found.error))
                if learner == "own":
                    end = (float(found.x[-1]), float(found.mean[-1]))
                    guide(ax, list(found.x), end, -1.0, "slope of 1/M")
            log_log(ax, _TITLES[game], _TRAJECTORIES, _ERROR)
    return figure


def _over_agents(rows: Sequence[Row]) -> Figure:
    by_game = _by(rows, "game")
    title = f"Error of TD learning against agents ({rows[0]['num_epochs']:,} trajectories)"
    with panels(len(by_game), min(3, max(2, len(by_game))), title) as (figure, axes):
        for ax, (game, part) in zip(axes, by_game.items(), strict=True):
            by_learner = _by(part, "learner")
            for learner, label, colour, marker in (
                ("own", "squared bias, own data", BLUE, "o"),
                ("pooled", "squared bias, all agents' data", RED, "s"),
            ):
                found = sample(by_learner[learner], "num_agents", "squared_bias")
                # What noise hides is left out: its logarithm would say nothing.
                clear = found.at(found.mean > found.error)
                curve = Curve(clear.x, clear.mean, label, colour, marker, error=clear.error)
                plot(ax, curve)
            whole = sample(by_learner["own"], "num_agents", "error")
            label = "whole squared error, own data"
            plot(ax, Curve(whole.x, whole.mean, label, CYAN, "v", DOTTED, whole.error))
            pooled = sample(by_learner["pooled"], "num_agents", "squared_bias")
            first = (float(pooled.x[0]), float(pooled.mean[0]))
            guide(ax, list(pooled.x), first, -1.0, "slope of 1/N")
            log_log(ax, _TITLES[game], "number of agents N", _ERROR, list(whole.x))
    return figure


def _over_differences(rows: Sequence[Row], facts: Mapping[str, Any]) -> Figure:
    own = _by([row for row in rows if row["learner"] == "own"], "difference")
    with panels(2, 2, "A-SIS whose agents differ: error of TD learning") as (figure, axes):
        for (difference, part), colour in zip(own.items(), _SHADES, strict=False):
            found = sample(part, "num_epochs", "error")
            label = f"own data, alpha ≈ beta ≈ {difference:g}"
            plot(axes[0], Curve(found.x, found.mean, label, colour, "o", error=found.error))
        log_log(axes[0], "against trajectories", _TRAJECTORIES, _ERROR)
        for learner, label, colour, marker in (
            ("own", "own data, mean over agents", BLUE, "o"),
            ("pooled", "all agents' data", RED, "s"),
        ):
            found = [fact for fact in facts["floors"] if fact["learner"] == learner]
            x = np.asarray([fact["squares"] for fact in found])
            y = np.asarray([fact["error"] for fact in found])
            error = np.asarray([fact["standard_error"] for fact in found])
            curve = Curve(x[x > 0], y[x > 0], label, colour, marker, error=error[x > 0])
            plot(axes[1], curve)
            if learner == "own":
                largest = np.asarray([fact["largest_error"] for fact in found])
                label = "own data, worst agent"
                plot(axes[1], Curve(x[x > 0], largest[x > 0], label, PURPLE, "^", DASHED))
                end = (float(x[-1]), float(y[-1]))
                guide(axes[1], list(x[x > 0]), end, 1.0, "slope of alpha² + beta²")
        title = f"at {facts['longest']:,} trajectories"
        log_log(axes[1], title, "alpha² + beta²", _ERROR)
    return figure
