"""Mean-field games: flow, values, best responses, exploitability, against loops and references."""

import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crowdnash as cn
from crowdnash import mean_field
from crowdnash.games.base import GameError
from crowdnash.mean_field.induced import induced_game
from mean_field_games import random_probs, random_tables, rps_tables, sis_tables


def loops(mfg, probs, other, temperature):
    """Def. 5 and Def. 9 by loops: flow of `probs`, and Q^tau of `other` against it."""
    S, A, H = mfg.num_states, mfg.num_actions, mfg.horizon
    mu = np.asarray(mfg.initial_distribution)[:, None] * probs[0]
    flow, laws = [], []
    for h in range(H):
        flow.append(mu)
        laws.append(mean_field.laws_at(mfg, mu, h))
        after = np.zeros(S)
        for s, a in np.ndindex(S, A):
            after += mu[s, a] * laws[h].transition[s, a]
        if h + 1 < H:
            mu = after[:, None] * probs[h + 1]
    result = np.zeros((H + 1, S, A))
    for h in reversed(range(H)):
        for s, a in np.ndindex(S, A):
            entropy = -sum(p * np.log(p) for p in other[h, s] if p > 0)
            result[h, s, a] = laws[h].reward[s, a] + temperature * entropy
            if h + 1 < H:
                ahead = (other[h + 1] * result[h + 1]).sum(-1)
                result[h, s, a] += laws[h].transition[s, a] @ ahead
    return np.asarray(flow), result[:H]


@pytest.mark.parametrize(
    ("mfg", "value", "exploitability"),
    [
        (sis_tables(0.81), -8.120365845, 3.789724034),
        (sis_tables(0.9), -8.408592575, 3.590600775),
        (rps_tables(), -16.666666667, 3.0),
    ],
)
def test_reference_values_of_the_uniform_policy(mfg, value, exploitability):
    uniform = np.full((mfg.horizon, mfg.num_states, mfg.num_actions), 1 / mfg.num_actions)
    result = mean_field.evaluate(mfg, uniform)
    assert result.value[0] == pytest.approx(value, abs=1e-8)
    assert result.exploitability[0] == pytest.approx(exploitability, abs=1e-8)
    assert mean_field.exploitability(mfg, uniform) == result.exploitability[0]


def test_values_and_flow_against_loops():
    mfg = random_tables(0)
    probs, other = random_probs(1, mfg), random_probs(2, mfg)
    flow, q_values = loops(mfg, probs, other, 0.3)
    np.testing.assert_allclose(mean_field.population_flow(mfg, probs), flow, atol=1e-12)
    result = mean_field.q_values(mfg, other, temperature=0.3, flow=flow)
    np.testing.assert_allclose(result, q_values, atol=1e-12)
    plain = mean_field.q_values(mfg, other, temperature=0.3, flow=flow, own_entropy=False)
    entropy = -(other * np.log(other)).sum(-1, keepdims=True)
    np.testing.assert_allclose(plain, q_values - 0.3 * entropy, atol=1e-12)
    values = mean_field.values(mfg, other, temperature=0.3, flow=flow)
    np.testing.assert_allclose(values, (other * q_values).sum(-1), atol=1e-12)
    assert result.dtype == values.dtype == np.float64


def test_best_response_against_every_deterministic_policy():
    mfg = random_tables(3, horizon=2, num_states=2)
    probs = random_probs(4, mfg)
    flow = mean_field.population_flow(mfg, probs)
    best = -np.inf
    for actions in itertools.product(range(2), repeat=4):
        rival = np.eye(2)[np.reshape(actions, (2, 2))]
        best = max(best, mfg.initial_distribution @ mean_field.values(mfg, rival, flow=flow)[0])
    response = mean_field.best_response(mfg, flow)
    achieved = mfg.initial_distribution @ mean_field.values(mfg, response.policy, flow=flow)[0]
    result = mean_field.evaluate(mfg, probs)
    assert achieved == pytest.approx(best, abs=1e-12)
    assert result.best_response_value[0] == pytest.approx(best, abs=1e-12)
    own = mfg.initial_distribution @ mean_field.values(mfg, probs)[0]
    assert result.value[0] == pytest.approx(own, abs=1e-12)


def test_a_flow_stays_a_distribution_over_long_horizons():
    """An affine law kept as values at vertices would double the error at every step."""
    mfg = sis_tables(0.81, horizon=400)
    flow = mean_field.population_flow(mfg, random_probs(0, mfg))
    np.testing.assert_allclose(flow.sum((1, 2)), 1, atol=1e-12)


def test_populations_that_are_alike_are_one_population():
    one = sis_tables(0.81)
    constant, slope = one.transition_law.constant[0, 0], one.transition_law.slope[0, :, 0]
    slope = np.moveaxis(slope, 0, -1).reshape(2, 2, 2, 2, 2)
    reward = one.reward_law.constant[0, 0]
    two = mean_field.TabularMeanFieldGame(
        np.stack([constant] * 2),
        np.stack([reward] * 2),
        [0.5, 0.5],
        20,
        transition_slope=np.stack([slope] * 2),
        group_weights=[0.25, 0.75],
    )
    probs = random_probs(5, one)
    twice = np.stack([probs, probs])
    flow = mean_field.population_flow(one, probs)
    np.testing.assert_allclose(mean_field.population_flow(two, twice), [flow, flow], atol=1e-12)
    both = mean_field.evaluate(two, twice)
    single = mean_field.evaluate(one, probs)
    for result, reference in zip(both, single, strict=True):
        np.testing.assert_allclose(result, np.repeat(reference, 2), atol=1e-12)
    np.testing.assert_allclose(
        mean_field.q_values(two, twice)[1], mean_field.q_values(one, probs), atol=1e-12
    )


def test_several_populations_with_different_laws():
    """Each population sees the mixture; the largest exploitability is reported."""
    mfg = random_tables(6, groups=3)
    probs = random_probs(7, mfg)
    flow = mean_field.population_flow(mfg, probs)
    mixture = np.tensordot(mfg.group_weights, flow[:, 1], 1)
    corner = mfg.transition_law.vertices[1].reshape(6, 3, 3, 2, 3)
    reference = np.einsum("x,xgsat->gsat", mixture.ravel(), corner)
    result = mean_field.laws_at(mfg, flow[:, 1], 1)
    np.testing.assert_allclose(result.transition, reference, atol=1e-12)
    after = np.einsum("gsa,gsat->gt", flow[:, 1], reference)
    np.testing.assert_allclose(flow[:, 2].sum(-1), after, atol=1e-12)
    each = mean_field.evaluate(mfg, probs).exploitability
    assert each.shape == (3,)
    assert mean_field.exploitability(mfg, probs) == each.max()


def test_a_lone_population_may_carry_its_axis():
    mfg = sis_tables(0.81)
    probs = random_probs(8, mfg)
    assert mean_field.exploitability(mfg, probs[None]) == mean_field.exploitability(mfg, probs)
    assert mean_field.population_flow(mfg, probs[None]).shape == (1, 20, 2, 2)


def test_traced_calls_equal_plain_ones():
    mfg = random_tables(9)
    probs = random_probs(10, mfg)
    plain = mean_field.exploitability(mfg, probs)
    with jax.enable_x64(True):
        double = jnp.asarray(probs, jnp.float64)
        jitted = eqx.filter_jit(mean_field.exploitability)(mfg, double)
        assert jitted.dtype == jnp.float64
        assert float(jitted) == pytest.approx(plain, abs=1e-12)
        batch = jnp.stack([double, jnp.full_like(double, 0.5)])
        several = jax.jit(jax.vmap(lambda p: mean_field.exploitability(mfg, p)))(batch)
        assert float(several[0]) == pytest.approx(plain, abs=1e-12)
    single = jax.jit(lambda p: mean_field.exploitability(mfg, p))(jnp.asarray(probs, jnp.float32))
    assert single.dtype == jnp.float32
    assert float(single) == pytest.approx(plain, abs=1e-4)


@pytest.mark.slow
def test_gradients_against_differences():
    mfg = random_tables(11)
    logits = np.random.default_rng(12).normal(size=(3, 3, 2))
    with jax.enable_x64(True):

        def value(x):
            result = mean_field.values(mfg, jax.nn.softmax(x), temperature=0.1)
            return result[0] @ jnp.asarray(mfg.initial_distribution)

        def gain(x):
            return mean_field.exploitability(mfg, jax.nn.softmax(x))

        start = jnp.asarray(logits, jnp.float64)
        for function in (value, gain):
            function = jax.jit(function)
            slope = jax.jit(jax.grad(function))(start)
            for where in [(0, 0, 0), (1, 2, 1), (2, 1, 0)]:
                step = jnp.zeros_like(start).at[where].set(1e-6)
                difference = (function(start + step) - function(start - step)) / 2e-6
                assert float(slope[where]) == pytest.approx(float(difference), abs=1e-7)


def test_sweep_over_heterogeneity_is_a_vmap():
    probs = np.full((5, 2, 2), 0.5)
    noise = jnp.asarray(np.random.default_rng(13).uniform(-1, 1, size=(3, 30)), jnp.float32)

    def at(width):
        infection, recovery, aversion = 0.5 + width * noise
        game = cn.games.SIS(infection, recovery, aversion, horizon=5)
        return mean_field.exploitability(induced_game(game), probs)

    widths = [0.0, 0.05, 0.1]
    together = jax.jit(jax.vmap(at))(jnp.asarray(widths))
    np.testing.assert_allclose(together, [jax.jit(at)(w) for w in widths], rtol=1e-4)
    assert together[0] != together[2]


class Broken(mean_field.MeanFieldGame):
    """Laws that are wrong in one way each."""

    fault: str = eqx.field(static=True)
    initial_distribution: Any = eqx.field(default_factory=lambda: np.array([0.5, 0.5]))
    horizon: int = eqx.field(static=True, default=3)
    num_states: int = eqx.field(static=True, default=2)
    num_actions: int = eqx.field(static=True, default=2)

    def laws(self, mu, step):
        moves, pays = jnp.full((2, 2, 2), 0.5, mu.dtype), jnp.zeros((2, 2), mu.dtype)
        if self.fault == "sum":
            moves = jnp.where(step == 2, moves.at[1, 0, 0].set(0.75), moves)
        if self.fault == "nan":
            pays = jnp.where(step == 1, pays.at[0, 1].set(jnp.nan), pays)
        if self.fault == "shape":
            pays = pays[0]
        return moves, pays


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            "sum",
            r"Broken: P must be a distribution.*step 2, group 0, state 1, action 0 it is \[0.75",
        ),
        ("nan", r"Broken: R must be finite.*step 1, group 0, state 0, action 1"),
        ("shape", r"Broken.laws must return R of shape \[2, 2\], not \[2\]"),
    ],
)
def test_broken_laws_are_named(fault, message):
    with pytest.raises(GameError, match=message):
        mean_field.exploitability(Broken(fault), np.full((3, 2, 2), 0.5))


def test_bad_arguments():
    mfg, fair = sis_tables(0.81), np.full((20, 2, 2), 0.5)
    bad = fair.copy()
    bad[3, 1] = [0.7, 0.2]
    with pytest.raises(ValueError, match=r"probs must be .* sum at \[3, 1\] is 0.9"):
        mean_field.population_flow(mfg, bad)
    bad[3, 1] = [1.2, -0.2]
    with pytest.raises(ValueError, match=r"probs must be non-negative.*smallest entry -0.2"):
        mean_field.exploitability(mfg, bad)
    bad[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"probs must be non-negative"):
        mean_field.exploitability(mfg, bad)
    with pytest.raises(ValueError, match=r"probs must have shape \[20, 2, 2\], not \[19, 2, 2\]"):
        mean_field.exploitability(mfg, fair[:19])
    with pytest.raises(ValueError, match=r"probs must have shape \[3, 3, 3, 2\]"):
        mean_field.exploitability(random_tables(0, groups=3), fair[:3])
    with pytest.raises(ValueError, match=r"flow must be .* sum to 1 over the last 2 axes"):
        mean_field.best_response(mfg, fair)
    with pytest.raises(ValueError, match=r"temperature must be >= 0 and finite, not -1"):
        mean_field.q_values(mfg, fair, temperature=-1)
    with pytest.raises(ValueError, match=r"mu must be .*its sum is 2"):
        mean_field.laws_at(mfg, np.full((2, 2), 0.5))
    with pytest.raises(ValueError, match=r"step must be in 0..19, not 20"):
        mean_field.laws_at(mfg, np.full((2, 2), 0.25), 20)


def test_bad_tables():
    tables = mean_field.TabularMeanFieldGame
    fair, pay, start = np.full((2, 2, 2), 0.5), np.zeros((2, 2)), [0.5, 0.5]
    steep = np.zeros((2, 2, 2, 2, 2))
    steep[1, 0, :, 0, 1] = [0.6, -0.6]
    with pytest.raises(GameError, match=r"transition must be .* all are in pair \(0, 1\).*state 1"):
        tables(fair, pay, start, 3, transition_slope=steep)
    with pytest.raises(ValueError, match=r"reward must have shape \[S,A\], not \[2\]"):
        tables(fair, pay[0], start, 3)
    with pytest.raises(ValueError, match=r"transition must have shape .*not \[2, 2\]"):
        tables(fair[0], pay, start, 3)
    with pytest.raises(ValueError, match=r"reward must be finite"):
        tables(fair, pay + np.nan, start, 3)
    with pytest.raises(ValueError, match=r"initial_distribution must be .* its sum is 0.9"):
        tables(fair, pay, [0.5, 0.4], 3)
    with pytest.raises(ValueError, match=r"horizon must be at least 1, not 0"):
        tables(fair, pay, start, 0)
    with pytest.raises(ValueError, match=r"group_weights must be .* sum to 1"):
        tables(fair, pay, start, 3, group_weights=[0.5, 0.6])
