"""How much play, and how much CPU time, until the mean exploitability is small: every learner.

    python benchmarks/time_to_quality.py [--old SRC] [--seeds K] [--only TEXT] [--quick]
    python benchmarks/time_to_quality.py --summarise

Each learner runs in a process of its own, one after the other, first for compilation and then for
the record; certificates are not counted. With `--old`, the source folder of version 0.1.0, its
learners run too, in turn with ours. Seconds are of this process's CPU, all threads, so that a
shared machine does not matter. One JSON line a run goes to results/time_to_quality.jsonl, so it can
be stopped and started again; then the table and a picture.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import jax
import matplotlib.pyplot as plt
import numpy as np

import crowdnash as cn
from measurement import RESULTS, ROOT, describe, environment

LEVELS = (0.1, 0.05, 0.02, 0.01)
OLD = {
    "Symm-PMD, TD": {"groups": "symmetric", "td_epochs": 100},
    "16 groups, TD": {"groups": 16, "td_epochs": 100},
    "IPMD, TD": {"groups": "independent", "td_epochs": 100},
}
NEW: dict[str, dict[str, Any]] = {
    **{name: settings | {"evaluation": "td"} for name, settings in OLD.items()},
    "16 groups, fitted": {"groups": 16},
    "independent, fitted": {"groups": "independent"},
    "features": {"representation": "features"},
    "mixed": {},
}
GAMES = ("A-SIS", "A-RPS")
LOOKS = {1, 2, 4, 7, *range(10, 50, 5), *range(50, 301, 10)}
"""Epochs after which the policy is judged."""


def _game(name: str, seed: int, quick: bool) -> Any:
    key = jax.random.key(seed)
    size = 50 if quick else 1000
    if name == "A-SIS":
        return cn.games.SIS.sample(key, num_agents=size, horizon=20, heterogeneity=0.1)
    return cn.games.RockPaperScissors.sample(key, num_agents=size, horizon=10)


def measure(game_name: str, settings: dict[str, Any], seed: int, quick: bool) -> dict[str, Any]:
    """Mean exploitability (lower estimate) by agent-steps and CPU seconds of learning."""
    warnings.simplefilter("ignore")
    game = _game(game_name, seed, quick)
    base: dict[str, Any] = {"num_epochs": 4 if quick else 300, "temperature": 0.01}
    settings = base | settings
    if game_name == "A-RPS" and settings.get("representation", "mixed") != "tables":
        settings = settings | ({} if "groups" in settings else {"features": "linear"})
    learner = cn.PolicyMirrorDescent.practical(**settings)
    short: dict[str, Any] = settings | {"num_epochs": 2}
    cn.solve(game, cn.PolicyMirrorDescent.practical(**short), key=_key(9))
    curve: dict[str, list[float]] = {"agent_steps": [], "seconds": [], "mean": []}
    steps = seconds = 0.0
    begun = time.process_time()

    def look(state: Any, metrics: Any) -> None:
        nonlocal steps, seconds, begun
        seconds += time.process_time() - begun
        steps += metrics.agent_steps
        if metrics.epoch + 1 in LOOKS:
            policy = _last_policy(learner, game, state)
            e = cn.exploitability(
                game, policy, key=_key(1), num_trajectories=64, own_influence_agents=0
            )
            for name, value in (("agent_steps", steps), ("seconds", seconds)):
                curve[name].append(value)
            curve["mean"].append(float(np.mean((getattr(e, "frozen", None) or e).lower)))
        begun = time.process_time()

    cn.solve(game, learner, key=_key(1000 + seed), callback=look)
    return curve


def _last_policy(learner: Any, game: Any, state: Any) -> Any:
    if not hasattr(learner, "policies"):  # version 0.1.0
        return learner.last_policy(state)
    policy = learner.policies(game, state)["last"]
    return policy.tabular() if isinstance(policy, cn.FeaturePolicy) else policy


def _key(number: int) -> Any:
    return jax.random.key(number)


def _child(
    game: str, settings: dict[str, Any], seed: int, quick: bool, source: Path | None
) -> dict[str, Any]:
    place = {"PYTHONPATH": str(source)} if source else {}
    words = ["--child", game, json.dumps(settings), str(seed), *(["--quick"] if quick else [])]
    done = subprocess.run(
        [sys.executable, __file__, *words],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | place,
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def reached(row: dict[str, Any], level: float, unit: str) -> float:
    """How much it took until the mean was below the level; infinite if it never was."""
    below = [x for x, mean in zip(row[unit], row["mean"], strict=True) if mean < level]
    return below[0] if below else np.inf


def summary(rows: list[dict[str, Any]]) -> str:
    """A table for each game: the mean over seeds of what a level took."""
    lines = []
    for game in GAMES:
        lines += [f"\n## {game}\n", "| learner | seeds | last | " + " | ".join(map(str, LEVELS))]
        lines[-1] += " |"
        lines += ["|---|---|---|" + "---|" * len(LEVELS)]
        for name in dict.fromkeys(row["learner"] for row in rows if row["game"] == game):
            own = [row for row in rows if (row["game"], row["learner"]) == (game, name)]
            cells = [str(len(own)), f"{np.mean([row['mean'][-1] for row in own]):.4f}"]
            for level in LEVELS:
                steps, seconds = (
                    np.mean([reached(row, level, unit) for row in own])
                    for unit in ("agent_steps", "seconds")
                )
                cells.append(f"{steps:.2g} ({seconds:.1f} s)" if steps < np.inf else "never")
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Mean exploitability by agent-steps, a panel a game; the curve is the mean over seeds."""
    figure, panels = plt.subplots(1, len(GAMES), figsize=(10, 4.2), layout="constrained")
    for panel, game in zip(panels, GAMES, strict=True):
        for name in dict.fromkeys(row["learner"] for row in rows if row["game"] == game):
            if name.endswith("(0.1.0)"):  # the same curve as ours, at another speed
                continue
            own = [row for row in rows if (row["game"], row["learner"]) == (game, name)]
            style = "--" if name.endswith("TD") else "-"
            mean = np.mean([row["mean"] for row in own], axis=0)
            panel.plot(own[0]["agent_steps"], np.maximum(mean, 1e-3), style, label=name)
        panel.axhline(0.05, color="0.6", linewidth=0.8)
        panel.set(xscale="log", yscale="log", title=game, xlabel="agent-steps of play")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("mean exploitability, lower estimate")
    panels[0].legend(fontsize=7, loc="lower left")
    figure.savefig(path, dpi=110)


def _runs(old: Path | None) -> list[tuple[str, dict[str, Any], Path | None]]:
    """All learners, those of version 0.1.0 in turn with ours."""
    runs = []
    for name, settings in NEW.items():
        runs.append((name, settings, None))
        if old and name in OLD:
            runs.append((f"{name} (0.1.0)", OLD[name], old))
    return runs


def main() -> None:
    """Run all learners and write what they took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--old", type=Path, help="source folder of version 0.1.0")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", default="", help="learners whose name holds this")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, into results/partial")
    parser.add_argument("--summarise", action="store_true")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        game, settings, seed = arguments.child
        print(json.dumps(measure(game, json.loads(settings), int(seed), arguments.quick)))
        return
    folder: Path = RESULTS / "partial" if arguments.quick else RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "time_to_quality.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {(row["game"], row["learner"], row["seed"]) for row in rows}
    for seed in range(0 if arguments.summarise else arguments.seeds):
        for game in GAMES:
            for name, settings, source in _runs(arguments.old):
                if (game, name, seed) in done or arguments.only not in name:
                    continue
                where = environment()
                row = {"game": game, "learner": name, "seed": seed, "commit": where["commit"]}
                row |= _child(game, settings, seed, arguments.quick, source)
                rows.append(row)
                with path.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(game, name, seed, row["mean"][-1], flush=True)
    note = (
        "# Play and time to a mean exploitability\n\nAgent-steps (and CPU seconds of learning, "
        "all threads, without compiling and without certificates) until the mean exploitability's "
        "lower estimate is below the level: N = 1000, at most 300 epochs, tau = 0.01, judged after "
        "epochs 1, 2, 4, 7, then every 5 and from 50 on every 10; `last`: after 300.\n"
    )
    commits = ", ".join(dict.fromkeys(row["commit"] for row in rows))
    where = describe(environment() | {"commit": commits})
    text = "\n".join([note, summary(rows), "\n" + where, ""])
    (folder / "time_to_quality.md").write_text(text)
    picture = folder if arguments.quick else ROOT / "docs" / "images"
    draw(rows, picture / "time_to_quality.png")


if __name__ == "__main__":
    main()
