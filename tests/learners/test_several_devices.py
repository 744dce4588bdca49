"""Several devices: what `mesh` may be, and, in a process that has four, `on_four_devices.py`."""

import jax
import numpy as np
import pytest

import crowdnash as cn
from crowdnash.simulation.device_choice import Work, devices_for
from four_devices import on_four_devices
from simulator_toys import Drivers
from small_games import DriftByLaw

KEY = jax.random.key(1)
SIS = cn.games.SIS.sample(jax.random.key(0), num_agents=6, horizon=3)
LEARNER = cn.PolicyMirrorDescent(num_epochs=1, td_epochs=2)
FOUR = "tests/learners/on_four_devices.py"
PPO_ON_FOUR = "tests/learners/ppo_on_four_devices.py"
PLAY_ON_FOUR = "tests/simulation/play_on_four_devices.py"


@pytest.mark.slow
def test_four_devices():
    on_four_devices(FOUR, "-m", "slow or not slow")


@pytest.mark.slow
def test_learning_and_play_on_four_devices():
    """The quick ones of all that need four, in one process."""
    some = "tables_are_bit_identical or gradient and one-hot or play_is_bit_identical and 5-"
    on_four_devices(FOUR, PPO_ON_FOUR, PLAY_ON_FOUR, "-k", f"({some}) and not trajectories-agents")


@pytest.mark.slow
def test_ppo_on_four_devices():
    on_four_devices(PPO_ON_FOUR)


@pytest.mark.slow
def test_a_mesh_of_one_device_changes_no_bit():
    ppo = cn.PPO(num_epochs=1, num_trajectories=2, minibatch_size=16, hidden_sizes=(2,))
    for learner in (LEARNER, ppo):
        one, other = (
            cn.solve(SIS, learner, key=KEY, mesh=on) for on in (None, one_device("trajectories"))
        )
        for before, after in zip(*map(jax.tree.leaves, (one.state, other.state)), strict=True):
            np.testing.assert_array_equal(after, before)


def one_device(*axes: str) -> jax.sharding.Mesh:
    return jax.make_mesh((1,) * len(axes), axes)


@pytest.mark.parametrize(
    ("game", "learner", "mesh", "line"),
    [
        (SIS, LEARNER, one_device("x"), "mesh must have axes of trajectories and agents, not 'x'"),
        (SIS, LEARNER, one_device("agents", "x"), "mesh must have axes of .*, not 'x'"),
        (SIS, LEARNER, 4, r"mesh must be a jax.sharding.Mesh, 'auto' or None, not 4"),
        (SIS, LEARNER, "all", "mesh must be a jax.sharding.Mesh, 'auto' or None, not 'all'"),
        (SIS, cn.PPO(num_epochs=1), one_device("agents"), "mesh: PPO shares trajectories alone"),
        (Drivers(), cn.PPO(num_epochs=1), "auto", "mesh is for games in JAX"),
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
