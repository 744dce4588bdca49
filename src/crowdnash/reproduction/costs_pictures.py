"""The picture of `costs`: the paper's times and ours, from its saved facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from crowdnash.reports.style import COLOURS, new_figure
from crowdnash.runs.metrics_log import Row

_UNITS = ((3600.0, "h"), (60.0, "min"), (1.0, "s"))


def duration(seconds: float) -> str:
    """A time for readers: hours, minutes or seconds."""
    for size, name in _UNITS:
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {name}"
    return f"{seconds:.3g} s"


def draw(_rows: Sequence[Row], facts: Mapping[str, Any]) -> dict[str, Figure]:
    """A row for every time that the paper gives, on a logarithmic axis."""
    timed = [claim for claim in facts["claims"] if claim["unit"] == "seconds"]
    with new_figure(7.6, 0.5 * len(timed) + 1.4) as (figure, axes):
        ax = axes[0, 0]
        for place, claim in enumerate(timed):
            low, high = claim["paper_interval"]
            label = place == 0
            ax.plot(
                [low, high],
                [place, place],
                "o-",  # a single time has no length
                color=COLOURS["red"],
                linewidth=5,
                markersize=5,
                label="paper" if label else None,
            )
            ours = claim["ours"]
            ax.plot(
                ours,
                place,
                "o",
                color=COLOURS["blue"],
                markersize=8,
                label="crowdnash" if label else None,
            )
            ax.annotate(
                duration(ours), (ours, place), (0, 8), textcoords="offset points", ha="center"
            )
        ax.set_yticks(range(len(timed)), [claim["claim"] for claim in timed])
        ax.invert_yaxis()
        ax.set_xscale("log")
        marks = (0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 7200.0)
        ax.set_xticks(marks, [duration(x) for x in marks])
        ax.minorticks_off()
        ax.set_xlim(min(c["ours"] for c in timed) / 5, 2 * 3600 * 3)
        ax.margins(y=0.12)
        ax.grid(True, axis="x")
        ax.set_title("Wall time of the paper's experiments")
        figure.legend(loc="outside lower center", ncols=2)
    return {"costs": figure}
