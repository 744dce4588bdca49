"""Published and independently computed numbers (MFGLib 0.3.0 and two other programs agree)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crowdnash as cn
from mean_field_reference import laws, mean_field_reference

RPS_PRINTED = {"crowding": 3.0, "loss": [2.0, 4.0, 6.0], "win": [1.0, 2.0, 3.0]}


def sis_centre(susceptibility: float) -> dict[str, float]:
    return {"susceptibility": susceptibility, "recovery": 0.3, "isolation_aversion": 0.5}


def identical(game_type, **centre):
    """A game of two agents at the centre values: the mean-field evaluator reads its laws."""
    return game_type.sample(jax.random.key(0), num_agents=2, heterogeneity=0.0, **centre)


@pytest.mark.parametrize(
    ("susceptibility", "value", "exploitability"),
    [(0.81, -8.120365845, 3.789724034), (0.9, -8.408592575, 3.590600775)],
)
def test_uniform_policy_of_the_sis_mean_field(susceptibility, value, exploitability):
    centre = sis_centre(susceptibility)
    result = mean_field_reference(identical(cn.games.SIS), centre, np.full((20, 2, 2), 0.5))
    assert result.value == pytest.approx(value, abs=1e-8)
    assert result.exploitability == pytest.approx(exploitability, abs=1e-8)


def test_uniform_policy_of_the_rps_mean_field():
    game = identical(cn.games.RockPaperScissors)
    result = mean_field_reference(game, RPS_PRINTED, np.full((10, 3, 3), 1 / 3))
    assert result.value == pytest.approx(-16.666666667, abs=1e-8)
    assert result.exploitability == pytest.approx(3.0, abs=1e-8)


def test_the_equilibrium_of_the_rps_mean_field():
    """Only the action marginal is pinned: play it whatever the state.

    Its four printed digits are off by up to 5e-5 in each share, which moves a step's payoff by at
    most (3 + 6 + 3) * 5e-5 for each of the three shares, and a deviation gains twice that.
    """
    game = identical(cn.games.RockPaperScissors)
    policy = np.empty((10, 3, 3))
    policy[:9], policy[9] = np.array([0.3372, 0.4070, 0.2558]), 1 / 3
    result = mean_field_reference(game, RPS_PRINTED, policy)
    assert 0 <= result.exploitability < 10 * 2 * 3 * 12 * 5e-5
    assert result.exploitability < 0.01  # what the digits really leave


@pytest.mark.parametrize("payoffs", ["printed", "cited"])
def test_crowding_that_makes_rps_monotone(payoffs):
    """-c |d_a|^2 + d_s' M d_s summed over a flow difference is <= 0 iff c >= the top eigenvalue of
    M's symmetric part on directions that sum to 0 (d_s at h+1 is d_a at h, and 0 at h = 0)."""
    threshold = {"printed": 2.52752523, "cited": 0.52752523}[payoffs]
    game = identical(cn.games.RockPaperScissors, crowding=0.0, payoffs=payoffs)
    centre = {"crowding": 0.0, "loss": np.asarray(game.loss[0]), "win": np.asarray(game.win[0])}
    payoff = np.zeros((3, 3))
    for other in range(3):
        mu = np.zeros((3, 3))
        mu[other] = 1 / 3
        payoff[:, other] = laws(game, centre, mu, 0)[1][:, 0]
    sums_to_zero = np.eye(3) - 1 / 3
    symmetric = sums_to_zero @ (payoff + payoff.T) / 2 @ sums_to_zero
    assert np.linalg.eigvalsh(symmetric)[-1] == pytest.approx(threshold, abs=1e-8)


def test_default_centres_are_the_reference_games():
    """The table above is about the games that `sample` gives without further arguments."""
    sis, rps = identical(cn.games.SIS), identical(cn.games.RockPaperScissors)
    assert (sis.horizon, rps.horizon) == (20, 10)
    for game, centre in [(sis, sis_centre(0.81)), (rps, RPS_PRINTED)]:
        for name, value in centre.items():
            reference = np.broadcast_to(np.float32(value), np.shape(getattr(game, name)))
            np.testing.assert_array_equal(getattr(game, name), reference)
        states = game.num_states
        np.testing.assert_allclose(game.initial_distribution, np.full(states, 1 / states))


@pytest.mark.slow
def test_certificate_of_identical_sis_agents_is_near_the_mean_field():
    """N = 1000 identical agents: value and gain differ from the mean field's by O(1/N).

    The population share mu moves by O(1/sqrt(N)) from path to path, so a smooth function of it
    has mean f(mu) + f''(mu)/2 * O(1/N). Over H = 20 steps, with rewards of size 1 and responses
    that compound for about 1/recovery = 3 steps, f'' is at most about H * 3^2 = 180 and the
    variance 0.25/N: 0.02. Sampling adds the certificate's own standard error.
    """
    game = cn.games.SIS.sample(jax.random.key(0), num_agents=1000, heterogeneity=0.0)
    policy = cn.TabularPolicy.uniform(game)
    result = cn.exploitability(
        game,
        policy,
        key=jax.random.key(1),
        num_trajectories=128,
        method="paths",
        own_influence_agents=0,
    )
    assert result.method == "paths"
    # All agents are alike and share the paths: their values differ only by their own pairs.
    tolerance = 0.02 + 4 * result.standard_error.mean()
    assert tolerance < 0.1
    assert result.value.mean() == pytest.approx(-8.120365845, abs=tolerance)
    assert result.lower.mean() == pytest.approx(3.789724034, abs=tolerance)
    assert result.upper.mean() == pytest.approx(3.789724034, abs=tolerance)
    assert result.mean.lower - 0.02 <= 3.789724034 <= result.mean.upper + 0.02


@pytest.mark.slow
def test_the_gap_to_the_mean_field_shrinks_like_one_over_n():
    """Ten times the agents, a tenth of the bias: at N = 10^4 only sampling error is left."""
    gaps = []
    for num_agents, paths in ((20, 4000), (10_000, 64)):
        game = cn.games.SIS.sample(jax.random.key(0), num_agents=num_agents, heterogeneity=0.0)
        result = cn.exploitability(
            game,
            cn.TabularPolicy.uniform(game),
            key=jax.random.key(2),
            num_trajectories=paths,
            method="paths",
            own_influence_agents=0,
            agents=np.arange(20),
        )
        gaps.append((result.lower.mean() - 3.789724034, result.standard_error.mean()))
    (small_game, _), (large_game, error) = gaps
    assert abs(large_game) < 4 * error + 0.002
    assert abs(large_game) < abs(small_game) / 5


def test_jitted_laws_equal_plain_ones():
    """The evaluator calls the laws without jit; the simulator with it."""
    game = identical(cn.games.SIS)
    agent = jax.tree_util.tree_map(lambda x: x[0], game.agents)
    where = (jnp.asarray(1), jnp.asarray(1), jnp.array([0.1, 0.4, 0.2, 0.3]), jnp.asarray(0))
    plain = game.transition(agent, *where)
    np.testing.assert_allclose(
        jax.jit(lambda *x: game.transition(*x))(agent, *where), plain, rtol=1e-6
    )
    np.testing.assert_allclose(plain, [0.81 * 0.4, 1 - 0.81 * 0.4], rtol=1e-6)
