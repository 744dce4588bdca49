"""PPO on A-Taxi: seconds of an epoch for every identity, beside PyTorch, in one run.

The shapes are the paper's: N = 1000 taxis, H = 128 steps, so 128,000 agent-steps an epoch, which
four passes go through in minibatches of 16,384; networks of 2 x 128. An epoch is split into play
(environment, both networks, advantages) and update. Every identity runs in a process of its own,
for its peak memory. Symm-NN then alternates with `torch_ppo.py`, which has the same networks,
minibatches and passes but no environment: its observations and rewards are random numbers.

PyTorch lives in an environment of its own; its interpreter is given by --torch or TORCH_PYTHON.

    python benchmarks/ppo_speed.py [--torch PYTHON] [--quick]

writes benchmarks/results/ppo_speed.json and .md (with --quick: prints only).
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

import crowdnash as cn
from crowdnash.policies.observations import ObservationFeatures
from measurement import (
    describe,
    environment,
    in_fresh_process,
    measure,
    peak_resident_gigabytes,
    write_results,
)

IDENTITIES = ("none", "one-hot", "number", "group", "parameters", "independent")
THREADS = 2
NUM_GROUPS = 16


@dataclass(frozen=True)
class Size:
    """How much of everything a run does."""

    agents: int
    steps: int
    minibatch: int
    epochs: int
    pairs: int

    @classmethod
    def choose(cls, quick: bool) -> "Size":
        """The paper's sizes, or small ones that only show that it all runs."""
        return cls(40, 16, 128, 2, 1) if quick else cls(1000, 128, 16384, 5, 5)

    @property
    def agent_steps(self) -> int:
        """Samples of an epoch."""
        return self.agents * self.steps


@dataclass(frozen=True)
class Spread:
    """Least, median and greatest of some seconds."""

    minimum: float
    median: float
    maximum: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Spread":
        """Of at least one number."""
        return cls(min(seconds), statistics.median(seconds), max(seconds))

    def __str__(self) -> str:
        return f"{self.minimum:.3f} / {self.median:.3f} / {self.maximum:.3f}"


@dataclass(frozen=True)
class Row:
    """Epochs of one implementation; `compilation` is what the first one took beyond the median."""

    name: str
    play: Spread
    update: Spread
    epoch: Spread
    compilation: float | None
    peak_gigabytes: float | None


class Run:
    """One learner that can be carried on by some epochs at a time."""

    def __init__(self, size: Size, identity: str):
        self.game = taxi(size)
        self.learner = cn.PPO(
            num_epochs=10_000,
            identity=identity,
            groups=NUM_GROUPS if identity == "group" else None,
            minibatch_size=size.minibatch,
        )
        self.state = self.learner.init(self.game, key=jax.random.key(1))
        jax.block_until_ready(self.state.networks)

    def epochs(self, count: int) -> tuple[list[float], list[float]]:
        """Seconds of play and of update, of each of `count` epochs."""
        played, updated = [], []
        for _ in range(count):
            self.state, metrics = self.learner.step(self.game, self.state)
            played.append(metrics.play_seconds)
            updated.append(metrics.seconds - metrics.play_seconds)
        return played, updated


def taxi(size: Size) -> cn.games.Taxi:
    """A-Taxi on the paper's map."""
    return cn.games.Taxi.sample(jax.random.key(0), num_agents=size.agents, horizon=size.steps)


def row(
    name: str,
    played: list[float],
    updated: list[float],
    compilation: float | None = None,
    peak: float | None = None,
) -> Row:
    """The row of epochs that compile nothing any more."""
    both = [a + b for a, b in zip(played, updated, strict=True)]
    return Row(name, Spread.of(played), Spread.of(updated), Spread.of(both), compilation, peak)


def measure_identity(size: Size, identity: str) -> dict[str, Any]:
    """Seconds and memory of one identity; to be called in a process of its own."""
    run = Run(size, identity)
    first = sum(map(sum, run.epochs(1)))
    played, updated = run.epochs(size.epochs)
    usual = statistics.median(a + b for a, b in zip(played, updated, strict=True))
    return {
        "played": played,
        "updated": updated,
        "compilation": max(first - usual, 0.0),
        "peak": peak_resident_gigabytes(),
    }


def environment_rate(size: Size) -> float:
    """Agent-steps per second of the game alone, with actions drawn evenly before."""
    game = taxi(size)

    shape = (game.horizon, game.num_agents)
    actions = jax.random.randint(jax.random.key(3), shape, 0, game.num_actions, jnp.int32)

    @eqx.filter_jit
    def through(game: cn.games.Taxi, actions: Array, key: Array) -> Array:
        def step(state: Any, now: tuple[Array, Array]) -> tuple[Any, Array]:
            return game.step(state, *now)

        keys = jax.random.split(key, game.horizon)
        return jax.lax.scan(step, game.reset(key), (actions, keys))[1].sum()

    timing = measure(lambda: through(game, actions, jax.random.key(2)), 20)
    return size.agent_steps / timing.median


def torch_epochs(python: str, size: Size) -> dict[str, Any]:
    """What `torch_ppo.py` says, without its first epoch."""
    shape = {
        "agents": size.agents,
        "steps": size.steps,
        "inputs": ObservationFeatures.of(taxi(size)).num_features,
        "actions": taxi(size).num_actions,
        "minibatch": size.minibatch,
        "epochs": size.epochs + 1,
        "threads": THREADS,
    }
    script = str(Path(__file__).resolve().parent / "torch_ppo.py")
    flags = [f"--{name}={number}" for name, number in shape.items()]
    done = subprocess.run([python, script, *flags], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{python} failed:\n{done.stderr[-2000:]}")
    record = json.loads(done.stdout.splitlines()[-1])
    return record | {"play": record["play"][1:], "update": record["update"][1:]}


def paired(python: str, size: Size) -> tuple[list[Row], Spread, str]:
    """Both in turn: a row each, the quotient of the pairs' median epochs, torch's version."""
    run = Run(size, "none")
    run.epochs(1)
    ours: tuple[list[float], list[float]] = ([], [])
    theirs: tuple[list[float], list[float]] = ([], [])
    quotients, version = [], ""
    for _ in range(size.pairs):
        record = torch_epochs(python, size)
        version = record["torch"]
        found = (run.epochs(size.epochs), (record["play"], record["update"]))
        medians = []
        for kept, new in zip((ours, theirs), found, strict=True):
            kept[0].extend(new[0])
            kept[1].extend(new[1])
            medians.append(statistics.median(a + b for a, b in zip(*new, strict=True)))
        quotients.append(medians[1] / medians[0])
    rows = [row("none, in turn with PyTorch", *ours), row(f"PyTorch {version}", *theirs)]
    return rows, Spread.of(quotients), version


def markdown(
    rows: list[Row], rate: float, quotient: Spread | None, size: Size, where: dict[str, Any]
) -> str:
    """The table and what it was measured with."""
    lines = [
        "# PPO on A-Taxi",
        "",
        describe(where),
        "",
        f"N = {size.agents}, H = {size.steps}: {size.agent_steps:,} agent-steps an epoch, 4 passes "
        f"in minibatches of {size.minibatch:,}. Seconds: least / median / greatest.",
        "",
        "| identity | epoch | play | update | compilation | peak memory, GB |",
        "|---|---|---|---|---|---|",
    ]
    for found in rows:
        once = "" if found.compilation is None else f"{found.compilation:.1f}"
        peak = "" if found.peak_gigabytes is None else f"{found.peak_gigabytes:.2f}"
        lines.append(
            f"| {found.name} | {found.epoch} | {found.play} | {found.update} | {once} | {peak} |"
        )
    lines += ["", f"The environment alone: {rate / 1e6:.1f} million agent-steps/s.", ""]
    if quotient is not None:
        lines += [
            f"One epoch of PyTorch takes {quotient} of ours (pairs of runs in turn, {THREADS} "
            "threads). Its play has no environment: observations and rewards are random numbers.",
            "",
        ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--torch", default=os.environ.get("TORCH_PYTHON"))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--identity", choices=IDENTITIES, help="one only, as a JSON record")
    flags = parser.parse_args()
    size = Size.choose(flags.quick)
    if flags.identity:
        print(json.dumps(measure_identity(size, flags.identity)))
        return
    begin = time.perf_counter()
    rows = []
    for identity in IDENTITIES:
        quick = ["--quick"] if flags.quick else []
        found = in_fresh_process("ppo_speed.py", "--identity", identity, *quick)
        rows.append(
            row(identity, found["played"], found["updated"], found["compilation"], found["peak"])
        )
    rate, quotient = environment_rate(size), None
    where: dict[str, Any] = dict(environment())
    if flags.torch:
        more, quotient, where["torch"] = paired(flags.torch, size)
        rows += more
    else:
        print("PyTorch left out: give its interpreter to compare with it")
    text = markdown(rows, rate, quotient, size, where)
    print(text)
    if not flags.quick:
        record = {
            "environment": where,
            "rows": [dataclasses.asdict(found) for found in rows],
            "environment_agent_steps_per_second": rate,
            "torch_over_ours": None if quotient is None else dataclasses.asdict(quotient),
            "seconds": time.perf_counter() - begin,
        }
        write_results("ppo_speed", record, text)


if __name__ == "__main__":
    main()
