"""The pictures of `fig1a`: learning curves and zone shares over agent-steps.

Axes: R seeds, E epochs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from crowdnash.reports.chart import Axis, Chart, Dash, Panels, Series
from crowdnash.reports.still import draw as draw_panels
from crowdnash.runs.metrics_log import Row


class Learner(NamedTuple):
    """One treatment of identity: its name in the paper, its settings, how it is drawn.

    `entropy_weight` None is Table 2's.
    """

    title: str
    identity: str
    entropy_weight: float | None
    colour: str
    dash: Dash


LEARNERS = MappingProxyType(
    {
        "symmetric": Learner("Symm-NN", "none", None, "blue", "solid"),
        "one-hot": Learner("OH-NN", "one-hot", None, "green", "dashed"),
        "number": Learner("ID-NN", "number", None, "yellow", "dash-dotted"),
        "independent": Learner("Ind-NN", "independent", None, "red", "long"),
        "no-entropy": Learner("Symm-NN-NR", "none", 0.0, "purple", "dotted"),
    }
)


class Curves(NamedTuple):
    """One learner's figures over its epochs, [R,E]; `agent_steps` [E], up to each epoch's end."""

    agent_steps: Float[np.ndarray, " E"]
    reward: Float[np.ndarray, "R E"]
    entropy: Float[np.ndarray, "R E"]
    zone_1_share: Float[np.ndarray, "R E"]
    seconds: Float[np.ndarray, "R E"]
    play_seconds: Float[np.ndarray, "R E"]


def curves_of(rows: Sequence[Row]) -> dict[str, Curves]:
    """The curves by learner, in the order of `LEARNERS`."""
    curves = {}
    for name in LEARNERS:
        mine = [row for row in rows if row["learner"] == name]
        if not mine:
            continue
        seeds = sorted({int(row["seed"] or 0) for row in mine})
        by_seed = [[row for row in mine if row["seed"] == seed] for seed in seeds]

        def column(key: str, by_seed: list[list[Row]] = by_seed) -> np.ndarray:
            return np.asarray([[row[key] for row in runs] for runs in by_seed], np.float64)

        curves[name] = Curves(
            agent_steps=np.cumsum(column("agent_steps")[0]),
            reward=column("mean_reward"),
            entropy=column("entropy"),
            zone_1_share=column("zone_1_share"),
            seconds=column("seconds"),
            play_seconds=column("play_seconds"),
        )
    return curves


def draw(rows: Sequence[Row], _facts: Mapping[str, Any]) -> dict[str, Figure]:
    """Both figures by name; of fig1a, lines are means over seeds, bands from least to most."""
    curves = curves_of(rows)
    drawn = {"fig1a": _rewards(curves), "fig2b": _shares(curves)}
    return {name: draw_panels(panels) for name, panels in drawn.items()}


_STEPS = Axis("agent-steps (millions)", from_zero=True)


def _rewards(curves: Mapping[str, Curves]) -> Panels:
    series = []
    for name, curve in curves.items():
        learner, reward = LEARNERS[name], curve.reward
        ends = np.stack([reward.min(0), reward.max(0)], 1)
        line = Series(
            learner.title,
            curve.agent_steps / 1e6,
            reward.mean(0),
            learner.colour,
            learner.dash,
            interval=ends,
        )
        series.append(line)
    y = Axis("mean reward of a step", from_zero=True)
    chart = Chart("A-Taxi: mean reward while learning (Fig. 1a)", _STEPS, y, series)
    return Panels([chart], size=(6.1, 4.0), legend="right")


def _shares(curves: Mapping[str, Curves]) -> Panels:
    """A panel for each learner, a line for each seed: no seed's course is averaged away."""
    charts = []
    for name, curve in curves.items():
        learner, x = LEARNERS[name], curve.agent_steps / 1e6
        strengths = np.linspace(1, 0.4, len(curve.zone_1_share))
        series = [
            Series("share", x, share, learner.colour, opacity=float(strength))
            for share, strength in zip(curve.zone_1_share, strengths, strict=True)
        ]
        charts.append(Chart(learner.title, _STEPS, Axis("share in zone 1", from_zero=True), series))
    title = "A-Taxi: taxis in zone 1 while learning (Fig. 2b), every seed"
    return Panels(charts, title, len(charts), (2.2, 2.6), share_y=True)
