"""How close to equilibrium the learners come from play alone, for a thousand different agents.

Every case is a game and a learner; a seed draws the game and the learner's randomness. All
policies are judged by the library's certificate. One JSON line a run goes to
results/equilibrium.jsonl, so it can be stopped and started again.

    python benchmarks/equilibrium.py [--only TEXT] [--asked] [--seeds K] [--quick]
    python benchmarks/equilibrium.py --summarise
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import crowdnash as cn
from crowdnash.reproduction.learning_curves import BENCHMARKS
from equilibrium_games import NoisySIS, PaidSIS, Routes, TaxedSIS
from measurement import RESULTS, describe, environment


class Case(NamedTuple):
    """A game and a learner, and what the evidence said could be reached: largest and mean."""

    game: Callable[[jax.Array, int | None], Any]
    learner: dict[str, Any]
    goal: tuple[float, float] | None = None


def _sis(key: jax.Array, num_agents: int | None) -> Any:
    return cn.games.SIS.sample(key, num_agents=num_agents or 1000, horizon=20, heterogeneity=0.1)


def _variant(kind: type) -> Callable[[jax.Array, int | None], Any]:
    def make(key: jax.Array, num_agents: int | None) -> Any:
        return kind(**_sis(key, num_agents).agents._asdict(), horizon=20)

    return make


def _rps(key: jax.Array, num_agents: int | None) -> Any:
    return cn.games.RockPaperScissors.sample(key, num_agents=num_agents or 2000, horizon=10)


def _paper_sis(key: jax.Array, num_agents: int | None) -> Any:
    return BENCHMARKS["fig1c"].sample(key, num_agents or 1000)


def _routes(key: jax.Array, num_agents: int | None) -> Any:
    return Routes.sample(key, num_agents or 1000)


def _library(name: str) -> Callable[[jax.Array, int | None], Any]:
    kind: Any = cn.games.lookup(name)
    return lambda key, num_agents: kind.sample(key, num_agents=num_agents or 500)


TD = {"evaluation": "td", "groups": "symmetric", "td_epochs": 100}
INDEPENDENT = {"groups": "independent", "td_epochs": 100, "step_size": 0.3}
CASES: dict[str, Case] = {
    "A-SIS, mixed, step 1": Case(_sis, {"step_size": 1.0}, (0.04, 0.006)),
    "A-SIS, mixed, step 0.3": Case(_sis, {"step_size": 0.3}, (0.07, 0.02)),
    "A-SIS, mixed, measured step": Case(_sis, {}, (0.04, 0.006)),
    "A-SIS, features, measured step": Case(_sis, {"representation": "features"}),
    "A-SIS, alpha = beta = 0.1, mixed": Case(_paper_sis, {}, (0.07, 0.007)),
    "A-SIS with 5 irrelevant features, mixed": Case(_variant(NoisySIS), {}, (0.07, 0.007)),
    "A-RPS, mixed linear, step 0.3": Case(
        _rps, {"step_size": 0.3, "features": "linear"}, (0.13, 0.05)
    ),
    "A-RPS, mixed linear, measured step": Case(_rps, {"features": "linear"}, (0.13, 0.05)),
    "routes, kind hidden, independent": Case(
        _routes, {"groups": "independent", "td_epochs": 20}, (0.05, 0.001)
    ),
    "routes, kind hidden, independent, step 0.3": Case(
        _routes, {"groups": "independent", "td_epochs": 20, "step_size": 0.3}, (0.05, 0.001)
    ),
    "routes, kind hidden, independent, step 0.3, tau = 0.003": Case(
        _routes,
        {"groups": "independent", "td_epochs": 20, "step_size": 0.3, "temperature": 0.003},
        (0.05, 0.001),
    ),
    "routes, kind hidden, independent, M = 100": Case(
        _routes, {"groups": "independent", "td_epochs": 100}
    ),
    "routes, kind hidden, mixed": Case(_routes, {}),
    "routes, kind hidden, features": Case(_routes, {"representation": "features"}),
    "A-SIS, independent, M = 100": Case(_sis, INDEPENDENT, (0.08, 0.025)),
    "A-SIS, rewards + 2, mixed": Case(_variant(PaidSIS), {}, (0.04, 0.006)),
    "A-SIS, rewards - 2, mixed": Case(_variant(TaxedSIS), {}, (0.04, 0.006)),
    "A-SIS, rewards + 2, independent, M = 100": Case(_variant(PaidSIS), INDEPENDENT, (0.08, 0.025)),
    "A-SIS, rewards - 2, independent, M = 100": Case(
        _variant(TaxedSIS), INDEPENDENT, (0.08, 0.025)
    ),
    "A-SIS, Symm-PMD, TD, M = 100": Case(_sis, TD),
    "A-SIS, IPMD, TD, M = 100": Case(_sis, TD | {"groups": "independent"}),
    "A-RPS, Symm-PMD, TD, M = 100": Case(_rps, TD),
    "A-RPS, IPMD, TD, M = 100": Case(_rps, TD | {"groups": "independent"}),
    "A-RPS, independent, fitted": Case(_rps, {"groups": "independent"}),
    "A-SIS, mixed, M = 1": Case(_sis, {"td_epochs": 1}),
    "A-SIS, mixed, M = 5": Case(_sis, {"td_epochs": 5}),
} | {
    f"{name}, {what}": Case(_library(name), settings)
    for name in ("congestion", "beach-bar", "crowd-modelling", "garnet")
    for what, settings in (
        ("mixed, measured step", {}),
        ("mixed, step 0.3", {"step_size": 0.3}),
        ("Symm-PMD, TD, M = 20", TD | {"td_epochs": 20}),
    )
}


def run(name: str, seed: int, quick: bool) -> dict[str, Any]:
    """One seed of one case."""
    case = CASES[name]
    game_key, learning_key, judging_key = jax.random.split(jax.random.key(seed), 3)
    game = case.game(game_key, 40 if quick else None)
    epochs = 3 if quick else 300
    learner = cn.PolicyMirrorDescent.practical(
        **({"num_epochs": epochs, "temperature": 0.01} | case.learner)
    )
    start = time.perf_counter()
    result = cn.solve(game, learner, key=learning_key)
    seconds = time.perf_counter() - start
    policy = result.policy
    if isinstance(policy, cn.FeaturePolicy):
        policy = policy.tabular()
    e = cn.exploitability(game, policy, key=judging_key, num_trajectories=8 if quick else 128)
    frozen = e.frozen or e
    return {
        "case": name,
        "seed": seed,
        "num_agents": game.num_agents,
        "maximum": [e.maximum.lower, e.maximum.upper],
        "mean": [e.mean.lower, e.mean.upper],
        "frozen_maximum": [frozen.maximum.lower, frozen.maximum.upper],
        "frozen_mean": [frozen.mean.lower, frozen.mean.upper],
        "mean_point": float(np.mean(frozen.lower)),
        "step_size": result.history[-1].step_size,
        "agent_steps": sum(row.agent_steps for row in result.history),
        "seconds": seconds,
        "commit": environment()["commit"],
    }


def summary(rows: list[dict[str, Any]]) -> str:
    """The table: mean and standard error over seeds of the certificates' ends."""
    lines = [
        "| case | seeds | largest, lower end | upper end | mean, lower end | upper end "
        "| asked | step | seconds | commit |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, case in CASES.items():
        own = [row for row in rows if row["case"] == name]
        if not own:
            continue
        cells = [
            _mean([row[field][end] for row in own])
            for field in ("frozen_maximum", "frozen_mean")
            for end in (0, 1)
        ]
        asked = " / ".join(f"{goal:g}" for goal in case.goal) if case.goal else ""
        step = np.mean([row["step_size"] for row in own])
        seconds = np.mean([row["seconds"] for row in own])
        commit = ", ".join(dict.fromkeys(row["commit"] for row in own))
        cells = [name, str(len(own)), *cells, asked, f"{step:.2f}", f"{seconds:.0f}", commit]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(values: list[float]) -> str:
    if len(values) < 2:
        return f"{np.mean(values):.4f}"
    return f"{np.mean(values):.4f} ± {np.std(values, ddof=1) / np.sqrt(len(values)):.4f}"


def main() -> None:
    """Run what is missing, or write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--asked", action="store_true", help="cases with a goal alone")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, into results/partial")
    parser.add_argument("--summarise", action="store_true")
    arguments = parser.parse_args()
    folder: Path = RESULTS / "partial" if arguments.quick else RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "equilibrium.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if not arguments.summarise:
        done = {(row["case"], row["seed"]) for row in rows}
        for name in CASES:
            for seed in range(arguments.seeds):
                wanted = arguments.only in name and not (arguments.asked and not CASES[name].goal)
                if wanted and (name, seed) not in done:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        row = run(name, seed, arguments.quick)
                    rows.append(row)
                    with path.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                    print(f"{name}, seed {seed}: {row['frozen_maximum']} {row['frozen_mean']}")
    head = "# How close to equilibrium learners come from play alone\n\n"
    note = (
        "300 epochs, tau = 0.01 and 20 trajectories an epoch unless the case says otherwise; mean "
        "and standard error over seeds of the certificate's ends, against frozen population paths "
        "(128 to plan, 128 to judge). Seconds with compiling, on a shared machine.\n\n"
    )
    text = head + note + summary(rows) + "\n\n" + describe(environment()) + "\n"
    (folder / "equilibrium.md").write_text(text)


if __name__ == "__main__":
    main()
