"""`simulate` of several devices: what `mesh` may be; in a process with four, the play itself."""

import jax
import pytest

import crowdnash as cn
from four_devices import on_four_devices
from simulator_toys import Drivers

KEY = jax.random.key(1)
FOUR = "tests/simulation/play_on_four_devices.py"


@pytest.mark.slow
def test_four_devices():
    on_four_devices(FOUR)


def test_meshes_that_do_not_suit(no_type_checks):
    game = cn.games.SIS.sample(KEY, num_agents=6, horizon=3)
    policy = cn.TabularPolicy.uniform(game)
    for mesh, line in (
        (jax.make_mesh((1,), ("x",)), "mesh must have axes of trajectories and agents, not 'x'"),
        (4, "mesh must be a jax.sharding.Mesh, 'auto' or None, not 4"),
    ):
        with pytest.raises(ValueError, match=line):
            cn.simulate(game, policy, key=KEY, num_trajectories=2, mesh=mesh)
    uniform = cn.TabularPolicy.uniform(cn.simulators.as_game(Drivers()))
    with pytest.raises(ValueError, match="mesh is for games in JAX"):
        cn.simulate(Drivers(), uniform, key=KEY, num_trajectories=2, mesh="auto")
