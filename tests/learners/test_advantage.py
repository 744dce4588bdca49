"""Generalised advantages: numbers by hand, a loop straight from the formula, and both ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crowdnash.learners.ppo.advantage import generalized_advantages


def advantages(rewards, values, next_values, terminated, truncated, discount, gae_lambda):
    found = generalized_advantages(
        *(jnp.asarray(x, jnp.float32) for x in (rewards, values, next_values)),
        *(jnp.asarray(x, jnp.bool_) for x in (terminated, truncated)),
        discount=discount,
        gae_lambda=gae_lambda,
    )
    assert found.dtype == jnp.float32
    return np.asarray(found)


def slow(rewards, values, next_values, terminated, truncated, discount, gae_lambda):
    """A_t = sum over k of (discount lambda)^k delta_{t+k}, up to the first end, in float64."""
    T = len(rewards)
    found = np.zeros(T)
    for t in range(T):
        weight = 1.0
        for k in range(t, T):
            coming = 0.0 if terminated[k] else discount * next_values[k]
            found[t] += weight * (rewards[k] + coming - values[k])
            if terminated[k] or truncated[k]:
                break
            weight *= discount * gae_lambda
    return found


def test_by_hand():
    """r = (1,2,3), V = (4,5,6), V(after the last) = 7, discount 1/2, lambda 1/2, the end true.

    delta = (1 + 2.5 - 4, 2 + 3 - 5, 3 - 6) = (-0.5, 0, -3), and with 1/4 for each step on
    A_2 = -3, A_1 = 0 - 0.75, A_0 = -0.5 - 0.1875.
    """
    found = advantages([1, 2, 3], [4, 5, 6], [5, 6, 7], [0, 0, 1], [0, 0, 0], 0.5, 0.5)
    np.testing.assert_array_equal(found, [-0.6875, -0.75, -3.0])


def test_a_cut_is_not_an_end():
    """As above, but merely cut off: delta_2 = 3 + 3.5 - 6 = 0.5, so (-0.46875, 0.125, 0.5)."""
    found = advantages([1, 2, 3], [4, 5, 6], [5, 6, 7], [0, 0, 0], [0, 0, 1], 0.5, 0.5)
    np.testing.assert_array_equal(found, [-0.46875, 0.125, 0.5])


def test_ends_in_the_middle():
    """Nothing comes back over an end; a true one ignores the state reached, whatever it is."""
    rewards, values, after = [1, 2, 3, 4], [4, 5, 6, 7], [5, 100, 7, 8]
    # Step 1 ends truly: delta = 2 - 5. Step 3: 4 + 4 - 7 = 1. Step 2: 3 + 3.5 - 6 + 1/4.
    found = advantages(rewards, values, after, [0, 1, 0, 0], [0, 0, 0, 1], 0.5, 0.5)
    np.testing.assert_array_equal(found, [-0.5 - 0.75, -3.0, 0.75, 1.0])
    # Step 1 is cut off: delta = 2 + 50 - 5 = 47.
    found = advantages(rewards, values, after, [0, 0, 0, 0], [0, 1, 0, 1], 0.5, 0.5)
    np.testing.assert_array_equal(found, [-0.5 + 47 / 4, 47.0, 0.75, 1.0])
    # Both at once is a true end.
    found = advantages(rewards, values, after, [0, 1, 0, 0], [0, 1, 0, 1], 0.5, 0.5)
    np.testing.assert_array_equal(found, [-1.25, -3.0, 0.75, 1.0])


@pytest.mark.parametrize(("discount", "gae_lambda"), [(0.99, 0.95), (0.9, 0.0), (0.0, 1.0)])
def test_against_the_sum_of_the_formula(discount, gae_lambda):
    generator = np.random.default_rng(5)
    shape = (12, 3, 2)
    rewards, values, after = generator.normal(size=(3, *shape))
    terminated, truncated = generator.uniform(size=(2, *shape)) < 0.15
    found = advantages(rewards, values, after, terminated, truncated, discount, gae_lambda)
    assert terminated.any()
    assert truncated.any()
    for column in np.ndindex(shape[1:]):
        own = [x[(slice(None), *column)] for x in (rewards, values, after, terminated, truncated)]
        expected = slow(*own, discount, gae_lambda)
        np.testing.assert_allclose(found[(slice(None), *column)], expected, atol=2e-6)


def test_discount_and_lambda_one_are_returns_to_go():
    generator = np.random.default_rng(6)
    rewards, values = generator.normal(size=(2, 12, 3, 2))
    after = np.concatenate([values[1:], np.full((1, 3, 2), 1e6)])
    end = np.arange(12)[:, None, None] == np.full((12, 3, 2), 11)
    found = advantages(rewards, values, after, end, 0 * end, 1.0, 1.0)
    to_go = np.cumsum(rewards[::-1], axis=0)[::-1]
    np.testing.assert_allclose(found, to_go - values, atol=5e-6)


def test_lambda_zero_is_one_step_and_numbers_may_be_traced():
    def traced(discount, gae_lambda):
        steps = [jnp.asarray(x, jnp.float32) for x in ([1, 2], [3, 4], [4, 5])]
        ends = jnp.zeros(2, jnp.bool_)
        return generalized_advantages(*steps, ends, ends, discount=discount, gae_lambda=gae_lambda)

    found = jax.jit(traced)(jnp.float32(0.5), jnp.float32(0.0))
    np.testing.assert_array_equal(found, [1 + 2 - 3, 2 + 2.5 - 4])
