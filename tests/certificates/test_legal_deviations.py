"""A certificate counts deviations to legal actions alone, and starts every agent where it starts.

The game is `limited_games`: three agents, two states, three actions, two steps; illegal actions
would pay more. The judge is `brute_force`, which enumerates the joint chain.
"""

import jax
import numpy as np
import pytest

import crowdnash as cn
from brute_force import brute_force
from crowdnash.certificates.deviations import candidates
from crowdnash.certificates.planning import Setting, mean_model, prepare, response_of
from limited_games import Drivers, DriversByLaw, may

LICENCES = (0, 0, 1)


def is_legal(agent, policy):
    """Whether a deterministic policy [H,S] plays legal actions alone."""
    return all(may(LICENCES[agent], s, h)[policy[h, s]] for h, s in np.ndindex(policy.shape))


@pytest.fixture(scope="module")
def truth():
    """Gains of uniform play by enumeration: among legal policies, and among all."""
    game = Drivers()
    judge = brute_force(game, cn.TabularPolicy.uniform(game))
    every = judge.deterministic_policies()
    gains = []
    for agent in range(3):
        values = judge.deviation_values(agent, every) - judge.value[agent]
        legal = np.array([is_legal(agent, policy) for policy in every])
        gains.append((values[legal].max(), values.max()))
    return judge.value, np.array(gains)


@pytest.mark.parametrize("make", [Drivers, DriversByLaw])
def test_enumeration_counts_legal_deviations_alone(make, truth):
    game = make()
    value, gains = truth
    certificate = cn.exploitability(
        game, cn.TabularPolicy.uniform(game), key=jax.random.key(0), method="enumerate"
    )
    np.testing.assert_allclose(certificate.value, value, atol=1e-6)
    np.testing.assert_allclose(certificate.lower, gains[:, 0], atol=1e-6)
    assert (gains[:, 1] > gains[:, 0] + 0.3).all()  # what is illegal would have paid


@pytest.mark.slow
def test_sampled_certificate_counts_legal_deviations_alone(truth):
    game = Drivers()
    value, gains = truth
    certificate = cn.exploitability(
        game, cn.TabularPolicy.uniform(game), key=jax.random.key(1), method="paths"
    )
    assert certificate.maximum.lower <= gains[:, 0].max() <= certificate.maximum.upper
    assert certificate.maximum.upper < gains[:, 1].max()
    np.testing.assert_allclose(certificate.value, value, atol=0.1)
    # A quarter of the gap between legal and illegal: no end has an illegal deviation in it.
    assert (certificate.lower < gains[:, 0] + 4 * certificate.standard_error + 0.05).all()


def test_constant_actions_are_left_where_they_are_illegal():
    game = Drivers()
    setting = Setting.of(game, cn.TabularPolicy.uniform(game), jax.random.key(2), 8)
    model, totals = mean_model(setting, np.arange(3))
    agents = prepare(
        setting, np.arange(3), model, totals, response_of(setting, model, np.arange(3), totals)
    )
    for agent in range(3):
        tables = candidates(game, agents.at(np.array([agent])))
        tables = tables.reshape(2, 2, 3, -1)
        assert tables.shape[-1] > 1
        np.testing.assert_array_equal(tables.sum(2), 1)
        for table in np.moveaxis(tables, -1, 0):
            assert is_legal(agent, table.argmax(-1))


LEARNERS = (
    cn.OptimisticQLearning(num_episodes=400),
    pytest.param(
        cn.PPO(
            num_epochs=25,
            num_trajectories=32,
            learning_rate=1e-2,
            minibatch_size=64,
            hidden_sizes=(16,),
        ),
        marks=pytest.mark.slow,
    ),
)


@pytest.mark.slow
@pytest.mark.parametrize("learner", LEARNERS)
def test_learned_deviations_are_legal(learner, truth):
    game, (_, gains) = DriversByLaw(), truth
    certificate = cn.exploitability(
        game,
        cn.TabularPolicy.uniform(game),
        key=jax.random.key(3),
        method="learned",
        agents=[1, 2],
        num_trajectories=400,
        learner=learner,
    )
    best = gains[[1, 2], 0]
    error = 4 * certificate.standard_error
    assert (certificate.lower <= best + error).all()
    assert (certificate.lower >= 0.5 * best - error).all()
