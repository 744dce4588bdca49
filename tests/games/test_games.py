"""A-SIS and A-RPS: conformance, laws against hand-computed numbers, and every bad input."""

import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crowdnash as cn
from crowdnash.checks import check_count
from crowdnash.games.conformance.check import check_game

KEY = jax.random.key(0)


@pytest.mark.parametrize("num_agents", [2, pytest.param(150, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", cn.games.names())
def test_registered_games_keep_the_contract(name, num_agents):
    game = cn.games.lookup(name).sample(KEY, num_agents=num_agents, horizon=3)
    check_game(game, key=jax.random.key(num_agents))


@pytest.mark.slow
@pytest.mark.parametrize("name", cn.games.names())
def test_defaults_keep_the_contract(name):
    check_game(cn.games.lookup(name).sample(KEY))


def test_counts():
    check_count("horizon", 3, 3)
    check_count("horizon", np.int64(3), 1)
    for value, text in (
        (2, "horizon must be at least 3, not 2"),
        (3.0, "horizon must be an integer, not 3.0"),
        ("3", "horizon must be an integer, not '3'"),
        (True, "horizon must be an integer, not True"),
    ):
        with pytest.raises(ValueError, match=text):
            check_count("horizon", value, 3)


def test_registry():
    assert {"rock-paper-scissors", "sis"} <= set(cn.games.names())
    assert list(cn.games.names()) == sorted(cn.games.names())
    assert cn.games.lookup("sis") is cn.games.SIS
    assert cn.games.lookup("rps") is cn.games.lookup("rock-paper-scissors")
    for name in cn.games.names():
        game = cn.games.lookup(name)
        assert game.name == name
        assert game.summary
        assert "\n" not in game.summary
        required = inspect.signature(game.sample).parameters
        assert {"num_agents", "horizon", "heterogeneity"} <= set(required)
    text = f"game must be one of {', '.join(cn.games.names())}, not 'chess'"
    with pytest.raises(ValueError, match=text):
        cn.games.lookup("chess")


# --- the laws of spec section 4, worked out by hand ---


@pytest.fixture(scope="module")
def sis():
    return cn.games.SIS(
        susceptibility=[0.9, 0.5, 0.8],
        recovery=[0.3, 0.2, 0.1],
        isolation_aversion=[0.5, 0.4, 0.6],
        horizon=20,
    )


# (states, actions) of the three agents; P(infected next) and reward of each.
# I=0, H=1; D=0, U=1. The others of a healthy agent who goes out, (I,U) among them, over 2:
SIS_CASES = [
    # 0: one of two others is (I,U): 0.9/2. 1: stays infected 1-0.2. 2: infected at a distance.
    ((1, 0, 0), (1, 1, 0), (0.45, 0.8, 0.9), (0.0, -1.0, -1.6)),
    # Everyone healthy and out: nobody infects.
    ((1, 1, 1), (1, 1, 1), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
    # Healthy at a distance among two infectious agents.
    ((0, 0, 1), (1, 1, 0), (0.7, 0.8, 0.0), (-1.0, -1.0, -0.6)),
    # ... and out among them: 0.8 * 2/2.
    ((0, 0, 1), (1, 1, 1), (0.7, 0.8, 0.8), (-1.0, -1.0, 0.0)),
    # Infected agents at a distance infect nobody.
    ((0, 1, 0), (0, 1, 0), (0.7, 0.0, 0.9), (-1.5, 0.0, -1.6)),
]


@pytest.mark.parametrize(("states", "actions", "infected", "rewards"), SIS_CASES)
def test_sis_by_hand(sis, states, actions, infected, rewards):
    probs, paid = sis.joint_law(jnp.asarray(states), jnp.asarray(actions), jnp.asarray(0))
    np.testing.assert_allclose(probs[:, 0], infected, atol=1e-6)
    np.testing.assert_allclose(probs[:, 1], 1 - np.asarray(infected), atol=1e-6)
    np.testing.assert_allclose(paid, rewards, atol=1e-6)


def rps(loss, win):
    return cn.games.RockPaperScissors(crowding=[3.0, 2.0, 1.0], loss=loss, win=win, horizon=10)


def test_rps_by_hand():
    """R=0, P=1, S=2; agents' states (R,P,S), actions (R,R,P); wins and losses by own *state*."""
    game = rps([[2, 4, 6], [1, 5, 7], [3, 8, 9]], [[1, 2, 3], [4, 5, 6], [7, 10, 8]])
    states, actions = jnp.asarray([0, 1, 2]), jnp.asarray([0, 0, 1])
    probs, paid = game.joint_law(states, actions, jnp.asarray(3))
    # 0 is in R, plays R; others (P,R), (S,P): sigma_a(R)=1/2, sigma_s(P)=1/2, sigma_s(S)=1/2.
    first = -3 / 2 - 2 / 2 + 1 / 2
    # 1 is in P, plays R; others (R,R), (S,P): sigma_a(R)=1/2, sigma_s(S)=1/2, sigma_s(R)=1/2.
    second = -2 / 2 - 5 / 2 + 5 / 2
    # 2 is in S, plays P; others (R,R), (P,R): sigma_a(P)=0, sigma_s(R)=1/2, sigma_s(P)=1/2.
    third = 0 - 9 / 2 + 8 / 2
    np.testing.assert_allclose(paid, [first, second, third], atol=1e-6)
    np.testing.assert_array_equal(probs, np.eye(3)[[0, 0, 1]])


# All others in S, playing S: in R one wins v_R, in P loses u_P, in S nothing; playing S crowds.
@pytest.mark.parametrize(
    ("state", "action", "reward"),
    [(0, 0, 1.0), (0, 1, 1.0), (0, 2, -2.0), (1, 0, -4.0), (1, 2, -7.0), (2, 1, 0.0), (2, 2, -3.0)],
)
def test_rps_against_scissors(state, action, reward):
    game = rps([[2, 4, 6]] * 3, [[1, 2, 3]] * 3)
    others = jnp.asarray([2, 2])
    own = (jnp.asarray(0), jnp.asarray(state), jnp.asarray(action))
    probs, paid = game.law(*own, others, others, jnp.asarray(0))
    np.testing.assert_allclose(paid, reward, atol=1e-6)
    np.testing.assert_array_equal(probs, np.eye(3)[action])


def test_rps_reward_range_is_met():
    game = rps([[2, 4, 6]] * 3, [[1, 2, 3]] * 3)
    low, high = game.reward_range
    assert low <= -9.0  # crowding 3 and loss 6
    assert high >= 3.0
    assert cn.games.SIS([0.5] * 2, [0.5] * 2, [0.2, 0.7]).reward_range == pytest.approx((-1.7, 0))


# --- sampling ---


def test_payoffs_of_both_sources():
    for payoffs, loss, win in (
        ("printed", [2, 4, 6], [1, 2, 3]),
        ("cited", [1, 2, 3], [2, 4, 6]),
    ):
        game = cn.games.RockPaperScissors.sample(
            KEY, num_agents=3, heterogeneity=0.0, crowding=2.5, payoffs=payoffs
        )
        np.testing.assert_array_equal(game.loss, [loss] * 3)
        np.testing.assert_array_equal(game.win, [win] * 3)
        np.testing.assert_array_equal(game.crowding, [2.5] * 3)


def test_defaults_are_those_of_the_paper():
    sis, rps = cn.games.SIS.sample(KEY), cn.games.RockPaperScissors.sample(KEY)
    assert (sis.num_agents, sis.horizon, sis.num_states, sis.num_actions) == (1000, 20, 2, 2)
    assert (rps.num_agents, rps.horizon, rps.num_states, rps.num_actions) == (2000, 10, 3, 3)
    np.testing.assert_array_equal(sis.initial_distribution, [0.5, 0.5])
    np.testing.assert_allclose(rps.initial_distribution, [1 / 3] * 3)


@pytest.mark.parametrize(
    ("heterogeneity", "widths"),
    [
        (0.05, (0.05, 0.05, 0.05)),
        ({"susceptibility": 0.02, "recovery": 0.2, "isolation_aversion": 0.0}, (0.02, 0.2, 0.0)),
        ({"susceptibility": 0.02}, (0.02, 0.1, 0.1)),
    ],
)
def test_heterogeneity_is_a_half_width(heterogeneity, widths):
    n = 4000
    game = cn.games.SIS.sample(KEY, num_agents=n, heterogeneity=heterogeneity)
    for values, centre, width in zip(game.agents, (0.81, 0.3, 0.5), widths, strict=True):
        values = np.asarray(values)
        assert np.abs(values - centre).max() <= width + 1e-6
        assert np.abs(values - centre).max() >= 0.99 * width
        assert abs(values.mean() - centre) <= 4 * width / np.sqrt(3 * n) + 1e-6
    correlation = np.corrcoef(np.stack(game.agents)[np.asarray(widths) > 0])
    assert np.abs(correlation - np.eye(len(correlation))).max() < 4 / np.sqrt(n)


def test_the_key_decides_the_draw():
    sample = cn.games.RockPaperScissors.sample
    a, b, c = (sample(jax.random.key(k), num_agents=5) for k in (1, 1, 2))
    np.testing.assert_array_equal(a.loss, b.loss)
    assert (np.asarray(a.loss) != np.asarray(c.loss)).all()


# --- bad input: argument, rule, value ---

GOOD_SIS = {"susceptibility": [0.9, 0.8], "recovery": [0.3, 0.3], "isolation_aversion": [0.5, 0.4]}
GOOD_RPS = {"crowding": [3.0, 3.0], "loss": [[2.0, 4.0, 6.0]] * 2, "win": [[1.0, 2.0, 3.0]] * 2}


@pytest.mark.parametrize(
    ("game", "changes", "text"),
    [
        ("sis", {"susceptibility": [0.5, 1.1]}, "must be in [0, 1]: susceptibility[1] = 1.1"),
        ("sis", {"recovery": [-0.1, 0.5]}, "recovery must be in [0, 1]: recovery[0] = -0.1"),
        ("sis", {"isolation_aversion": [np.nan, 0.5]}, "isolation_aversion[0] = nan"),
        ("sis", {"recovery": [0.1, 0.2, 0.3]}, "recovery must have shape [2], not [3]"),
        ("sis", {"susceptibility": 0.5}, "susceptibility must have shape [N], not []"),
        ("sis", {"susceptibility": [[0.5], [0.5]]}, "must have shape [2], not [2, 1]"),
        ("sis", {k: v[:1] for k, v in GOOD_SIS.items()}, "num_agents must be at least 2, not 1"),
        ("sis", {"horizon": 0}, "horizon must be at least 1, not 0"),
        ("sis", {"horizon": -3}, "horizon must be at least 1, not -3"),
        ("sis", {"initial_distribution": [0.5, 0.6]}, "initial_distribution must sum to 1"),
        ("sis", {"initial_distribution": [1.5, -0.5]}, "initial_distribution must be in [0, 1]"),
        ("sis", {"initial_distribution": [1.0]}, "must have shape [2], not [1]"),
        ("rps", {"crowding": [3.0, np.inf]}, "crowding must be finite: crowding[1] = inf"),
        ("rps", {"loss": [[1.0, 2.0]] * 2}, "loss must have shape [2,3], not [2, 2]"),
        ("rps", {"win": [[1, 2, np.nan], [1, 2, 3]]}, "win must be finite: win[0, 2] = nan"),
        ("rps", {k: v[:1] for k, v in GOOD_RPS.items()}, "num_agents must be at least 2, not 1"),
        ("rps", {"initial_distribution": [np.nan, 0.5, 0.5]}, "initial_distribution[0] = nan"),
    ],
)  # fmt: skip
def test_bad_arrays(game, changes, text):
    good = GOOD_SIS if game == "sis" else GOOD_RPS
    with pytest.raises(ValueError, match=re.escape(text)):
        cn.games.lookup(game)(**(good | changes))


@pytest.mark.parametrize(
    ("game", "arguments", "text"),
    [
        ("sis", {"num_agents": 1}, "num_agents must be at least 2, not 1"),
        ("sis", {"num_agents": 0}, "num_agents must be at least 2, not 0"),
        ("sis", {"horizon": 0}, "horizon must be at least 1, not 0"),
        ("sis", {"heterogeneity": 0.4}, "susceptibility must be in [0, 1]"),
        ("sis", {"recovery": 0.05}, "recovery must be in [0, 1]"),
        ("sis", {"recovery": float("nan")}, "recovery must be finite, not nan"),
        ("sis", {"heterogeneity": -0.1}, "heterogeneity must be >= 0 and finite, not -0.1"),
        ("sis", {"heterogeneity": float("nan")}, "heterogeneity must be >= 0 and finite"),
        ("sis", {"heterogeneity": {"recovery": float("inf")}}, "['recovery'] must be >= 0 and"),
        ("sis", {"heterogeneity": {"theta": 0.1}}, "'recovery', 'susceptibility']: ['theta']"),
        ("rps", {"num_agents": 1}, "num_agents must be at least 2, not 1"),
        ("rps", {"heterogeneity": {"c": 0.1}}, "['crowding', 'loss', 'win']: ['c']"),
    ],
)  # fmt: skip
def test_bad_samples(game, arguments, text):
    arguments = {"num_agents": 200} | arguments
    with pytest.raises(ValueError, match=re.escape(text)):
        cn.games.lookup(game).sample(KEY, **arguments)


@pytest.mark.parametrize("name", cn.games.names())
@pytest.mark.parametrize("num_agents", [3 * 10**9, 10**13])
def test_more_agents_than_fit_are_refused_before_they_are_drawn(name, num_agents):
    with pytest.raises(ValueError, match=rf"num_agents must .*{num_agents}.* bytes") as caught:
        cn.games.lookup(name).sample(KEY, num_agents=num_agents)
    assert "\n" not in str(caught.value)


def test_the_bytes_of_a_game_by_hand():
    # A-SIS has 3 numbers an agent, and drawing the last takes 2 more: 5 float32.
    with pytest.raises(ValueError, match=f"{20 * 10**13} bytes"):
        cn.games.SIS.sample(KEY, num_agents=10**13)
