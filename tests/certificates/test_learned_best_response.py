"""One agent's learned best response against brute force, the certificate, and its own promises."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crowdnash as cn
from crowdnash.certificates.enumeration import enumerate_values
from crowdnash.certificates.q_deviations import (
    model_free_best_response,
    model_free_best_responses,
)
from crowdnash.certificates.q_learning import (
    Episode,
    QTables,
    actions_to_try,
    bonus_factor,
    learning_rate,
    q_update,
)
from random_games import random_policy, random_tabular_game
from small_games import Drift, DriftSimulator
from small_games import random_policy as drift_policy

KEY = jax.random.key(0)
DRIFT_POLICY = drift_policy(1, [0, 0, 0, 0], horizon=4, num_states=3, num_actions=2)
SHORT = {"num_episodes": 200, "num_evaluation_episodes": 5000, "batch_size": 16}


def exact_value(game, policy, agent, deviation=None):
    """J^i by enumeration, of the policy or with `deviation` [H,S,A] in the agent's place."""
    tables = np.asarray(policy.probs)[np.asarray(policy.groups)]
    if deviation is not None:
        tables = tables.copy()
        tables[agent] = deviation
    return enumerate_values(game, tables).value[agent]


def assert_lower_bound(found, exact_gain, exploitability, gap):
    """The estimate is right for the policy it is about, below the best, and not far below."""
    assert abs(found.gain - exact_gain) <= 4.5 * found.standard_error + 1e-6
    assert exact_gain <= exploitability + 1e-5
    assert exact_gain >= exploitability - gap


# --- the learner --------------------------------------------------------------------------------


def test_learning_rate_and_bonus_are_the_papers():
    np.testing.assert_allclose(learning_rate(4, jnp.array([1, 2, 6])), [1.0, 5 / 6, 0.5])
    # c sqrt(H^3 log(SAHK/p)) with p = 0.05
    assert bonus_factor(0.1, 4, 3, 2, 100) == pytest.approx(0.1 * (64 * np.log(48_000)) ** 0.5)


def test_one_update_by_hand():
    """H = 2, S = A = 2, bonus 0.5/sqrt(n); rates 3/(2+n) for Q and, the second, 3/(n+2)."""
    tables = QTables.start(2, 2, 2)
    np.testing.assert_array_equal(tables.optimistic[:, 0, 0], [2.0, 1.0])
    episode = Episode(jnp.array([0, 1]), jnp.array([1, 0]), jnp.array([0.2, 0.6]))
    tables = q_update(tables, episode, jnp.float32(0.5))
    # First visits have rate 1: r + V + bonus, V_1 still at its start.
    np.testing.assert_allclose(tables.optimistic[0, 0], [2.0, 0.2 + 1.0 + 0.5])
    np.testing.assert_allclose(tables.optimistic[1, 1], [0.6 + 0.5, 1.0], rtol=1e-6)
    np.testing.assert_allclose(tables.values[0, 0], [0.0, 0.2], rtol=1e-6)
    np.testing.assert_allclose(tables.values[1, 1], [0.6, 0.0], rtol=1e-6)
    assert int(tables.visits.sum()) == 2
    # Untried and capped actions tie at H-h; the less visited one is tried.
    np.testing.assert_array_equal(actions_to_try(tables), [[0, 0], [0, 1]])
    tables = q_update(tables, episode, jnp.float32(0.5))
    bonus, rate = 0.5 / 2**0.5, 3 / 4
    target = 0.2 + 1.0 + bonus  # V_1(1) = min(1, 1.1)
    np.testing.assert_allclose(tables.optimistic[0, 0, 1], 1.7 + rate * (target - 1.7), rtol=1e-6)
    np.testing.assert_allclose(tables.values[0, 0, 1], 0.2 + rate * 0.6, rtol=1e-6)


# --- agreement ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_tiny_game_by_enumeration(seed):
    game = random_tabular_game(seed, 3, 2, 2, 3)
    policy = random_policy(seed, game, np.array([1, 0, 1]))
    best = cn.exploitability(game, policy, key=KEY, method="enumerate")
    for found in model_free_best_responses(game, policy, agents=[0, 2], key=KEY):
        value = exact_value(game, policy, found.agent)
        gain = exact_value(game, policy, found.agent, found.policy) - value
        assert abs(found.value - value) < 0.05
        assert_lower_bound(found, gain, best.lower[found.agent], gap=0.02)


@pytest.mark.slow
def test_sis_agrees_with_the_certificate():
    game = cn.games.SIS.sample(jax.random.key(3), num_agents=100, horizon=15)
    policy = cn.TabularPolicy.uniform(game)
    best = cn.exploitability(game, policy, key=KEY, agents=[5, 60], own_influence_agents=0)
    found = model_free_best_responses(game, policy, agents=[5, 60], key=KEY)
    for k, one in enumerate(found):
        # Frozen paths leave the agent's own influence out: about 0.01 here, 1/N in general.
        error = 4.5 * (best.upper_standard_error[k] + one.standard_error) + 0.02
        assert one.interval.lower <= one.gain <= best.upper[k] + error
        # The certificate's deviation gains 2 to 3: at most 0.05 of it is missed.
        assert one.gain >= best.lower[k] - 0.05 - error


@pytest.mark.slow
def test_rock_paper_scissors_agrees_with_the_certificate():
    game = cn.games.RockPaperScissors.sample(jax.random.key(4), num_agents=60, horizon=5)
    policy = cn.TabularPolicy.uniform(game)
    best = cn.exploitability(game, policy, key=KEY)
    assert best.method == "exact"
    one = model_free_best_response(game, policy, agent=7, key=KEY, num_episodes=5_000)
    assert one.interval.lower <= best.upper[7]
    assert one.gain >= best.lower[7] - 0.02 - 4.5 * one.standard_error
    assert one.best_response_value == one.value + one.gain


@pytest.mark.slow
def test_a_trained_policy_leaves_little_and_that_is_found():
    game = cn.games.SIS.sample(jax.random.key(0), num_agents=200, horizon=20)
    learner = cn.PolicyMirrorDescent.practical(num_epochs=100)
    policy = cn.solve(game, learner, key=KEY).last_policy
    best = cn.exploitability(game, policy, key=KEY, num_trajectories=512)
    worst = int(np.argmax(best.lower))
    one = model_free_best_response(game, policy, agent=worst, key=KEY, num_episodes=50_000)
    assert one.interval.lower <= best.maximum.upper
    assert one.gain >= best.lower[worst] - 0.1 - 4.5 * one.standard_error


@pytest.mark.slow
def test_a_bare_simulator_gives_what_its_white_box_twin_gives():
    policy = drift_policy(1, [0, 1, 0, 1], horizon=4, num_states=3, num_actions=2)
    known = cn.exploitability(Drift(), policy, key=KEY, method="enumerate")
    runs = [
        model_free_best_response(game, policy, agent=1, key=KEY, **SHORT | {"num_episodes": 5_000})
        for game in (Drift(), DriftSimulator())
    ]
    for run in runs:
        value = exact_value(Drift(), policy, 1)
        gain = exact_value(Drift(), policy, 1, run.policy) - value
        assert_lower_bound(run, gain, known.lower[1], gap=0.01)
        lowest, highest = run.reward_range  # estimated: the games declare none
        assert -0.2 - 1e-6 <= lowest < 0.0 < highest <= 0.9 + 0.15 + 1e-6
    difference = abs(runs[0].gain - runs[1].gain)
    # Two policies, each within 0.01 of the best.
    assert difference <= 0.01 + 4.5 * (runs[0].standard_error + runs[1].standard_error)


# --- promises -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_record():
    game, policy = Drift(), DRIFT_POLICY
    one = model_free_best_response(game, policy, agent=2, key=KEY, confidence=0.9, **SHORT)
    again = model_free_best_responses(game, policy, agents=[2], key=KEY, confidence=0.9, **SHORT)[0]
    assert one.interval == again.interval
    np.testing.assert_array_equal(one.policy, again.policy)
    assert (one.agent, one.num_episodes, one.num_evaluation_episodes) == (2, 200, 5000)
    assert one.policy.shape == one.visits.shape == (4, 3, 2)
    np.testing.assert_array_equal(one.policy.sum(-1), 1)
    assert set(np.unique(one.policy)) == {0.0, 1.0}
    # Every episode counts once at every step, also in the last, unfilled round (200 = 12*16 + 8).
    np.testing.assert_array_equal(one.visits.sum((1, 2)), 200)
    curve = one.learning_curve
    assert curve.num_episodes[-1] == 200
    assert (np.diff(curve.num_episodes) > 0).all()
    assert np.isfinite(curve.mean_return).all()
    half = 1.64516 * one.standard_error  # Student's t, 4999 degrees of freedom, 95 %
    np.testing.assert_allclose(one.interval, (one.gain - half, one.gain + half), rtol=1e-3)


def test_the_agents_own_action_as_a_deviation_gains_exactly_nothing():
    """One action: the deviation is the base policy, and the draws are the same."""
    table = random_tabular_game(0, 2, 2, 1, 2)
    policy = cn.TabularPolicy.uniform(table)
    one = model_free_best_response(table, policy, agent=0, key=KEY, **SHORT)
    assert (one.gain, one.standard_error) == (0.0, 0.0)


def test_a_large_bonus_still_tries_every_action():
    one = model_free_best_response(
        Drift(), DRIFT_POLICY, agent=0, key=KEY, bonus_scale=100.0, **SHORT
    )
    share = one.visits.sum((0, 1)) / one.visits.sum()
    assert share.min() > 0.3


# --- bad input ----------------------------------------------------------------------------------


class Broken(DriftSimulator):
    """`Drift` as a simulator that goes wrong where `fault` says."""

    fault: str = eqx.field(static=True)
    name: ClassVar[str] = "broken"

    def __init__(self, fault):
        super().__init__()
        self.fault = fault

    def step(self, state, actions, key):
        state, reward = super().step(state, actions, key)
        if self.fault == "reward":
            reward = jnp.where((state.step == 3) & (jnp.arange(4) == 1), jnp.nan, reward)
        return state, reward

    def observe(self, state):
        if self.fault == "float":
            return state.place.astype(jnp.float32)
        if self.fault == "observation":
            return jnp.where((state.step == 2) & (jnp.arange(4) == 3), 7, state.place)
        return state.place


class NoStates(cn.DynamicGame):
    num_agents: int = 2
    num_actions: int = 2
    horizon: int = 2

    def reset(self, key):
        return jnp.zeros(2, jnp.int32)

    def step(self, state, actions, key):
        return state, jnp.zeros(2)

    def observe(self, state):
        return state


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"agent": 4}, r"agent must lie in 0\.\.3, not 4"),
        ({"agent": -1}, r"agent must lie in 0\.\.3, not -1"),
        ({"num_episodes": 0}, "num_episodes must be at least 1, not 0"),
        ({"num_evaluation_episodes": 1}, "num_evaluation_episodes must be at least 2, not 1"),
        ({"bonus_scale": -1.0}, "bonus_scale must be a finite number >= 0, not -1.0"),
        ({"confidence": 1.0}, r"confidence must be in \(0, 1\), not 1.0"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"reward_range": (1.0, 1.0)}, r"reward_range must be \(lowest, highest\)"),
        ({"reward_range": (0.0, float("inf"))}, r"reward_range must be \(lowest, highest\)"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        model_free_best_response(Drift(), DRIFT_POLICY, **{"agent": 0, "key": KEY} | options)


def test_no_agents():
    with pytest.raises(ValueError, match="agents must name at least one agent"):
        model_free_best_responses(Drift(), DRIFT_POLICY, agents=[], key=KEY)


def test_a_policy_of_another_shape():
    policy = drift_policy(1, [0, 0, 0], horizon=4, num_states=3, num_actions=2)
    for game in (Drift(), DriftSimulator()):
        with pytest.raises(ValueError, match="policy must fit the game"):
            model_free_best_response(game, policy, agent=0, key=KEY)


def test_games_without_integer_observations():
    uniform = cn.TabularPolicy.symmetric(np.full((2, 2, 2), 0.5), 2)
    with pytest.raises(ValueError, match="game must have num_states for tables; NoStates has none"):
        model_free_best_response(NoStates(), uniform, agent=0, key=KEY)
    with pytest.raises(ValueError, match="observe one integer"):
        model_free_best_response(Broken("float"), DRIFT_POLICY, agent=0, key=KEY)


@pytest.mark.slow
def test_faults_of_the_game_are_named():
    with pytest.raises(cn.GameError, match=r"'broken': agent 1 at step 2: reward .* nan"):
        model_free_best_response(Broken("reward"), DRIFT_POLICY, agent=0, key=KEY, **SHORT)
    with pytest.raises(cn.GameError, match=r"agent 3 at step 2 observes 7: must lie in 0\.\.2"):
        model_free_best_response(
            Broken("observation"),
            DRIFT_POLICY,
            agent=0,
            key=KEY,
            reward_range=(-1.0, 2.0),
            **SHORT,
        )


def test_a_reward_outside_the_declared_range():
    message = r"'drift': agent 0 was paid .* outside the reward range \[0.0, 2.0\] declared by"
    with pytest.raises(ValueError, match=message):
        model_free_best_response(
            Drift(), DRIFT_POLICY, agent=0, key=KEY, reward_range=(0.0, 2.0), **SHORT
        )
