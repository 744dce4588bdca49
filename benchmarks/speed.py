"""Speed and memory of simulation, learning and certificate, beside a plain compiled loop.

Compilation (the first call) is kept apart from running (the median and the least of the later
calls). Whatever concerns memory or a million agents runs in a process of its own. The Numba
yardsticks run in turn with what they are held against, on the same machine in the same state.

    python benchmarks/speed.py [--quick]

writes benchmarks/results/speed.json and speed.md (with --quick: prints only).
"""

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

import crowdnash as cn
import numba_yardstick
from crowdnash.simulation.layout import AgentLayout
from crowdnash.simulation.rollouts import chunk_size, policy_layout, simulate_chunk
from crowdnash.simulation.samplers import action_sampler
from measurement import (
    Timing,
    describe,
    environment,
    in_fresh_process,
    measure,
    measure_in_turn,
    peak_resident_gigabytes,
    write_results,
)

COMPILATION_TARGET = 6.0  # seconds, for any of these
PARALLEL_TARGET = 1.2  # A-SIS, simulation and epoch, over the loop on all cores


@dataclass(frozen=True)
class Row:
    """One measurement: `value` in `unit`, and the most it should be (None: reported only)."""

    name: str
    value: float
    unit: str
    target: float | None
    timing: Timing | None = None
    yardstick: float | None = None
    parallel_yardstick: float | None = None
    most_of_parallel: float | None = None

    @property
    def ratio(self) -> float | None:
        """The value over that of the loop on all cores."""
        return None if self.parallel_yardstick is None else self.value / self.parallel_yardstick

    @property
    def verdict(self) -> str:
        """Whether value, ratio and compilation are within their targets."""
        slow_compilation = self.timing is not None and self.timing.compilation > COMPILATION_TARGET
        if self.target is not None and self.value > self.target:
            return "no"
        if self.most_of_parallel and self.ratio and self.ratio > self.most_of_parallel:
            return "no"
        if slow_compilation:
            return "compiles too long"
        return "" if self.target is None else "yes"


@dataclass(frozen=True)
class Size:
    """How much of everything a run does."""

    repeats: int
    trajectories: int
    certificate_trajectories: int
    memory_trajectories: int
    many_agents: int

    @classmethod
    def choose(cls, quick: bool) -> "Size":
        """The sizes that the targets are for, or small ones that only show that it all runs."""
        if quick:
            return cls(2, 10, 16, 20, 20_000)
        return cls(9, 100, 256, 1000, 1_000_000)


def sis(num_agents: int = 1000) -> cn.games.SIS:
    """A-SIS, H = 20, half-width 0.1."""
    return cn.games.SIS.sample(
        jax.random.key(0), num_agents=num_agents, horizon=20, heterogeneity=0.1
    )


def rock_paper_scissors() -> cn.games.RockPaperScissors:
    """A-RPS, N = 2000, H = 10, half-width 0.1."""
    return cn.games.RockPaperScissors.sample(
        jax.random.key(0), num_agents=2000, horizon=10, heterogeneity=0.1
    )


def epoch_action(game: Any, groups: str | int, trajectories: int) -> Callable[[], Any]:
    """An action that carries one learner on by an epoch of Algorithm 2."""
    learner = cn.PolicyMirrorDescent(td_epochs=trajectories, temperature=0.01, groups=groups)
    state = learner.init(game, key=jax.random.key(1))

    def action() -> Any:
        nonlocal state
        state, _ = learner.step(game, state)
        return state

    return action


def rate_row(
    name: str,
    action: Callable[[], Any],
    agent_steps: int,
    size: Size,
    target: float | None,
    yardstick: Callable[[bool], Any] | None = None,
    most_of_parallel: float | None = None,
) -> Row:
    """A row in ns per agent-step; `yardstick` runs on one core (False) or on all (True)."""
    plain = [] if yardstick is None else [partial(yardstick, False), partial(yardstick, True)]
    timings = measure_in_turn([action, *plain], size.repeats)
    value, *beside = (timing.median / agent_steps * 1e9 for timing in timings)
    return Row(name, value, "ns", target, timings[0], *beside, most_of_parallel=most_of_parallel)


def by_hand(game: Any, count: int) -> tuple[Callable[[bool], Any], Callable[[bool], Any]]:
    """The yardstick's simulation and epoch, on one core or on all."""
    probs = numba_yardstick.uniform_probs(game)
    return (
        lambda parallel: numba_yardstick.simulate(game, probs, count, 1, parallel=parallel),
        lambda parallel: (
            numba_yardstick.symmetric_epoch(game, probs, count, 1, parallel=parallel).policy
        ),
    )


def sis_rows(size: Size) -> Iterator[Row]:
    """A-SIS, N = 1000: simulation, and an epoch with three groupings."""
    game = sis()
    count = size.trajectories
    agent_steps = game.num_agents * game.horizon * count
    plain = numba_yardstick.SISArrays.sample(game.num_agents, game.horizon, 0.1, seed=0)
    simulate, epoch = by_hand(plain, count)
    yield from simulation_rows("A-SIS", game, size, 4.5, simulate, PARALLEL_TARGET)
    for name, groups, target, beside, most in (
        ("Symm-PMD", "symmetric", 9, epoch, PARALLEL_TARGET),
        ("G = 16", 16, 18, None, None),
        ("IPMD", "independent", 22, None, None),
    ):
        action = epoch_action(game, groups, count)
        label = f"A-SIS epoch, {name}"
        yield rate_row(label, action, agent_steps, size, target, beside, most)


def rock_paper_scissors_rows(size: Size) -> Iterator[Row]:
    """A-RPS, N = 2000: simulation and an epoch of Symm-PMD."""
    game = rock_paper_scissors()
    count = size.trajectories
    agent_steps = game.num_agents * game.horizon * count
    plain = numba_yardstick.RockPaperScissorsArrays.sample(
        game.num_agents, game.horizon, 0.1, seed=0
    )
    simulate, epoch = by_hand(plain, count)
    yield from simulation_rows("A-RPS", game, size, 16, simulate, None)
    action = epoch_action(game, "symmetric", count)
    yield rate_row("A-RPS epoch, Symm-PMD", action, agent_steps, size, 22, epoch)


@eqx.filter_jit
def simulated_total(
    game: Any, sampler: Any, layout: AgentLayout, key: Array, first: Array, size: int
) -> tuple[Array, Array]:
    """One chunk as learners receive it, reduced to the sum of rewards and of pair indices."""
    numbers = first + jnp.arange(size, dtype=jnp.uint32)
    chunk = simulate_chunk(game, sampler, layout, key, numbers)
    rewards = jnp.where(layout.valid, chunk.rewards, 0)
    return rewards.sum(), chunk.pairs.sum(dtype=jnp.uint32)


def simulation_action(game: Any, policy: cn.TabularPolicy, count: int) -> Callable[[], Any]:
    """Simulation of `count` trajectories whose chunks are seen and then dropped."""
    layout = policy_layout(policy, game.num_agents)
    sampler = action_sampler(policy, layout)
    size = chunk_size(game.num_agents, count)
    key = jax.random.key(2)

    def action() -> Any:
        # As many chunks as `simulate` takes; the last may hold a few trajectories more.
        starts = range(0, count, size)
        return [
            simulated_total(game, sampler, layout, key, jnp.uint32(start), size) for start in starts
        ]

    return action


def simulation_rows(
    name: str,
    game: Any,
    size: Size,
    target: float,
    yardstick: Callable[[bool], Any],
    most_of_parallel: float | None,
) -> Iterator[Row]:
    """Simulation as learners use it, and `crowdnash.simulate`, which keeps all trajectories."""
    policy = cn.TabularPolicy.uniform(game)
    count = size.trajectories
    chunk = chunk_size(game.num_agents, count)
    per_trajectory = game.num_agents * game.horizon
    simulated = -(-count // chunk) * chunk * per_trajectory
    action = simulation_action(game, policy, count)
    label = f"{name} simulation"
    yield rate_row(label, action, simulated, size, target, yardstick, most_of_parallel)
    key = jax.random.key(2)
    yield rate_row(
        f"{name} simulation, trajectories kept (`simulate`)",
        lambda: cn.simulate(game, policy, key=key, num_trajectories=count).rewards,
        count * per_trajectory,
        size,
        None,
    )


def certificate_rows(size: Size) -> Iterator[Row]:
    """The certificate of all 1000 agents of A-SIS, without and with own-influence checks."""
    game = sis()
    policy = cn.TabularPolicy.uniform(game)
    count = size.certificate_trajectories
    for name, options, target in (
        ("without own influence", {"own_influence_agents": 0}, 1.0),
        ("as by default", {}, None),
    ):

        def action(options: dict[str, Any] = options) -> Any:
            key = jax.random.key(3)
            return cn.exploitability(game, policy, key=key, num_trajectories=count, **options).lower

        timing = measure(action, size.repeats)
        label = f"certificate, {count} trajectories, {name}"
        yield Row(label, timing.median, "s", target, timing)


def memory_rows(size: Size, quick: bool) -> Iterator[Row]:
    """Peak memory at many trajectories, and time and memory of an epoch with many agents."""
    flags = ["--quick"] if quick else []
    many = f"N = {size.many_agents:,}, M = 10"
    for case, label, seconds, gigabytes in (
        ("trajectories", f"N = 1000, M = {size.memory_trajectories}, Symm-PMD", None, 0.8),
        ("agents", f"{many}, Symm-PMD", 2.5, 1.5),
        ("agents-independent", f"{many}, IPMD", None, None),
    ):
        record = in_fresh_process("speed.py", "--case", case, *flags)
        timing = Timing(**record["timing"])
        yield Row(f"A-SIS epoch, {label}: time", timing.median, "s", seconds, timing)
        yield Row(f"A-SIS epoch, {label}: peak memory", record["peak_gigabytes"], "GB", gigabytes)


def run_case(case: str, size: Size) -> dict[str, Any]:
    """What a fresh process does for one of `memory_rows`."""
    if case == "trajectories":
        action = epoch_action(sis(), "symmetric", size.memory_trajectories)
    elif case == "agents":
        action = epoch_action(sis(size.many_agents), "symmetric", 10)
    elif case == "agents-independent":
        action = epoch_action(sis(size.many_agents), "independent", 10)
    else:
        raise ValueError(f"case must be one of memory_rows', got {case!r}")
    timing = measure(action, min(size.repeats, 5))
    return {"timing": dataclasses.asdict(timing), "peak_gigabytes": peak_resident_gigabytes()}


def table(rows: list[Row], where: dict[str, str | int]) -> str:
    """The rows as markdown."""
    lines = [
        "# Speed",
        "",
        describe(where),
        "",
        "Values are medians, those in ns per agent-step; `best` is the least of the repeats. The",
        "yardsticks are plain Numba loops of the same game and policy, on one core and on all",
        "(trajectories side by side), measured in turn with the row's value; `ratio` is to the one",
        f"on all cores, for A-SIS at most {PARALLEL_TARGET:g}. Compilation is the first call less",
        f"the median; it should take at most {COMPILATION_TARGET:g} s.",
        "",
        "| | value | best | target | met | one core | all cores | ratio | compilation |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        timing = row.timing
        best = "" if timing is None else number(row.value * timing.minimum / timing.median)
        cells = [
            row.name,
            f"{number(row.value)} {row.unit}",
            best,
            "" if row.target is None else f"≤ {row.target:g}",
            row.verdict,
            *(
                "" if x is None else number(x)
                for x in (row.yardstick, row.parallel_yardstick, row.ratio)
            ),
            "" if timing is None else f"{timing.compilation:.1f} s",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def number(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def main() -> None:
    """Measures everything, shows each row as it comes, and writes the results."""
    parser = argparse.ArgumentParser(description="speed and memory")
    parser.add_argument("--quick", action="store_true", help="small sizes; writes nothing")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    size = Size.choose(arguments.quick)
    if arguments.case:
        print(json.dumps(run_case(arguments.case, size)))
        return
    rows: list[Row] = []
    for part in (
        sis_rows(size),
        rock_paper_scissors_rows(size),
        certificate_rows(size),
        memory_rows(size, arguments.quick),
    ):
        for row in part:
            rows.append(row)
            beside = "" if row.ratio is None else f" ({number(row.ratio)} of all cores' loop)"
            target = "" if row.target is None else f", target ≤ {row.target:g}: {row.verdict}"
            print(f"{row.name}: {number(row.value)} {row.unit}{beside}{target}", flush=True)
    where = environment()
    if arguments.quick:
        print("Sizes were small: targets do not apply. Nothing was written.")
        return
    record = {
        "environment": where,
        "rows": [dataclasses.asdict(row) | {"verdict": row.verdict} for row in rows],
    }
    write_results("speed", record, table(rows, where))


if __name__ == "__main__":
    main()
