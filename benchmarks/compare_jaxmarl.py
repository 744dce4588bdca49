"""JaxMARL's side of `comparison.py`: its IPPO for N agents, in one process for one N.

Its baselines are not in the package. Clone github.com/FLAIROx/JaxMARL (0.2.0, commit c793d09) and,
in an environment of its own, `pip install "jaxmarl[algs]==0.2.0"` and crowdnash.

    python compare_jaxmarl.py --source CLONE --game taxi --agents 64 --environments 16

trains with `make_train` of baselines/IPPO/ippo_ff_mpe.py as it stands, on our A-Taxi behind
JaxMARL's interface (dictionaries by agent, automatic resets) or on its own MPE_simple_spread_v3,
and prints a JSON record: seconds of tracing, of compilation and of one update.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

try:
    import jaxmarl  # pyright: ignore[reportMissingImports]
    import wandb  # pyright: ignore[reportMissingImports]
    from flax import struct  # pyright: ignore[reportMissingImports]
    from jaxmarl.environments.multi_agent_env import (  # pyright: ignore[reportMissingImports]
        MultiAgentEnv,
        State,
    )
    from jaxmarl.environments.spaces import (  # pyright: ignore[reportMissingImports]
        Box,
        Discrete,
    )
except ImportError as missing:
    sys.exit(f"compare_jaxmarl.py needs jaxmarl[algs]==0.2.0 in this environment: {missing}")

import jax
import jax.numpy as jnp
from jaxtyping import Array

import crowdnash as cn
from crowdnash.policies.observations import ObservationFeatures


@struct.dataclass
class FleetState(State):
    """JaxMARL's `done` and `step`, and the joint state of our game."""

    joint: Any


class Fleet(MultiAgentEnv):
    """A-Taxi as JaxMARL's environments are: whatever concerns an agent is keyed by its name."""

    def __init__(self, game: cn.games.Taxi):
        super().__init__(game.num_agents)
        self.game, self.features = game, ObservationFeatures.of(game)
        shape = (self.features.num_features,)
        self.observation_spaces = {a: Box(0.0, 1.0, shape) for a in self.agents}
        self.action_spaces = {a: Discrete(game.num_actions) for a in self.agents}

    @partial(jax.jit, static_argnums=0)
    def reset(self, key: Array) -> tuple[dict[str, Array], FleetState]:
        """A fresh game."""
        state = FleetState(jnp.asarray(False), jnp.asarray(0, jnp.int32), self.game.reset(key))
        return self.get_obs(state), state

    def step_env(self, key: Array, state: FleetState, actions: dict[str, Array]) -> tuple:
        """One step; the environment ends after the game's horizon."""
        joint = jnp.stack([actions[a].reshape(()) for a in self.agents])
        after, reward = self.game.step(state.joint, joint, key)
        step = state.step + 1
        done = step >= self.game.horizon
        state = FleetState(done, step, after)
        rewards = {a: reward[i] for i, a in enumerate(self.agents)}
        dones = dict.fromkeys(self.agents, done) | {"__all__": done}
        return self.get_obs(state), state, rewards, dones, {}

    def get_obs(self, state: FleetState) -> dict[str, Array]:
        """The features that our own learner would see."""
        seen = jax.vmap(self.features, (0, None))(self.game.observe(state.joint), state.step)
        return {a: seen[i] for i, a in enumerate(self.agents)}


def baseline(source: Path) -> Any:
    """The module baselines/IPPO/ippo_ff_mpe.py of a clone."""
    path = source / "baselines" / "IPPO" / "ippo_ff_mpe.py"
    if not path.exists():
        sys.exit(f"--source must be a clone of JaxMARL with baselines/IPPO, not {source}")
    spec = importlib.util.spec_from_file_location("ippo_ff_mpe", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", type=Path, required=True, help="a clone of JaxMARL")
    parser.add_argument("--game", choices=("taxi", "spread"), required=True)
    parser.add_argument("--agents", type=int, required=True)
    parser.add_argument("--environments", type=int, required=True)
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--minibatches", type=int, default=8)
    parser.add_argument("--updates", type=int, default=3)
    flags = parser.parse_args()
    ippo = baseline(flags.source)
    make = jaxmarl.make
    size: dict[str, int] = {}
    if flags.game == "taxi":
        game = cn.games.Taxi.sample(jax.random.key(0), num_agents=flags.agents, horizon=flags.steps)
        jaxmarl.make = lambda name, **settings: Fleet(game)
    else:
        size = {"num_agents": flags.agents, "num_landmarks": flags.agents}
        jaxmarl.make = make
    config = {
        "ENV_NAME": "MPE_simple_spread_v3",
        "ENV_KWARGS": size,
        "LR": 2.5e-4,
        "NUM_ENVS": flags.environments,
        "NUM_STEPS": flags.steps,
        "TOTAL_TIMESTEPS": flags.environments * flags.steps * flags.updates,
        "UPDATE_EPOCHS": 4,
        "NUM_MINIBATCHES": flags.minibatches,
        "GAMMA": 0.999,
        "GAE_LAMBDA": 0.95,
        "CLIP_EPS": 0.2,
        "ENT_COEF": 6e-3,
        "VF_COEF": 0.9,
        "MAX_GRAD_NORM": 0.5,
        "ACTIVATION": "relu",
        "ANNEAL_LR": True,
    }
    wandb.init(mode="disabled")
    key = jax.random.PRNGKey(0)
    begin = time.perf_counter()
    lowered = jax.jit(ippo.make_train(config)).lower(key)
    traced = time.perf_counter()
    compiled = lowered.compile()
    ready = time.perf_counter()
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        jax.block_until_ready(compiled(key))
        seconds.append((time.perf_counter() - start) / flags.updates)
    record = {
        "jaxmarl": importlib.metadata.version("jaxmarl"),
        "jax": jax.__version__,
        "tracing": traced - begin,
        "compilation": ready - traced,
        "update": min(seconds),
        "agent_steps": flags.agents * flags.environments * flags.steps,
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
