"""Algorithm 2: the mirror step against its definition, schedules, groupings, and exact gains."""

import logging
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

import crowdnash as cn
from brute_force import brute_force
from crowdnash.games.grouping import assign_groups
from crowdnash.learners.temporal_difference import td_learning
from crowdnash.policies.mirror_update import mirror_step
from small_games import Drift, DriftSimulator

KEY = jax.random.key(3)
SIS = cn.games.SIS.sample(jax.random.key(0), num_agents=6, horizon=3, heterogeneity=0.15)


def solve(game=SIS, *, key=KEY, state=None, callback=None, **arguments):
    learner = cn.PolicyMirrorDescent(**({"num_epochs": 4, "td_epochs": 6} | arguments))
    return cn.solve(game, learner, key=key, state=state, callback=callback)


def entropy(u: np.ndarray) -> float:
    return -float(np.sum(u * np.log(u)))


# --- the mirror step ---


@pytest.mark.parametrize("seed", range(6))
def test_mirror_step_is_the_argmax_of_its_definition(seed):
    """argmax_u (xi / (1 - tau xi)) (<q,u> + tau H(u)) - KL(u | pi), q = Q - tau H(pi)."""
    generator = np.random.default_rng(seed)
    size = int(generator.integers(2, 5))
    pi = generator.dirichlet(np.ones(size))
    value = generator.normal(size=size) * 3
    tau, xi = generator.uniform(0, 0.8), generator.uniform(0.05, 1.2)
    q = value - tau * entropy(pi)

    def loss(logits: np.ndarray) -> float:
        u = np.exp(logits - logits.max())
        u /= u.sum()
        divergence = float(np.sum(u * np.log(u / pi)))
        return divergence - xi / (1 - tau * xi) * (q @ u + tau * entropy(u))

    best = minimize(loss, np.log(pi), method="BFGS", options={"gtol": 1e-9}).x
    best = np.exp(best - best.max())
    args = [np.log(pi)[None, None, None], value[None, None, None], tau, xi]
    found = mirror_step(*(jnp.asarray(x, jnp.float32) for x in args))
    np.testing.assert_allclose(np.exp(found)[0, 0, 0], best / best.sum(), atol=2e-5)


def test_mirror_step_by_hand():
    """pi = (1/2, 1/2), Q = (log 3, 0), xi = 1, tau = 0: (3/4, 1/4); each row on its own."""
    pi = jnp.log(jnp.asarray([[[[0.5, 0.5], [0.8, 0.2]]]]))
    values = jnp.asarray([[[[np.log(3), 0.0], [0.0, 0.0]]]], jnp.float32)
    found = mirror_step(pi, values, jnp.float32(0.0), jnp.float32(1.0))
    np.testing.assert_allclose(np.exp(found)[0, 0], [[0.75, 0.25], [0.8, 0.2]], atol=1e-6)
    # tau xi = 1/2 and Q = 0: the square roots of (0.8, 0.2), that is (2/3, 1/3).
    found = mirror_step(pi, 0 * values, jnp.float32(0.5), jnp.float32(1.0))
    np.testing.assert_allclose(np.exp(found)[0, 0, 1], [2 / 3, 1 / 3], atol=1e-6)


def test_mirror_step_keeps_tiny_probabilities():
    """An action once almost given up can come back: nothing underflows to zero for good."""
    pi = jnp.asarray([[[[0.0, -150.0]]]])
    found = mirror_step(pi, jnp.asarray([[[[0.0, 400.0]]]]), jnp.float32(0.01), jnp.float32(1.0))
    np.testing.assert_allclose(np.exp(found)[0, 0, 0], [0.0, 1.0], atol=1e-6)


# --- schedules, mixing, average ---


def iterates(**arguments) -> tuple[cn.SolveResult, list[np.ndarray]]:
    learner = cn.PolicyMirrorDescent(**({"num_epochs": 4, "td_epochs": 6} | arguments))
    seen = [np.asarray(learner.init(SIS, key=KEY).probs)]
    result = cn.solve(
        SIS, learner, key=KEY, callback=lambda state, _: seen.append(np.asarray(state.probs))
    )
    return result, seen


def test_average_is_the_mean_of_all_iterates():
    for mixing in (True, False):
        result, seen = iterates(mixing=mixing, num_epochs=5)
        assert len(seen) == 6
        np.testing.assert_allclose(seen[0], 0.5, atol=1e-7)
        np.testing.assert_allclose(result.policy.probs, np.mean(seen, 0), atol=1e-6)
        np.testing.assert_allclose(result.last_policy.probs, seen[-1], atol=1e-7)
        assert np.abs(seen[-1] - np.mean(seen, 0)).max() > 0.01


def step_once(state, **arguments):
    learner = cn.PolicyMirrorDescent(**({"num_epochs": 9, "td_epochs": 6} | arguments))
    return learner.step(SIS, state)[0]


@pytest.fixture(scope="module")
def states():
    """The states before epochs 0..4 of one run."""
    learner = cn.PolicyMirrorDescent(num_epochs=4, td_epochs=6, mixing=False)
    found = [learner.init(SIS, key=KEY)]
    cn.solve(SIS, learner, key=KEY, callback=lambda state, _: found.append(state))
    return found


def test_mixing_with_uniform_at_weight_1_over_t_plus_1(states):
    for epoch in (0, 1, 3):
        plain = step_once(states[epoch], mixing=False).probs
        mixed = step_once(states[epoch], mixing=True).probs
        weight = 1 / (epoch + 1)
        np.testing.assert_allclose(mixed, (1 - weight) * plain + weight / 2, atol=1e-6)
    np.testing.assert_allclose(step_once(states[0], mixing=True).probs, 0.5, atol=1e-7)


def test_step_sizes(states):
    """xi_t scales the change of log pi (tau = 0): 1/sqrt(t+1), or a constant."""

    def change(epoch: int, step_size) -> np.ndarray:
        settings = {"temperature": 0.0, "mixing": False, "step_size": step_size}
        after = step_once(states[epoch], **settings)
        # Differences between actions: normalisation drops out.
        return np.diff(after.log_probs - states[epoch].log_probs, axis=-1)

    for epoch in (0, 3):
        one = change(epoch, 1.0)
        assert np.abs(one).max() > 0.1
        np.testing.assert_allclose(change(epoch, "theorem"), one / np.sqrt(epoch + 1), atol=1e-5)
        np.testing.assert_allclose(change(epoch, 0.3), 0.3 * one, atol=1e-5)


@pytest.mark.parametrize("weighting", ["trajectories", "visitors"])
def test_an_epoch_is_td_learning_and_a_mirror_step(states, weighting):
    state, tau, xi = states[2], 0.05, 0.4
    policy = cn.TabularPolicy.grouped(state.probs, state.groups)
    key = jax.random.fold_in(KEY, 2)
    evaluation = {"step_size": "horizon-visits", "weighting": weighting}
    values = td_learning(SIS, policy, key=key, num_epochs=6, temperature=tau, **evaluation)
    settings = {"temperature": tau, "step_size": xi, "mixing": False, "td_weighting": weighting}
    learner = cn.PolicyMirrorDescent(td_epochs=6, td_step_size="horizon-visits", **settings)
    start = learner.init(SIS, key=KEY)
    start = eqx.tree_at(lambda x: (x.epoch, x.log_probs), start, (state.epoch, state.log_probs))
    after, metrics = learner.step(SIS, start)
    expected = mirror_step(state.log_probs, values, jnp.float32(tau), jnp.float32(xi))
    np.testing.assert_allclose(after.log_probs, expected, atol=1e-5)
    change = 0.5 * np.abs(np.exp(expected) - state.probs).sum(-1).max()
    assert metrics.policy_change == pytest.approx(change, abs=1e-5)
    played = cn.simulate(SIS, policy, key=key, num_trajectories=6)
    assert metrics.mean_return == pytest.approx(played.rewards.sum(1).mean(), abs=1e-4)
    assert (metrics.epoch, metrics.agent_steps) == (2, 6 * 3 * 6)
    assert metrics.seconds > 0


# --- groupings ---


def test_one_agent_a_group_equals_independent():
    named = solve(groups="independent")
    by_hand = solve(groups=np.arange(6))
    number = solve(groups=6)
    assert named.policy.probs.shape == (6, 3, 2, 2)
    for other in (by_hand, number):
        np.testing.assert_array_equal(named.policy.probs, other.policy.probs)
        np.testing.assert_array_equal(named.last_policy.probs, other.last_policy.probs)
        np.testing.assert_array_equal(other.policy.groups, np.arange(6))


def test_an_explicit_map_equals_the_number_that_gives_it():
    groups = assign_groups(SIS, 3)
    number, by_hand = solve(groups=3), solve(groups=groups)
    np.testing.assert_array_equal(number.policy.groups, groups)
    np.testing.assert_array_equal(number.policy.probs, by_hand.policy.probs)
    assert np.abs(np.diff(number.policy.probs, axis=0)).max() > 0.01


def test_renaming_groups_renames_their_tables():
    groups, rename = np.asarray([0, 1, 2, 1, 0, 0]), np.asarray([2, 0, 1])
    plain, renamed = solve(groups=groups), solve(groups=rename[groups])
    np.testing.assert_allclose(renamed.policy.probs[rename], plain.policy.probs, atol=2e-5)


def test_groups_learn_apart():
    """A group's table is what TD gives for its own agents: nobody else's data enter."""
    game = cn.games.SIS([0.8] * 4, [0.3] * 4, [0.0, 0.0, 1.0, 1.0], horizon=3)
    learner = cn.PolicyMirrorDescent.practical(
        num_epochs=30, td_epochs=20, groups=[0, 0, 1, 1], step_size=1.0
    )
    # Distance costs group 0 nothing: it stays away as long as there is something to catch.
    distance = np.asarray(cn.solve(game, learner, key=KEY).last_policy.probs)[:, 0, 1, 0]
    assert distance[0] > 0.9
    assert distance[1] < 0.2


RUNS = 12


def learned_tables(game: cn.DynamicGame, groups: str, first_seed: int) -> np.ndarray:
    """[runs,G,H,S,A] after one mirror step, one run a key."""
    settings = {"num_epochs": 1, "td_epochs": 60, "mixing": False, "groups": groups}
    keys = (jax.random.key(k) for k in range(first_seed, first_seed + RUNS))
    return np.stack([solve(game, key=key, **settings).last_policy.probs for key in keys])


def gap_in_errors(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Difference of the means over runs, in standard errors.

    Student's t with about 2 (RUNS - 1) = 22 degrees of freedom: over fifty entries 5.5 is what
    4 is for one normal number.
    """
    error = np.sqrt((one.var(0, ddof=1) + other.var(0, ddof=1)) / RUNS)
    return np.abs(one.mean(0) - other.mean(0)) / (error + 1e-6)


@pytest.mark.parametrize("groups", ["symmetric", "independent"])
def test_permuting_agents_permutes_what_is_learned(groups):
    """In distribution: each agent's draws go with its index."""
    susceptibility, aversion = np.asarray([0.9, 0.6, 0.8, 0.7]), np.asarray([0.0, 0.3, 0.6, 0.9])
    order, recovery = np.asarray([2, 3, 1, 0]), np.full(4, 0.3)
    game = cn.games.SIS(susceptibility, recovery, aversion, horizon=2)
    relabelled = cn.games.SIS(susceptibility[order], recovery, aversion[order], horizon=2)
    plain = learned_tables(game, groups, 0)
    permuted = learned_tables(relabelled, groups, 100)
    if groups == "symmetric":
        assert gap_in_errors(plain, permuted).max() < 5.5
    else:
        assert gap_in_errors(plain[:, order], permuted).max() < 5.5
        assert gap_in_errors(plain, permuted).max() > 8


def test_a_bare_simulator_can_be_learned():
    """Its law is that of `Drift`, and so, in distribution, is what is learned."""
    known = learned_tables(Drift(horizon=3), "symmetric", 0)
    bare = learned_tables(DriftSimulator(horizon=3), "symmetric", 100)
    assert gap_in_errors(known, bare).max() < 5.5
    assert gap_in_errors(known, np.full_like(known, 0.5)).max() > 6


# --- runs ---


def test_continuing_equals_an_uninterrupted_run():
    whole = solve(num_epochs=5, groups=2)
    begun = solve(num_epochs=2, groups=2)
    rest = solve(num_epochs=5, groups=2, state=begun.state, key=jax.random.key(99))
    for one, other in zip(
        jax.tree_util.tree_leaves(whole.state), jax.tree_util.tree_leaves(rest.state), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert [m.epoch for m in begun.history + rest.history] == [0, 1, 2, 3, 4]
    returns = [m.mean_return for m in whole.history]
    assert returns == [m.mean_return for m in begun.history + rest.history]


def test_the_key_decides():
    one, same, other = (solve(key=jax.random.key(k)).policy.probs for k in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_zero_epochs_give_the_uniform_policy():
    result = solve(num_epochs=0)
    np.testing.assert_allclose(result.policy.probs, 0.5)
    assert result.history == ()


def test_a_second_solve_compiles_nothing(caplog):
    def compilations(num_epochs: int) -> int:
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="jax"), jax.log_compiles():
            solve(num_epochs=num_epochs, td_epochs=7)
        return sum("Compiling" in record.getMessage() for record in caplog.records)

    jax.clear_caches()
    assert compilations(2) > 0
    assert compilations(5) == 0


def test_other_parameters_of_the_same_shape_compile_nothing(caplog):
    solve(td_epochs=7)
    other = cn.games.SIS.sample(jax.random.key(9), num_agents=6, horizon=3)
    with caplog.at_level(logging.WARNING, logger="jax"), jax.log_compiles():
        solve(other, td_epochs=7, temperature=0.2, step_size=0.7, mixing=False)
    names = [r.getMessage() for r in caplog.records if "Compiling" in r.getMessage()]
    assert not [name for name in names if "_epoch" in name]


def test_solve_prints_nothing(capsys):
    solve()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("groups", ["symmetric", "independent"])
def test_learning_lowers_the_exact_exploitability(groups):
    game = cn.games.SIS([0.9, 0.9, 0.8], [0.3, 0.4, 0.3], [0.3, 0.2, 0.3], horizon=3)
    learner = cn.PolicyMirrorDescent.practical(
        num_epochs=80, td_epochs=60, groups=groups, step_size=0.5
    )
    learned = cn.solve(game, learner, key=KEY).last_policy
    before = brute_force(game, cn.TabularPolicy.uniform(game)).exploitability
    after = brute_force(game, learned).exploitability
    assert before.max() > 0.3
    assert after.max() < 0.25 * before.max()


# --- bad input ---


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"num_epochs": -1}, "num_epochs must be at least 0, not -1"),
        ({"td_epochs": 0}, "td_epochs must be at least 1, not 0"),
        ({"td_epochs": -5}, "td_epochs must be at least 1, not -5"),
        ({"temperature": -0.1}, "temperature must be >= 0 and finite, not -0.1"),
        ({"temperature": float("nan")}, "temperature must be >= 0 and finite, not nan"),
        ({"temperature": float("inf")}, "temperature must be >= 0 and finite, not inf"),
        ({"temperature": 1.0}, "temperature * step_size must be below 1 for the mirror step: 1.0"),
        ({"temperature": 0.5, "step_size": 2.0}, "0.5 * 2.0 = 1.0"),
        ({"step_size": 0.0}, "step_size must be 'theorem', 'auto' or > 0, not 0.0"),
        ({"step_size": -1.0}, "step_size must be 'theorem', 'auto' or > 0, not -1.0"),
        ({"step_size": float("nan")}, "step_size must be 'theorem', 'auto' or > 0, not nan"),
        ({"td_delta": 0.0}, "delta must be in (0, 1], not 0.0"),
        ({"td_delta": 1.5}, "delta must be in (0, 1], not 1.5"),
    ],
)  # fmt: skip
def test_bad_learners(arguments, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        cn.PolicyMirrorDescent(**arguments)


@pytest.mark.parametrize(
    ("groups", "text"),
    [
        (7, "groups must be between 1 and the number of agents 6, not 7"),
        (0, "groups must be between 1 and the number of agents 6, not 0"),
        ("grouped", "groups must be 'symmetric', 'independent', an integer or an array"),
        ([0, 1], "groups must have one entry an agent, [6], not [2]"),
        ([0, 0, 2, 2, 0, 0], "groups must use every number 0..G-1"),
    ],
)
def test_bad_groups(groups, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        solve(groups=groups)


class NoStates(DriftSimulator):
    num_states = None


def test_a_simulator_without_states():
    with pytest.raises(ValueError, match="game must have num_states for tables; NoStates has none"):
        solve(NoStates())


def test_temperatures_just_below_the_limit_are_accepted():
    result = solve(temperature=0.99, num_epochs=2)
    assert np.isfinite(result.policy.probs).all()


# --- several runs at once


@pytest.mark.parametrize("groups", ["symmetric", "independent", [0, 0, 1, 1, 1, 1]])
def test_runs_together_are_those_alone(groups):
    games = [
        cn.games.SIS.sample(jax.random.key(k), num_agents=6, horizon=3, heterogeneity=0.15)
        for k in range(3)
    ]
    keys = [jax.random.key(10 + k) for k in range(3)]
    learner = cn.PolicyMirrorDescent(num_epochs=3, td_epochs=6, groups=groups)
    heard = []
    together = cn.solve_together(
        games, learner, keys=keys, callback=lambda run, state, told: heard.append((run, told.epoch))
    )
    assert heard == [(run, epoch) for epoch in range(3) for run in range(3)]
    for game, key, found in zip(games, keys, together, strict=True):
        alone = cn.solve(game, learner, key=key)
        np.testing.assert_allclose(found.policy.probs, alone.policy.probs, atol=2e-6)
        np.testing.assert_allclose(found.last_policy.probs, alone.last_policy.probs, atol=2e-6)
        np.testing.assert_array_equal(found.policy.groups, alone.policy.groups)
        for a, b in zip(found.history, alone.history, strict=True):
            assert (a.epoch, a.agent_steps) == (b.epoch, b.agent_steps)
            assert a.mean_return == pytest.approx(b.mean_return, rel=1e-5)
        assert int(found.state.epoch) == 3


@pytest.mark.slow
def test_runs_of_different_shapes_follow_one_another():
    games = [
        cn.games.SIS.sample(jax.random.key(0), num_agents=n, horizon=3, heterogeneity=0.1)
        for n in (4, 6)
    ]
    learner = cn.PolicyMirrorDescent(num_epochs=2, td_epochs=3)
    keys = [KEY, KEY]
    heard = []
    found = cn.solve_together(games, learner, keys=keys, callback=lambda run, *_: heard.append(run))
    assert heard == [0, 0, 1, 1]
    alone = cn.solve(games[1], learner, key=KEY)
    np.testing.assert_array_equal(found[1].policy.probs, alone.policy.probs)


def test_runs_together_need_a_key_each():
    with pytest.raises(ValueError, match=r"games and keys must be equally many.* 1 and 2"):
        cn.solve_together([SIS], cn.PolicyMirrorDescent(), keys=[KEY, KEY])
    with pytest.raises(ValueError, match="at least 1, not 0 and 0"):
        cn.solve_together([], cn.PolicyMirrorDescent(), keys=[])


@pytest.mark.parametrize(
    ("settings", "first"),
    [
        ({}, "average"),
        ({"evaluation": "fitted"}, "last"),
        ({"evaluation": "fitted", "iterate": "average"}, "average"),
        ({"iterate": "last"}, "last"),
    ],
)
def test_the_policy_to_use(settings, first):
    game = cn.games.SIS.sample(jax.random.key(0), num_agents=6, horizon=3)
    learner = cn.PolicyMirrorDescent(num_epochs=0, **settings)
    assert next(iter(cn.solve(game, learner, key=jax.random.key(0)).policies)) == first
