"""Mixtures of policies, each agent's drawn at the start: against sums over all draws."""

import itertools

import jax
import numpy as np
import pytest

import crowdnash as cn
from brute_force import brute_force
from influence_games import AUDITED, neighbours
from limited_games import Drivers

KEY = jax.random.key(0)
WEIGHTS = np.array([0.3, 0.7])


@pytest.fixture(scope="module")
def case():
    """A game of three agents and two steps, two policies, and the truth by brute force."""
    game, first = neighbours(*AUDITED["affine, 3"])
    shape = np.asarray(first.probs).shape
    rng = np.random.default_rng(5)
    tables = rng.dirichlet(np.ones(2), size=(2, *shape[:-1])).astype(np.float32)
    policies = [cn.TabularPolicy.grouped(table, first.groups) for table in tables]
    own = [np.asarray(policy.probs)[np.asarray(policy.groups)] for policy in policies]
    rules = np.array(list(itertools.product(range(2), repeat=game.horizon * 2)))
    rules = rules.reshape(len(rules), game.horizon, 2)
    value, best = np.zeros(3), np.zeros((3, len(rules)))
    for draw in itertools.product(range(2), repeat=3):
        weight = WEIGHTS[list(draw)].prod()
        probs = np.stack([own[m][agent] for agent, m in enumerate(draw)])
        played = brute_force(game, cn.TabularPolicy.independent(probs))
        value += weight * played.value
        # The deviator's own draw does not matter to what it gets: summed over, it drops out.
        best += weight * np.stack([played.deviation_values(agent, rules) for agent in range(3)])
    return game, policies, value, best.max(1) - value


def test_a_mixture_is_certified_as_all_draws_together(case):
    game, policies, value, gain = case
    e = cn.exploitability(game, cn.PolicyMixture(policies, WEIGHTS), key=KEY)
    assert e.method == "enumerate"
    np.testing.assert_allclose(e.value, value, atol=1e-5)
    np.testing.assert_allclose(e.lower, gain, atol=1e-5)
    # Not the policy of mean probabilities, nor the mean of the two certificates.
    mean = WEIGHTS[0] * policies[0].probs + WEIGHTS[1] * policies[1].probs
    table = cn.TabularPolicy.grouped(mean, policies[0].groups)
    others = [cn.exploitability(game, p, key=KEY).lower for p in (table, *policies)]
    assert np.abs(others[0] - gain).max() > 1e-3
    assert np.abs(WEIGHTS @ others[1:] - gain).max() > 1e-3
    assert e.origin is not None
    assert e.origin.game == type(game).__name__
    assert e.origin.policy == "PolicyMixture"


@pytest.mark.slow
def test_paths_say_the_same(case):
    game, policies, value, gain = case
    mixture = cn.PolicyMixture(policies, WEIGHTS)
    e = cn.exploitability(game, mixture, key=KEY, method="paths", num_trajectories=400)
    assert e.maximum.lower <= gain.max() <= e.maximum.upper
    assert e.mean.lower <= gain.mean() <= e.mean.upper
    assert (np.abs(e.value - value) < 0.1).all()
    assert e.influence is not None
    assert e.influence.deviations.shape[1:] == (game.horizon, 2, 2)


def test_one_policy_is_its_own_mixture(case):
    game, policies, _, _ = case
    alone = cn.exploitability(game, cn.PolicyMixture(policies[:1]), key=KEY)
    np.testing.assert_allclose(alone.lower, cn.exploitability(game, policies[0], key=KEY).lower)


@pytest.mark.parametrize("method", ["enumerate", pytest.param("paths", marks=pytest.mark.slow)])
def test_deviations_from_a_mixture_are_legal_and_start_where_the_agents_do(method):
    """Two halves of a policy mixed are that policy: illegal deviations would gain 0.3 more."""
    game = Drivers()
    uniform = cn.TabularPolicy.uniform(game)
    settings = {"key": KEY, "method": method, "num_trajectories": 64}
    e = cn.exploitability(game, cn.PolicyMixture([uniform, uniform]), **settings)
    alone = cn.exploitability(game, uniform, **{**settings, "method": "enumerate"})
    close = 1e-5 if method == "enumerate" else 0.15
    np.testing.assert_allclose(e.lower, alone.lower, atol=close)
    np.testing.assert_allclose(e.value, alone.value, atol=close)


@pytest.mark.parametrize(
    ("policies", "weights", "message"),
    [
        ([], None, "policies must hold at least one policy"),
        ([cn.TabularPolicy.symmetric(np.full((1, 2, 2), 0.5), 3)], [0.5], "weights must be 1 prob"),
    ],
)
def test_what_is_no_mixture(policies, weights, message):
    with pytest.raises(ValueError, match=message):
        cn.PolicyMixture(policies, weights)
