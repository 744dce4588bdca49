"""Online mirror descent on mean-field games, beside MFGLib and OpenSpiel, in one run.

Two games, the same for both sides: MFGLib's susceptible-infected game (H = 51, S = A = 2) and
OpenSpiel's `mfg_crowd_modelling` (S = 10, A = 3, 10 moves), each with the other library's own
constants, learning rate 0.01 and the same number of iterations from the uniform policy. Time is
that of the iterations alone for the others (exploitability is not computed), and of a whole call
of `solve`, checks and exploitability included, for ours. Runs alternate.

The other libraries live in environments of their own (`pip install mfglib==0.3.0`; `pip install
open_spiel`); their interpreters are given by flags or by the variables MFGLIB_PYTHON and
OPEN_SPIEL_PYTHON. Without one, its half is left out.

    python benchmarks/mean_field_speed.py [--mfglib PYTHON] [--open-spiel PYTHON] [--quick]

writes benchmarks/results/mean_field_speed.json and .md (with --quick: prints only).
"""

import argparse
import dataclasses
import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from crowdnash import mean_field
from measurement import describe, environment, write_results

LEARNING_RATE = 0.01

_MFGLIB = """
import json, sys, time
import torch
from mfglib.alg import OnlineMirrorDescent
from mfglib.env import Environment
from mfglib.scoring import exploitability_score

iterations = int(sys.argv[1])
environment = Environment.susceptible_infected(T=50)
algorithm = OnlineMirrorDescent(alpha=0.01)
start = algorithm.init_state(environment, torch.full((51, 2, 2), 0.5))
algorithm.step_next_state(start, None, None)
begin, state = time.perf_counter(), start
for _ in range(iterations):
    state = algorithm.step_next_state(state, None, None)
seconds = time.perf_counter() - begin
print(json.dumps([seconds, exploitability_score(environment, state.pi)]))
"""

_OPEN_SPIEL = """
import json, sys, time
import pyspiel
from open_spiel.python.mfg import value
from open_spiel.python.mfg.algorithms import mirror_descent, nash_conv

iterations = int(sys.argv[1])
game = pyspiel.load_game("mfg_crowd_modelling")
solver = mirror_descent.MirrorDescent(game, value.TabularValueFunction(game), lr=0.01)
begin = time.perf_counter()
for _ in range(iterations):
    solver.iteration()
seconds = time.perf_counter() - begin
print(json.dumps([seconds, nash_conv.NashConv(game, solver.get_policy()).nash_conv()]))
"""


class SusceptibleInfected(mean_field.MeanFieldGame):
    """MFGLib's game: states (susceptible, infected), actions (go out, stay in)."""

    infection: Array | np.ndarray
    recovery: Array | np.ndarray
    reward: Array | np.ndarray
    initial_distribution: Array | np.ndarray
    horizon: int = eqx.field(static=True, default=51)
    num_states: int = eqx.field(static=True, default=2)
    num_actions: int = eqx.field(static=True, default=2)

    @property
    def laws_are_cheap(self) -> bool:
        """See `MeanFieldGame.laws_are_cheap`."""
        return True

    def laws(self, mu: Any, step: Any) -> tuple[Array, Array]:
        """See `MeanFieldGame.laws`."""
        caught = self.infection * mu[1].sum()
        out, stay = jnp.stack([1 - caught, caught]), jnp.array([1.0, 0.0], mu.dtype)
        ill = jnp.stack([self.recovery, 1 - self.recovery])
        return jnp.stack([jnp.stack([out, stay]), jnp.stack([ill, ill])]), jnp.asarray(self.reward)


class CrowdModelling(mean_field.MeanFieldGame):
    """OpenSpiel's game on a ring: move by -1, 0, 1, then by a fair one of the three.

    At every step h one is paid 1 - |x - 5| / 5 - log(share of x) - effort[h,x]. The effort should
    be |move| / 10 for the move just made, but OpenSpiel keeps one value for each (h,x), that of
    the path on which its search came there first: 0 at h = 0 and on one place of each later step,
    1/10 everywhere else. To compare like with like the game is taken as it is evaluated there.
    """

    move: Array | np.ndarray
    place: Array | np.ndarray
    effort: Array | np.ndarray
    initial_distribution: Array | np.ndarray
    horizon: int = eqx.field(static=True, default=10)
    num_states: int = eqx.field(static=True, default=10)
    num_actions: int = eqx.field(static=True, default=3)

    @property
    def laws_are_cheap(self) -> bool:
        """See `MeanFieldGame.laws_are_cheap`."""
        return True

    def laws(self, mu: Any, step: Any) -> tuple[Array, Array]:
        """See `MeanFieldGame.laws`."""
        paid = jnp.asarray(self.place) - jnp.log(mu.sum(1)) - jnp.asarray(self.effort)[step]
        return jnp.asarray(self.move), jnp.broadcast_to(paid[:, None], mu.shape)


def susceptible_infected() -> SusceptibleInfected:
    """With MFGLib's constants."""
    return SusceptibleInfected(
        infection=np.asarray(0.81),
        recovery=np.asarray(0.3),
        reward=np.array([[0.0, -0.5], [-1.0, -1.5]]),
        initial_distribution=np.array([0.4, 0.6]),
    )


def crowd_modelling() -> CrowdModelling:
    """With OpenSpiel's constants."""
    size, horizon, moves = 10, 10, np.array([-1, 0, 1])
    move = np.zeros((size, 3, size))
    for x, a, noise in np.ndindex(size, 3, 3):
        move[x, a, (x + moves[a] + moves[noise]) % size] += 1 / 3
    effort = np.full((horizon, size), 1 / size)
    effort[0] = 0
    for h in range(1, horizon):
        # The search goes left by two at every step; the next place is first reached by no move.
        effort[h, (1 - 2 * (h - 1)) % size] = 0
    return CrowdModelling(
        move=move,
        place=1 - np.abs(np.arange(size) - size // 2) / (size // 2),
        effort=effort,
        initial_distribution=np.full(size, 1 / size),
    )


@dataclass(frozen=True)
class Row:
    """One comparison; seconds are per iteration, the least over the repeats."""

    game: str
    against: str
    iterations: int
    seconds: float
    their_seconds: float
    exploitability: float
    their_exploitability: float
    target: float

    @property
    def times_faster(self) -> float:
        """How many of our iterations fit into one of theirs."""
        return self.their_seconds / self.seconds


def ours(game: mean_field.MeanFieldGame, iterations: int) -> tuple[float, float]:
    """Seconds of one `solve` and the exploitability it ends with."""
    begin = time.perf_counter()
    found = mean_field.solve(
        game,
        "online_mirror_descent",
        num_iterations=iterations,
        check_every=iterations,
        step_size=LEARNING_RATE,
        tolerance=0.0,
    )
    return time.perf_counter() - begin, found.exploitability


def theirs(python: str, script: str, iterations: int) -> tuple[float, float]:
    """Seconds of their iterations and the exploitability they end with, in their own process."""
    command = [python, "-c", script, str(iterations)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{python} failed:\n{done.stderr[-2000:]}")
    seconds, exploitability = json.loads(done.stdout.splitlines()[-1])
    return seconds, exploitability


def compare(
    name: str,
    against: str,
    make: Callable[[], mean_field.MeanFieldGame],
    python: str | None,
    script: str,
    iterations: int,
    repeats: int,
    target: float,
) -> Row | None:
    """Both sides in turn; None, with a message, if the other library is not there."""
    if not python:
        print(f"{against} left out: give its interpreter to compare with it")
        return None
    game = make()
    ours(game, iterations)  # compiles
    own, other = [], []
    for _ in range(repeats):
        other.append(theirs(python, script, iterations))
        own.append(min(ours(game, iterations) for _ in range(5)))
    seconds, exploitability = min(own)
    their_seconds, their_exploitability = min(other)
    return Row(
        name,
        against,
        iterations,
        seconds / iterations,
        their_seconds / iterations,
        exploitability,
        their_exploitability,
        target,
    )


def markdown(rows: list[Row], where: dict[str, Any]) -> str:
    """The table and what it was measured with."""
    lines = [
        "# Online mirror descent on mean-field games",
        "",
        describe(where),
        "",
        "| game | against | iterations | ours, us | theirs, us | times faster | at least "
        "| exploitability | theirs |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.game} | {row.against} | {row.iterations} | {row.seconds * 1e6:.2f} "
        f"| {row.their_seconds * 1e6:.0f} | {row.times_faster:.0f} | {row.target:.0f} "
        f"| {row.exploitability:.6f} | {row.their_exploitability:.6f} |"
        for row in rows
    ]
    lines += [
        "",
        "Ours is a whole call of `solve`, with its checks and the exploitability; theirs are the "
        "iterations alone. MFGLib works in float32, ours in float64. OpenSpiel's updates "
        "are made in place, while the values of the same sweep are computed, so that its iterates "
        "are others; both go to the same equilibrium.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mfglib", default=os.environ.get("MFGLIB_PYTHON"))
    parser.add_argument("--open-spiel", default=os.environ.get("OPEN_SPIEL_PYTHON"))
    parser.add_argument("--quick", action="store_true")
    flags = parser.parse_args()
    repeats = 1 if flags.quick else 3
    found = (
        compare(
            "susceptible-infected, H=51, S=A=2",
            "MFGLib 0.3.0",
            susceptible_infected,
            flags.mfglib,
            _MFGLIB,
            300 if flags.quick else 2000,
            repeats,
            1000,
        ),
        compare(
            "crowd modelling, 10 moves, S=10, A=3",
            "OpenSpiel",
            crowd_modelling,
            flags.open_spiel,
            _OPEN_SPIEL,
            1000 if flags.quick else 5000,
            repeats,
            800,
        ),
    )
    rows = [row for row in found if row is not None]
    if not rows:
        return
    where = environment()
    text = markdown(rows, where)
    print(text)
    if not flags.quick:
        record = {"environment": where, "rows": [dataclasses.asdict(row) for row in rows]}
        write_results("mean_field_speed", record, text)


if __name__ == "__main__":
    main()
