"""`simulate` on four devices against one; `test_kept_play.py` runs it where there are four."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crowdnash as cn
from small_games import PULL, Drift, DriftSimulator, random_policy

KEY = jax.random.key(5)
N, M, H = 26, 10, 3  # neither comes out even among four
SIS = cn.games.SIS.sample(jax.random.key(0), num_agents=N, horizon=H, heterogeneity=0.1)
BAR = cn.games.BeachBar.sample(jax.random.key(2), num_agents=N, horizon=H)
MESHES = [("trajectories",), ("agents",), ("trajectories", "agents")]


def mesh(*axes: str) -> jax.sharding.Mesh:
    return jax.make_mesh((4,) if len(axes) == 1 else (2, 2), axes)


def play(game, policy, on=None):
    return cn.simulate(game, policy, key=KEY, num_trajectories=M, mesh=on)


def policy_of(game, num_groups: int) -> cn.TabularPolicy:
    return random_policy(
        1,
        np.arange(N) % num_groups,
        horizon=H,
        num_states=game.num_states,
        num_actions=game.num_actions,
    )


def assert_equal(one, several, rounding: float = 0.0):
    assert float(np.ptp(one.rewards)) > 0.1  # something happened
    for before, after in zip(one, several, strict=True):
        assert isinstance(after, np.ndarray)
        assert after.dtype == before.dtype
    np.testing.assert_array_equal(several.states, one.states)
    np.testing.assert_array_equal(several.actions, one.actions)
    np.testing.assert_allclose(several.rewards, one.rewards, rtol=0, atol=rounding)


@pytest.mark.parametrize("axes", MESHES, ids="-".join)
@pytest.mark.parametrize("num_groups", [1, 5, N])
def test_play_is_bit_identical(axes, num_groups):
    """Infections are counted, in whole numbers; tables are read by comparison."""
    policy = policy_of(SIS, num_groups)
    assert_equal(play(SIS, policy), play(SIS, policy, mesh(*axes)))


@pytest.mark.parametrize("axes", MESHES, ids="-".join)
def test_policies_that_are_looked_up(axes):
    """Tables of many states are read agent by agent: each must know who it is."""
    policy = policy_of(BAR, 7)
    assert_equal(play(BAR, policy), play(BAR, policy, mesh(*axes)))


@pytest.mark.parametrize("axes", MESHES, ids="-".join)
def test_few_trajectories_leave_devices_idle(axes):
    policy = policy_of(SIS, 2)
    one, several = (
        cn.simulate(SIS, policy, key=KEY, num_trajectories=1, mesh=on) for on in (None, mesh(*axes))
    )
    assert several.states.shape == (1, H, N)
    np.testing.assert_array_equal(several.states, one.states)


class Pulling(Drift):
    """Agents count by how much they are drawn themselves."""

    def contribution(self, agent, state, action):
        return agent.pull * super().contribution(agent, state, action)


def test_contributions_that_are_no_integers():
    """Four numbers below 1 in another order: 3 x 2^-24 of their sum, in a reward of slope 2."""
    policy = random_policy(0, (0, 0, 1, 1), horizon=4, num_states=3, num_actions=2)
    game = Pulling(np.array([0.21, 0.93, 0.57, 0.79], np.float32))
    for axes in MESHES[:2]:
        assert_equal(play(game, policy), play(game, policy, mesh(*axes)), rounding=2**-20)


class Painted(DriftSimulator):
    """Shows each agent a record in place of an integer."""

    def observe(self, state):
        seen = super().observe(state)
        return {"bits": jnp.stack([seen == 0, seen == 1], -1), "state": seen}


class BySight(cn.Policy):
    """Acts on one of the bits, each agent in its own way."""

    def probabilities(self, observation, agent_index, step):
        likely = jnp.where(observation["bits"][0], 0.9, 0.2 + 0.1 * agent_index)
        return jnp.stack([likely, 1 - likely])


@pytest.mark.parametrize("game", [DriftSimulator(PULL), Painted(PULL)], ids=["integers", "records"])
def test_bare_simulators_share_trajectories(game):
    policy = BySight()
    if not isinstance(game, Painted):
        policy = random_policy(0, (0, 0, 1, 1), horizon=4, num_states=3, num_actions=2)
    one, several = play(game, policy), play(game, policy, mesh("trajectories"))
    assert float(np.ptp(one.rewards)) > 0.1
    for before, after in zip(jax.tree.leaves(one), jax.tree.leaves(several), strict=True):
        assert after.shape[:3] == (M, 4, 4)
        np.testing.assert_array_equal(after, before)
    line = "agents can be shared in a PopulationGame alone"
    with pytest.raises(ValueError, match=line):
        play(game, policy, mesh("agents"))


def test_faults_are_named_as_on_one_device():
    broken = Drift(np.array([0.1, 0.2, np.nan, 0.3], np.float32))
    policy = random_policy(0, (0, 0, 1, 1), horizon=4, num_states=3, num_actions=2)
    lines = []
    for on in (None, mesh("trajectories"), mesh("agents")):
        with pytest.raises(cn.GameError) as caught:
            play(broken, policy, on)
        lines.append(str(caught.value))
    assert "agent 2" in lines[0]
    assert lines[0] == lines[1] == lines[2]


def test_auto_says_nothing_and_plays_the_same():
    policy = policy_of(SIS, N)
    assert_equal(play(SIS, policy), play(SIS, policy, "auto"))
