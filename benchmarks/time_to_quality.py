"""How much play, and how many seconds, until the mean exploitability is small: every learner.

    python benchmarks/time_to_quality.py [--old SRC] [--quick]

Each learner runs in a process of its own, one after the other, first for compilation and then for
the record; certificates are not counted. With `--old`, the source folder of version 0.1.0, its
learners run too, in turn with ours. Writes results/time_to_quality.{json,md} and a picture.
"""

import argparse
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import jax
import matplotlib.pyplot as plt
import numpy as np

import crowdnash as cn
from measurement import ROOT, describe, environment, write_results

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


def _game(name: str, quick: bool) -> Any:
    key = jax.random.key(0)
    size = 50 if quick else 1000
    if name == "A-SIS":
        return cn.games.SIS.sample(key, num_agents=size, horizon=20, heterogeneity=0.1)
    return cn.games.RockPaperScissors.sample(key, num_agents=size, horizon=10)


def measure(game_name: str, settings: dict[str, Any], quick: bool) -> dict[str, list[float]]:
    """Mean exploitability (lower estimate) by agent-steps and seconds of learning."""
    warnings.simplefilter("ignore")
    game = _game(game_name, quick)
    epochs, check = (4, 2) if quick else (300, 10)
    base: dict[str, Any] = {"num_epochs": epochs, "temperature": 0.01}
    settings = base | settings
    if game_name == "A-RPS" and settings.get("representation", "mixed") != "tables":
        settings = settings | ({} if "groups" in settings else {"features": "linear"})
    learner = cn.PolicyMirrorDescent.practical(**settings)
    short: dict[str, Any] = settings | {"num_epochs": 2}
    cn.solve(game, cn.PolicyMirrorDescent.practical(**short), key=_key(9))
    curve: dict[str, list[float]] = {"agent_steps": [], "seconds": [], "mean": []}
    steps = seconds = 0.0

    def look(state: Any, metrics: Any) -> None:
        nonlocal steps, seconds
        steps, seconds = steps + metrics.agent_steps, seconds + metrics.seconds
        if (metrics.epoch + 1) % check == 0 or metrics.epoch == 0:
            policy = _last_policy(learner, game, state)
            e = cn.exploitability(
                game, policy, key=_key(1), num_trajectories=64, own_influence_agents=0
            )
            for name, value in (("agent_steps", steps), ("seconds", seconds)):
                curve[name].append(value)
            curve["mean"].append(float(np.mean((getattr(e, "frozen", None) or e).lower)))

    cn.solve(game, learner, key=_key(2), callback=look)
    return curve


def _last_policy(learner: Any, game: Any, state: Any) -> Any:
    if not hasattr(learner, "policies"):  # version 0.1.0
        return learner.last_policy(state)
    policy = learner.policies(game, state)["last"]
    return policy.tabular() if isinstance(policy, cn.FeaturePolicy) else policy


def _key(number: int) -> Any:
    return jax.random.key(number)


def _child(game: str, settings: dict[str, Any], quick: bool, source: Path | None) -> dict:
    place = {"PYTHONPATH": str(source)} if source else {}
    words = ["--child", game, json.dumps(settings), *(["--quick"] if quick else [])]
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


def reached(curve: dict[str, list[float]], level: float, unit: str) -> float:
    """How much it took until the mean was below the level; infinite if it never was."""
    below = [x for x, mean in zip(curve[unit], curve["mean"], strict=True) if mean < level]
    return below[0] if below else np.inf


def draw(record: dict[str, Any], path: Path) -> None:
    """Mean exploitability by agent-steps, a panel a game."""
    figure, panels = plt.subplots(1, len(GAMES), figsize=(10, 4.2), layout="constrained")
    for panel, game in zip(panels, GAMES, strict=True):
        for name, curve in record[game].items():
            if name.endswith("(0.1.0)"):  # the same curve as ours, at another speed
                continue
            style = "--" if name.endswith("TD") else "-"
            panel.plot(curve["agent_steps"], np.maximum(curve["mean"], 1e-3), style, label=name)
        panel.set(xscale="log", yscale="log", title=game, xlabel="agent-steps of play")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("mean exploitability, lower estimate")
    panels[1].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run all learners and write what they took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--old", type=Path, help="source folder of version 0.1.0")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        game, settings = arguments.child
        print(json.dumps(measure(game, json.loads(settings), arguments.quick)))
        return
    record: dict[str, Any] = {"environment": environment()}
    for game in GAMES:
        record[game] = {}
        for name, settings in NEW.items():
            record[game][name] = _child(game, settings, arguments.quick, None)
            if arguments.old and name in OLD:
                curve = _child(game, OLD[name], arguments.quick, arguments.old)
                record[game][f"{name} (0.1.0)"] = curve
            print(game, name, record[game][name]["mean"][-1], flush=True)
    lines = ["# Play and time to a mean exploitability\n"]
    for game in GAMES:
        lines += [f"\n## {game}\n", "| learner | " + " | ".join(f"{x:g}" for x in LEVELS) + " |"]
        lines += ["|---|" + "---|" * len(LEVELS)]
        for name, curve in record[game].items():
            cells = [
                f"{reached(curve, x, 'agent_steps'):.2g} ({reached(curve, x, 'seconds'):.1f} s)"
                for x in LEVELS
            ]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    note = (
        "\nAgent-steps (and seconds of learning) until the mean exploitability's lower estimate is "
        "below the level, one seed, looked at every 10 of 300 epochs; inf: never.\n"
    )
    lines += [note, describe(record["environment"]), ""]
    if arguments.quick:
        print("\n".join(lines))
        return
    write_results("time_to_quality", record, "\n".join(lines))
    draw(record, ROOT / "docs" / "images" / "time_to_quality.png")


if __name__ == "__main__":
    main()
