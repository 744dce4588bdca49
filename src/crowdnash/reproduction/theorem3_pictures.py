"""The picture of `theorem3`, from its saved rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from matplotlib.figure import Figure

from crowdnash.reports.style import BLUE, GREEN, GREY, PURPLE, RED, YELLOW
from crowdnash.reproduction.fits import sample
from crowdnash.reproduction.pictures import DASHED, DOTTED, Curve, guide, log_log, panels, plot
from crowdnash.runs.metrics_log import Row

TITLES = MappingProxyType(
    {
        "congestion": "congestion",
        "rps-scaled": "A-RPS, payoffs / 12",
        "rps-printed": "A-RPS as printed",
    }
)
_CURVES = (
    ("theorem", "average", "mean_field", "theorem's settings, average policy", BLUE, "o", "-"),
    ("theorem", "last", "mean_field", "theorem's settings, last iterate", RED, "s", "-"),
    ("practical", "last", "mean_field", "practical preset, last iterate", GREEN, "^", "-"),
    ("practical", "average", "mean_field", "practical preset, average policy", YELLOW, "v", DASHED),
    (
        "theorem",
        "average",
        "largest_upper",
        "average policy, largest gain of the N agents",
        PURPLE,
        "x",
        DASHED,
    ),
)


def draw(rows: Sequence[Row], facts: Mapping[str, Any]) -> dict[str, Figure]:
    """Exploitability against trajectories, a panel for every game."""
    games = facts["games"]
    title = "Symm-PMD: exploitability in the induced game against simulated trajectories"
    with panels(len(games), max(2, len(games)), title) as (figure, axes):
        for ax, (game, fact) in zip(axes, games.items(), strict=True):
            runs = [row for row in rows if row["kind"] == "run" and row["game"] == game]
            for learner, policy, column, label, colour, marker, dash in _CURVES:
                part = [row for row in runs if row["learner"] == learner]
                found = sample(part, "trajectories", f"{policy}_{column}")
                plot(ax, Curve(found.x, found.mean, label, colour, marker, dash, found.error))
                if (learner, policy, column) == ("theorem", "average", "mean_field"):
                    first = (float(found.x[0]), float(found.mean[0]))
                    guide(ax, list(found.x), first, -1 / 6, "slope of the guarantee, -1/6")
            for name, label, dash in (
                ("uniform", "uniform policy", DOTTED),
                ("regularised", "regularised equilibrium", (0, (3, 1.5, 1, 1.5))),
            ):
                ax.axhline(fact[name], color=GREY, linestyle=dash, linewidth=1.4, label=label)
            log_log(ax, TITLES[game], "trajectories T·M", "exploitability (total reward)")
    return {"trajectories": figure}
