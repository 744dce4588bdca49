"""Theorem 1 tried out: the exact MFG-NE played by N agents, beside the bound.

Three sweeps: the number of agents (all alike), transitions that differ (alpha), rewards that
differ (beta). The certificate gives what a known deviation achieves and what none exceeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from crowdnash import mean_field
from crowdnash.approximate_symmetry.bounds import nash_bound
from crowdnash.certificates.certificate import exploitability
from crowdnash.mean_field.induced import induced_game
from crowdnash.policies.tabular import TabularPolicy
from crowdnash.reproduction.fits import as_fact, fit_text, number, power_law, sample
from crowdnash.reproduction.study import Conclusion, Point, Scale, Settings, Study, Table
from crowdnash.reproduction.theorem1_games import CASES, equilibrium, measured_symmetry
from crowdnash.reproduction.theorem1_pictures import draw
from crowdnash.runs.metrics_log import Row

_ROUNDING = 1e-5
"""What float32 play of a policy leaves of an exploitability of 0."""

_SIZES: Mapping[Scale, tuple[int, ...]] = {
    "smoke": (30, 300),
    "small": (30, 100, 300, 1000),
    "paper": (30, 100, 300, 1000, 3000),
}
_CROWDS: Mapping[Scale, tuple[str, ...]] = {
    "smoke": ("kink",),
    "small": ("kink", "congestion-curved", "sis", "rock-paper-scissors"),
    "paper": ("kink", "congestion-curved", "sis", "rock-paper-scissors"),
}
_DIFFERENCES: Mapping[Scale, tuple[float, ...]] = {
    "smoke": (0.0, 0.1),
    "small": (0.0, 0.05, 0.1, 0.15, 0.2, 0.25),
    "paper": (0.0, 0.025, 0.05, 0.075, 0.1, 0.125, 0.15, 0.175, 0.2, 0.225, 0.25),
}
_DIFFERING: Mapping[str, Mapping[Scale, tuple[str, ...]]] = {
    "transitions": {
        "smoke": ("sis",),
        "small": ("sis", "sis-weak", "congestion"),
        "paper": ("sis", "sis-weak", "congestion"),
    },
    "rewards": {
        "smoke": ("rock-paper-scissors",),
        "small": ("rock-paper-scissors", "sis", "congestion"),
        "paper": ("rock-paper-scissors", "sis", "congestion"),
    },
}
_REPLICATES: Mapping[Scale, int] = {"smoke": 2, "small": 3, "paper": 5}
_CROWD_SIZE: Mapping[Scale, int] = {"smoke": 200, "small": 1000, "paper": 1000}
_PATHS: Mapping[Scale, int] = {"smoke": 64, "small": 256, "paper": 1024}
_AGENT_PATHS: Mapping[Scale, int] = {"smoke": 300_000, "small": 3_000_000, "paper": 10_000_000}


def points(scale: Scale, seed: int) -> tuple[Point, ...]:
    """The three sweeps, one after the other."""
    plan = []
    base = {"seed": seed, "transitions": 0.0, "rewards": 0.0}
    for game in _CROWDS[scale]:
        for num_agents in _SIZES[scale]:
            # Agents are alike, so one is examined; the smaller the crowd, the more paths.
            paths = min(max(_AGENT_PATHS[scale] // num_agents, 1000), 20_000)
            for replicate in range(_REPLICATES[scale]):
                own = {"sweep": "agents", "game": game, "num_agents": num_agents}
                own |= {"replicate": replicate, "num_paths": paths, "agents_examined": 1}
                own["own_influence_agents"] = 0 if scale == "smoke" else 1
                settings = base | own
                plan.append(Point.of("sweep", "game", "num_agents", "replicate", **settings))
    for sweep, games in _DIFFERING.items():
        for game in games[scale]:
            for difference in _DIFFERENCES[scale]:
                for replicate in range(_REPLICATES[scale]):
                    size = _CROWD_SIZE[scale]
                    own = {"sweep": sweep, "game": game, "num_agents": size, sweep: difference}
                    own |= {"replicate": replicate, "num_paths": _PATHS[scale]}
                    own |= {"agents_examined": size, "own_influence_agents": 0}
                    settings = base | own
                    plan.append(Point.of("sweep", "game", sweep, "replicate", **settings))
    return tuple(plan)


def measure(settings: Settings, _folder: Path | None = None) -> tuple[Row]:
    """Exploitability of the MFG-NE in one game, and Theorem 1's bound on it."""
    point: Any = settings
    key = jax.random.fold_in(jax.random.key(point["seed"]), point["replicate"])
    game_key, certificate_key = jax.random.split(key)
    case = CASES[point["game"]]
    # With the same key at every difference the same draw is stretched, so that curves are smooth.
    game = case.sample(game_key, point["num_agents"], point["transitions"], point["rewards"])
    mfg = induced_game(game)
    probs = equilibrium(case, game, mfg)
    delta = max(mean_field.exploitability(mfg, probs), 0.0)
    sym = measured_symmetry(game)
    bound = nash_bound(game, sym, mean_field_exploitability=delta)
    certificate = exploitability(
        game,
        TabularPolicy.symmetric(probs, game.num_agents),
        key=certificate_key,
        num_trajectories=point["num_paths"],
        agents=np.arange(point["agents_examined"]),
        own_influence_agents=point["own_influence_agents"],
        method="exact" if _has_exact_certificate(game) else "paths",
    )
    worst = int(np.argmax(certificate.lower))
    influence = certificate.own_influence
    return (
        {
            "alpha": sym.alpha.upper,
            "beta": sym.beta.upper,
            "mean_field_exploitability": delta,
            "method": certificate.method,
            "achieved": float(certificate.lower[worst]),
            "achieved_error": float(certificate.standard_error[worst]),
            "seen_in_advance": float(certificate.upper.max()),
            "largest_lower": certificate.maximum.lower,
            "largest_upper": certificate.maximum.upper,
            "mean_lower": certificate.mean.lower,
            "mean_upper": certificate.mean.upper,
            "own_influence": 0.0 if influence is None else float(influence.difference[0]),
            "own_influence_error": 0.0 if influence is None else float(influence.standard_error[0]),
            "bound_mended": bound.value,
            "bound_sharper": bound.sharper,
            "bound_trivial": bound.trivial,
            "bound_certified": bound.certified,
            "L_pop": bound.L_pop,
            "L_pop_sharper": bound.L_pop_sharper,
        },
    )


def _has_exact_certificate(game: Any) -> bool:
    return game.transition_in_aggregate == "free" and game.reward_in_aggregate == "affine"


def conclude(rows: Sequence[Row]) -> Conclusion:
    """Slopes in N, and whether the bound held and said anything."""
    slopes: dict[str, Any] = {}
    for game in dict.fromkeys(str(row["game"]) for row in rows if row["sweep"] == "agents"):
        part = [row for row in rows if row["sweep"] == "agents" and row["game"] == game]
        fits = {}
        for column in ("achieved", "seen_in_advance"):
            measured = sample(part, "num_agents", column)
            # Below rounding, and within a few delta, nothing is measured of N.
            floor = max(
                _ROUNDING, 10 * max(number(row, "mean_field_exploitability") for row in part)
            )
            fits[column] = as_fact(power_law(measured.at(measured.clear & (measured.mean > floor))))
        slopes[game] = fits
    broken = [row for row in rows if number(row, "bound_sharper") < number(row, "largest_lower")]
    facts = {
        "slopes": slopes,
        "violations": len(broken),
        "certified": sum(bool(row["bound_certified"]) for row in rows),
        "informative": {
            form: sum(number(row, f"bound_{form}") < number(row, "bound_trivial") for row in rows)
            for form in ("mended", "sharper")
        },
        "largest_mean_field_exploitability": max(
            number(row, "mean_field_exploitability") for row in rows
        ),
        "num_rows": len(rows),
    }
    return Conclusion(facts, _tables(rows, slopes), _verdict(rows, facts))


_SWEEP_TITLES = {
    "agents": "Identical agents, more and more of them",
    "transitions": "Agents whose transitions differ (alpha)",
    "rewards": "Agents whose rewards differ (beta)",
}
_SWEEP_AXES = {"agents": "num_agents", "transitions": "alpha", "rewards": "beta"}


def _tables(rows: Sequence[Row], slopes: Mapping[str, Any]) -> tuple[Table, ...]:
    tables = []
    for sweep, title in _SWEEP_TITLES.items():
        cells = []
        nominal = "num_agents" if sweep == "agents" else sweep
        places = dict.fromkeys((r["game"], r[nominal]) for r in rows if r["sweep"] == sweep)
        for game, place in places:
            part = [r for r in rows if (r["sweep"], r["game"], r[nominal]) == (sweep, game, place)]
            mean = {name: np.mean([number(r, name) for r in part]) for name in _SHOWN}
            axis = np.mean([number(r, _SWEEP_AXES[sweep]) for r in part])
            cells.append(
                (
                    CASES[str(game)].title,
                    f"{axis:.4g}",
                    f"{mean['largest_lower']:.3g} to {mean['largest_upper']:.3g}",
                    f"{mean['mean_lower']:.3g} to {mean['mean_upper']:.3g}",
                    f"{mean['bound_sharper']:.3g}",
                    f"{mean['bound_mended']:.3g}",
                    f"{mean['bound_trivial']:.3g}",
                )
            )
        if cells:
            axis_name = {"agents": "agents"}.get(sweep, _SWEEP_AXES[sweep])
            columns = ("game", axis_name, "largest exploitability", "mean", "bound, sharper")
            tables.append(Table(title, (*columns, "mended", "trivial"), tuple(cells)))
    fitted = tuple(
        (CASES[game].title, *(fit_text(fits[c]) for c in ("achieved", "seen_in_advance")))
        for game, fits in slopes.items()
    )
    columns = ("game", "achieved by a known deviation", "by one who sees the crowd in advance")
    tables.append(Table("Slope in log N (Theorem 1: at worst -0.5)", columns, fitted))
    return tuple(tables)


_SHOWN = (
    "largest_lower",
    "largest_upper",
    "mean_lower",
    "mean_upper",
    "bound_sharper",
    "bound_mended",
    "bound_trivial",
)


def _verdict(rows: Sequence[Row], facts: Mapping[str, Any]) -> tuple[str, ...]:
    informative = facts["informative"]
    said = (
        "The bound was never below the measured exploitability"
        if facts["violations"] == 0
        else f"The bound was below the measured exploitability {facts['violations']} times"
    )
    text = [
        f"{said} ({facts['num_rows']} games, with exact moduli in {facts['certified']}). It said "
        f"more than the trivial bound in {informative['sharper']} of them in its sharper form, in "
        f"{informative['mended']} in its mended one; the others are vacuous."
    ]
    text += [
        f"{CASES[game].title}: log of what a deviation achieves falls in log N with slope "
        f"{fit_text(fits['achieved'])}."
        if fits["achieved"]
        else f"{CASES[game].title}: no known deviation gains an identical agent anything."
        for game, fits in facts["slopes"].items()
    ]
    ratios = [
        number(row, "bound_sharper") / number(row, "largest_lower")
        for row in rows
        if number(row, "largest_lower") > _ROUNDING
    ]
    if ratios:
        text.append(
            f"Where there is something to gain, the sharper bound is {min(ratios):.3g} to "
            f"{max(ratios):.3g} times what was certainly gained."
        )
    return tuple(text)


STUDY = Study(
    name="theorem1",
    summary="exploitability of the exact mean-field equilibrium beside Theorem 1's bound",
    points=points,
    measure=measure,
    conclude=conclude,
    draw=draw,
)
