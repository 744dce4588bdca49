"""Play of simulators outside JAX beside a bare loop over the same simulator.

    python benchmarks/simulator_speed.py [--write]

The simulator has 100 agents and does nothing for a given time at every step. A bare loop draws
random actions and calls `step`; `simulate` plays a table, in this process and in two workers. All
three take turns. Shown is the bare loop's time over theirs, medians.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import jax
import numpy as np

import crowdnash as cn
from measurement import describe, environment, measure_in_turn, write_results

MILLISECONDS = (0.03, 0.1, 0.3, 1.0)
EPISODES, REPEATS = 32, 5


class Busy:
    """States and rewards at random; a step takes `seconds`, whatever the machine."""

    num_agents, num_actions, horizon, num_states = 100, 3, 25, 4

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def reset(self, seed: int) -> np.ndarray:
        """Begin an episode."""
        self.rng = np.random.default_rng(seed)
        self.living = np.ones(self.num_agents, bool)
        return np.zeros(self.num_agents, int)

    def step(self, actions: np.ndarray) -> tuple[Any, Any, Any, None]:
        """Draw something, and wait."""
        end = time.perf_counter() + self.seconds
        states = self.rng.integers(0, self.num_states, self.num_agents)
        rewards = self.rng.random(self.num_agents)
        while time.perf_counter() < end:
            pass
        return states, rewards, self.living, None


def bare_loop(sim: Busy) -> None:
    """What one would write by hand."""
    rng = np.random.default_rng(0)
    for seed in range(EPISODES):
        sim.reset(seed)
        for _ in range(sim.horizon):
            sim.step(rng.integers(0, sim.num_actions, sim.num_agents))


def main() -> None:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="keep the result")
    write, rows = parser.parse_args().write, []
    for milliseconds in MILLISECONDS:
        sim = Busy(milliseconds / 1000)
        policy = cn.TabularPolicy.uniform(cn.simulators.as_game(sim))
        with cn.simulators.Workers(sim, num_workers=2) as workers:

            def played(game: Any, policy: Any = policy) -> Any:
                return cn.simulate(game, policy, key=jax.random.key(0), num_trajectories=EPISODES)

            bare, here, both = measure_in_turn(
                [lambda s=sim: bare_loop(s), lambda s=sim: played(s), lambda w=workers: played(w)],
                REPEATS,
            )
        shares = {"in process": bare.median / here.median, "two workers": bare.median / both.median}
        rows.append({"milliseconds": milliseconds, **shares})
        print(f"{milliseconds} ms", *(f"{name} {share:.2f}" for name, share in shares.items()))
    if write:
        where = environment()
        lines = [
            f"| {row['milliseconds']} | {row['in process']:.2f} | {row['two workers']:.2f} |"
            for row in rows
        ]
        text = [
            "# Play outside JAX, beside a bare loop",
            describe(where),
            "Time of a bare loop over a simulator of 100 agents, over that of `simulate` with a "
            f"table; {EPISODES} episodes of {Busy.horizon} steps, medians of {REPEATS}.",
            "\n".join(["| a step takes, ms | in process | two workers |", "|---|---|---|", *lines]),
        ]
        record = {"environment": where, "rows": rows}
        write_results("simulator_speed", record, "\n\n".join(text) + "\n")


if __name__ == "__main__":
    main()
