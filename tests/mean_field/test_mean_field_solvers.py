"""Exact solvers and the estimated game: known equilibria, known values, agreement."""

from types import SimpleNamespace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crowdnash as cn
from crowdnash import mean_field
from crowdnash.mean_field.induced import induced_game
from mean_field_games import random_probs, random_tables, rps_tables, sis_tables


def test_rps_equilibrium():
    mfg = rps_tables()
    solution = mean_field.solve(mfg, tolerance=1e-8)
    assert solution.converged
    assert solution.exploitability <= 1e-8
    assert mean_field.exploitability(mfg, solution.policy) == pytest.approx(
        solution.exploitability, abs=1e-11
    )
    shares = mean_field.population_flow(mfg, solution.policy).sum(1)
    np.testing.assert_allclose(shares[:9], np.tile([0.3372, 0.4070, 0.2558], (9, 1)), atol=6e-5)
    np.testing.assert_allclose(shares[9], 1 / 3, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "mirror_descent", "temperature": 0.003, "step_size": 3.0},
        {"method": "online_mirror_descent", "temperature": 0.003, "step_size": 3.0},
        {"method": "fictitious_play", "step_size": 0.1},
    ],
)
def test_sis_equilibrium(options):
    """Not monotone: large steps with a little entropy get there, and constant weights of play."""
    mfg = sis_tables(0.81)
    solution = mean_field.solve(mfg, num_iterations=5000, tolerance=1e-3, **options)
    assert solution.converged
    assert mean_field.exploitability(mfg, solution.policy) <= 1e-3


@pytest.mark.parametrize(
    ("options", "last", "average"),
    [
        ({"temperature": 0.01, "step_size": "theorem", "mixing": True}, 0.73, 1.18),
        ({"temperature": 0.03, "step_size": 0.3}, 0.098, 0.39),
        ({"temperature": 0.01, "step_size": 1.0, "mixing": True}, 0.14, 0.42),
    ],
)
def test_step_sizes_as_measured_elsewhere(options, last, average):
    """After 100 epochs, by another program; whether pi_0 is averaged in moves it by 1/100."""
    for output, reference in (("last", last), ("average", average)):
        solution = mean_field.solve(
            sis_tables(0.81), num_iterations=100, tolerance=0.0, output=output, **options
        )
        assert solution.num_iterations == 100
        assert solution.exploitability == pytest.approx(reference, rel=0.08)


class CrowdModelling(mean_field.MeanFieldGame):
    """OpenSpiel's `mfg_crowd_modelling` as its evaluation computes it.

    Ten places on a ring; a step left, none or right, and then another at random; the reward is
    1 - |x-5|/5 - log(share of x) less 0.1. Its cache of rewards by (time, place) leaves the 0.1
    out at time 0 and where each later search came first without a move.
    """

    effort: Any
    move: Any
    initial_distribution: Any = eqx.field(default_factory=lambda: np.full(10, 0.1))
    horizon: int = eqx.field(static=True, default=10)
    num_states: int = eqx.field(static=True, default=10)
    num_actions: int = eqx.field(static=True, default=3)

    def laws(self, mu, step):
        place = 1 - jnp.abs(jnp.arange(10) - 5) / 5
        paid = place - jnp.log(mu.sum(1)) - jnp.asarray(self.effort)[step]
        return jnp.asarray(self.move), jnp.broadcast_to(paid[:, None], (10, 3))


def crowd_modelling():
    """The game on OpenSpiel's own ring."""
    ring = np.eye(10)
    step = [np.roll(ring, k, axis=1) for k in (-1, 0, 1)]
    noise = sum(step) / 3
    effort = np.full((10, 10), 0.1)
    effort[0] = 0
    for h in range(1, 10):
        effort[h, (3 - 2 * h) % 10] = 0
    return CrowdModelling(effort, np.stack([s @ noise for s in step], axis=1))


@pytest.mark.slow
def test_openspiel_scores_our_policies_as_we_do():
    """OpenSpiel's own NashConv of tables of ours: any, and one that we solved for."""
    pytest.importorskip("pyspiel")
    from open_spiel.python.mfg.algorithms import nash_conv

    sim = cn.simulators.open_spiel("mfg_crowd_modelling", num_agents=50)
    mfg = crowd_modelling()
    solved = mean_field.solve(mfg, "online_mirror_descent", num_iterations=100, step_size=0.1)
    drawn = np.random.default_rng(0).dirichlet(np.ones(3), (10, 10))
    for probs in (drawn, np.asarray(solved.policy)):
        ours = cn.simulators.to_open_spiel(cn.TabularPolicy.symmetric(probs, 50), sim)
        theirs = nash_conv.NashConv(sim.game, ours).nash_conv()
        assert theirs == pytest.approx(float(mean_field.exploitability(mfg, probs)), abs=1e-5)
    assert theirs < 1.5  # of 2.81 for uniform play


def test_online_mirror_descent_on_openspiels_crowd_modelling():
    """2.27366 after 10 iterations; OpenSpiel's own 2.27303 comes of updates made in place."""
    mfg = crowd_modelling()
    solution = mean_field.solve(
        mfg,
        "online_mirror_descent",
        num_iterations=10,
        step_size=0.01,
        check_every=1,
        tolerance=0.0,
    )
    # The first two equal OpenSpiel's: its first iteration starts from nothing accumulated.
    assert solution.history.exploitability[0] == pytest.approx(2.8135365543870385, abs=1e-9)
    assert solution.history.exploitability[1] == pytest.approx(2.7532561307876513, abs=1e-9)
    assert solution.exploitability == pytest.approx(2.27366, abs=5e-6)


def test_regularised_equilibrium_is_a_fixed_point():
    """At a constant temperature: pi ~ exp(q / tau)."""
    mfg, tau = rps_tables(), 0.5
    solution = mean_field.solve(mfg, temperature=tau, num_iterations=500, tolerance=0.0)
    q = mean_field.q_values(mfg, solution.policy, temperature=tau, own_entropy=False)
    reference = np.exp(q / tau - (q / tau).max(-1, keepdims=True))
    reference /= reference.sum(-1, keepdims=True)
    np.testing.assert_allclose(solution.policy, reference, atol=1e-8)
    # Lemma 11
    assert 0 < solution.exploitability <= 2 * tau * mfg.horizon * np.log(3)


def test_fictitious_play_averages_flows_where_moves_are_free():
    mfg = rps_tables(horizon=4)
    flow = mean_field.population_flow(mfg, np.full((4, 3, 3), 1 / 3))
    for t in range(5):
        policy = flow / flow.sum(-1, keepdims=True)
        best = mean_field.best_response(mfg, mean_field.population_flow(mfg, policy)).policy
        flow = (1 - 1 / (t + 2)) * flow + mean_field.population_flow(mfg, best) / (t + 2)
    solution = mean_field.solve(
        mfg, "fictitious_play", num_iterations=5, tolerance=0.0, step_size="classic"
    )
    np.testing.assert_allclose(mean_field.population_flow(mfg, solution.policy), flow, atol=1e-10)


def test_adaptive_weights_halve_when_the_exploitability_does_not_fall():
    """Against the rule written out, one iteration at a time with a weight that is handed in."""
    mfg = rps_tables(horizon=4)
    initial = random_probs(0, mfg)  # from the uniform policy on, actions tie
    weight, policy, last = 0.3, initial, mean_field.exploitability(mfg, initial)
    for t in range(12):
        now = max(weight, 1 / (t + 2))
        options: Any = {"num_iterations": 1, "tolerance": 0.0, "step_size": now}
        policy = mean_field.solve(mfg, "fictitious_play", initial=policy, **options).policy
        if t % 2:
            gain = mean_field.exploitability(mfg, policy)
            weight, last = weight / 2 if gain > 0.9 * last else weight, gain
    assert weight == 0.075  # halved twice, and at the end below the least weight, 1/13
    solution = mean_field.solve(
        mfg, "fictitious_play", num_iterations=12, tolerance=0.0, check_every=2, initial=initial
    )
    np.testing.assert_allclose(solution.policy, policy, atol=1e-9)


@pytest.mark.slow
def test_one_population_an_agent():
    """A-SIS with 60 different agents: solved, and certified in the game of 60."""
    game = cn.games.SIS.sample(jax.random.key(1), num_agents=60, horizon=8)
    mfg = induced_game(game, "independent")
    uniform = np.full((60, 8, 2, 2), 0.5)
    solution = mean_field.solve(mfg, "fictitious_play", num_iterations=200, tolerance=0.005)
    assert solution.converged
    assert solution.policy.shape == (60, 8, 2, 2)
    gains = mean_field.evaluate(mfg, solution.policy).exploitability
    assert gains.max() == pytest.approx(solution.exploitability, abs=1e-9)
    assert mean_field.evaluate(mfg, uniform).exploitability.min() > 0.5
    certificate = cn.exploitability(
        game,
        cn.TabularPolicy.independent(solution.policy.astype(np.float32)),
        key=jax.random.key(2),
        num_trajectories=64,
    )
    assert certificate.maximum.lower < 0.02
    assert certificate.mean.lower < 0.005


@pytest.mark.slow
def test_a_thousand_populations():
    """A-SIS, N = 1000: the largest exploitability is at most 0.10, and there is no N^2 in it."""
    game = cn.games.SIS.sample(jax.random.key(0), num_agents=1000, horizon=20)
    solution = mean_field.solve(
        induced_game(game, "independent"), "fictitious_play", num_iterations=200, tolerance=0.002
    )
    assert solution.converged
    policy = cn.TabularPolicy.independent(solution.policy.astype(np.float32))
    certificate = cn.exploitability(game, policy, key=jax.random.key(1))
    assert certificate.maximum.upper < 0.10
    assert certificate.mean.upper < 0.014
    large = induced_game(game.sample(jax.random.key(0), num_agents=30_000), "independent")
    rough = mean_field.solve(large, "fictitious_play", num_iterations=20, tolerance=0.0)
    assert rough.exploitability < 0.05


def test_fictitious_play_converges_in_a_monotone_game():
    solution = mean_field.solve(
        rps_tables(), "fictitious_play", num_iterations=2000, tolerance=0.05
    )
    assert solution.converged


def test_schedules_may_be_functions():
    mfg = rps_tables(horizon=4)
    options = {"num_iterations": 30, "tolerance": 0.0}
    theorem = mean_field.solve(mfg, step_size="theorem", **options)
    written = mean_field.solve(mfg, step_size=lambda t: 1 / jnp.sqrt(t + 1.0), **options)
    np.testing.assert_array_equal(theorem.policy, written.policy)
    cooled = mean_field.solve(
        mfg, temperature=lambda t: 0.5 * 0.99**t, tolerance=1e-4, num_iterations=3000
    )
    assert cooled.converged


def test_history_and_stopping():
    mfg = rps_tables(horizon=4)
    start = random_probs(0, mfg)
    solution = mean_field.solve(mfg, tolerance=1e-3, check_every=7, initial=start)
    history = solution.history
    assert solution.num_iterations % 7 == 0
    np.testing.assert_array_equal(history.iteration, np.arange(0, solution.num_iterations + 1, 7))
    assert history.exploitability[0] == pytest.approx(mean_field.exploitability(mfg, start))
    assert (history.exploitability[:-1] > 1e-3).all()
    assert history.exploitability[-1] == solution.exploitability <= 1e-3
    short = mean_field.solve(mfg, num_iterations=10, check_every=7, tolerance=0.0)
    assert short.history.iteration.tolist() == [0, 7, 10]
    assert not short.converged
    none = mean_field.solve(mfg, num_iterations=0, initial=start)
    np.testing.assert_allclose(none.policy, start, atol=1e-15)


@pytest.mark.slow
def test_groups_are_populations():
    game = cn.games.SIS.sample(jax.random.key(1), num_agents=60, horizon=8)
    options = {"temperature": 0.003, "step_size": 3.0, "num_iterations": 5000, "tolerance": 1e-3}
    mfg = induced_game(game, 3)
    solution = mean_field.solve(mfg, **options)
    assert solution.policy.shape == (3, 8, 2, 2)
    assert solution.converged
    assert mean_field.evaluate(mfg, solution.policy).exploitability.max() <= 1e-3
    # One population's equilibrium leaves more to gain once groups are told apart.
    alone = mean_field.solve(induced_game(game), **options)
    together = mean_field.exploitability(mfg, np.stack([alone.policy] * 3))
    assert together > solution.exploitability


def test_sweeps_are_vmaps():
    """One program for many games: equal to solving them one by one."""
    strengths = np.array([3.0, 4.0, 6.0])
    probs = random_probs(2, rps_tables(horizon=4))
    base = rps_tables(1.0, horizon=4)

    def at(crowding):
        one, none = rps_tables(1.0, 4).reward_law, rps_tables(0.0, 4).reward_law
        slope = none.slope + crowding * (one.slope - none.slope)
        constant = none.constant + crowding * (one.constant - none.constant)
        game = eqx.tree_at(
            lambda g: (g.reward_law.slope, g.reward_law.constant), base, (slope, constant)
        )
        return mean_field.solve(game, num_iterations=400, tolerance=1e-6, initial=probs)

    with jax.enable_x64(True):
        solution = jax.jit(jax.vmap(at))(jnp.asarray(strengths, jnp.float64))
    assert solution.converged.all()
    for k, crowding in enumerate(strengths):
        one = mean_field.solve(
            rps_tables(crowding, 4), num_iterations=400, tolerance=1e-6, initial=probs
        )
        np.testing.assert_allclose(solution.policy[k], one.policy, atol=1e-9)
        assert int(solution.num_iterations[k]) == one.num_iterations


def test_bad_arguments():
    mfg = rps_tables(horizon=2)
    for options, message in (
        ({"method": "newton"}, r"method must be one of .*fictitious_play, not 'newton'"),
        ({"output": "best"}, r"output must be one of"),
        ({"step_size": "large"}, r"step_size must be a number.*'large'"),
        ({"step_size": "adaptive"}, r"for method='mirror_descent', 'theorem', not 'adaptive'"),
        ({"method": "fictitious_play", "step_size": "theorem"}, r"'classic' or 'adaptive', not"),
        ({"step_size": 0.0}, r"step_size must be in \(0, inf\], not 0"),
        ({"temperature": -0.1}, r"temperature must be >= 0 and finite, not -0.1"),
        ({"temperature": 0.5, "step_size": 2.0}, r"temperature \* step_size must be less than 1"),
        ({"tolerance": float("nan")}, r"tolerance must be >= 0 and finite, not nan"),
        ({"num_iterations": -1}, r"num_iterations must be at least 0, not -1"),
        ({"check_every": 0}, r"check_every must be at least 1, not 0"),
        ({"method": "fictitious_play", "step_size": 1.5}, r"step_size must be in \(0, 1\]"),
        ({"method": "fictitious_play", "temperature": 0.1}, r"temperature must be 0"),
        ({"method": "online_mirror_descent", "mixing": True}, r"mixing is for"),
        ({"initial": np.eye(3)[None].repeat(2, 0)}, r"initial must be positive everywhere"),
        ({"initial": np.ones((2, 3, 3))}, r"initial must be non-negative and sum to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            mean_field.solve(mfg, **options)


def play(game, num_policies, per_policy, groups=None):
    """Trajectories under several random policies, joined."""
    rng = np.random.default_rng(0)
    shape = (game.horizon, game.num_states)
    parts = []
    for k in range(num_policies):
        probs = rng.dirichlet(np.ones(game.num_actions), size=shape)
        policy = cn.TabularPolicy.symmetric(probs, game.num_agents)
        parts.append(cn.simulate(game, policy, key=jax.random.key(k), num_trajectories=per_policy))
    fields = ("states", "actions", "rewards")
    return SimpleNamespace(
        **{f: np.concatenate([np.asarray(getattr(p, f)) for p in parts]) for f in fields}
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sis", "rps"])
def test_estimated_game_leads_to_the_same_equilibrium(name):
    """Laws near 1/sqrt(visits), and an equilibrium that is good in the true game too."""
    game = cn.games.lookup(name).sample(jax.random.key(3), num_agents=500)
    true = induced_game(game)
    options = {"num_states": game.num_states, "num_actions": game.num_actions}
    solution = mean_field.estimate_mean_field_game(play(game, 30, 2), **options)
    probs = random_probs(1, true)
    flow = mean_field.population_flow(true, probs)
    for h in (0, game.horizon - 1):
        one, other = (mean_field.laws_at(mfg, flow[h]) for mfg in (true, solution))
        np.testing.assert_allclose(one.transition, other.transition, atol=0.03)
        np.testing.assert_allclose(one.reward, other.reward, atol=0.03)
    step = {"temperature": 0.003, "step_size": 3.0} if name == "sis" else {}
    equilibrium = mean_field.solve(solution, tolerance=0.01, **step)
    assert equilibrium.converged
    uniform = np.full(equilibrium.policy.shape, 1 / game.num_actions)
    there = mean_field.exploitability(true, equilibrium.policy)
    assert there < 0.02 * mean_field.exploitability(true, uniform)


@pytest.mark.slow
def test_estimates_by_group_and_by_step():
    """Deterministic moves are found exactly, rewards up to who happens to be in a cell."""
    game = cn.games.RockPaperScissors.sample(jax.random.key(4), num_agents=90, horizon=3)
    groups = np.arange(90) % 2
    trajectories = play(game, 30, 2)
    solution = mean_field.estimate_mean_field_game(
        trajectories,
        num_states=3,
        num_actions=3,
        groups=groups,
        time_dependent=True,
        shrinkage=0.01,
    )
    true = induced_game(game, groups)
    assert solution.reward_law.vertices.shape == (3, 9, 2, 3, 3)
    np.testing.assert_allclose(solution.group_weights, [0.5, 0.5])
    meetings = (mfg.transition_law.meeting.matrix for mfg in (solution, true))
    np.testing.assert_allclose(*meetings)
    np.testing.assert_allclose(solution.transition_law.meeting.matrix[0], [44 / 89, 45 / 89])
    moves = solution.transition_law.vertices
    np.testing.assert_allclose(moves[:2, 0], true.transition_law.vertices[[0, 0], 0], atol=1e-9)
    np.testing.assert_allclose(moves[2], 1 / 3)
    flow = mean_field.population_flow(true, random_probs(2, true))
    one, other = (mean_field.laws_at(mfg, flow[:, 1], 1) for mfg in (true, solution))
    np.testing.assert_allclose(one.reward, other.reward, atol=0.1)


def test_estimated_transitions_stay_distributions():
    """Few visits: plain least squares would leave the simplex at some vertices."""
    game = cn.games.SIS.sample(jax.random.key(5), num_agents=20, horizon=5)
    solution = mean_field.estimate_mean_field_game(
        play(game, 2, 1), num_states=2, num_actions=2, shrinkage=0.1
    )
    vertices = solution.transition_law.vertices
    assert vertices.min() >= -1e-8
    np.testing.assert_allclose(vertices.sum(-1), 1, atol=1e-8)


def test_bad_trajectories():
    game = cn.games.SIS.sample(jax.random.key(6), num_agents=5, horizon=3)
    good = play(game, 4, 8)
    sizes = {"num_states": 2, "num_actions": 2}
    estimate = mean_field.estimate_mean_field_game
    for changes, options, message in (
        ({"states": good.states + 1}, {}, r"trajectories.states must lie in 0..1: 2"),
        ({"actions": good.actions[:2]}, {}, r"trajectories.actions must have shape"),
        ({"actions": good.actions * 1.0}, {}, r"trajectories.actions must be integers"),
        ({"rewards": good.rewards * np.nan}, {}, r"trajectories.rewards must be finite"),
        ({"actions": good.actions * 0}, {}, r"must visit every cell.*\(state, action\) = \(0, 1\)"),
        ({}, {"shrinkage": 0.0}, r"shrinkage must be > 0"),
        (
            {},
            {"groups": np.zeros(4, int)},
            r"groups must have one entry an agent, \[5\]",
        ),
        ({}, {"groups": np.full(5, 1)}, r"groups must use every number"),
        ({}, {"initial_distribution": [0.5, 0.4]}, r"initial_distribution must be"),
    ):
        bad = SimpleNamespace(**{**vars(good), **changes})
        with pytest.raises(ValueError, match=message):
            estimate(bad, **sizes, **options)


def test_random_games_solve_or_say_that_they_do_not():
    """Whatever happens, the numbers reported are the policy's own."""
    for seed in range(3):
        mfg = random_tables(seed, groups=2)
        solution = mean_field.solve(mfg, num_iterations=200, tolerance=1e-4)
        again = mean_field.exploitability(mfg, solution.policy)
        assert solution.exploitability == pytest.approx(again, abs=1e-12)
        assert solution.converged == (solution.exploitability <= 1e-4)
