"""One device is not slower: an epoch without a mesh, on a mesh of one device, and 0.1.0's.

A-SIS, N = 1000, H = 20, 20 trajectories an epoch, in turn, epoch by epoch: this version's practical
preset and Algorithm 1, each without a mesh and on a mesh of one device, and, with `--old`, the
source folder of version 0.1.0, its Algorithm 1 in a process of its own.

    python benchmarks/one_device.py [--old SRC] [--quick]

writes benchmarks/results/one_device.json and .md (with --quick: prints only).
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax

import crowdnash as cn

AGENTS, HORIZON, TRAJECTORIES = 1000, 20, 20
OLD = "Algorithm 1, version 0.1.0"
SETTINGS: dict[str, dict[str, Any]] = {
    "practical preset": {},
    "Algorithm 1": {"evaluation": "td"},
}


def epochs(settings: dict[str, Any], mesh: Any = None) -> Callable[[], float]:
    """A function that carries a learner on by an epoch, and says what it took."""
    game = cn.games.SIS.sample(
        jax.random.key(0), num_agents=AGENTS, horizon=HORIZON, heterogeneity=0.1
    )
    learner = cn.PolicyMirrorDescent.practical(td_epochs=TRAJECTORIES, **settings)
    state, more = learner.init(game, key=jax.random.key(1)), ()
    if mesh is not None:
        devices, game, state = learner.shared(game, state, mesh)
        more = (devices,)

    def epoch() -> float:
        nonlocal state
        begun = time.perf_counter()
        state, _ = learner.step(game, state, *more)
        jax.block_until_ready(state)
        return time.perf_counter() - begun

    return epoch


def serve() -> None:
    """An epoch for every line that comes: what the process of version 0.1.0 does."""
    epoch = epochs({})  # its only learner with tables
    for _ in sys.stdin:
        print(epoch(), flush=True)


def old_epochs(source: Path, stack: ExitStack) -> Callable[[], float]:
    """The same in a process that imports another version."""
    process = stack.enter_context(
        subprocess.Popen(
            [sys.executable, __file__, "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(source)},
        )
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stack.callback(process.stdin.close)
    ask, answer = process.stdin, process.stdout

    def epoch() -> float:
        ask.write("epoch\n")
        ask.flush()
        return float(answer.readline())

    return epoch


def measure(old: Path | None, repeats: int) -> dict[str, list[float]]:
    """Seconds of every epoch, by name; the order of each round is turned by one."""
    mesh = jax.make_mesh((1,), ("trajectories",))
    with ExitStack() as stack:
        actions: dict[str, Callable[[], float]] = {}
        for name, settings in SETTINGS.items():
            actions[name] = epochs(settings)
            actions[f"{name}, mesh of one device"] = epochs(settings, mesh)
        if old is not None:
            actions[OLD] = old_epochs(old, stack)
        names = list(actions)
        for name in names * 3:  # compilation, and caches
            actions[name]()
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(repeats):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                seconds[name].append(actions[name]())
    return seconds


def table(seconds: dict[str, list[float]], where: dict[str, str | int]) -> str:
    """Medians, and the ratios that should be at most 1.02, as markdown."""
    from measurement import describe

    lines = ["# One device", "", describe(where), ""]
    repeats = len(next(iter(seconds.values())))
    lines += [
        f"A-SIS, N = {AGENTS}, H = {HORIZON}, {TRAJECTORIES} trajectories an epoch; medians of "
        f"{repeats} epochs",
        "in turn. A ratio is the median of those of epochs of the same turn.",
        "",
        "| epoch | ms | least | over | ratio |",
        "|---|---|---|---|---|",
    ]
    for name, own in seconds.items():
        line = f"| {name} | {statistics.median(own) * 1e3:.2f} | {min(own) * 1e3:.2f} "
        beside, ratio = "", ""
        for other in (name.removesuffix(", mesh of one device"), OLD):
            if other != name and other in seconds and not (other == OLD and "Alg" not in name):
                pairs = zip(own, seconds[other], strict=True)
                beside, ratio = other, f"{statistics.median(a / b for a, b in pairs):.3f}"
                break
        lines.append(f"{line}| {beside} | {ratio} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description="one device, with and without a mesh, and 0.1.0")
    parser.add_argument("--old", type=Path, help="source folder of version 0.1.0")
    parser.add_argument("--quick", action="store_true", help="few epochs; writes nothing")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
        return
    from measurement import environment, write_results

    seconds = measure(arguments.old, 5 if arguments.quick else 150)
    where = environment()
    text = table(seconds, where)
    print(text)
    if not arguments.quick:
        write_results("one_device", {"environment": where, "seconds": seconds}, text)


if __name__ == "__main__":
    main()
