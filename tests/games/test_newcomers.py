"""Games with newcomers: who is in them, and what agents never trained on could gain."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crowdnash as cn
from limited_games import PULL, STARTS, Drivers

FEATURES = cn.PolicyMirrorDescent(
    evaluation="fitted",
    representation="features",
    features="quadratic",
    step_size=1.0,
    mixing=False,
    td_epochs=20,
    num_epochs=300,
    iterate="last",
)


@pytest.mark.parametrize("name", cn.games.tabular_names())
def test_every_game_of_the_library_can_be_joined(name):
    """Agents of one draw, taken apart and joined again: the same laws as before."""
    whole = cn.games.lookup(name).sample(jax.random.key(0), num_agents=7)
    agents = {id(x) for x in jax.tree_util.tree_leaves(whole.agents)}

    def part(first, last):
        cut = lambda x: x[first:last] if id(x) in agents else x  # noqa: E731
        return jax.tree_util.tree_map(cut, whole)

    both = cn.games.join(part(0, 4), part(4, 7))
    assert both.num_agents == 7
    assert jax.tree_util.tree_structure(both) == jax.tree_util.tree_structure(whole)
    for one, other in zip(*map(jax.tree_util.tree_leaves, (both, whole)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_newcomers_meet_the_others():
    """By hand: the newcomer is infected by two of three others who are infected and out."""
    three = cn.games.SIS([0.9, 0.9, 0.9], [0.3] * 3, [0.5] * 3, horizon=2)
    two = cn.games.SIS([0.6, 0.8], [0.1] * 2, [0.2] * 2, horizon=2)
    five = cn.games.join(three, two)
    others, out = jnp.array([0, 0, 1, 1]), jnp.ones(4, jnp.int32)
    moves, pay = five.law(jnp.int32(3), jnp.int32(1), jnp.int32(1), others, out, jnp.int32(0))
    np.testing.assert_allclose(moves, [0.6 * 2 / 4, 1 - 0.6 * 2 / 4], atol=1e-6)
    assert pay == 0
    _, pay = five.law(jnp.int32(4), jnp.int32(0), jnp.int32(0), others, out, jnp.int32(0))
    assert float(pay) == pytest.approx(-1.2)


def test_newcomers_bring_their_own_starts():
    """Three agents, then one of another start: what all four would be, and what they pay."""
    late = [[0.6, 0.4]]
    two = Drivers([0.4, 0.7], (1, 0), np.array([late[0], [0.5, 0.5]]))
    both = cn.games.join(Drivers(), two)
    np.testing.assert_allclose(both.initial_distribution, [*STARTS, *late, [0.5, 0.5]], rtol=1e-6)
    whole = Drivers([*PULL, 0.4, 0.7], (0, 0, 1, 1, 0), [*STARTS, *late, [0.5, 0.5]])
    policy = cn.TabularPolicy.uniform(whole)
    joined, at_once = (
        cn.exploitability(game, policy, key=jax.random.key(0), method="enumerate")
        for game in (both, whole)
    )
    np.testing.assert_array_equal(joined.lower, at_once.lower)
    alike = Drivers([0.4, 0.7], (1, 0), STARTS[0])
    with pytest.raises(ValueError, match="newcomers must have initial_distribution of shape"):
        cn.games.join(Drivers(), alike)
    with pytest.raises(ValueError, match="newcomers must have the same initial_distribution"):
        cn.games.join(alike, Drivers())


class Computed(cn.games.SIS):
    """Its `agents` are not what it holds."""

    @classmethod
    def of(cls, n):
        return cls([0.5] * n, [0.5] * n, [0.5] * n, 3)

    @property
    def agents(self):
        return jax.tree_util.tree_map(lambda x: x + 0, super().agents)


def test_what_cannot_be_joined():
    sis = cn.games.SIS.sample(jax.random.key(0), num_agents=4, horizon=3)
    longer = cn.games.SIS.sample(jax.random.key(0), num_agents=4, horizon=5)
    start = cn.games.SIS([0.5] * 2, [0.5] * 2, [0.5] * 2, 3, initial_distribution=(0.9, 0.1))
    rps = cn.games.RockPaperScissors.sample(jax.random.key(0), num_agents=4)
    curves = [
        cn.games.Congestion(np.full((2, 2, 2, 2), 0.5), np.zeros((2, 2, 2, c)), np.zeros((2, 2, 2)))
        for c in (2, 3)
    ]
    for one, other, message in (
        (sis, rps, "newcomers must be a SIS, as game is, not a RockPaperScissors"),
        (sis, longer, "newcomers must have the same horizon as game"),
        (sis, start, "newcomers must have the same initial_distribution as game"),
        (curves[0], curves[1], r"newcomers must have congestion of shape \['n', 2, 2, 2\]"),
        (sis, Computed.of(3), "newcomers must be a SIS, as game is, not a Computed"),
        (Computed.of(3), Computed.of(3), "Computed computes its `agents` from them"),
    ):
        with pytest.raises(ValueError, match=message):
            cn.games.join(one, other)


def certified(seed):
    """(newcomers who join, a whole new fleet): largest and mean, lower ends."""
    keys = jax.random.split(jax.random.key(seed), 6)
    game = cn.games.SIS.sample(keys[0], num_agents=1000, horizon=20)
    newcomers = cn.games.SIS.sample(keys[1], num_agents=200, horizon=20)
    fleet = cn.games.SIS.sample(keys[2], num_agents=1000, horizon=20)
    policy = cn.solve(game, FEATURES, key=keys[3]).policy
    joint = cn.games.join(game, newcomers)
    few = cn.exploitability(
        joint,
        policy.for_agents(joint.agent_features),
        key=keys[4],
        agents=range(1000, 1200),
    )
    new = cn.exploitability(fleet, policy.for_agents(fleet.agent_features), key=keys[5])
    return few, new


@pytest.mark.slow
def test_agents_that_were_never_trained_on():
    few, new = certified(0)
    assert few.lower.shape == (200,)
    assert few.maximum.lower < 0.13
    assert few.mean.lower < 0.02
    assert new.maximum.lower < 0.25
    assert new.mean.lower < 0.04


@pytest.mark.usefixtures("no_type_checks")
def test_only_games_whose_agents_meet_through_an_aggregate_are_joined():
    sis = Computed.of(3)
    taxi = cn.games.Taxi.sample(jax.random.key(0), num_agents=4)
    for one, other, message in (
        (sis, None, "newcomers must be a PopulationGame"),
        (taxi, sis, "game must be a PopulationGame"),
    ):
        with pytest.raises(ValueError, match=message):
            cn.games.join(one, other)
