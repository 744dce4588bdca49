"""Laws regressed on the agents' parameters: against closed forms, NumPy, and the game itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crowdnash as cn
from crowdnash import mean_field
from crowdnash.mean_field.played import nearest_distribution

N, H = 60, 8


@pytest.fixture(scope="module")
def game():
    return cn.games.SIS.sample(jax.random.key(0), num_agents=N, horizon=H)


@pytest.fixture(scope="module")
def estimate(game):
    return mean_field.game_from_play(game, key=jax.random.key(1), num_trajectories=64)


@pytest.mark.slow
def test_laws_of_sis(game, estimate):
    """P(I|H,U) = susceptibility_i * sigma(I,U) and R = -1[I] - aversion_i 1[D], agent by agent."""
    mu = np.random.default_rng(0).dirichlet(np.full(4, 5.0), N).reshape(N, 2, 2)
    infectious = (mu[:, 0, 1].sum() - mu[:, 0, 1]) / (N - 1)
    laws = mean_field.laws_at(estimate, mu, 3)
    # About 6000 visits a cell, 16 columns: errors of 0.5 * sqrt(16 / 6000) = 0.026.
    exposed = np.asarray(game.susceptibility) * infectious
    np.testing.assert_allclose(laws.transition[:, 1, 1, 0], exposed, atol=0.1)
    np.testing.assert_allclose(laws.transition[:, 1, 0, 0], 0.0, atol=1e-3)
    for action in (0, 1):
        kept = 1 - np.asarray(game.recovery)
        np.testing.assert_allclose(laws.transition[:, 0, action, 0], kept, atol=0.1)
    rewards = np.array([[-1.0, -1.0], [0.0, 0.0]]) - np.einsum(
        "n,a->na", np.asarray(game.isolation_aversion), [1.0, 0.0]
    ).reshape(N, 1, 2)
    np.testing.assert_allclose(laws.reward, rewards, atol=5e-3)  # the ridge is one visit
    # The parameters were found, not the mean over agents.
    slope = np.polyfit(np.asarray(game.recovery), 1 - laws.transition[:, 0, 1, 0], 1)[0]
    assert slope == pytest.approx(1.0, abs=0.4)


def test_solution_is_an_equilibrium_of_the_game_itself(game, estimate):
    solution = mean_field.solve(estimate, "fictitious_play", num_iterations=100, tolerance=1e-3)
    true = cn.induced_game(game, "independent")
    gains = mean_field.evaluate(true, solution.policy).exploitability
    uniform = mean_field.evaluate(true, np.full((N, H, 2, 2), 0.5)).exploitability
    assert uniform.min() > 0.5
    assert gains.max() < 0.1
    assert gains.mean() < 0.01


@pytest.mark.parametrize("time_dependent", [False, True])
def test_against_least_squares_written_out(time_dependent):
    """Every visit a row, columns phi (x) psi, the ridge as extra rows.

    The play is made up: three kinds of policy, moves and rewards by no law at all.
    """
    rng = np.random.default_rng(3)
    m, horizon, n, actions = 6, 4, 12, 2
    game = cn.games.SIS.sample(jax.random.key(2), num_agents=n, horizon=horizon)
    propensity = rng.uniform(0.2, 0.8, (m, 1, 1))
    states = rng.integers(0, 2, (m, horizon, n))
    play = cn.Trajectories(
        states,
        (rng.uniform(size=states.shape) < propensity).astype(int),
        rng.normal(size=states.shape),
    )
    options = {"features": "linear", "time_dependent": time_dependent, "shrinkage": 2.0}
    mfg = mean_field.game_from_play(game, play, **options)
    pairs = play.states * actions + play.actions
    shares = np.stack([(pairs == x).mean(-1) for x in range(4)], -1)  # [M,H,X]
    phi = np.asarray(game.agent_features, np.float64)
    phi = np.column_stack([np.ones(n), _white(phi)(phi)])
    whiten = _white(shares.reshape(-1, 4))

    def columns(i, row, x):
        others = (n * shares[row] - np.eye(4)[x]) / (n - 1)
        return np.outer(phi[i], np.append(1.0, whiten(others[None])[0])).ravel()

    def fit(x, outcome, steps, prior=None):
        visits = np.argwhere(pairs == x)
        visits = visits[np.isin(visits[:, 1], steps)]
        rows = np.array([columns(i, (t, h), x) for t, h, i in visits])
        values = np.array([outcome(t, h, i) for t, h, i in visits])
        if prior is None:
            prior = np.zeros(rows.shape[1])
            prior[0] = values.mean()
        ridge = np.sqrt(2.0) * np.eye(rows.shape[1])
        full = np.concatenate([rows, ridge])
        right = np.concatenate([values - rows @ prior, np.zeros(len(ridge))])
        return prior + np.linalg.lstsq(full, right, rcond=None)[0]

    mu = rng.dirichlet(np.ones(4), n)
    met = (mu.sum(0) - mu) / (n - 1)
    laws = mean_field.laws_at(mfg, mu.reshape(n, 2, 2), 1)
    for x in range(4):
        s, a = divmod(x, actions)
        reward = fit(x, lambda t, h, i: play.rewards[t, h, i], range(horizon))
        first = fit(x, lambda t, h, i: states[t, h + 1, i] == 0, range(horizon - 1))
        if time_dependent:
            reward = fit(x, lambda t, h, i: play.rewards[t, h, i], [1], reward)
            first = fit(x, lambda t, h, i: states[t, h + 1, i] == 0, [1], first)
        for i in range(n):
            psi = np.append(1.0, whiten(met[i][None])[0])
            at = np.outer(phi[i], psi).ravel()
            assert laws.reward[i, s, a] == pytest.approx(at @ reward, abs=1e-5)
            p = np.clip(at @ first, 0, 1)  # with two states this is the nearest distribution
            np.testing.assert_allclose(laws.transition[i, s, a], [p, 1 - p], atol=1e-5)


def _white(points):
    """Points to uncorrelated coordinates of variance 1, by the eigenvectors of the covariance.

    The ridge is not free of the choice of coordinates but for a rotation, which these may differ
    by. What does not vary is left out.
    """
    scale = points.std(0)
    standard = (points - points.mean(0)) / scale
    values, vectors = np.linalg.eigh(standard.T @ standard / len(points))
    kept = values > 1e-8
    return lambda more: ((more - points.mean(0)) / scale) @ vectors[:, kept] / np.sqrt(values[kept])


def test_contributions_are_all_that_is_met(game):
    """With sigma(I,U) alone as what is met, the infection law is found with two columns."""
    contribution = np.array([[0.0], [1.0], [0.0], [0.0]])
    mfg = mean_field.game_from_play(
        game, key=jax.random.key(4), num_rounds=1, contribution=contribution
    )
    assert mfg.transition_law.coefficients.shape[1] == 2
    mu = np.random.default_rng(1).dirichlet(np.full(4, 5.0), N)
    other = mu.copy()
    other[:, [2, 3]] = other[:, [3, 2]]  # the healthy, otherwise spread over actions
    one, two = (mean_field.laws_at(mfg, m.reshape(N, 2, 2), 0).transition for m in (mu, other))
    np.testing.assert_allclose(one, two, atol=1e-12)
    infectious = (mu[:, 1].sum() - mu[:, 1]) / (N - 1)
    exposed = np.asarray(game.susceptibility) * infectious
    np.testing.assert_allclose(one[:, 1, 1, 0], exposed, atol=0.1)


@pytest.mark.parametrize(
    ("values", "nearest"),
    [
        ([0.2, 0.3, 0.5], [0.2, 0.3, 0.5]),
        ([1.2, 0.1, -0.3], [1.0, 0.0, 0.0]),  # level 0.2, over the first entry alone
        ([0.8, 0.6, -0.2], [0.6, 0.4, 0.0]),  # level (1.4 - 1) / 2, over two entries
    ],
)
def test_nearest_distribution(values, nearest):
    np.testing.assert_allclose(nearest_distribution(jnp.asarray(values)), nearest, atol=1e-6)


def test_bad_arguments(game):
    play = cn.simulate(
        game, cn.TabularPolicy.uniform(game), key=jax.random.key(0), num_trajectories=2
    )
    always = cn.Trajectories(play.states, np.zeros_like(play.actions), play.rewards)
    wide = cn.Trajectories(*(np.repeat(x, 2, axis=2) for x in play))
    for arguments, message in (
        ({}, r"key must be there to simulate the game, or trajectories in its place"),
        ({"key": jax.random.key(0), "num_rounds": 0}, r"num_rounds must be at least 1, not 0"),
        ({"trajectories": play, "shrinkage": 0.0}, r"shrinkage must be .*> 0.*, not 0"),
        ({"trajectories": play, "features": "cubic"}, r"features must be 'linear'"),
        ({"trajectories": play, "contribution": np.ones(4)}, r"contribution must be .* \[4,K\]"),
        ({"trajectories": wide}, r"trajectories.states must be \[M,8,60\]"),
        ({"trajectories": always}, r"trajectories must visit every cell .*\(0, 1\)"),
    ):
        with pytest.raises(ValueError, match=message):
            mean_field.game_from_play(game, **arguments)


@pytest.mark.slow
def test_a_thousand_agents_from_ninety_six_trajectories():
    """Two million agent-steps of play, and no law of the game was asked."""
    game = cn.games.SIS.sample(jax.random.key(0), num_agents=1000, horizon=20)
    mfg = mean_field.game_from_play(game, key=jax.random.key(100))
    solution = mean_field.solve(mfg, "fictitious_play", num_iterations=200, tolerance=1e-3)
    policy = cn.TabularPolicy.independent(solution.policy.astype(np.float32))
    certificate = cn.exploitability(game, policy, key=jax.random.key(1))
    assert certificate.maximum.lower < 0.02
    assert certificate.maximum.upper < 0.11
    assert certificate.mean.lower < 0.001
