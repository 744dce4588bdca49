"""Bench-MFG's side of `comparison.py`, to be run by an interpreter that has it.

    pip install bench-mfg-suite==0.1.3    (in an environment of its own)

Reads {"policies": [[S][A], ..], "iterations", "repeats"} from standard input, for the packaged
game `lasry_lions_chain`, and prints a JSON record as its last line: the exploitability of every
policy, seconds of one call, and seconds and exploitability of online mirror descent.
"""

import importlib.metadata
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

# tqdm's bar is part of their loop; it is kept, but not drawn.
os.environ["TQDM_DISABLE"] = "1"

try:
    import benchmfg  # pyright: ignore[reportMissingImports]
    from benchmfg.envs.mfg_model_class_jit import (  # pyright: ignore[reportMissingImports]
        exploitability_jax,
    )
    from benchmfg.utility.create_solver import (  # pyright: ignore[reportMissingImports]
        get_env_spec,
    )
except ImportError as missing:
    sys.exit(f"compare_bench_mfg.py needs bench-mfg-suite==0.1.3 in this environment: {missing}")

import jax
import jax.numpy as jnp


def seconds_of(action: Callable[[], Any], repeats: int) -> float:
    """Median over `repeats` calls after a first one that compiles."""
    jax.block_until_ready(action())
    found = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(action())
        found.append(time.perf_counter() - begin)
    return statistics.median(found)


def main() -> None:
    """Measure and print."""
    asked = json.load(sys.stdin)
    config = benchmfg.load_config(
        [
            "algorithm=omd",
            "environment=lasry_lions_chain",
            "device=cpu",
            f"algorithm.omd.num_iterations={asked['iterations']}",
        ]
    )
    environment, _ = benchmfg.make_environment(config)
    spec = get_env_spec(environment, config.environment.name)
    start = jnp.asarray(environment.stationary_mean_field, jnp.float32)
    policies = [jnp.asarray(policy, jnp.float32) for policy in asked["policies"]]

    uniform = jnp.full((environment.N_states, environment.N_actions), 1 / environment.N_actions)
    solver = benchmfg.make_solver(config, environment=environment, initial_policy=uniform)
    exploitabilities: list[list[float]] = []

    def descend() -> None:
        environment.stationary_mean_field = jnp.asarray(start)  # `eval` leaves its own behind
        exploitabilities.append(solver.eval()[2])

    record = {
        "bench-mfg-suite": importlib.metadata.version("bench-mfg-suite"),
        "jax": jax.__version__,
        "exploitabilities": [float(exploitability_jax(p, spec, start)) for p in policies],
        "seconds": seconds_of(
            lambda: exploitability_jax(policies[0], spec, start), asked["repeats"] * 20
        ),
        "descent_seconds": seconds_of(descend, asked["repeats"]) / asked["iterations"],
        "descent_exploitability": exploitabilities[-1][-1],
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
