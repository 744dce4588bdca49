"""Figs. 1b and 1c again: exploitability of Symm-PMD, of a few groups and of IPMD while they learn.

With Algorithm 1 every learner gets the same trajectories, and IPMD the step sizes that suit it (the
library's default counts visits; with the theorem's fixed steps IPMD would do far worse). Beside
them stand the same groupings with fitted evaluation, and the mixed model that is today's preset, on
a fifth of the trajectories: what is left of IPMD's trouble then is not its evaluation's. Curves are
drawn against agent-steps. Heterogeneity is
such that alpha and beta are about 0.1, which the paper says; centres, number of epochs and M it
does not say (see docs/paper_map.md). Whether the paper draws the largest or the mean
exploitability over agents is open too: both are drawn, for each preset's outputs.

A seed decides the game's draw and all of learning. Axes: R seeds, E evaluated epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from crowdnash.approximate_symmetry.measurement import symmetry
from crowdnash.certificates.certificate import exploitability
from crowdnash.games import SIS, RockPaperScissors
from crowdnash.games.base import PopulationGame
from crowdnash.learners.driver import solve_together
from crowdnash.learners.mirror_descent import EpochMetrics, PolicyMirrorDescent
from crowdnash.learners.mirror_state import MirrorDescentState
from crowdnash.policies.base import Policy
from crowdnash.reproduction.fits import number
from crowdnash.reproduction.learning_curves_pictures import OUTPUTS, curve_of, draw, learner_title
from crowdnash.reproduction.study import Conclusion, Point, Scale, Settings, Study, Table
from crowdnash.runs.metrics_log import Row

_TEMPERATURE = 0.01


class _Preset(NamedTuple):
    """How all groupings learn in one part of the figure.

    Attributes:
        learner: makes the learner.
        trajectories: M.
        outputs: names of its policies.
        mixed: whether the mixed model stands beside its groups.
    """

    learner: Callable[..., PolicyMirrorDescent]
    trajectories: int
    outputs: tuple[str, ...]
    mixed: bool = False


_PRESETS: Mapping[str, _Preset] = MappingProxyType(
    {
        "theorem": _Preset(PolicyMirrorDescent, 100, ("average",)),
        "practical": _Preset(
            partial(PolicyMirrorDescent.practical, evaluation="td"), 100, ("last", "average")
        ),
        "fitted": _Preset(PolicyMirrorDescent.practical, 20, ("last",), mixed=True),
    }
)


@dataclass(frozen=True)
class Benchmark:
    """A game of the paper with the heterogeneity of its figure, and how to certify on it."""

    figure: str
    title: str
    sample: Callable[[PRNGKeyArray, int], PopulationGame]
    num_agents: Mapping[Scale, int]


def _rock_paper_scissors(key: PRNGKeyArray, num_agents: int) -> PopulationGame:
    # Noise on crowding and on payoffs adds up to beta = 0.1.
    return RockPaperScissors.sample(key, num_agents=num_agents, heterogeneity=0.05)


def _sis(key: PRNGKeyArray, num_agents: int) -> PopulationGame:
    # alpha is twice the largest deviation of a probability (an L1 norm).
    widths = {"susceptibility": 0.05, "recovery": 0.05, "isolation_aversion": 0.1}
    return SIS.sample(key, num_agents=num_agents, heterogeneity=widths)


BENCHMARKS: Mapping[str, Benchmark] = MappingProxyType(
    {
        "fig1b": Benchmark(
            "Fig. 1b",
            "A-RPS",
            _rock_paper_scissors,
            {"smoke": 100, "small": 2000, "paper": 2000},
        ),
        "fig1c": Benchmark("Fig. 1c", "A-SIS", _sis, {"smoke": 100, "small": 1000, "paper": 1000}),
    }
)


class _Size(NamedTuple):
    groups: tuple[int | str, ...]
    num_epochs: int
    num_seeds: int
    num_evaluations: int
    num_paths: int


_SIZES: Mapping[Scale, _Size] = {
    "smoke": _Size(("symmetric", 4, "independent"), 20, 2, 4, 16),
    "small": _Size(("symmetric", 16, "independent"), 100, 3, 8, 64),
    "paper": _Size(("symmetric", 4, 32, "independent"), 300, 4, 12, 64),
}


def points_of(figure: str) -> Callable[[Scale, int], tuple[Point, ...]]:
    """The points of a figure: all seeds of a preset and a grouping, or the mixed model, are one."""

    def points(scale: Scale, seed: int) -> tuple[Point, ...]:
        size = _SIZES[scale]
        return tuple(
            Point.of(
                "preset",
                "groups",
                figure=figure,
                preset=name,
                groups=groups,
                seed=seed,
                num_seeds=size.num_seeds,
                num_agents=BENCHMARKS[figure].num_agents[scale],
                num_epochs=size.num_epochs,
                td_epochs=preset.trajectories,
                num_evaluations=size.num_evaluations,
                num_paths=size.num_paths,
            )
            for name, preset in _PRESETS.items()
            for groups in (*size.groups, *(("mixed",) if preset.mixed else ()))
        )

    return points


def evaluated_epochs(num_epochs: int, count: int) -> tuple[int, ...]:
    """About `count` numbers of epochs done, evenly spread in the logarithm, from 1 to the last."""
    return tuple(sorted({round(x) for x in np.geomspace(1, num_epochs, count)}))


def measure(settings: Settings, _folder: Path | None = None) -> Sequence[Row]:
    """Learn with all seeds together; a row for every seed, evaluated epoch and output."""
    point: Any = settings
    benchmark = BENCHMARKS[point["figure"]]
    keys = [
        jax.random.split(jax.random.key(point["seed"] + run), 3)
        for run in range(point["num_seeds"])
    ]
    games = [benchmark.sample(key[0], point["num_agents"]) for key in keys]
    shared = {} if point["groups"] == "mixed" else {"groups": point["groups"]}
    learner = _PRESETS[point["preset"]].learner(
        num_epochs=point["num_epochs"],
        td_epochs=point["td_epochs"],
        temperature=_TEMPERATURE,
        **shared,
    )
    looked_at = set(evaluated_epochs(point["num_epochs"], point["num_evaluations"]))
    rows: list[Row] = [_facts_of(game, run) for run, game in enumerate(games)]
    seconds = [0.0] * len(games)

    def look(run: int, state: MirrorDescentState, metrics: EpochMetrics) -> None:
        done = metrics.epoch + 1
        if done > 1:  # the first one compiles
            seconds[run] += metrics.seconds
        if done not in looked_at:
            return
        # One key for all epochs of a seed: their differences are not sampling noise.
        for output, policy in _outputs(
            point["preset"], learner.policies(games[run], state)
        ).items():
            gains = _gains(games[run], policy, keys[run][2], point["num_paths"])
            spent = done * metrics.agent_steps
            where: Row = {"run": run, "output": output, "epoch": done, "agent_steps": spent}
            rows.append(where | gains | {"learning_seconds": seconds[run]})

    solve_together(games, learner, keys=[key[1] for key in keys], callback=look)
    return rows


def _facts_of(game: PopulationGame, run: int) -> Row:
    sym = symmetry(game)
    return {
        "run": run,
        "output": "game",
        "alpha": sym.alpha.upper,
        "beta": sym.beta.upper,
        "symmetry_exact": sym.exact,
    }


def _outputs(preset: str, policies: Mapping[str, Policy]) -> dict[str, Policy]:
    """What is looked at, by its name in `OUTPUTS`."""
    return {f"{preset}-{name}": policies[name] for name in _PRESETS[preset].outputs}


def _gains(game: PopulationGame, policy: Policy, key: PRNGKeyArray, num_paths: int) -> Row:
    certificate = exploitability(
        game, policy, key=key, num_trajectories=num_paths, own_influence_agents=0
    )
    return {
        "method": certificate.method,
        "largest": certificate.maximum.lower,
        "largest_upper": certificate.maximum.upper,
        "mean": certificate.mean.lower,
        "mean_upper": certificate.mean.upper,
    }


def conclude_of(figure: str) -> Callable[[Sequence[Row]], Conclusion]:
    """What the rows of a figure say."""

    def conclude(rows: Sequence[Row]) -> Conclusion:
        games = [row for row in rows if row["output"] == "game"]
        alpha, beta = ([number(row, name) for row in games] for name in ("alpha", "beta"))
        facts: dict[str, Any] = {
            "figure": figure,
            "title": f"{BENCHMARKS[figure].title} ({BENCHMARKS[figure].figure})",
            "alpha": [min(alpha), max(alpha)],
            "beta": [min(beta), max(beta)],
            "outputs": {},
        }
        for output in OUTPUTS:
            part = [row for row in rows if row["output"] == output]
            facts["outputs"][output] = {
                str(groups): _learner_facts(part, groups)
                for groups in dict.fromkeys(row["groups"] for row in part)
            }
        return Conclusion(facts, _tables(facts), _verdict(facts))

    return conclude


def _learner_facts(rows: Sequence[Row], groups: Any) -> dict[str, Any]:
    mine = [row for row in rows if row["groups"] == groups]
    last = max(number(row, "epoch") for row in mine)
    final = [row for row in mine if row["epoch"] == last]
    facts: dict[str, Any] = {
        "num_seeds": len(final),
        "agent_steps": number(final[0], "agent_steps"),
    }
    facts["seconds_per_epoch"] = float(
        np.median([number(row, "learning_seconds") / max(last - 1, 1) for row in final])
    )
    for column in ("largest", "mean"):
        curve = curve_of(mine, column)
        facts[column] = {
            "agent_steps": curve.agent_steps.tolist(),
            "iqm": curve.summary.mean.tolist(),
            "low": curve.summary.low.tolist(),
            "high": curve.summary.high.tolist(),
            "final": curve.summary.text(),
            "best": float(curve.summary.mean.min()),
        }
    return facts


def _tables(facts: Mapping[str, Any]) -> tuple[Table, ...]:
    tables = []
    for output, title in OUTPUTS.items():
        cells = tuple(
            (
                learner_title(groups),
                fact["largest"]["final"],
                f"{fact['largest']['best']:.3g}",
                fact["mean"]["final"],
                f"{fact['mean']['best']:.3g}",
                f"{fact['seconds_per_epoch']:.3f}",
                str(fact["num_seeds"]),
            )
            for groups, fact in facts["outputs"][output].items()
        )
        columns = ("learner", "largest, at the end", "least", "mean, at the end", "least")
        tables.append(
            Table(
                f"{facts['title']}, {title}: exploitability over agents "
                "(interquartile mean over seeds, 95% interval)",
                (*columns, "seconds an epoch", "seeds"),
                cells,
            )
        )
    return tuple(tables)


def _verdict(facts: Mapping[str, Any]) -> tuple[str, ...]:
    (alpha, beta) = (f"{facts[x][0]:.3f} to {facts[x][1]:.3f}" for x in ("alpha", "beta"))
    text = [f"Over the seeds alpha is {alpha} and beta {beta} (the paper: about 0.1)."]
    for output, title in OUTPUTS.items():
        by_groups = facts["outputs"][output]
        for column in ("largest", "mean"):
            order = sorted(by_groups, key=lambda groups: by_groups[groups][column]["iqm"][-1])
            ranked = "; ".join(f"{learner_title(g)} {by_groups[g][column]['final']}" for g in order)
            text.append(f"{title}, {column} over agents at the end, best first: {ranked}.")
    return tuple(text)


def study_of(figure: str) -> Study:
    """The study of one figure."""
    return Study(
        name=figure,
        summary=f"{BENCHMARKS[figure].title}: exploitability of Symm-PMD, groups and IPMD while "
        "they learn",
        points=points_of(figure),
        measure=measure,
        conclude=conclude_of(figure),
        draw=draw,
    )
