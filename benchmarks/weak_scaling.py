"""Agents shared by two processes: messages, bytes and time of a step, and what they mean elsewhere.

Each process has one core and, whatever their number, as many agents: what a step takes longer with
two is what they tell one another (gloo on 127.0.0.1). Messages and bytes are read from the
compiled program. A link that takes 10 to 50 us a message is put in gloo's place by arithmetic, and
so are 64 hosts with 10^9 agents: memory of an agent, everywhere and where it is played, comes from
the peaks of three runs.

    python benchmarks/weak_scaling.py [--quick]

writes benchmarks/results/weak_scaling.{json,md,png} (with --quick: prints only).
"""

import argparse
import dataclasses
import json
import math
import os
import re
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

HORIZON = 20
LINKS = (10, 30, 50)  # microseconds a message
HOSTS, MANY = 64, 10**9


@dataclass(frozen=True)
class Epoch:
    """An epoch of agents that processes share; times are seconds, medians.

    Attributes:
        agents: of a process.
        together: trajectories that advance together, B.
        steps: of play, all rounds of trajectories.
        seconds: of the epoch.
        step_bytes: of the message of a step of play, one all-reduce.
        messages: of the epoch, all together.
        message_bytes: of those.
        link: seconds of a step's message by itself, repeated; 0 for one process.
        setup_seconds: of making the learner's state and placing it.
    """

    agents: int
    together: int
    steps: int
    seconds: float
    step_bytes: int
    messages: int
    message_bytes: int
    link: float
    setup_seconds: float


def work(index: int, count: int, address: str, trajectories: int, sizes: list[int]) -> None:
    """What a process does; the first prints a record a line, and at last the peak of its memory."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[index % len(cores)]})
    import jax

    from crowdnash.runs import hosts
    from measurement import peak_resident_gigabytes

    joined = hosts.Hosts()
    if count > 1:
        joined = hosts.join(hosts.Cluster(address, count, index))
    mesh = jax.make_mesh((count,), ("agents",))
    records = [epoch_record(mesh, count * agents, trajectories) for agents in sizes]
    if index == 0:
        print(json.dumps([dataclasses.asdict(record) for record in records]))
        print(peak_resident_gigabytes(), flush=True)
    if count > 1:
        joined.part()


def epoch_record(mesh: Any, num_agents: int, trajectories: int) -> Epoch:
    """Epochs of a policy of features."""
    import jax

    import crowdnash as cn
    from crowdnash.learners.mirror_devices import _run_shared
    from crowdnash.learners.mirror_epoch import epoch_size

    game = cn.games.SIS.sample(
        jax.random.key(0), num_agents=num_agents, horizon=HORIZON, heterogeneity=0.1
    )
    learner = cn.PolicyMirrorDescent.practical(
        num_epochs=1, td_epochs=trajectories, representation="features"
    )
    begun = time.perf_counter()
    state = learner.init(game, key=jax.random.key(1))
    devices, game, state = learner.shared(game, state, mesh)
    jax.block_until_ready(state)
    made = time.perf_counter() - begun
    size = epoch_size(game, state, trajectories, devices)
    program: Any = _run_shared  # compiled by equinox, which types do not say
    lowered = program.lower(devices, game, state, learner._numbers(0), size)
    steps = -(-trajectories // size) * HORIZON
    (step_bytes,), sent = messages(lowered.compile().compiled.as_text(), steps)
    seconds = []
    for _ in range(4):
        begun = time.perf_counter()
        state, _ = learner.step(game, state, devices)
        seconds.append(time.perf_counter() - begun)
    return Epoch(
        agents=num_agents // devices.size("agents"),
        together=size,
        steps=steps,
        seconds=statistics.median(seconds[1:]),
        step_bytes=step_bytes,
        messages=len(sent),
        message_bytes=sum(sent),
        link=link_seconds(devices, step_bytes) if devices.size("agents") > 1 else 0.0,
        setup_seconds=made,
    )


def messages(text: str, steps: int) -> tuple[list[int], list[int]]:
    """Bytes of a play step's all-reduces in a compiled epoch, and of all that the epoch sends.

    Aggregates of A-SIS are whole numbers, summed in the loop over the steps of play. Another loop
    over H steps fits values; all else is sent once.
    """
    bodies = set(re.findall(r"body=(%[\w.\-]+)", text))
    play, sent = [], []
    for block in text.split("\n\n"):
        name = block.strip().removeprefix("ENTRY ").split(" ")[0]
        for kind in re.findall(r"= (.*?) all-reduce(?:-start)?\(", block):
            shapes = re.findall(r"[a-z]+(\d+)\[([\d,]*)\]", kind)
            size = sum(
                math.prod(int(length or 1) for length in shape.split(",")) * int(bits) // 8
                for bits, shape in shapes
            )
            if name not in bodies:
                sent.append(size)
            elif kind.startswith("s32"):
                play.append(size)
                sent += [size] * steps
            else:
                sent += [size] * HORIZON
    return play, sent


def link_seconds(devices: Any, size: int, repeats: int = 50) -> float:
    """Of one all-reduce of so many bytes, in a loop that does nothing else."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import PartitionSpec

    def loop(x: Any) -> Any:
        return jax.lax.fori_loop(0, repeats, lambda _, y: devices.sum_over_agents(y) // 2, x)

    program = jax.jit(devices.map(loop, PartitionSpec(), PartitionSpec()))
    x = jnp.ones(max(1, size // 4), jnp.int32)
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        jax.block_until_ready(program(x))
        seconds.append((time.perf_counter() - begun) / repeats)
    return statistics.median(seconds[1:])


def run(count: int, trajectories: int, *sizes: int) -> tuple[list[Epoch], float]:
    """Of so many processes with so many agents each: the first's records, and its peak in bytes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    processes = []
    for index in range(count):
        words = [str(x) for x in (index, count, address, trajectories, *sizes)]
        command, pipe = [sys.executable, __file__, "--child", *words], subprocess.PIPE
        processes.append(subprocess.Popen(command, text=True, stdout=pipe, stderr=pipe))
    output = [process.communicate(timeout=110) for process in processes]
    for process, (_, errors) in zip(processes, output, strict=True):
        if process.returncode != 0:
            raise RuntimeError(errors[-2000:])
    records, peak = output[0][0].splitlines()[-2:]
    return [Epoch(**record) for record in json.loads(records)], float(peak) * 1e9


def measure_epochs(sizes: tuple[int, ...]) -> list[tuple[Epoch, Epoch]]:
    """One process and two, of as many agents each."""
    rows = list(zip(run(1, 4, *sizes)[0], run(2, 4, *sizes)[0], strict=True))
    for one, two in rows:
        print(
            f"{one.agents:>8,} agents a process: {one.seconds / one.steps * 1e6:9.1f} us a step, "
            f"{two.seconds / two.steps * 1e6:9.1f} us with another; {two.step_bytes} bytes a step, "
            f"{two.link * 1e6:.0f} us by itself; {two.messages} messages an epoch",
            flush=True,
        )
    return rows


@dataclass(frozen=True)
class Cost:
    """Of an agent: bytes in every process and where it is played, and times on one core."""

    everywhere: float
    own: float
    setup_seconds: float
    step_seconds: float
    epoch: Epoch


def measure_cost(agents: int) -> Cost:
    """From the peaks of one process with so many agents, of one with twice, and of two."""
    (first,), small = run(1, 1, agents)
    (record,), large = run(1, 1, 2 * agents)
    (shared,), half = run(2, 1, agents)
    both = (large - small) / agents
    own = min(2 * (large - half) / (2 * agents), both)
    return Cost(
        everywhere=both - own,
        own=own,
        setup_seconds=(record.setup_seconds - first.setup_seconds) / agents,  # not compilation
        step_seconds=record.seconds / (2 * agents * HORIZON),
        epoch=shared,
    )


def waiting(one: Epoch, two: Epoch, link: float) -> float:
    """The share of an epoch that its messages take over such a link, in seconds a message."""
    return two.messages * link / (one.seconds + two.messages * link)


def draw(rows: list[tuple[Epoch, Epoch]]) -> None:
    """The share of an epoch that is waiting, against its work."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from measurement import RESULTS

    figure, panel = plt.subplots(figsize=(6, 3.8), layout="constrained")
    lanes = [one.agents * one.together for one, _ in rows]
    for link in LINKS:
        shares = [100 * waiting(one, two, link * 1e-6) for one, two in rows]
        panel.plot(lanes, shares, "o-", label=f"{link} µs a message")
    shares = [100 * (1 - one.seconds / two.seconds) for one, two in rows]
    panel.plot(lanes, shares, "s--", color="0.5", label="gloo, measured")
    panel.axhline(10, color="0.8", linewidth=1)
    panel.set_xscale("log")
    panel.set_xlabel("agents × trajectories of a process, at once")
    panel.set_ylabel("waiting, % of an epoch")
    panel.set_title("Weak scaling, agents shared: one core a process")
    panel.legend(frameon=False)
    panel.grid(visible=True, which="major", alpha=0.3)
    RESULTS.mkdir(parents=True, exist_ok=True)
    figure.savefig(RESULTS / "weak_scaling.png", dpi=150)
    plt.close(figure)


def table(rows: list[tuple[Epoch, Epoch]], cost: Cost, where: dict[str, str | int]) -> str:
    """Both parts as markdown."""
    from measurement import describe

    heads = ["agents a process", "at once", "a step alone", "with two", "bytes a step"]
    heads += ["messages an epoch", "bytes an epoch", "gloo, by itself", "waiting"]
    heads += [f"at {link} µs" for link in LINKS]
    lines = [
        "# Weak scaling: agents shared by processes",
        "",
        describe(where),
        "",
        f"A-SIS, H = {HORIZON}, a policy of features, 4 trajectories an epoch, a core a process. A",
        "step's time is an epoch's, fit and mirror step included, by its steps. A step of play has",
        "one message; others fit values after it. Waiting is what an epoch takes longer than one",
        "process's with as many agents; at 10 to 50 µs a message it is arithmetic.",
        "",
        "![weak scaling](weak_scaling.png)",
        "",
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
    ]
    for one, two in rows:
        cells = [
            f"{one.agents:,}",
            f"{one.agents * one.together:,}",
            f"{one.seconds / one.steps * 1e6:.0f} µs",
            f"{two.seconds / two.steps * 1e6:.0f} µs",
            str(two.step_bytes),
            str(two.messages),
            f"{two.message_bytes:,}",
            f"{two.link * 1e6:.0f} µs",
            f"{1 - one.seconds / two.seconds:.0%}",
            *(f"{waiting(one, two, link * 1e-6):.1%}" for link in LINKS),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"## 10^9 agents on {HOSTS} hosts, on paper",
        "",
        f"One trajectory an epoch, H = {HORIZON}, from three runs of half a million agents or a",
        "million, a core a process: bytes of an agent from their peaks, the rest from their times.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in on_paper(cost).items()),
        "",
    ]
    return "\n".join(lines)


def on_paper(cost: Cost) -> dict[str, str]:
    """What 10^9 agents would take."""
    own, epoch = MANY // HOSTS, cost.epoch
    play, setup = own * HORIZON * cost.step_seconds, MANY * cost.setup_seconds
    return {
        "agents of a host": f"{own:,}",
        "memory of a host: all agents' parameters, features and places": (
            f"{MANY * cost.everywhere / 2**30:.0f} GiB ({cost.everywhere:.0f} B an agent)"
        ),
        "memory of a host: its own agents": (
            f"{own * cost.own / 2**30:.1f} GiB ({cost.own:.0f} B an agent)"
        ),
        "an epoch, one core": f"{play:.1f} s ({cost.step_seconds * 1e9:.1f} ns an agent-step)",
        "messages of an epoch": f"{epoch.messages}, together {epoch.message_bytes:,} B",
        "waiting for them at 50 µs": f"{epoch.messages * 50e-3:.1f} ms an epoch",
        "features and layout, made once, whole, in every host": (
            f"{setup / 60:.0f} min ({cost.setup_seconds * 1e6:.2f} s a million)"
        ),
    }


def main() -> None:
    """Measures, draws and writes."""
    parser = argparse.ArgumentParser(description="agents shared by two processes")
    parser.add_argument("--quick", action="store_true", help="few agents; writes nothing")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        index, count, address, trajectories, *sizes = arguments.child
        work(int(index), int(count), address, int(trajectories), [int(x) for x in sizes])
        return
    from measurement import environment, write_results

    rows = measure_epochs((500, 2000) if arguments.quick else (1_000, 10_000, 80_000))
    cost = measure_cost(20_000 if arguments.quick else 500_000)
    for name, value in on_paper(cost).items():
        print(f"{name}: {value}")
    if arguments.quick:
        print("Sizes were small. Nothing was written.")
        return
    where = environment()
    record = {
        "environment": where,
        "epochs": [[dataclasses.asdict(one) for one in pair] for pair in rows],
        "cost": dataclasses.asdict(cost),
    }
    draw(rows)
    write_results("weak_scaling", record, table(rows, cost, where))


if __name__ == "__main__":
    main()
