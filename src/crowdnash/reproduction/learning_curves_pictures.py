"""The pictures of `fig1b` and `fig1c`: exploitability over epochs, from saved rows.

Axes: R seeds, E evaluated epochs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from crowdnash.reports.style import BLUE, CYAN, GREEN, PURPLE, RED, YELLOW
from crowdnash.reproduction.fits import sample
from crowdnash.reproduction.pictures import DASHED, DOTTED, Curve, log_log, panels, plot
from crowdnash.reproduction.robust_means import RobustMean, interquartile_mean
from crowdnash.runs.metrics_log import Row

OUTPUTS = MappingProxyType(
    {
        "theorem-average": "Algorithm 2 as printed",
        "practical-last": "practical preset, last iterate",
        "practical-average": "practical preset, average",
    }
)
"""What is looked at: a preset and which of its policies."""

_ENDS = MappingProxyType({"symmetric": (BLUE, "o", "-"), "independent": (RED, "s", DASHED)})
_BETWEEN = ((GREEN, "^", (0, (6, 1.5))), (PURPLE, "v", (0, (3, 1, 1, 1))), (YELLOW, "D", DOTTED))


class LearningCurve(NamedTuple):
    """Epochs done [E] and a statistic over the seeds at each."""

    epochs: Float[np.ndarray, " E"]
    summary: RobustMean


def learner_title(groups: Any) -> str:
    """What a grouping is called."""
    names = {"symmetric": "Symm-PMD (G = 1)", "independent": "IPMD (G = N)"}
    return names.get(str(groups), f"G = {groups}")


def curve_of(rows: Sequence[Row], column: str) -> LearningCurve:
    """A column of one learner's rows, over seeds."""
    found = sample(rows, "epoch", column)
    return LearningCurve(found.x, interquartile_mean(found.values))


def draw(rows: Sequence[Row], facts: Mapping[str, Any]) -> dict[str, Figure]:
    """Largest and mean exploitability over agents, for the three outputs."""
    title = f"{facts['title']}: exploitability while learning"
    with panels(2 * len(OUTPUTS), len(OUTPUTS), title) as (figure, axes):
        places = [(column, output) for column in ("largest", "mean") for output in OUTPUTS]
        for ax, (column, output) in zip(axes, places, strict=True):
            part = [row for row in rows if row["output"] == output]
            between = iter((*_BETWEEN, (CYAN, "x", "-")))
            for groups in dict.fromkeys(row["groups"] for row in part):
                look = _ENDS.get(str(groups)) or next(between)
                mine = [row for row in part if row["groups"] == groups]
                epochs, found = curve_of(mine, column)
                ends = (found.low, found.high)
                plot(ax, Curve(epochs, found.mean, learner_title(groups), *look, ends=ends))
            log_log(ax, OUTPUTS[output], "epochs", f"{column} exploitability")
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            ax.yaxis.set_minor_formatter(NullFormatter())
        for row in (axes[: len(OUTPUTS)], axes[len(OUTPUTS) :]):
            lows, highs = zip(*(ax.get_ylim() for ax in row), strict=True)
            for ax in row:
                ax.set_ylim(min(lows), max(highs))
    return {str(facts["figure"]): figure}
