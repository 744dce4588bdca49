"""Fitted evaluation: against a literal sweep, least squares, and shifted rewards."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crowdnash as cn
from crowdnash.learners.fitted import (
    ResidualMemory,
    Visited,
    fit_features,
    fit_mixed,
    fit_tables,
    regression,
    sweep,
)
from crowdnash.policies.features import FeatureBasis
from crowdnash.simulation.layout import agent_layout
from crowdnash.simulation.statistics import VisitStatistics, visit_statistics
from crowdnash.simulation.trajectories import chunk_from_arrays
from small_games import Drift

KEY = jax.random.key(5)
H, S, A, N = 4, 3, 2, 12


def random_play(num_trajectories=30, seed=0):
    rng = np.random.default_rng(seed)
    shape = (num_trajectories, H, N)
    return (
        rng.integers(S, size=shape).astype(np.int32),
        rng.integers(A, size=shape).astype(np.int32),
        rng.normal(size=shape).astype(np.float32),
    )


def statistics_of(play, groups) -> VisitStatistics:
    layout = agent_layout(groups, int(groups.max()) + 1)
    chunk = chunk_from_arrays(*play, layout, num_states=S, num_actions=A)
    return visit_statistics(chunk, layout, S * A, summed=True, actions_apart=A)


def random_probs(num_groups, seed=1):
    probs = np.random.default_rng(seed).random((num_groups, H, S, A)) + 0.2
    return (probs / probs.sum(-1, keepdims=True)).astype(np.float32)


def literal_sweep(play, groups, probs, temperature):
    """Q of every group by loops over trajectories; NaN where nobody came."""
    states, actions, rewards = play
    num_groups = probs.shape[0]
    values, ahead = np.full((num_groups, H, S, A), np.nan), np.zeros((num_groups, S))
    for h in reversed(range(H)):
        for g in range(num_groups):
            for s, a in np.ndindex(S, A):
                rows = np.argwhere((states[:, h] == s) & (actions[:, h] == a) & (groups == g))
                targets = [
                    rewards[m, h, i] + (ahead[g, states[m, h + 1, i]] if h + 1 < H else 0.0)
                    for m, i in rows
                ]
                # One visit more, of the state's mean target: the remembered advantage is 0.
                both = np.argwhere((states[:, h] == s) & (groups == g))
                level = np.mean(
                    [
                        rewards[m, h, i] + (ahead[g, states[m, h + 1, i]] if h + 1 < H else 0.0)
                        for m, i in both
                    ]
                )
                values[g, h, s, a] = (np.sum(targets) + level) / (len(targets) + 1)
        pi = probs[:, h]
        ahead = (pi * values[:, h]).sum(-1) - temperature * (pi * np.log(pi)).sum(-1)
    return values


@pytest.mark.parametrize("num_groups", [1, 3])
def test_tables_are_a_literal_sweep(num_groups):
    groups, play, probs = np.arange(N) % num_groups, random_play(), random_probs(num_groups)
    kept = jnp.zeros((H, S * A, num_groups))
    values, advantages = sweep(
        statistics_of(play, groups), jnp.asarray(probs), jnp.float32(0.3), fit_tables(A), kept
    )
    expected = literal_sweep(play, groups, probs, 0.3)
    np.testing.assert_allclose(values, expected, atol=2e-5)
    assert advantages.shape == kept.shape


def test_a_pair_nobody_visits_keeps_the_advantage_it_last_had():
    seen = Visited(jnp.asarray([[4.0], [0.0]]), jnp.asarray([[8.0], [0.0]]))  # one state, a = 0, 1
    values, advantages = fit_tables(2)(seen, jnp.asarray([[0.0], [-0.5]]))
    # V = 8/4 = 2; Q(0) = (8 + 2 + 0) / 5, Q(1) = 2 - 0.5; then 98% of it is kept.
    np.testing.assert_allclose(values, [[2.0], [1.5]])
    np.testing.assert_allclose(advantages, [[0.0], [-0.49]], rtol=1e-6)


def test_an_unvisited_state_is_worth_the_mean():
    seen = Visited(jnp.asarray([[4.0], [0.0], [0.0], [0.0]]), jnp.asarray([[-8.0], [0], [0], [0]]))
    values, _ = fit_tables(2)(seen, jnp.zeros((4, 1)))
    np.testing.assert_allclose(values, np.full((4, 1), -2.0))


def fits(name):
    """A fit, what it keeps at first, and its groups."""
    features = jnp.asarray(
        FeatureBasis.of(np.random.default_rng(3).normal(size=(N, 2)), 1)(
            np.random.default_rng(3).normal(size=(N, 2))
        )
    )
    if name == "tables":
        return fit_tables(A), jnp.zeros((H, S * A, N))
    if name == "features":
        return fit_features(features, A), None
    return fit_mixed(features, A), ResidualMemory.empty(H, S * A, N)


@pytest.mark.parametrize(
    "name",
    [
        "mixed",
        pytest.param("features", marks=pytest.mark.slow),
        pytest.param("tables", marks=pytest.mark.slow),
    ],
)
def test_a_constant_added_to_all_rewards_changes_only_the_values(name):
    """Also where pairs are unvisited: three trajectories leave most of an agent's pairs so."""
    fit, kept = fits(name)
    probs = jnp.asarray(random_probs(N))
    differences = []
    for epoch in range(3):  # so that memory counts
        states, actions, rewards = random_play(3, seed=epoch)
        outcomes = []
        for shift in (0.0, 5.0):
            play = (states, actions, rewards + np.float32(shift))
            statistics = statistics_of(play, np.arange(N))
            outcomes.append(sweep(statistics, probs, jnp.float32(0.1), fit, kept))
        (plain, after), (shifted, _) = outcomes
        differences.append(np.asarray(shifted - plain))
        kept = after if name != "features" else None
    steps_left = np.arange(H, 0, -1)[None, :, None, None]
    for difference in differences:
        np.testing.assert_allclose(difference, 5.0 * steps_left + 0 * difference, atol=2e-3)


def test_regression_is_least_squares_where_data_are_plenty():
    """Against NumPy's least squares on the same weighted data; the ridge counts for 1e-5."""
    rng = np.random.default_rng(0)
    parameters = rng.normal(size=(N, 2))
    features = FeatureBasis.of(parameters, 1)(parameters)
    visits = rng.uniform(1e5, 2e5, size=(S * A, N))
    means = rng.normal(size=(S * A, N))
    seen = Visited(*(jnp.asarray(x, jnp.float32) for x in (visits, visits * means)))
    weights = regression(seen, jnp.asarray(features), A)
    for pair in range(S * A):
        root = np.sqrt(visits[pair])[:, None]
        exact = np.linalg.lstsq(root * features, root[:, 0] * means[pair], rcond=None)[0]
        np.testing.assert_allclose(weights[pair], exact, atol=1e-3)


def test_mixed_models_find_what_features_do_not_say():
    """Two kinds of agents, alike in their features: residuals tell them apart, noise does not."""
    num_agents, kinds = 200, np.where(np.arange(200) % 2, 1.0, -1.0)
    features = jnp.ones((num_agents, 1))
    fit = eqx.filter_jit(fit_mixed(features, 2))
    rng = np.random.default_rng(0)

    def learned(spread):
        kept = jax.tree.map(lambda x: x[0], ResidualMemory.empty(1, 2, num_agents))
        for _ in range(40):
            noise = rng.normal(size=(2, num_agents))
            means = spread * kinds * np.array([[1.0], [0.0]]) + noise / np.sqrt(5)
            seen = Visited(jnp.full((2, num_agents), 5.0), jnp.asarray(5 * means, jnp.float32))
            values, kept = fit(seen, kept)
        return np.asarray(values)

    different, alike = learned(1.0), learned(0.0)
    # Twenty epochs of five visits: a standard error of 0.1 an agent, shrunk hardly and much.
    assert np.abs(different[0] - kinds).mean() < 0.15
    assert alike[0].std() < 0.06
    assert different[1].std() < 0.06


def learner(**changes):
    settings = {
        "num_epochs": 40,
        "td_epochs": 20,
        "temperature": 0.01,
        "step_size": 1.0,
        "mixing": False,
        "evaluation": "fitted",
    }
    return cn.PolicyMirrorDescent(**(settings | changes))


GAME = cn.games.SIS.sample(jax.random.key(0), num_agents=60, horizon=6, heterogeneity=0.1)


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"representation": "mixed"}, cn.TabularPolicy),
        ({"representation": "features"}, cn.FeaturePolicy),
        ({"representation": "tables", "groups": "independent", "td_epochs": 80}, cn.TabularPolicy),
    ],
)
def test_a_few_epochs_come_near_equilibrium(settings, kind):
    """Uniform play leaves 1.0 in the mean; the certificate judges, which shares no learning code.

    A learner that goes on from its state reaches the same policy as one that was not interrupted.
    """
    result = cn.solve(GAME, learner(**settings), key=KEY)
    assert isinstance(result.policy, cn.TabularPolicy | cn.FeaturePolicy)
    assert isinstance(result.last_policy, kind)
    assert ("average" in result.policies) == (kind is cn.TabularPolicy)
    policy = result.last_policy
    tables = policy.tabular() if isinstance(policy, cn.FeaturePolicy) else policy
    certificate = cn.exploitability(GAME, tables, key=KEY, num_trajectories=64)
    assert certificate.mean.lower < 0.03
    assert certificate.maximum.lower < 0.12
    half = cn.solve(GAME, learner(**settings, num_epochs=15), key=KEY)
    whole = cn.solve(GAME, learner(**settings), key=jax.random.key(9), state=half.state)
    for one, other in zip(jax.tree.leaves(whole.state), jax.tree.leaves(result.state), strict=True):
        np.testing.assert_array_equal(one, other)


class Taste(NamedTuple):
    level: Any


class Thresholds(cn.PopulationGame):
    """One state; action 1 pays at step h where the agent's level is above h / 4, else action 0."""

    transition_in_aggregate: ClassVar = "free"
    reward_in_aggregate: ClassVar = "free"
    num_states: ClassVar[int] = 1
    num_actions: ClassVar[int] = 2
    agents: Taste
    initial_distribution: Any
    horizon: int = eqx.field(static=True)

    def __init__(self):
        self.agents = Taste(jnp.linspace(0.0, 1.0, 40))
        self.initial_distribution = jnp.ones(1)
        self.horizon = 4

    def transition(self, agent, state, action, aggregate, step):
        return jnp.ones(1)

    def reward(self, agent, state, action, aggregate, step):
        return jnp.where((agent.level > step / 4) == (action == 1), 1.0, 0.0)


def right_answers(game):
    """[N,H]: whether action 1 is the one that pays."""
    return np.asarray(game.agents.level)[:, None] > np.arange(game.horizon) / 4


def mean_return(game, policy):
    """Exactly, from the tables."""
    ones = np.asarray(policy.probs)[:, :, 0, 1]
    return np.where(right_answers(game), ones, 1 - ones).sum(1).mean()


@pytest.mark.parametrize("representation", ["features", "mixed"])
def test_features_that_depend_on_the_step(representation):
    """What pays at a step is a function of agent and step that is of no use at another step."""
    game = Thresholds()

    def above(agents, step):
        return right_answers(game)[:, [step]]

    settings = {"representation": representation, "num_epochs": 30, "step_size": "auto"}
    policy = cn.solve(game, learner(**settings, features=above), key=KEY).policy
    if representation == "features":
        fixed = learner(**settings, features=lambda agents: above(agents, 1))
        assert mean_return(game, cn.solve(game, fixed, key=KEY).policy.tabular()) < 3.7
        policy = policy.tabular()
    assert mean_return(game, policy) > 3.9  # of 4


@pytest.mark.slow
def test_runs_of_mixed_models_together_are_runs_apart():
    games = [
        cn.games.SIS.sample(key, num_agents=60, horizon=6, heterogeneity=0.1)
        for key in jax.random.split(KEY, 2)
    ]
    keys = list(jax.random.split(jax.random.key(1), 2))
    short = learner(representation="mixed", num_epochs=2)
    together = cn.solve_together(games, short, keys=keys)
    for game, key, result in zip(games, keys, together, strict=True):
        apart = cn.solve(game, short, key=key)
        np.testing.assert_allclose(result.last_policy.probs, apart.last_policy.probs, atol=1e-3)


class Nameless(Drift):
    """`Drift`, of whose agents nothing is known."""

    @property
    def agent_features(self):
        return None


def test_without_features_mixed_models_draw_towards_the_mean_and_say_so():
    with pytest.warns(UserWarning, match="Nameless has none.*mean of its group"):
        result = cn.solve(Nameless(), learner(representation="mixed", num_epochs=2), key=KEY)
    assert result.last_policy.probs.shape == (4, 4, 3, 2)
    with pytest.raises(ValueError, match=r"needs game\.agent_features"):
        cn.solve(Nameless(), learner(representation="features"), key=KEY)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"evaluation": "sarsa"}, "evaluation must be one of td, fitted, not 'sarsa'"),
        ({"representation": "trees"}, "representation must be one of tables, features, mixed"),
        ({"evaluation": "td", "representation": "mixed"}, "needs evaluation='fitted'"),
        ({"representation": "features", "mixing": True}, "mixing must be False"),
        ({"representation": "features", "groups": 4}, "groups must be 'symmetric'"),
        ({"features": "cubic"}, "features must be 'linear', 'quadratic' or a function"),
    ],
)
def test_settings_that_do_not_go_together(settings, message):
    with pytest.raises(ValueError, match=message):
        learner(**settings)


def test_the_defaults_are_still_algorithm_1():
    plain = cn.PolicyMirrorDescent()
    assert (plain.evaluation, plain.representation) == ("td", "tables")
    state = plain.init(GAME, key=KEY)
    assert state.kept is None
    assert {f.name for f in dataclasses.fields(state)} >= {"log_probs", "weights", "features"}
