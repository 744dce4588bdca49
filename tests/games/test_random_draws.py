"""Counter-based draws: the cipher against JAX's and the published one, and the numbers' law."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32

from crowdnash.games import random_draws as draws
from crowdnash.simulation.layout import agent_layout
from crowdnash.simulation.rollouts import draws as draws_of_steps


@pytest.mark.parametrize(
    ("key", "counter", "result"),
    [
        # The known answers that come with the authors' own code (Random123).
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_known_answers(key, counter, result):
    words = [tuple(jnp.uint32(word) for word in pair) for pair in (key, counter)]
    assert tuple(int(word) for word in draws.threefry2x32(*words)) == result


def test_equals_the_cipher_of_jax():
    generator = np.random.default_rng(0)
    for _ in range(5):
        key = jnp.asarray(generator.integers(0, 2**32, 2, np.uint32))
        counter = jnp.asarray(generator.integers(0, 2**32, (2, 400), np.uint32))
        expected = threefry_2x32(key, counter.reshape(-1)).reshape(2, -1)
        found = draws.threefry2x32((key[0], key[1]), (counter[0], counter[1]))
        np.testing.assert_array_equal(np.stack(found), expected)
        joined = draws.in_one_kernel(*found)
        np.testing.assert_array_equal(np.stack(joined), expected)


def test_uniform_has_24_bits_and_stays_below_1():
    bits = jnp.asarray([0, 255, 256, 2**31, 2**32 - 1], jnp.uint32)
    np.testing.assert_array_equal(
        draws.uniform(bits), np.asarray([0, 0, 2.0**-24, 0.5, 1 - 2.0**-24], np.float32)
    )


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_step_words(impl):
    key = jax.random.key(3, impl=impl)
    words = np.asarray(draws.step_words(key, 50))
    assert words.shape == (50, 2)
    assert words.dtype == np.uint32
    assert len(np.unique(words)) == 100
    np.testing.assert_array_equal(words[:20], draws.step_words(key, 20))
    assert (words != np.asarray(draws.step_words(jax.random.key(4, impl=impl), 50))).all()


@pytest.fixture(scope="module")
def numbers():
    """[word, step, trajectory, agent]"""
    layout = agent_layout(np.arange(64), 64)
    words = draws.step_words(jax.random.key(11), 16)
    agents = layout.agent.astype(jnp.uint32)
    pair = draws_of_steps(words, agents, jnp.arange(64, dtype=jnp.uint32))
    return np.stack(pair).astype(np.float64)[:, :, :, 0]


def test_numbers_are_uniform(numbers):
    n = numbers.size
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 4 * np.sqrt(1 / 12 / n)
    # The fourth central moment of U(0,1) is 1/80.
    assert abs(numbers.var() - 1 / 12) < 4 * np.sqrt((1 / 80 - 1 / 144) / n)
    counts = np.bincount((numbers * 256).astype(int).ravel(), minlength=256)
    chi_square = ((counts - n / 256) ** 2 / (n / 256)).sum()
    assert abs(chi_square - 255) < 4 * np.sqrt(2 * 255)


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_numbers_are_independent_along_every_axis(numbers, axis):
    """Neighbours along words, steps, trajectories and agents fill the square evenly."""
    first, second = (np.moveaxis(numbers, axis, 0)[k] for k in (slice(-1), slice(1, None)))
    cell = (first * 16).astype(int) * 16 + (second * 16).astype(int)
    counts = np.bincount(cell.ravel(), minlength=256)
    expected = cell.size / 256
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi_square - 255) < 4 * np.sqrt(2 * 255)
    correlation = np.corrcoef(first.ravel(), second.ravel())[0, 1]
    assert abs(correlation) < 4 / np.sqrt(cell.size)
