"""The charging game: laws by hand, its contract, and every car that cannot be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crowdnash as cn

# Two cars in four steps of half an hour. Car 0: there in steps 1 and 2, 11 kW, 8 kWh: two steps of
# 8 kW. Car 1: there from 1 to the end, 4 kW, 2 kWh: one step.
CARS = {"arrival": [1, 1], "departure": [3, 4], "energy": [8.0, 2.0], "power": [11.0, 4.0]}
NIGHT = {"prices": [0.3, 0.2, 0.1, 0.4], "slope": 0.02, "penalty": 1.0, "hours": 0.5}


def fleet(**changes):
    return cn.games.FleetCharging(**(CARS | NIGHT | changes))


def pays(game, states, actions, step):
    laws = game.joint_law(jnp.array(states), jnp.array(actions), jnp.int32(step))
    return laws[0].argmax(1).tolist(), laws[1].tolist()


def test_laws_by_hand():
    game = fleet()
    assert game.num_states == 3
    np.testing.assert_allclose(game.rate, [8.0, 4.0])
    # Nobody is there in step 0; both arrive. Charging while away draws nothing.
    assert pays(game, [0, 0], [1, 1], 0) == ([2, 1], [0.0, 0.0])
    # Both charge: mean power 6 kW, price 0.2 + 0.12; 4 and 2 kWh.
    after, rewards = pays(game, [2, 1], [1, 1], 1)
    assert after == [1, 0]
    np.testing.assert_allclose(rewards, [-0.32 * 4, -0.32 * 2], rtol=1e-6)
    # Car 0 leaves after step 2. It waits, so 4 kWh are missing; car 1 charges: 0.1 + 0.02 * 2.
    after, rewards = pays(game, [1, 1], [0, 1], 2)
    assert after == [0, 0]
    np.testing.assert_allclose(rewards, [-4.0, -0.14 * 2], rtol=1e-6)
    # It charges: nothing is missing.
    _, rewards = pays(game, [1, 0], [1, 1], 2)
    np.testing.assert_allclose(rewards, [-(0.1 + 0.02 * 4) * 4, 0.0], rtol=1e-6)


def test_certificate_of_waiting_by_hand():
    """Who waits for ever pays 8 and 2; alone, the best plans cost 0.28 * 4 + 0.18 * 4, 0.14 * 2."""
    game = fleet()
    waits = cn.TabularPolicy.symmetric(np.eye(2)[np.zeros((4, 3), int)], num_agents=2)
    e = cn.exploitability(game, waits, key=jax.random.key(0), num_trajectories=4)
    np.testing.assert_allclose(e.lower, [8 - 4 * (0.28 + 0.18), 2 - 2 * 0.14], rtol=1e-5)
    np.testing.assert_allclose(e.upper, e.lower, rtol=1e-5)


def test_the_game_keeps_its_contract():
    cn.check_game(fleet(), key=jax.random.key(0))


def test_a_drawn_fleet():
    """Half-width 0: all cars as the centre says: 19:00 to 6:00, 22 kWh in two steps of 11 kW."""
    game = cn.games.FleetCharging.sample(jax.random.key(0), num_agents=3, heterogeneity=0.0)
    for column, value in zip(game.agents, (7, 18, 2, 11.0), strict=True):
        np.testing.assert_allclose(column, value)
    wide = cn.games.FleetCharging.sample(jax.random.key(0), num_agents=500, heterogeneity=0.9)
    stay = np.asarray(wide.departure - wide.arrival)
    assert (np.asarray(wide.need) <= stay).all()
    assert (np.asarray(wide.departure) <= 24).all()
    assert len(np.unique(stay)) > 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"departure": [1, 4]}, "departure must be after arrival: of car 0 it is 1, and arrival 1"),
        ({"departure": [3, 5]}, "departure must be at most 4, the number of prices: of car 1"),
        ({"arrival": [0, 1]}, r"arrival must be in 1\.\.3: of car 0 it is 0"),
        (
            {"energy": [8.0, 7.0]},
            "energy must fit power and stay: of car 1 it is 7, which hold 6 kWh",
        ),
        ({"energy": [-1.0, 2.0]}, "energy must be >= 0: of car 0 it is -1"),
        ({"power": [11.0, -4.0]}, "power must be > 0: of car 1 it is -4"),
        ({"departure": [3]}, r"departure must have shape \[2\], not \[1\]"),
        ({"energy": [8.0]}, r"energy must have shape \[2\], not \[1\]"),
        ({"power": [1.0, 2.0, 3.0]}, r"power must be a number or have shape \[2\], not \[3\]"),
        ({"arrival": [1.5, 1.0]}, "arrival must be integers"),
        ({"prices": [[0.1]]}, r"prices must have shape \[1\], not \[1, 1\]"),
        ({"prices": [0.3, 0.2, np.nan, 0.4]}, r"prices must be finite: prices\[2\] = nan"),
        ({"hours": 0}, "hours must be > 0"),
        ({"slope": -0.1}, "slope must be >= 0"),
        ({"penalty": -1.0}, "penalty must be >= 0"),
    ],
)
def test_cars_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        fleet(**changes)
    assert "\n" not in str(caught.value)
