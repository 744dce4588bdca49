"""The pictures of `fig1a`: learning curves and zone shares over agent-steps.

Axes: R seeds, E epochs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from crowdnash.reports.style import BLUE, GREEN, PURPLE, RED, YELLOW, heading, new_figure
from crowdnash.runs.metrics_log import Row


class Learner(NamedTuple):
    """One treatment of identity: its name in the paper, its settings, how it is drawn.

    `entropy_weight` None is Table 2's.
    """

    title: str
    identity: str
    entropy_weight: float | None
    colour: str
    dash: Any


LEARNERS = MappingProxyType(
    {
        "symmetric": Learner("Symm-NN", "none", None, BLUE, "-"),
        "one-hot": Learner("OH-NN", "one-hot", None, GREEN, (0, (5, 1.5))),
        "number": Learner("ID-NN", "number", None, YELLOW, (0, (4, 1, 1, 1))),
        "independent": Learner("Ind-NN", "independent", None, RED, (0, (2, 1))),
        "no-entropy": Learner("Symm-NN-NR", "none", 0.0, PURPLE, (0, (1, 1))),
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
    found = {}
    for name in LEARNERS:
        mine = [row for row in rows if row["learner"] == name]
        if not mine:
            continue
        seeds = sorted({int(row["seed"] or 0) for row in mine})
        by_seed = [[row for row in mine if row["seed"] == seed] for seed in seeds]

        def column(key: str, by_seed: list[list[Row]] = by_seed) -> np.ndarray:
            return np.asarray([[row[key] for row in runs] for runs in by_seed], np.float64)

        found[name] = Curves(
            agent_steps=np.cumsum(column("agent_steps")[0]),
            reward=column("mean_reward"),
            entropy=column("entropy"),
            zone_1_share=column("zone_1_share"),
            seconds=column("seconds"),
            play_seconds=column("play_seconds"),
        )
    return found


def draw(rows: Sequence[Row], _facts: Mapping[str, Any]) -> dict[str, Figure]:
    """Both figures by name; of fig1a, lines are means over seeds, bands from least to most."""
    curves = curves_of(rows)
    return {"fig1a": _rewards(curves), "fig2b": _shares(curves)}


def _rewards(curves: Mapping[str, Curves]) -> Figure:
    with new_figure(7.6, 4.0) as (figure, axes):
        ax = axes[0, 0]
        for name, curve in curves.items():
            _line(ax, name, curve.agent_steps, curve.reward)
        _finish(ax, "mean reward of a step")
        ax.set_title("A-Taxi: mean reward while learning (Fig. 1a)")
        ax.set_ylim(bottom=0)
        figure.legend(loc="outside right center")
    return figure


def _shares(curves: Mapping[str, Curves]) -> Figure:
    """A panel for each learner, a line for each seed: no seed's course is averaged away."""
    size = (2.1 * len(curves) + 0.6, 3.0)
    with new_figure(*size, 1, len(curves), sharey=True) as (figure, axes):
        for ax, (name, curve) in zip(axes[0], curves.items(), strict=True):
            learner, x = LEARNERS[name], curve.agent_steps / 1e6
            strengths = np.linspace(1, 0.4, len(curve.zone_1_share))
            for share, alpha in zip(curve.zone_1_share, strengths, strict=True):
                ax.plot(x, share, color=learner.colour, alpha=alpha, linewidth=1.0)
            ax.set_title(learner.title, fontsize=10)
            ax.set_xlim(left=0)
            ax.grid(True)
        axes[0, 0].set_ylim(0, 1)
        axes[0, 0].set_ylabel("share in zone 1")
        figure.supxlabel("agent-steps (millions)", fontsize=10)
        heading(figure, "A-Taxi: taxis in zone 1 while learning (Fig. 2b), every seed")
    return figure


def _line(ax: Axes, name: str, steps: np.ndarray, values: np.ndarray) -> None:
    learner = LEARNERS[name]
    x = steps / 1e6
    if len(values) > 1:
        ax.fill_between(x, values.min(0), values.max(0), color=learner.colour, alpha=0.2, lw=0)
    ax.plot(x, values.mean(0), color=learner.colour, linestyle=learner.dash, label=learner.title)


def _finish(ax: Axes, y_name: str) -> None:
    ax.set_xlabel("agent-steps (millions)")
    ax.set_ylabel(y_name)
    ax.set_xlim(left=0)
    ax.grid(True)
