"""Route choice: games from trip tables, and drivers whose values of time differ."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crowdnash as cn

# 0 -> 3 by 1 (fast and narrow) or by 2 (20 minutes, whatever the flow).
FORK = {
    "from_node": np.array([0, 1, 0, 2]),
    "to_node": np.array([1, 3, 2, 3]),
    "free_flow_time": np.array([8.0, 2.0, 10.0, 10.0]),
    "capacity": np.array([400.0, 400.0, 400.0, 400.0]),
    "b": np.array([1.0, 0.0, 0.0, 0.0]),
    "power": np.ones(4),
}
TOLL = 5.0


def test_trips_by_hand():
    """Two trips a driver: 3 from 0 to 3, 1 from 1 to 3; trips from a zone to itself stay."""
    trips = np.zeros((4, 4))
    trips[0, 3], trips[1, 3], trips[2, 2] = 6, 2, 9
    game = cn.games.RouteChoice.from_trips(FORK, trips, vehicles=2, num_routes=2)
    np.testing.assert_array_equal(game.pair, [0, 0, 0, 1])
    routes = {tuple(np.flatnonzero(r)) for r in np.asarray(game.routes)[0]}
    assert routes == {(0, 1), (2, 3)}
    # From 1 there is one route, twice.
    np.testing.assert_array_equal(np.asarray(game.routes)[1], [[0, 1, 0, 0]] * 2)
    same = cn.games.RouteChoice.from_trips(
        FORK, trips[np.ix_([3, 0, 1], [3, 0, 1])], zones=[3, 0, 1], vehicles=2, num_routes=2
    )
    assert sorted(np.asarray(same.pair)) == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("trips", "options", "text"),
    [
        (np.ones((2, 3)), {}, "trips must be a square table [Z,Z], not [2, 3]"),
        ([[0, -1], [1, 0]], {}, "trips must be >= 0 and finite: trips[0, 1] = -1"),
        ([[0, 1], [np.nan, 0]], {}, "trips must be >= 0 and finite: trips[1, 0] = nan"),
        ([[0, 1], [0, 0]], {"zones": [0, 7]}, "zones must be nodes of the network: 7 has no"),
        (np.ones((6, 6)), {}, "zones must be nodes of the network: 4 has no links"),
        ([[0, 1], [0, 0]], {"zones": [0]}, "zones must be [Z] nodes, Z = 2 as trips"),
        ([[0, 1], [1, 0]], {"zones": [0, 3]}, "destinations must be reachable: there is no route"),
        ([[0, 1], [0, 0]], {"vehicles": 0}, "vehicles must be"),
        ([[0, 1], [0, 0]], {"route_lengths": [1.0]}, "route_lengths must be [L] numbers > 0"),
    ],
)
def test_bad_trips(trips, options, text):
    with pytest.raises(ValueError, match=re.escape(text)) as caught:
        cn.games.RouteChoice.from_trips(FORK, trips, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_drivers_who_value_time_more_pay_the_toll():
    """The toll road takes 10 + v / 50 minutes, and w is uniform on [0.2, 1.8].

    Whoever is above w* pays: w* (20 - 10 - v / 50) = 5 with v = 1000 (1.8 - w*) / 1.6 drivers, so
    w* (10 - 12.5 (1.8 - w*)) = 5: w* = (12.5 + sqrt(12.5^2 + 250)) / 25 = 1.306.
    """
    values = 0.2 + 1.6 * (np.arange(1000) + 0.5) / 1000
    game = cn.games.RouteChoice(
        FORK,
        [0],
        [3],
        np.zeros(1000, int),
        num_routes=2,
        value_of_time=values,
        tolls=[TOLL, 0, 0, 0],
    )
    threshold = (12.5 + np.sqrt(12.5**2 + 250)) / 25
    assert threshold * (10 - 12.5 * (1.8 - threshold)) == pytest.approx(5)
    learner = cn.PolicyMirrorDescent(
        evaluation="fitted",
        representation="mixed",
        features="linear",
        td_epochs=4,
        num_epochs=150,
        temperature=0.0,
        step_size=0.1,
        mixing=False,
        iterate="last",
    )
    result = cn.solve(game, learner, key=jax.random.key(0))
    fast = int(np.argmax(np.asarray(game.routes)[0, :, 0]))
    plays = cn.simulate(game, result.policy, key=jax.random.key(2), num_trajectories=64)
    probs = (np.asarray(plays.actions)[:, 0] == fast).mean(0)
    assert probs.mean() == pytest.approx((1.8 - threshold) / 1.6, abs=0.03)
    assert probs[values > threshold + 0.25].min() > 0.8
    assert probs[values < threshold - 0.25].max() < 0.2
    certificate = cn.exploitability(
        game, result.policy, key=jax.random.key(1), num_trajectories=32, own_influence_agents=0
    )
    uniform = cn.exploitability(
        game,
        cn.TabularPolicy.uniform(game),
        key=jax.random.key(1),
        num_trajectories=32,
        own_influence_agents=0,
    )
    assert certificate.mean.upper < 0.1 * uniform.mean.lower


@pytest.mark.slow
def test_days_of_commuting():
    """400 by the fast road take 8 (1 + 1) + 2 = 18 minutes the one day, 100 take 12 the other."""
    game = cn.games.RouteChoice(FORK, [0], [3], np.zeros(400, int), num_routes=2, horizon=2)
    fast = int(np.argmax(np.asarray(game.routes)[0, :, 0]))
    state = game.reset(jax.random.key(0))
    for drivers, minutes in ((400, 18), (100, 12)):
        actions = np.where(np.arange(400) < drivers, fast, 1 - fast)
        state, rewards = game.step(state, jnp.asarray(actions, jnp.int32), jax.random.key(1))
        np.testing.assert_allclose(rewards[:drivers], -minutes, rtol=1e-6)
        np.testing.assert_allclose(rewards[drivers:], -20, rtol=1e-6)
