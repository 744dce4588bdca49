"""Cost of a Symm-PMD epoch against the number of agents and against the number of trajectories.

Both should be lines of slope 1 in a log-log plot, once there is enough work to hide what every call
costs. The slope is fitted by least squares to the points from 4 million agent-steps on.

    python benchmarks/scaling.py [--quick]

writes benchmarks/results/scaling.{json,md,png} (with --quick: prints only).
"""

import argparse
import dataclasses
from dataclasses import dataclass
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from measurement import RESULTS, describe, environment, measure, write_results
from speed import epoch_action, sis

FITTED_FROM = 4_000_000  # agent-steps an epoch: below, the cost of a call shows


@dataclass(frozen=True)
class Point:
    """Seconds of one epoch with N agents and M trajectories."""

    num_agents: int
    trajectories: int
    agent_steps: int
    seconds: float
    best: float
    compilation: float


@dataclass(frozen=True)
class Sweep:
    """One of the two numbers varies, the other is fixed."""

    name: str
    points: tuple[Point, ...]

    @property
    def slope(self) -> float:
        """D log(seconds) / d log(agent-steps) over the points with enough work."""
        fitted = [point for point in self.points if point.agent_steps >= FITTED_FROM]
        if len(fitted) < 2:
            return float("nan")
        work = np.log([point.agent_steps for point in fitted])
        seconds = np.log([point.best for point in fitted])
        return float(np.polyfit(work, seconds, 1)[0])


def measure_point(num_agents: int, trajectories: int, repeats: int) -> Point:
    """Times one epoch of Symm-PMD on A-SIS, H = 20."""
    game = sis(num_agents)
    timing = measure(epoch_action(game, "symmetric", trajectories), repeats)
    agent_steps = num_agents * game.horizon * trajectories
    return Point(
        num_agents,
        trajectories,
        agent_steps,
        timing.median,
        timing.minimum,
        timing.compilation,
    )


def sweeps(quick: bool) -> list[Sweep]:
    """Both sweeps; each point is printed as it comes."""
    agents = (100, 1000, 4000) if quick else (100, 300, 1000, 3000, 10_000, 30_000, 100_000)
    trajectories = (10, 100, 400) if quick else (3, 10, 30, 100, 300, 1000, 3000)
    repeats = 2 if quick else 5
    plan = {
        "N at M = 100": [(count, 100) for count in agents],
        "M at N = 1000": [(1000, count) for count in trajectories],
    }
    done = []
    for name, pairs in plan.items():
        points = []
        for num_agents, count in pairs:
            points.append(measure_point(num_agents, count, repeats))
            nanoseconds = points[-1].seconds / points[-1].agent_steps * 1e9
            print(
                f"N = {num_agents:>7,}, M = {count:>5,}: {points[-1].seconds * 1e3:9.2f} ms, "
                f"{nanoseconds:7.2f} ns per agent-step",
                flush=True,
            )
        done.append(Sweep(name, tuple(points)))
        print(f"{name}: slope {done[-1].slope:.3f}", flush=True)
    return done


def draw(results: list[Sweep]) -> None:
    """The log-log plot, one panel a sweep, with a line of slope 1 through the last point."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
    for panel, sweep in zip(panels, results, strict=True):
        by_agents = sweep.name.startswith("N")
        counts = np.array([p.num_agents if by_agents else p.trajectories for p in sweep.points])
        seconds = np.array([point.best for point in sweep.points])
        panel.loglog(counts, seconds[-1] * counts / counts[-1], "--", color="0.6", label="slope 1")
        panel.loglog(counts, seconds, "o-", color="C0", label=f"measured, slope {sweep.slope:.2f}")
        panel.set_xlabel("agents N (M = 100)" if by_agents else "trajectories M (N = 1000)")
        panel.grid(visible=True, which="major", alpha=0.3)
        panel.legend(frameon=False)
    panels[0].set_ylabel("seconds per Symm-PMD epoch")
    figure.suptitle("A-SIS, H = 20: cost of an epoch")
    RESULTS.mkdir(parents=True, exist_ok=True)
    figure.savefig(RESULTS / "scaling.png", dpi=150)
    plt.close(figure)


def table(results: list[Sweep], where: dict[str, str | int]) -> str:
    """The points as markdown."""
    lines = ["# Cost against N and M", "", describe(where), "", "![scaling](scaling.png)", ""]
    for sweep in results:
        lines += [
            f"{sweep.name}: slope {sweep.slope:.3f}, fitted from {FITTED_FROM:,} agent-steps on.",
            "",
            "| N | M | seconds (median) | best | ns per agent-step | compilation |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {p.num_agents:,} | {p.trajectories:,} | {p.seconds:.4f} | {p.best:.4f} "
            f"| {p.seconds / p.agent_steps * 1e9:.2f} | {p.compilation:.1f} s |"
            for p in sweep.points
        ]
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Measures, draws and writes."""
    parser = argparse.ArgumentParser(description="cost against N and M")
    parser.add_argument("--quick", action="store_true", help="few points; writes nothing")
    quick = parser.parse_args().quick
    results = sweeps(quick)
    if quick:
        return
    draw(results)
    where = environment()
    record: dict[str, Any] = {
        "environment": where,
        "sweeps": [dataclasses.asdict(sweep) | {"slope": sweep.slope} for sweep in results],
    }
    write_results("scaling", record, table(results, where))


if __name__ == "__main__":
    main()
