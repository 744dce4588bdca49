"""The pictures of `fig1b` and `fig1c`: exploitability over agent-steps, from saved rows.

Axes: R seeds, E evaluated epochs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from crowdnash.reports.chart import Chart, Series
from crowdnash.reports.still import draw as draw_panels
from crowdnash.reproduction.fits import sample
from crowdnash.reproduction.pictures import log, panels
from crowdnash.reproduction.robust_means import RobustMean, interquartile_mean
from crowdnash.runs.metrics_log import Row

OUTPUTS = MappingProxyType(
    {
        "theorem-average": "Algorithm 2 as printed",
        "practical-last": "Algorithm 1, step 0.3, last iterate",
        "practical-average": "Algorithm 1, step 0.3, average",
        "fitted-last": "fitted evaluation, last iterate",
    }
)
"""What is looked at: a preset and which of its policies."""

_ENDS: Any = {
    "symmetric": ("blue", "solid", "circle"),
    "independent": ("red", "dashed", "square"),
    "mixed": ("cyan", "solid", "x"),
}
_BETWEEN: Any = (
    ("green", "long", "triangle-up"),
    ("purple", "dash-dotted", "triangle-down"),
    ("yellow", "dotted", "diamond"),
)


class LearningCurve(NamedTuple):
    """Agent-steps played [E] and a statistic over the seeds at each."""

    agent_steps: Float[np.ndarray, " E"]
    summary: RobustMean


def learner_title(groups: Any) -> str:
    """What a grouping is called."""
    names = {"symmetric": "Symm-PMD (G = 1)", "independent": "IPMD (G = N)", "mixed": "mixed model"}
    return names.get(str(groups), f"G = {groups}")


def curve_of(rows: Sequence[Row], column: str) -> LearningCurve:
    """A column of one learner's rows, over seeds."""
    evaluated = sample(rows, "agent_steps", column)
    return LearningCurve(evaluated.x, interquartile_mean(evaluated.values))


def draw(rows: Sequence[Row], facts: Mapping[str, Any]) -> dict[str, Figure]:
    """Largest and mean exploitability over agents, a panel for each preset's output."""
    title = f"{facts['title']}: exploitability while learning"
    charts = []
    for column in ("largest", "mean"):
        for output, name in OUTPUTS.items():
            part = [row for row in rows if row["output"] == output]
            between = iter(_BETWEEN)
            series = []
            for groups in dict.fromkeys(row["groups"] for row in part):
                look = _ENDS.get(str(groups)) or next(between)
                curve = curve_of([row for row in part if row["groups"] == groups], column)
                middle, low, high = curve.summary.mean, curve.summary.low, curve.summary.high
                ends = np.stack([low, high], 1)
                label = learner_title(groups)
                series.append(Series(label, curve.agent_steps, middle, *look, interval=ends))
            charts.append(Chart(name, log("agent-steps"), log(f"{column} exploitability"), series))
    return {str(facts["figure"]): draw_panels(panels(charts, len(OUTPUTS), title, share_y=True))}
