"""How exploitable G = 1, G = 16 and G = N become on A-SIS for the same number of agent-steps.

N = 1000, H = 20, half-width 0.1 on all three parameters. Learners: Symm-PMD, 16 groups, and IPMD
with each TD step size (two by visits, n counting earlier ones, and the theorem's fixed one, m
counting trajectories; Symm-PMD and 16 groups take the default, "adaptive"); presets: practical and
the theorem's; both iterates of each run. A seed draws the game and the learner's randomness;
learners of the same seed meet the same game.

    python benchmarks/sis_table.py [--learner L] [--preset P] [--seed K] [--limit-minutes X]
    python benchmarks/sis_table.py --summarise

The first form runs what is missing and appends one JSON line a run to results/sis_table.jsonl, so
it can be stopped and started again; the second writes results/sis_table.md from those lines.
`--quick` does both with tiny sizes, into results/partial.
"""

import argparse
import dataclasses
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

import crowdnash as cn
from measurement import RESULTS, describe, environment

LEARNERS: dict[str, dict[str, Any]] = {
    "Symm-PMD (G = 1)": {"groups": "symmetric"},
    "G = 16": {"groups": 16},
    "IPMD, (H+1)/(H+1+n)": {"groups": "independent", "td_step_size": "horizon-visits"},
    "IPMD, 2/(n+2)": {"groups": "independent", "td_step_size": "visits"},
    "IPMD, 2/(m+2)": {"groups": "independent", "td_step_size": "theorem"},
}
PRESETS = ("practical", "theorem")
ITERATES = ("average", "last")
STATISTICS = ("largest", "mean", "median")


@dataclass(frozen=True)
class Size:
    """How much a run does; a run is only compared with runs of the same size."""

    num_agents: int = 1000
    horizon: int = 20
    heterogeneity: float = 0.1
    num_epochs: int = 1000
    td_epochs: int = 100
    num_trajectories: int = 256
    num_seeds: int = 5

    @property
    def agent_steps(self) -> int:
        """Simulated agent-steps of one run."""
        return self.num_agents * self.horizon * self.num_epochs * self.td_epochs


QUICK = Size(num_agents=100, num_epochs=3, td_epochs=10, num_trajectories=16, num_seeds=2)


@dataclass(frozen=True)
class Cell:
    """One run."""

    learner: str
    preset: str
    seed: int


def cells(size: Size) -> Iterator[Cell]:
    """All runs, seed by seed, so that a table with fewer seeds is there early."""
    for seed in range(size.num_seeds):
        for preset in PRESETS:
            for learner in LEARNERS:
                yield Cell(learner, preset, seed)


def build_learner(cell: Cell, size: Size) -> cn.PolicyMirrorDescent:
    """The learner of a cell."""
    options = {"num_epochs": size.num_epochs, "td_epochs": size.td_epochs, **LEARNERS[cell.learner]}
    if cell.preset == "practical":
        return cn.PolicyMirrorDescent.practical(evaluation="td", **options)
    return cn.PolicyMirrorDescent(**options)


def gains(game: Any, policy: Any, key: Any, size: Size) -> dict[str, dict[str, float]]:
    """Largest, mean and median over agents, of the gains achieved and of those not exceeded."""
    found = cn.exploitability(
        game, policy, key=key, num_trajectories=size.num_trajectories, own_influence_agents=0
    )

    def over_agents(values: Any) -> dict[str, float]:
        values = np.asarray(values)
        return {
            "largest": float(values.max()),
            "mean": float(values.mean()),
            "median": float(np.median(values)),
        }

    return {"lower": over_agents(found.lower), "upper": over_agents(found.upper)}


def run(cell: Cell, size: Size) -> dict[str, Any]:
    """Learns and evaluates one cell."""
    game_key, learning_key, certificate_key = jax.random.split(jax.random.key(cell.seed), 3)
    game = cn.games.SIS.sample(
        game_key,
        num_agents=size.num_agents,
        horizon=size.horizon,
        heterogeneity=size.heterogeneity,
    )
    result = cn.solve(game, build_learner(cell, size), key=learning_key)
    seconds = [epoch.seconds for epoch in result.history]
    # The first epoch compiles; it is counted as one of the others.
    wall = float(np.sum(seconds[1:])) * len(seconds) / max(len(seconds) - 1, 1)
    record = {
        "cell": dataclasses.asdict(cell),
        "size": dataclasses.asdict(size),
        "wall_seconds": wall,
        "first_epoch_seconds": seconds[0],
        "average": gains(game, result.policy, certificate_key, size),
        "last": gains(game, result.last_policy, certificate_key, size),
        "environment": environment(),
    }
    if cell.learner == next(iter(LEARNERS)):
        record["uniform"] = gains(game, cn.TabularPolicy.uniform(game), certificate_key, size)
    return record


def read(path: Path, size: Size) -> dict[Cell, dict[str, Any]]:
    """The finished runs of this size; a line cut off by an interruption does not count."""
    done = {}
    if not path.exists():
        return done
    expected = dataclasses.asdict(size)
    del expected["num_seeds"]
    for line in path.read_text().splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if expected.items() <= record["size"].items():
            done[Cell(**record["cell"])] = record
    return done


def append(path: Path, record: dict[str, Any]) -> None:
    """Adds one line, on a line of its own even if the one before was cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cut_off = path.exists() and not path.read_bytes().endswith(b"\n")
    with path.open("a") as file:
        file.write(("\n" if cut_off else "") + json.dumps(record) + "\n")


def spread(values: list[float]) -> str:
    """Mean over seeds ± its standard error."""
    mean = f"{np.mean(values):.3f}"
    if len(values) < 2:
        return mean
    return f"{mean} ± {np.std(values, ddof=1) / np.sqrt(len(values)):.3f}"


def table(records: list[dict[str, Any]], size: Size) -> str:
    """The finished runs as markdown."""
    rows: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        cell = record["cell"]
        for iterate in ITERATES:
            entry = {**record[iterate], "wall_seconds": record["wall_seconds"]}
            rows[cell["preset"], cell["learner"], iterate].append(entry)
    uniform = {
        record["cell"]["seed"]: record["uniform"] for record in records if "uniform" in record
    }
    gap = max(
        record[iterate]["upper"][name] - record[iterate]["lower"][name]
        for record in records
        for iterate in ITERATES
        for name in STATISTICS
    )
    commits = sorted({record["environment"]["commit"] for record in records})
    where = {**records[-1]["environment"], "commit": ", ".join(commits)}
    lines = [
        "# A-SIS: groups compared at equal cost",
        "",
        f"N = {size.num_agents}, H = {size.horizon}, half-width {size.heterogeneity:g} on all "
        f"three parameters; {size.num_epochs} epochs of {size.td_epochs} trajectories, that is "
        f"{size.agent_steps:.2g} agent-steps in every row. Exploitability in the N-player game "
        f"(gains that some policy achieves, from {size.num_trajectories} trajectories, before own "
        "influence), over agents; mean over seeds ± its standard error. The certificate's upper "
        f"values lie at most {gap:.3f} above those shown. Wall time is that of learning, without "
        "compilation, on a machine that may have had other work (speed.md has clean times). "
        "TD step sizes: n counts earlier trajectories with a visit, m all earlier "
        "ones; G = 1 and G = 16 take (H+1)/(H+1+n).",
        "",
        describe(where),
        "",
        "| preset | learner | iterate | largest | mean | median | wall time | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    if uniform:
        statistics = [spread([u["lower"][name] for u in uniform.values()]) for name in STATISTICS]
        lines.append(f"| | uniform policy | | {' | '.join(statistics)} | | {len(uniform)} |")
    for preset in PRESETS:
        for learner in LEARNERS:
            for iterate in ITERATES:
                entries = rows.get((preset, learner, iterate), [])
                if not entries:
                    continue
                statistics = [spread([e["lower"][name] for e in entries]) for name in STATISTICS]
                wall = np.mean([e["wall_seconds"] for e in entries])
                lines.append(
                    f"| {preset} | {learner} | {iterate} | {' | '.join(statistics)} "
                    f"| {wall:.1f} s | {len(entries)} |"
                )
    return "\n".join(lines) + "\n"


def run_missing(arguments: argparse.Namespace, path: Path, size: Size) -> None:
    """Runs the cells that were asked for and are not there yet."""
    begin = time.perf_counter()
    done = read(path, size)
    for cell in cells(size):
        asked = (
            arguments.learner in (None, cell.learner)
            and arguments.preset in (None, cell.preset)
            and arguments.seed in (None, cell.seed)
        )
        if not asked or cell in done:
            continue
        if time.perf_counter() - begin > 60 * arguments.limit_minutes:
            print("time is up; run again for the rest")
            return
        record = run(cell, size)
        append(path, record)
        largest, mean = (record["last"]["lower"][name] for name in ("largest", "mean"))
        print(
            f"seed {cell.seed}, {cell.preset}, {cell.learner}: last iterate's largest "
            f"{largest:.3f}, mean {mean:.3f}; {record['wall_seconds']:.1f} s",
            flush=True,
        )


def main() -> None:
    """Runs what is missing, or summarises what is there."""
    parser = argparse.ArgumentParser(description="A-SIS: groups compared at equal cost")
    parser.add_argument("--learner", choices=tuple(LEARNERS))
    parser.add_argument("--preset", choices=PRESETS)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--limit-minutes", type=float, default=float("inf"))
    parser.add_argument("--summarise", action="store_true")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, into results/partial")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else Size()
    folder = RESULTS / "partial" if arguments.quick else RESULTS
    path = folder / "sis_table.jsonl"
    if not arguments.summarise:
        run_missing(arguments, path, size)
    if arguments.summarise or arguments.quick:
        records = list(read(path, size).values())
        if not records:
            raise SystemExit(f"{path.name} holds no run of this size yet")
        summary = table(records, size)
        (folder / "sis_table.md").write_text(summary)
        print(summary)


if __name__ == "__main__":
    main()
