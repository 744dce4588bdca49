"""Log-linear policies: the basis, tables for anybody's parameters, files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crowdnash as cn
from crowdnash.policies import features as features_module
from crowdnash.policies.features import FeatureBasis, game_basis

GAME = cn.games.SIS.sample(jax.random.key(0), num_agents=30, horizon=3, heterogeneity=0.1)


def policy(seed=0) -> cn.FeaturePolicy:
    basis, parameters = game_basis(GAME, "quadratic")
    weights = jax.random.normal(jax.random.key(seed), (3, 2, 2, basis.size))
    return cn.FeaturePolicy(weights, jnp.asarray(basis(parameters)), basis)


def test_quadratic_features_of_three_parameters_are_ten_uncorrelated_ones():
    basis, parameters = game_basis(GAME, "quadratic")
    features = basis(parameters)
    assert features.shape == (30, 10)
    np.testing.assert_array_equal(features[:, 0], 1.0)
    np.testing.assert_allclose(features.T @ features / 30, np.eye(10), atol=1e-5)


def test_more_than_eight_parameters_are_taken_linearly():
    class Many(cn.games.SIS):
        @property
        def agent_features(self):
            return jnp.asarray(np.random.default_rng(0).normal(size=(30, 9)))

    game = Many(*GAME.agents, horizon=3)
    assert game_basis(game, "quadratic")[0].size == 10


def test_columns_that_say_nothing_new_are_left_out():
    rng = np.random.default_rng(0)
    one = rng.normal(size=(40, 1))
    parameters = np.concatenate([one, 2 * one + 1, np.full((40, 1), 7.0)], axis=1)
    features = FeatureBasis.of(parameters, 1)(parameters)
    assert features.shape == (40, 2)
    # float64 inside: no digits lost on parameters far from 0 and of other scales
    far = FeatureBasis.of(1e6 + 1e-3 * parameters, 1)
    np.testing.assert_allclose(np.abs(far(1e6 + 1e-3 * parameters)), np.abs(features), atol=1e-3)


def test_a_function_of_the_agents():
    basis, parameters = game_basis(GAME, lambda agents: np.stack([agents.recovery], axis=1))
    assert parameters.shape == (30, 1)
    assert basis.size == 2
    with pytest.raises(ValueError, match=r"features\(agents\) must have shape \[30,d\]"):
        game_basis(GAME, lambda agents: np.zeros(30))


def by_hand(agents, step):
    """What agents differ by at a step; at step 1 all are alike in the second column."""
    recovery = np.asarray(agents.recovery)
    return np.stack([recovery * (step + 1), np.asarray(agents.susceptibility) * (step != 1)], 1)


def policy_by_step():
    basis, parameters = game_basis(GAME, by_hand)
    weights = jax.random.normal(jax.random.key(1), (3, 2, 2, basis.size))
    return cn.FeaturePolicy(weights, jnp.asarray(basis(parameters)), basis)


def test_a_function_of_the_agents_and_the_step():
    basis, parameters = game_basis(GAME, by_hand)
    assert parameters.shape == (3, 30, 2)
    assert (basis.num_steps, basis.size) == (3, 3)
    features = basis(parameters)
    for step in (0, 2):
        own = by_hand(GAME.agents, step)
        np.testing.assert_allclose(features[step], FeatureBasis.of(own, 0)(own), atol=1e-6)
    # One column says nothing at step 1: its feature is 0 there.
    np.testing.assert_array_equal(features[1, :, 2], 0.0)
    np.testing.assert_allclose(features[1].T @ features[1] / 30, np.diag([1, 1, 0]), atol=1e-5)
    with pytest.raises(ValueError, match=r"features\(agents, step\) must .* \[30,d\] at all steps"):
        game_basis(GAME, lambda agents, step: np.zeros((30, step + 1)))


def test_an_argument_with_a_default_is_not_the_step():
    def scaled(agents, factor=2.0):
        return factor * np.asarray(agents.recovery)[:, None]

    assert game_basis(GAME, scaled)[1].shape == (30, 1)


def test_a_policy_of_features_that_depend_on_the_step(tmp_path):
    learned = policy_by_step()
    assert learned.num_agents == 30
    basis, parameters = game_basis(GAME, by_hand)
    scores = np.asarray(learned.weights)[2, 1] @ basis(parameters)[2, 7]
    expected = np.exp(scores) / np.exp(scores).sum()
    one = learned.probabilities(jnp.asarray(1), jnp.asarray(7), jnp.asarray(2))
    np.testing.assert_allclose(one, expected, rtol=1e-5)
    np.testing.assert_allclose(learned.tabular().probs[7, 2, 1], expected, rtol=1e-5)
    learned.save(tmp_path / "p.npz")
    again = cn.FeaturePolicy.load(tmp_path / "p.npz")
    newcomers = parameters[:, 5:9] + 0.01
    some = again.for_agents(newcomers)
    assert some.probs.shape == (4, 3, 2, 2)
    np.testing.assert_array_equal(some.probs, learned.for_agents(newcomers).probs)
    with pytest.raises(ValueError, match=r"features must have shape \[3,n,k\], not \[4, 2\]"):
        again.for_agents(newcomers[0])
    with pytest.raises(ValueError, match=r"features must have shape \[3,N,3\], not \[30, 3\]"):
        cn.FeaturePolicy(learned.weights, learned.features[0], learned.basis)
    newcomers[1, 2, 0] = np.nan
    with pytest.raises(ValueError, match="those of agent 2 at step 1 are"):
        again.for_agents(newcomers)


def test_probabilities_are_the_softmax_of_weighted_features():
    learned = policy()
    basis, parameters = game_basis(GAME, "quadratic")
    scores = np.asarray(learned.weights)[1, 0] @ basis(parameters)[7]
    expected = np.exp(scores) / np.exp(scores).sum()
    found = learned.probabilities(jnp.asarray(0), jnp.asarray(7), jnp.asarray(1))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(learned.tabular().probs[7, 1, 0], expected, rtol=1e-5)


def test_agents_that_were_not_trained_on_have_a_policy():
    learned = policy()
    parameters = np.asarray(GAME.agent_features)
    np.testing.assert_allclose(
        learned.for_agents(parameters).probs, learned.tabular().probs, atol=1e-6
    )
    newcomers = learned.for_agents(parameters[:4] + 0.01)
    assert newcomers.probs.shape == (4, 3, 2, 2)
    with pytest.raises(ValueError, match="features must have 3 columns"):
        learned.for_agents(np.zeros((4, 2)))
    with pytest.raises(ValueError, match="finite numbers: those of agent 1 are"):
        learned.for_agents(np.array([[0.1, 0.2, 0.3], [0.1, np.nan, 0.3]]))


def test_files_hold_all_of_it(tmp_path):
    learned = policy()
    path = tmp_path / "p.npz"
    learned.save(path)
    again = cn.FeaturePolicy.load(path)
    other = np.asarray(GAME.agent_features) + 0.05
    np.testing.assert_array_equal(again.for_agents(other).probs, learned.for_agents(other).probs)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="is damaged"):
        cn.FeaturePolicy.load(path)
    cn.TabularPolicy.uniform(GAME).save(path)
    with pytest.raises(ValueError, match="is not a FeaturePolicy"):
        cn.FeaturePolicy.load(path)


def test_it_plays_and_only_its_own_game():
    learned = policy()
    played = cn.simulate(GAME, learned, key=jax.random.key(1), num_trajectories=3)
    tables = cn.simulate(GAME, learned.tabular(), key=jax.random.key(1), num_trajectories=3)
    assert (played.actions == tables.actions).mean() > 0.99  # equal but for rounding
    larger = cn.games.SIS.sample(jax.random.key(0), num_agents=31, horizon=3, heterogeneity=0.1)
    with pytest.raises(ValueError, match="the game has N=31, the policy N=30"):
        cn.simulate(larger, learned, key=jax.random.key(1), num_trajectories=3)


def test_of_very_many_agents_columns_are_made_by_parts(monkeypatch):
    """The same functions of the parameters, up to a rotation, and uncorrelated as before."""
    parameters = np.random.default_rng(0).normal(size=(103, 3)).astype(np.float32)
    whole = FeatureBasis.of(parameters, 2)(parameters).astype(np.float64)
    monkeypatch.setattr(features_module, "_ROWS", 20)
    parts = FeatureBasis.of(parameters, 2)(parameters).astype(np.float64)
    np.testing.assert_allclose(parts.T @ parts / 103, np.eye(10), atol=1e-5)
    np.testing.assert_allclose(parts @ parts.T, whole @ whole.T, atol=1e-4)
