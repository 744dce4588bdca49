"""One agent's learned best response against brute force, the certificate, and its own promises."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crowdnash as cn
from crowdnash.certificates.enumeration import enumerate_values
from crowdnash.certificates.q_deviations import TableDeviation, learn_table, measure_tables
from crowdnash.certificates.q_learning import (
    Episode,
    OptimisticQLearning,
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
SHORT = {"num_episodes": 200, "batch_size": 16}


def certificate(game, policy, agents, num_trajectories=10_000, **settings) -> cn.Exploitability:
    """What the agents gain with tables that they learned."""
    return cn.exploitability(
        game,
        policy,
        key=KEY,
        method="learned",
        agents=agents,
        num_trajectories=num_trajectories,
        learner=OptimisticQLearning(**settings),
    )


def learn(game, policy, agent, **settings) -> TableDeviation:
    return learn_table(game, policy, agent, key=KEY, learner=OptimisticQLearning(**settings))


def table(game, deviation: TableDeviation) -> np.ndarray:
    """The deviation as action probabilities, [H,S,A]."""
    return np.eye(game.num_actions)[deviation.actions]


def exact_value(game, policy, agent, deviation=None):
    """J^i by enumeration, of the policy or with `deviation` [H,S,A] in the agent's place."""
    tables = np.asarray(policy.probs)[np.asarray(policy.groups)]
    if deviation is not None:
        tables = tables.copy()
        tables[agent] = deviation
    return enumerate_values(game, tables).value[agent]


def judged_deviation(
    game, policy, agent, laws, exploitability, gap, **settings
) -> tuple[TableDeviation, np.ndarray]:
    """A deviation and its gains: right for the policy it is about, below the best, not far below.

    `laws` is a game whose laws are those of `game`.
    """
    deviation = learn(game, policy, agent, **settings)
    played = measure_tables(
        game, policy, np.array([agent]), [deviation.actions], key=KEY, num_trajectories=10_000
    )
    value, gain = exact_value(laws, policy, agent), played.gain[0]
    exact = exact_value(laws, policy, agent, table(laws, deviation)) - value
    assert abs(played.value.mean() - value) < 0.05
    assert abs(gain.mean() - exact) <= 4.5 * gain.std(ddof=1) / 100 + 1e-6
    assert exploitability - gap <= exact <= exploitability + 1e-5
    return deviation, gain


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
    for agent in (0, 2):
        judged_deviation(game, policy, agent, game, best.lower[agent], gap=0.02)


@pytest.mark.slow
def test_sis_agrees_with_the_certificate():
    game = cn.games.SIS.sample(jax.random.key(3), num_agents=100, horizon=15)
    policy = cn.TabularPolicy.uniform(game)
    best = cn.exploitability(game, policy, key=KEY, agents=[5, 60], own_influence_agents=0)
    learned = certificate(game, policy, [5, 60])
    # Frozen paths leave the agent's own influence out: about 0.01 here, 1/N in general.
    error = 4.5 * (best.upper_standard_error + learned.standard_error) + 0.02
    assert np.all(learned.lower <= best.upper + error)
    # The certificate's deviation gains 2 to 3: at most 0.05 of it is missed.
    assert np.all(learned.lower >= best.lower - 0.05 - error)


@pytest.mark.slow
def test_rock_paper_scissors_agrees_with_the_certificate():
    game = cn.games.RockPaperScissors.sample(jax.random.key(4), num_agents=60, horizon=5)
    policy = cn.TabularPolicy.uniform(game)
    best = cn.exploitability(game, policy, key=KEY)
    assert best.method == "exact"
    learned = certificate(game, policy, [7], num_episodes=5_000)
    assert learned.maximum.lower <= best.upper[7]
    assert learned.lower[0] >= best.lower[7] - 0.02 - 4.5 * learned.standard_error[0]
    assert learned.best_response_value[0] == learned.value[0] + learned.lower[0]


@pytest.mark.slow
def test_a_trained_policy_leaves_little_and_that_is_found():
    game = cn.games.SIS.sample(jax.random.key(0), num_agents=200, horizon=20)
    learner = cn.PolicyMirrorDescent.practical(num_epochs=100)
    policy = cn.solve(game, learner, key=KEY).last_policy
    best = cn.exploitability(game, policy, key=KEY, num_trajectories=512)
    worst = int(np.argmax(best.lower))
    learned = certificate(game, policy, [worst], num_episodes=50_000)
    assert learned.maximum.lower <= best.maximum.upper
    assert learned.lower[0] >= best.lower[worst] - 0.1 - 4.5 * learned.standard_error[0]


@pytest.mark.slow
def test_a_bare_simulator_gives_what_its_white_box_twin_gives():
    policy = drift_policy(1, [0, 1, 0, 1], horizon=4, num_states=3, num_actions=2)
    known = cn.exploitability(Drift(), policy, key=KEY, method="enumerate")
    settings = {"gap": 0.01, "num_episodes": 5_000, "batch_size": 16}
    runs = [
        judged_deviation(game, policy, 1, Drift(), known.lower[1], **settings)
        for game in (Drift(), DriftSimulator())
    ]
    deviations, gains = zip(*runs, strict=True)
    for deviation in deviations:
        lowest, highest = deviation.reward_range  # estimated: the games declare none
        assert -0.2 - 1e-6 <= lowest < 0.0 < highest <= 0.9 + 0.15 + 1e-6
    error = sum(gain.std(ddof=1) / 100 for gain in gains)
    # Two policies, each within 0.01 of the best.
    assert abs(gains[0].mean() - gains[1].mean()) <= 0.01 + 4.5 * error


# --- promises -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_record():
    game, policy = Drift(), DRIFT_POLICY
    one, again = (learn(game, policy, 2, **SHORT) for _ in range(2))
    np.testing.assert_array_equal(one.actions, again.actions)
    assert one.actions.shape == (4, 3)
    assert one.visits.shape == (4, 3, 2)
    # Every episode counts once at every step, also in the last, unfilled round (200 = 12*16 + 8).
    np.testing.assert_array_equal(one.visits.sum((1, 2)), 200)
    one, again = (certificate(game, policy, [2], 5000, **SHORT) for _ in range(2))
    assert (one.method, one.num_trajectories) == ("learned", 5000)
    np.testing.assert_array_equal(one.lower, again.lower)
    # Student's t, 4999 degrees of freedom, 95 % two-sided: 1.9604.
    end = one.lower[0] - 1.96044 * one.standard_error[0]
    np.testing.assert_allclose([one.maximum.lower, one.mean.lower], end, rtol=1e-4)
    assert (one.maximum.upper, one.mean.upper, one.upper[0]) == (np.inf,) * 3


def test_the_agents_own_action_as_a_deviation_gains_exactly_nothing():
    """One action: the deviation is the base policy, and the draws are the same."""
    game = random_tabular_game(0, 2, 2, 1, 2)
    one = certificate(game, cn.TabularPolicy.uniform(game), [0], 100, **SHORT)
    assert (one.lower[0], one.standard_error[0]) == (0.0, 0.0)


def test_a_large_bonus_still_tries_every_action():
    one = learn(Drift(), DRIFT_POLICY, 0, bonus_scale=100.0, **SHORT)
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
        ({"agents": [4]}, r"agents must lie in 0\.\.3"),
        ({"agents": [-1]}, r"agents must lie in 0\.\.3"),
        ({"agents": []}, "agents must be"),
        ({"num_episodes": 0}, "num_episodes must be at least 1, not 0"),
        ({"num_trajectories": 1}, "num_trajectories must be at least 2, not 1"),
        ({"bonus_scale": -1.0}, "bonus_scale must be >= 0 and finite, not -1.0"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"reward_range": (1.0, 1.0)}, r"reward_range must be \(lowest, highest\)"),
        ({"reward_range": (0.0, float("inf"))}, r"reward_range must be \(lowest, highest\)"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        certificate(Drift(), DRIFT_POLICY, **{"agents": [0]} | options)


def test_a_policy_of_another_shape():
    policy = drift_policy(1, [0, 0, 0], horizon=4, num_states=3, num_actions=2)
    for game in (Drift(), DriftSimulator()):
        with pytest.raises(ValueError, match="policy must fit the game"):
            certificate(game, policy, [0])


def test_games_without_integer_observations():
    uniform = cn.TabularPolicy.symmetric(np.full((2, 2, 2), 0.5), 2)
    with pytest.raises(ValueError, match="game must have num_states for tables; NoStates has none"):
        certificate(NoStates(), uniform, [0])
    with pytest.raises(ValueError, match="observe one integer"):
        certificate(Broken("float"), DRIFT_POLICY, [0])


@pytest.mark.slow
def test_faults_of_the_game_are_named():
    with pytest.raises(cn.GameError, match=r"'broken': agent 1 at step 2: reward .* nan"):
        learn(Broken("reward"), DRIFT_POLICY, 0, **SHORT)
    with pytest.raises(cn.GameError, match=r"agent 3 at step 2 observes 7: must lie in 0\.\.2"):
        learn(Broken("observation"), DRIFT_POLICY, 0, reward_range=(-1.0, 2.0), **SHORT)


def test_a_reward_outside_the_declared_range():
    message = r"'drift': agent 0 was paid .* outside the reward range \[0.0, 2.0\] declared by"
    with pytest.raises(ValueError, match=message):
        learn(Drift(), DRIFT_POLICY, 0, reward_range=(0.0, 2.0), **SHORT)
