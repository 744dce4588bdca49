"""Several devices: what `mesh` may be, and, in a process that has four, `on_four_devices.py`."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import crowdnash as cn
from crowdnash.simulation.device_choice import Work, devices_for
from simulator_toys import Drivers
from small_games import DriftByLaw

KEY = jax.random.key(1)
SIS = cn.games.SIS.sample(jax.random.key(0), num_agents=6, horizon=3)
LEARNER = cn.PolicyMirrorDescent(num_epochs=1, td_epochs=2)
ROOT = Path(__file__).parents[2]


def on_four_devices(*chosen: str) -> None:
    """Run the tests of `on_four_devices.py` where there are four devices."""
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-x", "tests/learners/on_four_devices.py"]
    done = subprocess.run(
        [*command, *chosen], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.slow
def test_four_devices():
    on_four_devices("-m", "slow or not slow")


def test_independent_tables_on_four_devices():
    on_four_devices("-k", "bit_identical and not trajectories-agents")


def one_device(*axes: str) -> jax.sharding.Mesh:
    return jax.make_mesh((1,) * len(axes), axes)


@pytest.mark.parametrize(
    ("game", "learner", "mesh", "line"),
    [
        (SIS, LEARNER, one_device("x"), "mesh must have axes of trajectories and agents, not 'x'"),
        (SIS, LEARNER, one_device("agents", "x"), "mesh must have axes of .*, not 'x'"),
        (SIS, LEARNER, 4, r"mesh must be a jax.sharding.Mesh, 'auto' or None, not 4"),
        (SIS, LEARNER, "all", "mesh must be a jax.sharding.Mesh, 'auto' or None, not 'all'"),
        (SIS, cn.PPO(num_epochs=1), "auto", "mesh is not for PPO: it learns on one device"),
        (DriftByLaw(), LEARNER, one_device("agents"), "PopulationGame alone, and DriftByLaw is"),
        (Drivers(), LEARNER, "auto", "mesh is for games in JAX"),
    ],
)
def test_meshes_that_do_not_suit(no_type_checks, game, learner, mesh, line):
    with pytest.raises(ValueError, match=line):
        cn.solve(game, learner, key=KEY, mesh=mesh)


def test_td_learning_and_a_mesh_of_agents():
    policy = cn.TabularPolicy.uniform(SIS)
    with pytest.raises(ValueError, match="td_learning shares trajectories alone"):
        cn.td_learning(SIS, policy, key=KEY, num_epochs=2, mesh=one_device("agents"))


def test_auto_on_one_device_is_that_device():
    result = cn.solve(SIS, LEARNER, key=KEY, mesh="auto")
    assert result.devices.mesh is None
    assert str(result.devices) == "one device (there is no other)"
    assert str(cn.solve(SIS, LEARNER, key=KEY).devices) == "one device"


def test_more_devices_than_agents():
    work = Work(num_trajectories=1, num_agents=3, table_bytes=0)
    assert work.refusal(3) == ""
    assert work.refusal(4) == "there are 3 agents for 4 devices"
    assert devices_for(None, work).mesh is None
