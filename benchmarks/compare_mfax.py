"""MFAX's side of `comparison.py`, to be run by an interpreter that has what it needs.

MFAX is not on a package index. Clone github.com/CWibault/mfax (commit e22ab46) and, with
Python 3.10 in an environment of its own, install the versions of its dev/requirements.txt that
its environments need: jax, flax, gymnax, chex, optax, numpy, scipy.

    python compare_mfax.py --source CLONE

reads {"policies": [[S][A], ..], "repeats"} from standard input, for its push-forward
linear-quadratic game, and prints a JSON record as its last line: the exploitability of every
policy and seconds of one call.
"""

import argparse
import json
import statistics
import sys
import time

import jax
import jax.numpy as jnp


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", required=True, help="a clone of MFAX")
    flags = parser.parse_args()
    sys.path.insert(0, flags.source)
    try:
        from mfax.algos.hsm.exploitability import (  # pyright: ignore[reportMissingImports]
            make_exploitability,
        )
        from mfax.envs import make_env  # pyright: ignore[reportMissingImports]
    except (ImportError, ValueError) as missing:  # ValueError: Python 3.11 refuses its dataclasses
        sys.exit(f"compare_mfax.py needs a clone of MFAX and Python 3.10: {missing}")

    asked = json.load(sys.stdin)
    game = make_env("pushforward/linear_quadratic")

    def agent(states: object, shared: object, mf_params: jax.Array) -> jax.Array:
        return mf_params[None]  # one environment

    measured = make_exploitability(game, agent, "indices", 1.0, 1, game.params.max_steps_in_episode)
    policies = [jnp.asarray(policy, jnp.float32) for policy in asked["policies"]]
    key = jax.random.PRNGKey(0)
    found = [float(measured(key, policy).exploitability.exploitability) for policy in policies]
    seconds = []
    for _ in range(asked["repeats"] * 20):
        begin = time.perf_counter()
        jax.block_until_ready(measured(key, policies[0]))
        seconds.append(time.perf_counter() - begin)
    record = {
        "jax": jax.__version__,
        "exploitabilities": found,
        "seconds": statistics.median(seconds),
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
