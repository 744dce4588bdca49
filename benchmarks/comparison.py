"""What other libraries can be asked too, asked of both: Bench-MFG, MFAX and JaxMARL.

1. Bench-MFG, `lasry_lions_chain`: exploitability of given stationary policies, and online mirror
   descent. Its games are stationary and discounted; the same game is a finite-horizon one that
   starts in the policy's stationary distribution and pays discount^h r at step h.
2. MFAX, push-forward linear-quadratic game: exploitability of given policies.
3. JaxMARL, IPPO: one network for all agents on A-Taxi, in both libraries the same game, features,
   widths, samples, minibatches and passes; and JaxMARL alone on its own MPE spread.

The others live in environments of their own, see `compare_bench_mfg.py`, `compare_mfax.py` and
`compare_jaxmarl.py`; their interpreters and clones are given by flags or by variables
(BENCH_MFG_PYTHON, MFAX_PYTHON, MFAX_SOURCE, JAXMARL_PYTHON, JAXMARL_SOURCE). A part without its
interpreter keeps what was recorded last.

    python benchmarks/comparison.py [--bench-mfg PYTHON] [--mfax PYTHON --mfax-source CLONE]
                                    [--jaxmarl PYTHON --jaxmarl-source CLONE] [--quick] [--busy]

writes benchmarks/results/comparison.json and .md, and the tables of docs/comparison.md (with
--quick: prints only; with --page: writes that page from the results that there are). `--busy` notes
that the machine did other work meanwhile. MFGLib and OpenSpiel: `mean_field_speed.py`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import crowdnash as cn
from crowdnash import mean_field
from measurement import RESULTS, ROOT, describe, environment, in_fresh_process, write_results

HERE = Path(__file__).resolve().parent
PAGE = ROOT / "docs" / "comparison.md"
STEPS, SAMPLES, MINIBATCH = 128, 512 * 128, 8192
FLEETS = (8, 64, 512)
SPREADS = (3, 10, 30)


class Chain(mean_field.MeanFieldGame):
    """Bench-MFG's `lasry_lions_chain` from a given start, its discount written into the reward.

    Its horizon of 100 means 99 sweeps of value iteration, so 99 steps. Moves (left, stay, right),
    then by -1, 0, 1 with probabilities 0.025, 0.95, 0.025; walls stop. At step h one is paid
    0.9^h (-2 |a| - 3 (x - 3)^2 - 40 mu(x)).
    """

    initial_distribution: np.ndarray
    horizon: int = eqx.field(static=True, default=99)
    num_states: int = eqx.field(static=True, default=7)
    num_actions: int = eqx.field(static=True, default=3)

    @property
    def laws_are_cheap(self) -> bool:
        """See `MeanFieldGame.laws_are_cheap`."""
        return True

    def laws(self, mu: Any, step: Any) -> tuple[Array, Array]:
        """See `MeanFieldGame.laws`."""
        place = jnp.arange(7) - 3
        still = -2.0 * jnp.abs(jnp.arange(3) - 1)[None] - 3.0 * (place**2)[:, None]
        paid = still - 40.0 * mu.sum(1)[:, None]
        return jnp.asarray(chain_moves(), mu.dtype), 0.9**step * paid


class LinearQuadratic(mean_field.MeanFieldGame):
    """MFAX's `linear_quadratic` with its constants and without common noise.

    Moves a in -3..3 on 99 places, then noise of standard deviation sqrt(0.75), rounded. With m the
    mean place after the step, one is paid -a^2/2 + a (m - x)/10 - (m - x)^2/4, and
    -(m - x)^2/2 in the last step.
    """

    moves: np.ndarray
    initial_distribution: np.ndarray
    horizon: int = eqx.field(static=True, default=30)
    num_states: int = eqx.field(static=True, default=99)
    num_actions: int = eqx.field(static=True, default=7)

    def laws(self, mu: Any, step: Any) -> tuple[Array, Array]:
        """See `MeanFieldGame.laws`."""
        moves, places = jnp.asarray(self.moves, mu.dtype), jnp.arange(99, dtype=mu.dtype)
        mean = (mu * (moves @ places)).sum()
        action, gap = jnp.arange(-3, 4, dtype=mu.dtype)[None], (mean - places)[:, None]
        before = -0.5 * action**2 + 0.1 * action * gap - 0.25 * gap**2
        last = jnp.broadcast_to(-0.5 * gap**2, before.shape)
        return moves, jnp.where(step == self.horizon - 1, last, before)


def chain_moves() -> np.ndarray:
    """P [7,3,7] of the chain."""
    moves = np.zeros((7, 3, 7))
    for x, a, noise in np.ndindex(7, 3, 3):
        moves[x, a, np.clip(x + a - 1 + noise - 1, 0, 6)] += (0.025, 0.95, 0.025)[noise]
    return moves


def linear_quadratic() -> LinearQuadratic:
    """With MFAX's constants, from the uniform distribution."""
    atoms = np.arange(-3, 4)
    weights = np.exp(-0.5 * atoms**2)
    weights /= weights.sum()
    moves = np.zeros((99, 7, 99))
    for x, a, k in np.ndindex(99, 7, 7):
        there = np.clip(x + a - 3, 0, 98)
        moves[x, a, np.clip(np.round(there + np.sqrt(0.75) * atoms[k]), 0, 98).astype(int)] += (
            weights[k]
        )
    return LinearQuadratic(moves=moves, initial_distribution=np.full(99, 1 / 99))


def towards_centre(num_states: int, reach: int, strength: float) -> np.ndarray:
    """Policies [2,S,A]: uniform, and one that prefers moves to the middle."""
    actions = np.arange(-reach, reach + 1)
    wish = strength * ((num_states - 1) / 2 - np.arange(num_states))
    pull = np.exp(-0.5 * (actions[None] - np.clip(wish, -reach, reach)[:, None]) ** 2)
    return np.stack([np.full_like(pull, 1 / len(actions)), pull / pull.sum(1, keepdims=True)])


def stationary(policy: np.ndarray) -> np.ndarray:
    """The distribution over the chain's places that `policy` [S,A] keeps."""
    step = np.einsum("sa,sat->st", policy, chain_moves())
    equations = np.vstack([step.T - np.eye(7), np.ones(7)])
    return np.linalg.lstsq(equations, np.append(np.zeros(7), 1.0), rcond=None)[0]


def ours(game: mean_field.MeanFieldGame, policy: np.ndarray) -> float:
    """Exploitability of a policy [S,A] that does not depend on the step."""
    return mean_field.exploitability(game, np.tile(policy, (game.horizon, 1, 1)))


def median_seconds(action: Any, repeats: int) -> float:
    """Of calls after a first one that compiles."""
    action()
    found = []
    for _ in range(repeats):
        begin = time.perf_counter()
        action()
        found.append(time.perf_counter() - begin)
    return statistics.median(found)


def compiled_seconds(game: mean_field.MeanFieldGame, policy: np.ndarray, repeats: int) -> float:
    """Of one exploitability as theirs are: compiled as a whole, in float32, without checks."""
    probs = jnp.asarray(np.tile(policy, (game.horizon, 1, 1)), jnp.float32)
    found = jax.jit(lambda probs: mean_field.exploitability(game, probs))
    return median_seconds(lambda: jax.block_until_ready(found(probs)), repeats)


def theirs(python: str, script: str, *flags: str, asked: Any = None) -> dict[str, Any]:
    """The record that a script of this folder prints, run by another interpreter."""
    command = [python, str(HERE / script), *flags]
    given = json.dumps(asked)
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    except OSError as error:
        sys.exit(f"{script} needs an interpreter that is there: {error}")
    if done.returncode != 0:
        sys.exit(f"{script} failed: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def bench_mfg(python: str, quick: bool) -> dict[str, Any]:
    """Exploitabilities on both sides, seconds of one, and online mirror descent."""
    repeats, iterations = (1, 20) if quick else (5, 150)
    policies = towards_centre(7, 1, 1.0)
    asked = {"policies": policies.tolist(), "iterations": iterations, "repeats": repeats}
    record = theirs(python, "compare_bench_mfg.py", asked=asked)
    games = [Chain(initial_distribution=stationary(policy)) for policy in policies]
    start = Chain(initial_distribution=np.full(7, 1 / 7))

    def descend() -> mean_field.MeanFieldSolution:
        # Its learning rate 0.005 over its temperature 0.2.
        return mean_field.solve(
            start,
            "online_mirror_descent",
            num_iterations=iterations,
            check_every=1,
            step_size=0.025,
            tolerance=0.0,
        )

    return {
        "theirs": record,
        "iterations": iterations,
        "exploitabilities": [ours(g, p) for g, p in zip(games, policies, strict=True)],
        "seconds": median_seconds(lambda: ours(games[0], policies[0]), repeats * 20),
        "compiled_seconds": compiled_seconds(games[0], policies[0], repeats * 20),
        "descent_seconds": median_seconds(descend, repeats) / iterations,
        "descent_exploitability": descend().exploitability,
    }


def mfax(python: str, source: str, quick: bool) -> dict[str, Any]:
    """Exploitabilities on both sides and seconds of one."""
    repeats = 1 if quick else 5
    policies = towards_centre(99, 3, 0.2)
    asked = {"policies": policies.tolist(), "repeats": repeats}
    game = linear_quadratic()
    return {
        "theirs": theirs(python, "compare_mfax.py", "--source", source, asked=asked),
        "exploitabilities": [ours(game, policy) for policy in policies],
        "seconds": median_seconds(lambda: ours(game, policies[0]), repeats * 20),
        "compiled_seconds": compiled_seconds(game, policies[0], repeats * 20),
    }


def fleet_epochs(agents: int, epochs: int) -> dict[str, float]:
    """Our PPO on A-Taxi; to be called in a process of its own."""
    game = cn.games.Taxi.sample(jax.random.key(0), num_agents=agents, horizon=STEPS)
    learner = cn.PPO(
        num_epochs=10_000,
        num_trajectories=SAMPLES // STEPS // agents,
        minibatch_size=MINIBATCH,
        hidden_sizes=(64, 64),
    )
    begin = time.perf_counter()
    state = learner.init(game, key=jax.random.key(1))
    state, _ = learner.step(game, state)
    jax.block_until_ready(state.networks)
    first = time.perf_counter() - begin
    seconds = []
    for _ in range(epochs):
        state, metrics = learner.step(game, state)
        seconds.append(metrics.seconds)
    usual = min(seconds)
    return {"preparation": first - usual, "update": usual, "agent_steps": SAMPLES}


def jaxmarl(python: str, source: str, quick: bool) -> dict[str, Any]:
    """IPPO on A-Taxi in both, at the same number of samples for every N; spread in theirs."""
    fleets, spreads, updates = ((8,), (3,), 1) if quick else (FLEETS, SPREADS, 3)
    shared = ("--source", source, "--updates", str(updates))
    taxi, spread = [], []
    for agents in fleets:
        size = ("--agents", str(agents), "--environments", str(SAMPLES // STEPS // agents))
        other = theirs(python, "compare_jaxmarl.py", *shared, "--game", "taxi", *size)
        own = in_fresh_process("comparison.py", "--fleet", str(agents), "--epochs", str(updates))
        taxi.append({"agents": agents, "theirs": other, "ours": own})
        print(json.dumps(taxi[-1]), flush=True)
    for agents in spreads:
        size = ("--agents", str(agents), "--environments", "16", "--minibatches", "4")
        other = theirs(python, "compare_jaxmarl.py", *shared, "--game", "spread", *size)
        spread.append({"agents": agents, "theirs": other})
        print(json.dumps(spread[-1]), flush=True)
    return {"taxi": taxi, "spread": spread}


def sections(record: dict[str, Any]) -> dict[str, str]:
    """Heading, table and notes of every part that there is, by name."""
    writers = {"bench_mfg": _bench_mfg_lines, "mfax": _mfax_lines, "jaxmarl": _jaxmarl_lines}
    return {
        name: "\n".join(write(record[name])) for name, write in writers.items() if name in record
    }


def markdown(record: dict[str, Any]) -> str:
    """All parts that there are."""
    return "\n".join(["# Beside other libraries", "", *sections(record).values()])


def write_page(record: dict[str, Any]) -> None:
    """Puts the results, `mean_field_speed.md` too, between the page's `begin` and `end` marks."""
    found = sections(record)
    found["mean_field"] = (RESULTS / "mean_field_speed.md").read_text().replace("# ", "## ", 1)
    page = PAGE.read_text()
    for name, text in found.items():
        begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
        if begin not in page or end not in page:
            raise ValueError(f"{PAGE.name} must have the marks {begin.strip()} and {end}")
        before, rest = page.split(begin)
        after = rest.split(end)[1]
        page = f"{before}{begin}\n#{text.rstrip()}\n\n{end}{after}"
    PAGE.write_text(page)
    print(f"wrote {PAGE.relative_to(ROOT)}")


def _head(title: str, part: dict[str, Any]) -> list[str]:
    busy = " The machine did other work meanwhile." if part["busy"] else ""
    return [f"## {title}", "", describe(part["environment"]) + busy, ""]


def _values(part: dict[str, Any]) -> list[str]:
    names = ("uniform policy", "policy towards the middle")
    pairs = zip(part["exploitabilities"], part["theirs"]["exploitabilities"], strict=True)
    return [
        f"| exploitability of the {name} | {own:.4f} | {other:.4f} |"
        for name, (own, other) in zip(names, pairs, strict=True)
    ]


def _seconds(part: dict[str, Any]) -> list[str]:
    compiled, call = part["compiled_seconds"] * 1e3, part["seconds"] * 1e3
    return [
        f"| one exploitability, compiled, float32, ms | {compiled:.3f} "
        f"| {part['theirs']['seconds'] * 1e3:.3f} |",
        f"| one exploitability, a checked call in float64, ms | {call:.3f} | |",
    ]


def _bench_mfg_lines(part: dict[str, Any]) -> list[str]:
    other, count = part["theirs"], part["iterations"]
    title = f"Bench-MFG {other['bench-mfg-suite']} (jax {other['jax']}), `lasry_lions_chain`"
    return [
        *_head(title, part),
        "| | ours | theirs |",
        "|---|---|---|",
        *_values(part),
        *_seconds(part),
        f"| online mirror descent, ms an iteration | {part['descent_seconds'] * 1e3:.3f} "
        f"| {other['descent_seconds'] * 1e3:.3f} |",
        f"| exploitability after {count} iterations | {part['descent_exploitability']:.4f} "
        f"| {other['descent_exploitability']:.4f} |",
        "",
        "Mirror descent is not the same problem: theirs seeks one stationary policy, ours a policy "
        "for each of 99 steps from the uniform distribution. Both compute the exploitability after "
        "every iteration, theirs in float32, ours in float64. For one exploitability theirs first "
        "follows the mean field for 50 steps; ours is given the stationary start.",
        "",
    ]


def _mfax_lines(part: dict[str, Any]) -> list[str]:
    other = part["theirs"]
    return [
        *_head(f"MFAX e22ab46 (jax {other['jax']}), push-forward `linear_quadratic`", part),
        "| | ours | theirs |",
        "|---|---|---|",
        *_values(part),
        *_seconds(part),
        "",
        "H = 30, S = 99, A = 7, no common noise, no discount. Theirs knows that a move leads to 7 "
        "places at most; our tables are [S,A,S]. Each runs with the jax that it supports.",
        "",
    ]


def _jaxmarl_lines(part: dict[str, Any]) -> list[str]:
    version = part["taxi"][0]["theirs"]["jaxmarl"]
    lines = [
        *_head(f"JaxMARL {version}, IPPO", part),
        f"A-Taxi, H = {STEPS}, {SAMPLES:,} agent-steps an update whatever N is, 4 passes, "
        f"{SAMPLES // MINIBATCH} minibatches, networks of 2 x 64.",
        "",
        "| N | plays at once | preparation, s: ours | theirs | an update, s: ours | theirs "
        "| agent-steps/s: ours | theirs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in part["taxi"]:
        own, other = row["ours"], row["theirs"]
        waiting = other["tracing"] + other["compilation"]
        lines.append(
            f"| {row['agents']} | {SAMPLES // STEPS // row['agents']} "
            f"| {own['preparation']:.1f} | {waiting:.1f} "
            f"| {own['update']:.2f} | {other['update']:.2f} "
            f"| {own['agent_steps'] / own['update']:,.0f} "
            f"| {other['agent_steps'] / other['update']:,.0f} |"
        )
    lines += [
        "",
        "JaxMARL alone, `MPE_simple_spread_v3` with N landmarks, 16 environments of 128 steps, "
        "4 minibatches:",
        "",
        "| N | preparation, s | an update, s | agent-steps/s |",
        "|---|---|---|---|",
    ]
    for row in part["spread"]:
        other = row["theirs"]
        lines.append(
            f"| {row['agents']} | {other['tracing'] + other['compilation']:.1f} "
            f"| {other['update']:.2f} | {other['agent_steps'] / other['update']:,.0f} |"
        )
    return [
        *lines,
        "",
        "Preparation is tracing and compilation, and for ours the first networks too. JaxMARL "
        "compiles the whole training into one program, ours two that are called every epoch. "
        "JaxMARL's updates include its episode log and automatic resets, ours its figures and its "
        "checks. The work of spread itself grows with N^2, that of A-Taxi with N.",
        "",
    ]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("bench-mfg", "mfax", "mfax-source", "jaxmarl", "jaxmarl-source"):
        ending = "" if name.endswith("source") else "_PYTHON"
        variable = name.upper().replace("-", "_") + ending
        parser.add_argument(f"--{name}", default=os.environ.get(variable))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page")
    parser.add_argument("--fleet", type=int, help="our PPO with so many agents, as a JSON record")
    parser.add_argument("--epochs", type=int, default=3)
    flags = parser.parse_args()
    if flags.fleet:
        print(json.dumps(fleet_epochs(flags.fleet, flags.epochs)))
        return
    for name in ("mfax", "jaxmarl"):
        if getattr(flags, name) and not getattr(flags, f"{name}_source"):
            parser.error(f"--{name} needs --{name}-source, a clone")
    kept = RESULTS / "comparison.json"
    record = json.loads(kept.read_text()) if kept.exists() and not flags.quick else {}
    if flags.page:
        write_page(record)
        return
    parts: dict[str, Any] = {}
    if flags.bench_mfg:
        parts["bench_mfg"] = bench_mfg(flags.bench_mfg, flags.quick)
    if flags.mfax:
        parts["mfax"] = mfax(flags.mfax, flags.mfax_source, flags.quick)
    if flags.jaxmarl:
        parts["jaxmarl"] = jaxmarl(flags.jaxmarl, flags.jaxmarl_source, flags.quick)
    if not parts:
        print("all left out: give the interpreter of at least one other library")
        return
    where = environment()
    for name, part in parts.items():
        record[name] = part | {"environment": where, "busy": flags.busy}
    text = markdown(record)
    print(text)
    if not flags.quick:
        write_results("comparison", record, text)
        write_page(record)


if __name__ == "__main__":
    main()
