"""Sym by queries, linear interpolation on the grid, and the induced game of any tabular game."""

import itertools
import math
from collections import Counter
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crowdnash as cn
from crowdnash import mean_field
from crowdnash.games.congestion import Congestion
from crowdnash.mean_field.grid_games import GridMeanFieldGame, KirszbraunMeanFieldGame
from crowdnash.mean_field.induced import induced_game
from crowdnash.mean_field.induced_from_queries import (
    extend_laws,
    induced_game_from_queries,
    symmetrized_laws,
)
from crowdnash.mean_field.kirszbraun import lipschitz_modulus
from crowdnash.mean_field.simplex_grid import (
    grid_counts,
    grid_numbers,
    grid_size,
    interpolate_on_grid,
    interpolate_own_count,
)
from crowdnash.mean_field.symmetrized_tables import lift_table, symmetrize_table
from random_games import (
    RandomAffineGame,
    RandomPopulationGame,
    random_population_game,
    random_tabular_game,
)
from small_games import Drift, DriftByLaw

KEY = jax.random.key(0)


# --- the grid ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_pairs", "total"), [(1, 3), (2, 5), (3, 2), (4, 3), (5, 4)])
def test_grid_holds_every_count_vector_once_in_order(num_pairs, total):
    counts = grid_counts(num_pairs, total)
    every = itertools.product(range(total + 1), repeat=num_pairs)
    assert {tuple(c) for c in counts} == {c for c in every if sum(c) == total}
    assert len(counts) == grid_size(num_pairs, total)
    np.testing.assert_array_equal(grid_numbers(counts), np.arange(len(counts)))


@pytest.mark.parametrize(("num_pairs", "total"), [(1, 3), (2, 5), (3, 4), (4, 3), (6, 2)])
def test_linear_interpolation_interpolates_and_stays_in_the_hull(num_pairs, total):
    rng = np.random.default_rng(num_pairs)
    points = grid_counts(num_pairs, total) / total
    table = rng.dirichlet(np.ones(3), len(points))
    slope, offset = rng.normal(size=(num_pairs, 2)), rng.normal(size=2)
    with jax.enable_x64(True):
        at = jax.jit(jax.vmap(lambda t, x: interpolate_on_grid(t, x, total), (None, 0)))
        np.testing.assert_allclose(at(table, points), table, atol=1e-9)
        inside = rng.dirichlet(0.5 * np.ones(num_pairs), 500)
        result = np.asarray(at(table, inside))
        assert result.min() >= 0.0
        np.testing.assert_allclose(result.sum(1), 1.0, atol=1e-12)
        affine = np.asarray(at(points @ slope + offset, inside))
        np.testing.assert_allclose(affine, inside @ slope + offset, atol=1e-9)


def test_linear_interpolation_has_the_modulus_that_it_documents():
    """|F(x) - F(y)| <= K (X-1) c / 2 |x-y|_1, c the largest change when one of K moves."""
    rng, total, num_pairs = np.random.default_rng(0), 4, 4
    counts = grid_counts(num_pairs, total)
    table = rng.normal(size=len(counts))
    neighbours = np.abs(counts[:, None] - counts).sum(2) == 2
    step = np.abs(table[:, None] - table)[neighbours].max()
    left = rng.dirichlet(np.ones(num_pairs), 3000)
    right = rng.dirichlet(np.ones(num_pairs), 3000)
    right[:1500] = left[:1500] + 1e-3 * (right[:1500] - left[:1500])
    with jax.enable_x64(True):
        at = jax.jit(jax.vmap(lambda x: interpolate_on_grid(jnp.asarray(table), x, total)))
        rise = np.abs(np.asarray(at(left)) - np.asarray(at(right)))
    run = np.abs(left - right).sum(1)
    assert (rise <= total * (num_pairs - 1) * step / 2 * run + 1e-9).all()


def test_linear_interpolation_has_a_gradient():
    rng = np.random.default_rng(1)
    table, at = rng.normal(size=grid_size(4, 3)), rng.dirichlet(np.ones(4))
    with jax.enable_x64(True):

        def value(x):
            return interpolate_on_grid(jnp.asarray(table), x, 3)

        along = np.array([0.3, -0.1, 0.4, -0.6])
        slope = float(jax.jit(jax.grad(value))(at) @ along)
        up, down = (float(jax.jit(value)(at + x * along)) for x in (1e-6, -1e-6))
        assert slope == pytest.approx((up - down) / 2e-6, abs=1e-6)


def test_own_count_interpolation_by_hand():
    """h = (8, 4, 1), N = 3: u = 0, 1/4, 1/2, 3/4, 1 are the counts 1, 3/2, 2, 5/2, 3 (D.1)."""
    share = jnp.asarray([0.0, 0.25, 0.5, 0.75, 1.0])
    result = interpolate_own_count(jnp.asarray([8.0, 4.0, 1.0]), share)
    np.testing.assert_allclose(result, [8.0, 6.0, 4.0, 2.5, 1.0], atol=1e-6)


@pytest.mark.parametrize("pair", range(4))
def test_on_the_grid_a_function_of_one_count_is_interpolated_in_that_count(pair):
    rng, total = np.random.default_rng(2), 5
    h = jnp.asarray(np.sort(rng.uniform(size=total + 1))[::-1], jnp.float32)
    table = h[grid_counts(4, total)[:, pair]]
    mus = jnp.asarray(rng.dirichlet(0.5 * np.ones(4), 100), jnp.float32)
    result = jax.jit(jax.vmap(lambda mu: interpolate_on_grid(table, mu, total)))(mus)
    np.testing.assert_allclose(result, interpolate_own_count(h, mus[:, pair]), atol=2e-6)


# --- Sym of explicit tables (Def. 3) -------------------------------------------------------------


def mean_over_permutations(table: np.ndarray, num_arguments: int) -> np.ndarray:
    rest = range(num_arguments, table.ndim)
    orders = list(itertools.permutations(range(num_arguments)))
    return sum(table.transpose(*order, *rest) for order in orders) / math.factorial(num_arguments)


@pytest.mark.parametrize(("num_pairs", "num_arguments"), [(2, 5), (3, 3), (4, 2), (5, 1)])
def test_symmetrized_table_is_the_mean_over_all_permutations(num_pairs, num_arguments):
    rng = np.random.default_rng(3)
    table = rng.normal(size=(*(num_pairs,) * num_arguments, 2))
    result = symmetrize_table(table, num_arguments)
    np.testing.assert_allclose(result, mean_over_permutations(table, num_arguments), atol=1e-12)
    np.testing.assert_allclose(symmetrize_table(result, num_arguments), result, atol=1e-12)


def test_symmetric_tables_are_fixed_points_and_lift_to_the_grid():
    indices = np.indices((3, 3, 3))
    counts = np.stack([(indices == x).sum(0) for x in range(3)], -1)
    table = np.sin(counts @ np.array([1.0, 2.0, 4.0]))
    np.testing.assert_allclose(symmetrize_table(table, 3), table, atol=1e-12)
    lifted = lift_table(table, 3)
    np.testing.assert_array_equal(lifted.counts, grid_counts(3, 3))
    np.testing.assert_allclose(lifted.values, np.sin(lifted.counts @ [1.0, 2.0, 4.0]), atol=1e-12)


def test_sym_of_a_weighted_sum_has_the_mean_weight():
    """f(x) = sum_k w_k v(x_k): Sym replaces every w_k by their mean."""
    rng = np.random.default_rng(4)
    weights, values = rng.uniform(size=4), rng.normal(size=3)
    indices = np.indices((3,) * 4)
    table = sum(w * values[x] for w, x in zip(weights, indices, strict=True))
    expected = weights.mean() * values[indices].sum(0)
    np.testing.assert_allclose(symmetrize_table(table, 4), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lift_table(np.array([[0.0, 1.0], [2.0, 0.0]]), 2), "table must be symmetric in"),
        (lambda: symmetrize_table(np.zeros((2, 3)), 2), "table must have 2 leading axes of one"),
        (lambda: symmetrize_table(np.zeros(2), 2), "table must have 2 leading axes of one"),
        (lambda: symmetrize_table(np.zeros(2), 0), "num_arguments must be at least 1, not 0"),
    ],
)
def test_bad_tables(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- Sym by queries ------------------------------------------------------------------------------


def test_enumeration_is_the_mean_over_permutations_of_an_arbitrary_law():
    game = random_tabular_game(0, 4, 2, 2, 2)
    laws = symmetrized_laws(game)
    shape = (2, 4, 2, 2, 4, 4, 4)  # [H,N,S,A] and one axis for each of the others
    for tables, result in ((game.rewards, laws.reward), (game.probs, laws.transition)):
        values = np.asarray(tables, np.float64).reshape(*shape, *np.shape(tables)[4:])
        for h, i, s, a in np.ndindex(shape[:4]):
            symmetric = mean_over_permutations(values[h, i, s, a], 3)
            for number, row in enumerate(laws.counts):
                others = tuple(np.repeat(np.arange(4), row))
                np.testing.assert_allclose(
                    result[h, i, s, a, number], symmetric[others], atol=1e-12
                )
    assert laws.reward_standard_error.max() == laws.transition_standard_error.max() == 0.0


def test_agent_specific_weights_become_the_mean_of_the_others_weights():
    """Reward pay + slope . mean_j w_j onehot(x_j): Sym has the mean of w over the others."""
    game = random_population_game(1, 5, 2, 2, 1, kind=RandomAffineGame, weighted=True)
    laws = symmetrized_laws(game)
    weight = np.asarray(game.agents.weight, np.float64)
    pay, slope = (np.asarray(x, np.float64) for x in (game.agents.pay, game.agents.pay_slope))
    for i in range(5):
        others = np.delete(weight, i).mean()
        expected = pay[i, 0][..., None] + others * slope[i, 0] @ laws.grid.T
        np.testing.assert_allclose(laws.reward[0, i], expected, atol=1e-6)


def test_a_law_and_the_population_game_it_comes_from_have_the_same_sym():
    by_law, by_population = symmetrized_laws(DriftByLaw()), symmetrized_laws(Drift())
    np.testing.assert_allclose(by_law.reward, by_population.reward, atol=1e-6)
    np.testing.assert_allclose(by_law.transition, by_population.transition, atol=1e-6)


@pytest.fixture(scope="module")
def sampled():
    """Seven agents: 29 permutations are fewer than the arrangements of most grid points."""
    game = random_tabular_game(2, 7, 2, 2, 1)
    result = symmetrized_laws(game, method="monte_carlo", key=KEY, num_permutations=29)
    return game, symmetrized_laws(game), result


def test_monte_carlo_lies_within_four_standard_errors_of_enumeration(sampled):
    _, exact, result = sampled
    pairs = [
        (exact.induced_reward, result.induced_reward, result.induced_reward_standard_error),
        (
            exact.induced_transition,
            result.induced_transition,
            result.induced_transition_standard_error,
        ),
    ]
    for true, estimate, error in pairs:
        drawn = error > 0
        assert drawn.mean() > 0.5
        np.testing.assert_allclose(estimate[~drawn], true[~drawn], atol=1e-12)
        score = (estimate - true)[drawn] / error[drawn]
        assert np.abs(score).max() <= 4.0
        assert 0.8 < (score**2).mean() < 1.25  # the standard errors are neither small nor large
    score = (result.reward - exact.reward)[result.reward_standard_error > 0]
    score = score / result.reward_standard_error[result.reward_standard_error > 0]
    assert 0.8 < (score**2).mean() < 1.25


def test_monte_carlo_is_exact_where_all_arrangements_are_asked_for(sampled):
    _, exact, result = sampled
    for number, row in enumerate(result.counts):
        orders = math.factorial(6) // math.prod(math.factorial(c) for c in row)
        error = result.reward_standard_error[..., number]
        assert (error > 0).all() if orders > 29 else (error == 0).all()
        if orders <= 29:
            np.testing.assert_allclose(
                result.reward[..., number], exact.reward[..., number], atol=1e-12
            )


def test_monte_carlo_is_decided_by_its_key():
    game = random_tabular_game(2, 5, 2, 1, 2)
    keys = (KEY, KEY, jax.random.key(1))
    first, again, other = (
        symmetrized_laws(game, method="monte_carlo", key=k, num_permutations=3) for k in keys
    )
    np.testing.assert_array_equal(first.reward, again.reward)
    assert np.abs(first.reward - other.reward).max() > 0


def test_monte_carlo_reaches_games_that_enumeration_cannot():
    """4^13 arrangements of the others; A-SIS is affine in sigma, so its Sym is its formula."""
    game = cn.games.SIS.sample(KEY, num_agents=14, horizon=1)
    laws = symmetrized_laws(game, method="monte_carlo", key=KEY, num_permutations=2)
    infectious_and_out = laws.counts[:, 1] / 13
    susceptibility = np.asarray(game.susceptibility, np.float64)
    expected = susceptibility[:, None] * infectious_and_out
    np.testing.assert_allclose(laws.transition[0, :, 1, 1, :, 0], expected, atol=1e-6)
    assert laws.transition_standard_error.max() < 1e-12


# --- the induced game (Def. 6) -------------------------------------------------------------------


def at_grid(mfg: Any, grid: np.ndarray, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """P [H,n,S,A,S] and R [H,n,S,A] at every grid point."""
    mus = grid.reshape(-1, mfg.num_states, mfg.num_actions)
    with jax.enable_x64(True):
        over_points = jax.vmap(mfg.laws, in_axes=(0, None))
        over_steps = jax.jit(jax.vmap(over_points, in_axes=(None, 0)))
        result = over_steps(jnp.asarray(mus), jnp.arange(horizon, dtype=jnp.int32))
        return tuple(np.asarray(x) for x in result)


ROUTES = [
    (RandomPopulationGame, False, 4, 2, 2),
    (RandomAffineGame, False, 3, 3, 1),
    (RandomAffineGame, True, 4, 2, 2),
]


@pytest.mark.parametrize("extension", ["linear", "kirszbraun"])
@pytest.mark.parametrize(("kind", "weighted", "num_agents", "num_states", "num_actions"), ROUTES)
def test_closed_form_and_queries_agree_at_grid_points(
    kind, weighted, num_agents, num_states, num_actions, extension
):
    game = random_population_game(
        5, num_agents, num_states, num_actions, 2, kind=kind, weighted=weighted
    )
    laws = symmetrized_laws(game)
    by_queries = at_grid(extend_laws(game, laws, extension=extension), laws.grid, 2)
    in_closed_form = at_grid(induced_game(game), laws.grid, 2)
    for result, expected, table in zip(
        by_queries, in_closed_form, (laws.induced_transition, laws.induced_reward), strict=True
    ):
        np.testing.assert_allclose(result, expected, atol=1e-6)
        np.testing.assert_allclose(result, np.moveaxis(table, 3, 1), atol=1e-6)


def test_affine_laws_agree_everywhere_by_linear_interpolation():
    game = random_population_game(6, 4, 2, 2, 1, kind=RandomAffineGame)
    mfg, closed = induced_game_from_queries(game, extension="linear"), induced_game(game)
    for mu in np.random.default_rng(0).dirichlet(np.ones(4), 20).reshape(-1, 2, 2):
        for result, expected in zip(
            mean_field.laws_at(mfg, mu), mean_field.laws_at(closed, mu), strict=True
        ):
            np.testing.assert_allclose(result, expected, atol=1e-6)


def test_congestion_is_interpolated_in_the_own_count():
    """Linear interpolation of the queries is D.1's, which the congestion game reads itself."""
    rng, n = np.random.default_rng(7), 5
    game = Congestion(
        transitions=rng.dirichlet(np.ones(2), (n, 2, 2)),
        congestion=-np.sort(rng.uniform(size=(n, 2, 2, n)), axis=-1),
        base=rng.uniform(size=(n, 2, 2)),
        horizon=1,
    )
    mfg, closed = induced_game_from_queries(game, extension="linear"), induced_game(game)
    for mu in rng.dirichlet(0.5 * np.ones(4), 20).reshape(-1, 2, 2):
        result, expected = (mean_field.laws_at(g, mu).reward for g in (mfg, closed))
        np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.fixture(scope="module")
def asymmetric():
    game = random_tabular_game(8, 4, 2, 2, 2)
    return game, symmetrized_laws(game)


@pytest.mark.slow
def test_kirszbraun_keeps_modulus_and_hull(asymmetric):
    """The induced game's modulus is at most the mean of the agents' own (250 pairs)."""
    game, laws = asymmetric
    mfg = extend_laws(game, laws)
    assert isinstance(mfg, KirszbraunMeanFieldGame)
    rng = np.random.default_rng(9)
    left, right = rng.dirichlet(0.5 * np.ones(4), (2, 250)).reshape(2, -1, 2, 2)
    right[:125] = left[:125] + 1e-2 * (right[:125] - left[:125])
    run = np.linalg.norm((left - right).reshape(-1, 4), axis=1)
    (move_left, pay_left), (move_right, pay_right) = (
        mfg.extended(x, np.ones(len(x), int)) for x in (left, right)
    )
    for s, a in np.ndindex(2, 2):
        tables = [(laws.transition, move_left, move_right), (laws.reward, pay_left, pay_right)]
        for table, one, two in tables:
            modulus = np.mean([lipschitz_modulus(laws.grid, table[1, i, s, a]) for i in range(4)])
            rise = np.linalg.norm((one - two)[:, s, a].reshape(250, -1), axis=1)
            assert (rise <= modulus * run * (1 + 1e-9) + 1e-9).all()
    assert move_left.min() >= 0.0
    np.testing.assert_allclose(move_left.sum(-1), 1.0, atol=1e-9)
    for s, a in np.ndindex(2, 2):
        lowest = np.mean([laws.reward[1, i, s, a].min() for i in range(4)])
        highest = np.mean([laws.reward[1, i, s, a].max() for i in range(4)])
        assert (pay_left[:, s, a] >= lowest - 1e-12).all()
        assert (pay_left[:, s, a] <= highest + 1e-12).all()


@pytest.mark.parametrize("extension", ["linear", "kirszbraun"])
def test_mean_field_tools_take_the_game(asymmetric, extension):
    game, laws = asymmetric
    mfg = extend_laws(game, laws, extension=extension)
    assert isinstance(mfg, mean_field.MeanFieldGame)
    probs = np.random.default_rng(10).dirichlet(np.ones(2), (2, 2))
    flow = mean_field.population_flow(mfg, probs)
    start = np.asarray(game.initial_distribution, np.float64)
    start = start / start.sum()
    np.testing.assert_allclose(flow[0], start[:, None] * probs[0], atol=1e-9)
    move = mean_field.laws_at(mfg, flow[0], 0).transition
    after = np.einsum("sa,sat->t", flow[0], move)
    np.testing.assert_allclose(flow[1], after[:, None] * probs[1], atol=1e-9)
    assert mean_field.exploitability(mfg, probs) >= 0.0
    # jitted and mapped, in float32
    mus = jnp.asarray(np.stack([flow[0], flow[1] / flow[1].sum()]), jnp.float32)
    steps = jnp.arange(2, dtype=jnp.int32)
    mapped = jax.jit(jax.vmap(mfg.laws))(mus, steps)
    for k in range(2):
        single = mean_field.laws_at(mfg, np.asarray(mus[k], np.float64), k)
        for result, expected in zip(mapped, single, strict=True):
            np.testing.assert_allclose(result[k], expected, atol=2e-5)


def test_laws_that_do_not_change_with_the_step_are_kept_once():
    same = random_tabular_game(11, 3, 2, 1, 2)
    same = eqx.tree_at(lambda g: (g.probs, g.rewards), same, replace_fn=lambda x: x.at[1].set(x[0]))
    linear = induced_game_from_queries(same, extension="linear")
    assert isinstance(linear, GridMeanFieldGame)
    assert len(linear.transition) == len(linear.reward) == 1
    exact = induced_game_from_queries(same)
    assert isinstance(exact, KirszbraunMeanFieldGame)
    assert len(exact.extended.transition) == 1
    mu = np.array([[0.4], [0.6]])
    for mfg in (linear, exact):
        one, two = (mean_field.laws_at(mfg, mu, h) for h in range(2))
        np.testing.assert_array_equal(one.transition, two.transition)


def test_solvers_run_on_an_arbitrary_game(asymmetric):
    game, laws = asymmetric
    mfg = extend_laws(game, laws, extension="linear")
    solution = mean_field.solve(mfg, method="fictitious_play", num_iterations=200)
    uniform = np.full((2, 2, 2), 0.5)
    assert solution.exploitability < 0.2 * mean_field.exploitability(mfg, uniform)


def test_host_callbacks_keep_float64_inside_a_solver(asymmetric):
    """The solver's compiled loop and a separate evaluation find the same exploitability."""
    game, laws = asymmetric
    mfg = extend_laws(game, laws)
    solution = mean_field.solve(mfg, method="fictitious_play", num_iterations=4, check_every=2)
    again = mean_field.exploitability(mfg, solution.policy)
    assert solution.exploitability == pytest.approx(again, abs=1e-12)
    assert again < mean_field.exploitability(mfg, np.full((2, 2, 2), 0.5))


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", ["linear", "kirszbraun"])
def test_a_population_must_be_a_distribution(asymmetric, extension):
    game, laws = asymmetric
    mfg = extend_laws(game, laws, extension=extension)
    with pytest.raises(ValueError, match="mu must be non-negative and sum to 1"):
        mfg.laws(np.full((2, 2), 0.3), 0)
    with pytest.raises(ValueError, match="mu must be non-negative and sum to 1"):
        mfg.laws(np.array([[1.2, -0.2], [0.0, 0.0]]), 0)
    with pytest.raises(ValueError, match="mu must be non-negative and sum to 1"):
        mfg.laws(np.full((2, 2), np.nan), 0)
    with pytest.raises(ValueError, match=r"mu must have shape \[2, 2\], not \[4\]"):
        mfg.laws(np.full(4, 0.25), 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "exact"}, "method must be one of enumerate, monte_carlo, not 'exact'"),
        ({"extension": "cubic"}, "extension must be one of kirszbraun, linear, not 'cubic'"),
        ({"method": "monte_carlo"}, "method='monte_carlo' needs a key"),
        (
            {"method": "monte_carlo", "key": KEY, "num_permutations": 1},
            "num_permutations must be at least 2, not 1",
        ),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        induced_game_from_queries(Drift(), **arguments)


def sis(num_agents: int) -> Any:
    return cn.games.SIS.sample(KEY, num_agents=num_agents, horizon=2)


@pytest.mark.parametrize(
    ("num_agents", "arguments", "message"),
    [
        (12, {}, r"num_agents = 12: use method='monte_carlo' \(at most .* = 64\); crowdnash"),
        (
            1000,
            {},
            "num_agents = 1000 is too large for a table.*crowdnash.induced_game",
        ),
        (40, {"method": "monte_carlo", "key": KEY}, "use fewer permutations"),
    ],
)
def test_a_game_too_large_to_ask_says_what_to_use(num_agents, arguments, message):
    with pytest.raises(ValueError, match=message):
        induced_game_from_queries(sis(num_agents), **arguments)


class Leaky(DriftByLaw):
    def law(self, agent, state, action, other_states, other_actions, step):
        probs, reward = super().law(agent, state, action, other_states, other_actions, step)
        return probs * jnp.where((agent == 2) & (action == 1), 0.9, 1.0), reward


def test_a_law_that_is_no_distribution_is_named():
    message = r"law\(agent=2, state=0, action=1, step=0\) .* sum to 1"
    with pytest.raises(cn.GameError, match=message):
        symmetrized_laws(Leaky())


def test_laws_of_another_game_are_refused(asymmetric):
    _, laws = asymmetric
    with pytest.raises(ValueError, match=r"laws must be of a game with \[H,N,S,A\]"):
        extend_laws(Drift(), laws)


def test_counts_are_of_the_others(asymmetric):
    _, laws = asymmetric
    assert Counter(laws.counts.sum(1).tolist()) == {3: grid_size(4, 3)}
