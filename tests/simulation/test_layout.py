"""Where agents lie: everyone once, tiles within groups, sums and look-ups as in plain NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crowdnash.simulation.layout import MAX_PADDING, MAX_TILE_AGENTS, MIN_TILES, agent_layout

SIZES = st.one_of(
    st.lists(st.integers(1, 40), min_size=1, max_size=50),
    st.lists(st.integers(1, 3000), min_size=1, max_size=4),
    st.lists(st.sampled_from([1, 2, 63, 64, 65, 1000]), min_size=1, max_size=12),
    st.integers(1, 300).map(lambda n: [1] * n),
)


def shuffled_groups(sizes: list[int], seed: int = 0) -> np.ndarray:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    return np.random.default_rng(seed).permutation(groups)


@settings(max_examples=25)
@given(SIZES, st.integers(0, 3))
def test_everyone_has_one_place_in_a_tile_of_their_group(sizes, seed):
    groups = shuffled_groups(sizes, seed)
    layout = agent_layout(groups, len(sizes))
    agent, valid = np.asarray(layout.agent), np.asarray(layout.valid)
    np.testing.assert_array_equal(np.sort(agent[valid]), np.arange(len(groups)))
    tile_of_place = np.broadcast_to(np.asarray(layout.tile_group), agent.shape)
    np.testing.assert_array_equal(groups[agent[valid]], tile_of_place[valid])
    assert (agent[~valid] == 0).all()
    assert layout.padded == (not valid.all())
    np.testing.assert_array_equal(agent.reshape(-1)[layout.place], np.arange(len(groups)))
    assert valid.reshape(-1)[np.asarray(layout.place)].all()
    assert (np.diff(layout.tile_group) >= 0).all()


@settings(max_examples=25)
@given(SIZES)
def test_padding_and_tiles_are_bounded(sizes):
    layout = agent_layout(shuffled_groups(sizes), len(sizes))
    length, tiles = layout.shape
    assert length * tiles <= MAX_PADDING * sum(sizes)
    assert length <= MAX_TILE_AGENTS
    assert length == 1 or tiles >= MIN_TILES


@settings(max_examples=12)
@given(SIZES, st.integers(0, 5))
def test_spread_and_gather_equal_numpy(sizes, seed):
    groups = shuffled_groups(sizes, seed)
    layout = agent_layout(groups, len(sizes))
    generator = np.random.default_rng(seed)
    table = generator.normal(size=(3, len(sizes))).astype(np.float32)
    tile_group = np.asarray(layout.tile_group)
    np.testing.assert_array_equal(layout.spread(jnp.asarray(table)), table[:, tile_group])
    rows = generator.normal(size=(2, len(tile_group))).astype(np.float32)
    expected = np.stack([np.bincount(tile_group, row, len(sizes)) for row in rows])
    np.testing.assert_allclose(layout.gather(jnp.asarray(rows)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        ([6400], (64, 100)),
        ([1000], (8, 125)),
        ([1_000_000], (64, 15625)),
        ([1] * 1000, (1, 1000)),
        ([2], (1, 2)),
        ([1, 100_000], (64, 1564)),
        ([100_000, 1], (64, 1564)),
        ([3] * 1000, (1, 3000)),
    ],
)
def test_extreme_group_sizes(sizes, shape):
    layout = agent_layout(shuffled_groups(sizes), len(sizes))
    assert layout.shape == shape
    assert int(np.asarray(layout.valid).sum()) == sum(sizes)


@pytest.mark.parametrize("groups", [[0, 0, 2], [2, 2, 0, 0], [1, 1], [0, 0, 0, 3]])
def test_a_group_may_be_empty(groups):
    """A policy may hold tables that nobody plays."""
    num_groups = max(groups) + 1
    layout = agent_layout(np.asarray(groups), num_groups)
    row = jnp.arange(num_groups, dtype=jnp.float32)[None]
    np.testing.assert_array_equal(layout.spread(row)[0], np.asarray(layout.tile_group))
    tiles = jnp.ones((1, layout.shape[1]))
    count = np.bincount(np.asarray(layout.tile_group), minlength=num_groups)
    np.testing.assert_array_equal(layout.gather(tiles)[0], count)
