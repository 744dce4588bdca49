"""`solve(..., target=)`: learning stops when a certificate says that it may."""

import jax
import numpy as np
import pytest

import crowdnash as cn
from crowdnash.certificates.target import Target, is_due


@pytest.fixture(scope="module")
def game():
    return cn.games.RockPaperScissors.sample(jax.random.key(0), num_agents=40, horizon=3)


def learner(**changes):
    settings = {"num_epochs": 60, "td_epochs": 10, "features": "linear"} | changes
    return cn.PolicyMirrorDescent.practical(**settings)


def test_stops_at_the_first_look_that_is_good_enough(game):
    uniform = cn.exploitability(game, cn.TabularPolicy.uniform(game), key=jax.random.key(1))
    goal = Target(0.5 * uniform.maximum.upper, check_every=5)
    result = cn.solve(game, learner(), key=jax.random.key(0), target=goal)
    epochs = len(result.history)
    assert epochs in range(5, 60, 5)
    assert result.certificate.maximum.upper <= goal.largest
    # The certificate is of the policy that is returned, and the look before was not good enough.
    again = cn.exploitability(game, result.policy, key=jax.random.key(2))
    assert again.maximum.lower <= result.certificate.maximum.upper + 1e-6
    before = cn.solve(game, learner(num_epochs=epochs - 5), key=jax.random.key(0))
    assert (
        cn.exploitability(game, before.policy, key=jax.random.key(3)).maximum.upper > goal.largest
    )


def test_a_target_changes_nothing_before_it_is_reached(game):
    with pytest.warns(UserWarning, match=r"target 1e-06 was not reached in 10 epochs"):
        result = cn.solve(game, learner(num_epochs=10), key=jax.random.key(0), target=1e-6)
    plain = cn.solve(game, learner(num_epochs=10), key=jax.random.key(0))
    np.testing.assert_array_equal(result.policy.probs, plain.policy.probs)
    assert result.certificate is not None
    assert plain.certificate is None


def test_looks_share_the_error_probability():
    goal = Target(0.1, confidence=0.9, check_every=20)
    assert goal.confidence_of_a_look(100) == pytest.approx(1 - 0.1 / 5)
    assert goal.confidence_of_a_look(5) == pytest.approx(0.9)
    assert [e for e in range(1, 46) if is_due(e, 45, goal.check_every)] == [20, 40, 45]


@pytest.mark.parametrize("target", [0.0, -1, float("nan"), True])
def test_refuses_what_is_no_target(game, target):
    with pytest.raises(ValueError, match="target must be"):
        cn.solve(game, learner(), key=jax.random.key(0), target=target)


def test_needs_laws():
    taxi = cn.games.Taxi.sample(jax.random.key(0), num_agents=4)
    with pytest.raises(ValueError, match="target needs a TabularGame"):
        cn.solve(taxi, cn.PPO(num_epochs=1), key=jax.random.key(0), target=0.1)
