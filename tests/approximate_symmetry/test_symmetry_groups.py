"""Theorem 1 and Def. 10 for several groups; symmetry against G: exact values, brute force."""

import dataclasses
import json
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_bounds import Crowding, made_up

import crowdnash as cn
from crowdnash import mean_field
from crowdnash.approximate_symmetry.against_groups import (
    nearly_exact_equilibrium,
    symmetry_against_groups,
)
from crowdnash.cli import main
from crowdnash.reports.group_figures import symmetry_over_groups
from random_games import RandomAffineGame, random_population_game

KEY = jax.random.key(0)


# --- Theorem 1


def test_terms_by_hand():
    """N=100 in groups of 36 and 64, S=A=2, H=2, K_s+K_a = 1, K_mu = 1/2, L = (0.2, 0.4, 0.5)."""
    game = cn.games.SIS.sample(KEY, num_agents=100, horizon=2)
    alpha, beta = np.array([0.1, 0.2]), np.array([0.05, 0.01])
    sym = dataclasses.replace(
        made_up(0.4, 0.6, 0.5, 0.2, 0.4, 0.5, alpha=0.2, beta=0.05, n=100),
        groups=np.repeat([0, 1], [36, 64]),
        group_alpha=np.stack([0 * alpha, alpha], 1),
        group_beta=np.stack([0 * beta, beta], 1),
    )
    bound = cn.nash_bound(game, sym, np.array([0.3, 0.0]))
    own = 3 + 2 * np.array([64, 36]) / 99
    sampling = 0.36 * 4 / 6 + 0.64 * 4 / 8
    once = sampling + (2 + 0.5 * (0.36 * own[0] + 0.64 * own[1])) / 100 + 0.36 * 0.1 + 0.64 * 0.2
    gap = np.array([once, 2 * once])  # L_pop = 1
    values = []
    for g in range(2):
        law = np.array([0, alpha[g] + own[g] * 0.5 / 100 + once / 2])
        steps = 2 * (0.5 * gap + 0.3 * law + own[g] * 0.5 / 100 + beta[g])
        values.append((0.3, 0.0)[g] + steps.sum())
    np.testing.assert_allclose(bound.group_values, values)
    assert bound.value == max(values)
    worst = int(np.argmax(values))
    assert bound.terms.total.sum() == pytest.approx(values[worst] - (0.3, 0.0)[worst])

    own = own - 1
    sampling = 3**0.5 * (0.36 / 6 + 0.64 / 8)
    once = sampling + (2 + 0.5 * (0.36 * own[0] + 0.64 * own[1])) / 100 + 0.164
    gap = once * np.array([1, 1.7])  # transition_spread 0.2 + K_mu
    for g in range(2):
        law = np.array([0, alpha[g] + own[g] * 0.5 / 100 + once / 2])
        steps = 2 * (0.5 * gap + 0.1 * law + own[g] * 0.5 / 100 + beta[g])
        assert bound.group_sharper[g] == pytest.approx((0.3, 0.0)[g] + steps.sum())
    assert bound.sharper == bound.group_sharper.max()


def test_what_an_agent_meets_is_as_near_as_the_proof_says():
    """|sigma(rho^-i) - m_g(mu)| <= sum_k w_k |sigma^k - mu^k| + c_g/N, and c_g is attained."""
    rng = np.random.default_rng(0)
    tightest = np.inf
    for _ in range(3000):
        sizes = rng.integers(1, 5, size=rng.integers(1, 4))
        n = int(sizes.sum())
        if n == 1:
            continue
        pairs = [rng.integers(0, 3, size=k) for k in sizes]
        counts = np.array([np.bincount(p, minlength=3) for p in pairs], float)
        mu = rng.dirichlet(np.full(3, 0.2), size=len(sizes))
        if rng.random() < 0.5:  # the flow is met exactly, or all sit in one corner
            mu = counts / sizes[:, None]
        shares = sizes / n
        strayed = shares @ np.abs(counts / sizes[:, None] - mu).sum(1)
        for g, size in enumerate(sizes):
            own = np.eye(3)[pairs[g][0]]
            population = (counts.sum(0) - own) / (n - 1)
            meant = (n * shares @ mu - mu[g]) / (n - 1)
            c = 2 + 2 * (n - size) / (n - 1)
            slack = strayed + c / n - np.abs(population - meant).sum()
            assert slack >= -1e-12
            tightest = min(tightest, slack)
    assert tightest < 0.05


def shrunk(game, spread, scale=1.0):
    """The same game with its agents' parameters drawn towards their means."""
    agents = jax.tree_util.tree_map(
        lambda x: scale * (x.mean(0) + spread * (x - x.mean(0))), game.agents
    )
    return eqx.tree_at(lambda g: g.agents, game, agents)


@pytest.mark.slow
@pytest.mark.parametrize(("num_agents", "num_groups"), [(6, 3), (300, 2)])
def test_never_violated_where_agents_move_independently(num_agents, num_groups):
    """24 random games each: exact exploitability of nearly equilibrium policies of the groups."""
    meaningful = 0
    for seed in range(24):
        game = random_population_game(seed, num_agents, 2, 2, 2, kind=RandomAffineGame)
        game = shrunk(game, (1.0, 0.3, 0.05, 0.0)[seed % 4], 0.3)
        rng = np.random.default_rng(seed)
        groups = rng.permutation(np.arange(num_agents) ** 2 % num_agents % num_groups)
        groups[rng.permutation(num_agents)[:num_groups]] = np.arange(num_groups)
        induced = cn.induced_game(game, groups)
        policy = mean_field.solve(induced, num_iterations=100).policy
        delta = np.maximum(mean_field.evaluate(induced, policy).exploitability, 0.0)
        bound = cn.nash_bound(game, cn.symmetry(game, groups), np.asarray(delta))
        played = cn.TabularPolicy.grouped(policy, groups)
        result = cn.exploitability(game, played, key=KEY, method="exact")
        assert bound.certified
        assert (result.lower <= bound.group_sharper[groups] + 1e-5).all()
        assert (bound.group_sharper <= bound.group_values + 1e-12).all()
        assert result.maximum.lower <= bound.best + 1e-5
        meaningful += not bound.sharper_vacuous
    assert num_agents < 300 or meaningful >= 5


@pytest.mark.slow
def test_never_violated_where_the_crowd_moves_agents():
    """12 random games of four agents in uneven groups, by enumeration of the joint chain."""
    for seed in range(12):
        game = random_population_game(seed, 4, 2, 2, 2, kind=Crowding)
        game = shrunk(game, (1.0, 0.1, 0.0)[seed % 3])
        groups = (np.array([0, 1, 1, 1]), np.array([1, 0, 0, 1]))[seed % 2]
        policy = np.random.default_rng(seed).dirichlet(np.ones(2), (2, 2, 2))
        induced = cn.induced_game(game, groups)
        delta = np.maximum(mean_field.evaluate(induced, policy).exploitability, 0.0)
        bound = cn.nash_bound(game, cn.symmetry(game, groups), np.asarray(delta))
        played = cn.TabularPolicy.grouped(policy, groups)
        result = cn.exploitability(game, played, key=KEY, method="enumerate")
        ends = np.minimum(bound.group_sharper, bound.group_values)[groups]
        assert (result.lower <= ends + 1e-5).all()
        assert bound.certified


def test_identical_agents_pay_for_being_split():
    """Alike agents in two groups: nothing to gain in alpha, more sampling error."""
    game = cn.games.SIS.sample(KEY, num_agents=100, heterogeneity=0.0, horizon=3)
    one = cn.nash_bound(game, cn.symmetry(game))
    two = cn.nash_bound(game, cn.symmetry(game, np.arange(100) % 2))
    assert two.value > one.value
    np.testing.assert_allclose(two.group_values[0], two.group_values[1])
    gap = one.terms.population_gap[0], two.terms.population_gap[0]
    assert gap[1] == pytest.approx(gap[0] + 4 * (2**0.5 - 1) / 10 + 0.81 * 2 * 50 / 99 / 100)


class Weighted(RandomAffineGame):
    """Agents of different weight."""


@pytest.mark.slow
def test_refusals_say_why():
    game = random_population_game(0, 4, 2, 2, 2, kind=Weighted, weighted=True)
    groups = np.array([0, 1, 1, 0])
    sym = cn.symmetry(game, groups)
    assert sym.monotone is None
    with pytest.raises(ValueError, match="agents contribute differently to the aggregate"):
        cn.nash_bound(game, sym)
    assert cn.nash_bound(game, cn.symmetry(game)).value > 0
    sis = cn.games.SIS.sample(KEY, num_agents=10)
    with pytest.raises(ValueError, match=r"a number or one for each of 2 groups.*\[3\]"):
        cn.nash_bound(sis, cn.symmetry(sis, np.arange(10) % 2), np.zeros(3))


# --- Def. 10


def rock_paper_scissors(num_agents, crowding=3.5):
    return cn.games.RockPaperScissors.sample(
        KEY, num_agents=num_agents, horizon=3, heterogeneity=0.0, crowding=crowding
    )


def sum_of_def_10(induced, mu, other, step):
    """sum_g w_g sum (R_g(mu) - R_g(mu')) (mu^g - mu'^g) from the induced game itself."""
    pays = [np.asarray(mean_field.laws_at(induced, x, step).reward) for x in (mu, other)]
    change = ((pays[0] - pays[1]) * (mu - other)).sum((1, 2))
    return float(np.asarray(induced.group_weights) @ change)


@pytest.mark.slow
@pytest.mark.parametrize("num_agents", [21, 210])
def test_leaving_out_the_own_share_breaks_monotonicity_by_one_over_n(num_agents):
    """Alike agents in two groups of a game that is monotone along flows for one group."""
    game, groups = rock_paper_scissors(num_agents), np.arange(num_agents) % 3 // 2
    assert cn.symmetry(game).monotone.whole_population is None
    result = cn.symmetry(game, groups).monotone
    assert result.along_flows.status == "not monotone"
    assert "vanishes if agents meet their own share too" in result.along_flows.reason
    assert result.whole_population.along_flows
    # Groups moving in opposite ways: -d' B d / (N-1), at most 3 c (the same shift of actions in
    # all three states, only crowding counts) per unit of mass; c = 3.5.
    assert result.along_flows.eigenvalue * (num_agents - 1) == pytest.approx(10.5, rel=0.01)
    induced = cn.induced_game(game, groups)
    pair = result.along_flows.counterexample
    flows = [np.asarray(mean_field.population_flow(induced, x)) for x in pair[:2]]
    total = sum(sum_of_def_10(induced, *(x[:, h] for x in flows), h) for h in range(3))
    assert total == pytest.approx(pair.violation, rel=1e-6)
    assert total > 0


@pytest.mark.slow
def test_counterexample_for_all_populations():
    game, groups = rock_paper_scissors(30, 1.0), np.arange(30) % 2
    result = cn.symmetry(game, groups).monotone
    pair = result.everywhere.counterexample
    assert pair.mu.shape == (2, 3, 3)
    np.testing.assert_allclose(pair.mu.sum((1, 2)), 1)
    assert min(pair.mu.min(), pair.other.min()) >= 0
    total = sum_of_def_10(cn.induced_game(game, groups), pair.mu, pair.other, pair.step)
    assert total == pytest.approx(pair.violation, rel=1e-6)
    assert total > 0.1
    assert result.whole_population.everywhere.status == "not monotone"
    # Two groups moving as one are one group.
    one = cn.symmetry(game).monotone
    assert result.whole_population.everywhere.eigenvalue == pytest.approx(one.everywhere.eigenvalue)


class Antisymmetric(RandomAffineGame):
    """What a pair gains from another is what the other loses by it; and crowding of `crowd`."""

    crowd: float = 0.0

    def reward(self, agent: Any, state, action, aggregate, step):
        pair = state * self.num_actions + action
        own = aggregate[pair]
        return (jnp.sin(pair - jnp.arange(4.0)) * aggregate).sum() - self.crowd * own


@pytest.mark.slow
def test_verdicts_agree_with_random_populations():
    for crowd, expected in ((0.0, "monotone"), (1.0, "not monotone"), (-1.0, "not monotone")):
        game = random_population_game(0, 8, 2, 2, 2, kind=Antisymmetric)
        game = eqx.tree_at(lambda g: g.crowd, game, crowd)
        groups = np.array([0, 0, 1, 1, 1, 1, 0, 2])
        result = cn.symmetry(game, groups).monotone
        induced = cn.induced_game(game, groups)
        rng = np.random.default_rng(0)
        totals = [
            sum_of_def_10(induced, *rng.dirichlet(np.full(4, 0.3), (2, 3)).reshape(2, 3, 2, 2), 0)
            for _ in range(60)
        ]
        assert result.everywhere.status == expected
        assert (max(totals) > 1e-9) == (expected == "not monotone")
        assert bool(result.whole_population.everywhere) == (crowd >= 0)


def test_moving_transitions_are_not_monotone():
    result = cn.symmetry(cn.games.SIS.sample(KEY, num_agents=20), np.arange(20) % 2).monotone
    assert result.everywhere.status == result.along_flows.status == "not monotone"
    assert "P depends on the population" in result.along_flows.reason
    assert result.along_flows.counterexample.mu.shape == (2, 2, 2)


class Bending(RandomAffineGame):
    """Rewards that bend."""

    reward_in_aggregate: ClassVar[Any] = "nonlinear"

    def reward(self, agent: Any, state, action, aggregate, step):
        return jnp.log(1 + aggregate[0]) * jnp.where(state == 0, 1.0, 0.0)


@pytest.mark.slow
def test_bending_rewards_are_refuted():
    game = random_population_game(1, 9, 2, 2, 2, kind=Bending)
    groups = np.arange(9) % 2
    result = cn.symmetry(game, groups).monotone
    pair = result.everywhere.counterexample
    total = sum_of_def_10(cn.induced_game(game, groups), pair.mu, pair.other, pair.step)
    assert total == pytest.approx(pair.violation, rel=1e-5)
    assert total > 0


def test_too_many_groups_are_not_decided():
    game = rock_paper_scissors(300)
    result = cn.symmetry(game, "independent").monotone
    assert result.everywhere.status == result.along_flows.status == "unknown"
    assert "too many" in result.everywhere.reason


# --- symmetry against G


@pytest.mark.slow
def test_against_groups_puts_together_what_each_gives():
    game = cn.games.SIS.sample(KEY, num_agents=30, horizon=3)
    seen = []
    results = symmetry_against_groups(game, [3, 1], key=KEY, callback=seen.append)
    assert seen == results
    assert [one.num_groups for one in results] == [3, 1]
    for one in results:
        sym = cn.symmetry(game, one.num_groups)
        assert one.alpha == sym.alpha
        assert one.beta == sym.beta
        assert one.smallest_group == np.bincount(sym.groups).min()
        induced = cn.induced_game(game, one.num_groups)
        solution = nearly_exact_equilibrium(induced, 4000, 1e-3)
        assert solution.converged
        assert one.mean_field_exploitability == pytest.approx(solution.exploitability, abs=1e-9)
        delta = np.maximum(mean_field.evaluate(induced, solution.policy).exploitability, 0.0)
        assert one.bound == pytest.approx(cn.nash_bound(game, sym, np.asarray(delta)).value)
        assert one.certified
        assert one.trivial_bound == pytest.approx(3 * (1 + game.isolation_aversion.max()))
        probs = solution.policy if solution.policy.ndim == 4 else solution.policy[None]
        played = cn.TabularPolicy.grouped(probs, sym.groups)
        result = cn.exploitability(game, played, key=KEY, own_influence_agents=0)
        assert one.maximum == result.maximum
        assert one.mean == result.mean
    assert results[0].alpha.upper < results[1].alpha.upper
    figure = symmetry_over_groups(results, "sis", 30, 0.95)
    alike, measured, bounds = figure.axes
    np.testing.assert_array_equal(alike.lines[0].get_xdata(), [1, 3])
    np.testing.assert_allclose(alike.lines[0].get_ydata(), [r.alpha.upper for r in results[::-1]])
    np.testing.assert_allclose(
        measured.lines[1].get_ydata(), [sum(r.mean) / 2 for r in results[::-1]]
    )
    np.testing.assert_allclose(
        bounds.lines[1].get_ydata(), [r.sharper_bound for r in results[::-1]]
    )


@pytest.mark.slow
def test_games_that_theorem_1_does_not_cover_have_no_bound():
    game = random_population_game(0, 6, 2, 2, 2, kind=Weighted, weighted=True)
    results = symmetry_against_groups(game, [1, 2], key=KEY, num_trajectories=32)
    assert results[0].bound is not None
    assert results[1].bound is None
    assert not results[1].certified
    symmetry_over_groups(results, "weighted", 6, 0.95)


def test_counts_out_of_range():
    game = cn.games.SIS.sample(KEY, num_agents=10, horizon=2)
    for counts, text in (
        ([], "group_counts must be a list, not empty"),
        ([2, 2], r"group_counts must be distinct, not \[2, 2\]"),
        ([1, 11], r"group_counts must be in 1..10, not 11"),
    ):
        with pytest.raises(ValueError, match=text):
            symmetry_against_groups(game, counts, key=KEY)


@pytest.mark.slow
def test_the_command(tmp_path, capsys):
    flags = ["symmetry", "sis", "--num-agents", "30", "--horizon", "3", "--against-groups"]
    out = tmp_path / "groups"
    assert main([*flags, "1,3", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "sharper" in printed
    record = json.loads((out / "against_groups.json").read_text())
    assert [one["num_groups"] for one in record["results"]] == [1, 3]
    assert record["results"][0]["maximum"][0] >= 0
    assert (out / "against_groups.png").read_bytes().startswith(b"\x89PNG")
    assert main([*flags, "1", "--out", str(out)]) == 2
    assert "--out must be new or empty" in capsys.readouterr().err
    assert main([*flags, "1;3"]) == 2
    assert "integers with commas between them" in capsys.readouterr().err
    assert main([*flags[:-1], "--out", str(out)]) == 2
    assert "--out needs --against-groups" in capsys.readouterr().err


def test_the_command_prints_the_bound_of_several_groups(capsys):
    flags = ["symmetry", "rps", "--num-agents", "30", "--horizon", "2", "--groups", "2", "--json"]
    assert main(flags) == 0
    record = json.loads(capsys.readouterr().out)
    assert len(record["theorem_1"]["group_mended"]) == len(record["group_alpha"]) == 2
    assert record["theorem_1"]["mended"] == max(record["theorem_1"]["group_mended"])
    assert record["monotone"]["everywhere"] == "not monotone"


# --- many groups, and errors that are none of the theorem's


class Tastes(NamedTuple):
    liking: Any


class Ridge(cn.PopulationGame):
    """Half of the agents are paid (to be in state 1) where a third of the others is in state 1."""

    agents: Tastes
    horizon: int = 1
    num_states: int = 2
    num_actions: int = 2
    transition_in_aggregate: ClassVar = "free"

    @property
    def initial_distribution(self):
        return jnp.array([0.5, 0.5])

    def transition(self, agent, state, action, aggregate, step):
        return jnp.array([0.5, 0.5])

    def reward(self, agent, state, action, aggregate, step):
        apart = aggregate - jnp.array([0.3, 0.36, 0.13, 0.21])
        return agent.liking * jnp.exp(-30 * (apart**2).sum())


@pytest.mark.slow
def test_a_search_climbs_from_every_group():
    """Twelve groups that are copies of each other have one beta; the last were not climbed from."""
    game = Ridge(agents=Tastes(jnp.tile(jnp.array([0.0, 1.0]), 30)))
    sym = cn.symmetry(game, np.arange(60) // 2 % 12, num_populations=4)
    beta = sym.group_beta[:, 0]
    assert 0.45 < beta[0] <= 0.5  # within a group the mean is at 1/2, and the ridge is of height 1
    np.testing.assert_allclose(beta, beta[0], rtol=1e-6)


@pytest.mark.slow
def test_an_error_of_the_game_is_not_taken_for_a_bound_that_does_not_apply(monkeypatch):
    """Any ValueError was, a GameError among them."""

    def broken(*arguments):
        raise cn.GameError("the game is broken")

    monkeypatch.setattr("crowdnash.approximate_symmetry.against_groups.nash_bound", broken)
    game = cn.games.RockPaperScissors.sample(KEY, num_agents=4, horizon=2)
    with pytest.raises(cn.GameError, match="the game is broken"):
        symmetry_against_groups(game, [1], key=KEY, num_trajectories=2, num_iterations=10)
