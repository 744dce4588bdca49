"""Who shares a policy: names, k-means on parameters, maps by hand, and what is refused."""

import re

import jax
import numpy as np
import pytest

import crowdnash as cn
from crowdnash.games import grouping
from crowdnash.games.grouping import assign_groups
from small_games import DriftByLaw, DriftSimulator

N = 60
GAME = cn.games.SIS.sample(jax.random.key(0), num_agents=N)


def test_names_and_extreme_numbers():
    for groups in ("symmetric", 1, np.int64(1)):
        np.testing.assert_array_equal(assign_groups(GAME, groups), np.zeros(N))
    for groups in ("independent", N):
        np.testing.assert_array_equal(assign_groups(GAME, groups), np.arange(N))


def test_a_map_is_taken_as_it_is():
    groups = np.random.default_rng(0).permutation(np.arange(N) % 7)
    for given in (groups, groups.tolist(), groups.astype(np.uint8)):
        found = assign_groups(GAME, given)
        np.testing.assert_array_equal(found, groups)
        assert found.dtype == np.int32


@pytest.mark.parametrize("count", [2, 5, 16, N - 1])
def test_clusters(count):
    groups = assign_groups(GAME, count)
    assert groups.shape == (N,)
    np.testing.assert_array_equal(np.unique(groups), np.arange(count))
    np.testing.assert_array_equal(groups, assign_groups(GAME, count))


def between_clusters(groups: np.ndarray, points: np.ndarray) -> float:
    """Share of the variance that the clusters explain."""
    points = (points - points.mean(0)) / points.std(0)
    means = np.stack([points[groups == g].mean(0) for g in np.unique(groups)])
    return 1 - ((points - means[groups]) ** 2).sum() / (points**2).sum()


def test_clusters_join_similar_agents():
    points = np.asarray(GAME.agent_features)
    explained = between_clusters(assign_groups(GAME, 8), points)
    by_chance = between_clusters(np.arange(N) % 8, points)
    assert explained > 0.6
    assert by_chance < 0.3


def test_of_very_many_agents_some_are_clustered(monkeypatch):
    """As good as all, to a hundredth; and nobody is left out."""
    game = cn.games.SIS.sample(jax.random.key(1), num_agents=4000)
    points = np.asarray(game.agent_features)
    explained = between_clusters(assign_groups(game, 8), points)
    monkeypatch.setattr(grouping, "_CLUSTERED", 500)
    of_some = assign_groups(game, 8)
    np.testing.assert_array_equal(np.unique(of_some), np.arange(8))
    np.testing.assert_array_equal(of_some, assign_groups(game, 8))
    assert between_clusters(of_some, points) > explained - 0.02
    nearly_alike = cn.games.SIS(np.repeat([0.5, 0.6], 2000), np.full(4000, 0.3), np.full(4000, 0.5))
    with pytest.raises(ValueError, match=r"2 differ in their parameters, of 500 drawn from 4000"):
        assign_groups(nearly_alike, 3)


def test_parameters_are_standardised():
    """Types differ clearly in two narrow parameters; a wide and noisy one must not drown them."""
    kinds = np.repeat([0, 1, 2], N // 3)
    noise = np.random.default_rng(1).uniform(-1, 1, N)
    game = cn.games.SIS(
        susceptibility=0.5 + 0.001 * kinds, recovery=0.3 + 0.01 * kinds,
        isolation_aversion=0.3 + 0.2 * kinds + 0.3 * noise,
    )  # fmt: skip
    groups = assign_groups(game, 3)
    for kind in range(3):
        assert len(np.unique(groups[kinds == kind])) == 1
    assert len(np.unique(groups)) == 3


@pytest.mark.parametrize(
    ("groups", "text"),
    [
        (0, f"groups must be between 1 and the number of agents {N}, not 0"),
        (-2, f"groups must be between 1 and the number of agents {N}, not -2"),
        (N + 1, f"groups must be between 1 and the number of agents {N}, not {N + 1}"),
        ("symetric", "'symmetric', 'independent', an integer or an array: 'symetric'"),
        (2.0, "groups must be integers, not float64 (2.0)"),
        (True, "groups must be integers, not bool (True)"),
        (None, "groups must be integers"),
        (np.zeros(N), "groups must be integers, not float64"),
        (np.zeros(N - 1, int), f"groups must have one entry an agent, [{N}], not [{N - 1}]"),
        (np.zeros((N, 1), int), f"groups must have one entry an agent, [{N}], not [{N}, 1]"),
        (np.arange(N) % 2 * 2, "must use every number 0..G-1: it uses 2 numbers from 0 to 2"),
        (np.arange(N) % 2 - 1, "must use every number 0..G-1: it uses 2 numbers from -1 to 0"),
        (np.arange(N) % 2 + 1, "must use every number 0..G-1: it uses 2 numbers from 1 to 2"),
    ],
)  # fmt: skip
def test_bad_groups(groups, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        assign_groups(GAME, groups)


def test_too_few_different_agents():
    half = np.repeat([0.2, 0.4], 5)
    game = cn.games.SIS(half, half, half)
    np.testing.assert_array_equal(np.unique(assign_groups(game, 2)), [0, 1])
    with pytest.raises(ValueError, match="groups=3 needs as many different agents: 2 differ"):
        assign_groups(game, 3)
    same = cn.games.SIS(*[np.full(4, 0.5)] * 3)
    with pytest.raises(ValueError, match="groups=2 needs as many different agents: 1 differ"):
        assign_groups(same, 2)


@pytest.mark.parametrize("game", [DriftByLaw(), DriftSimulator()])
def test_games_without_features(game):
    with pytest.raises(
        ValueError, match=f"groups=2 needs game.agent_features .*{type(game).__name__}"
    ):
        assign_groups(game, 2)
    np.testing.assert_array_equal(assign_groups(game, "symmetric"), np.zeros(4))
    np.testing.assert_array_equal(assign_groups(game, [1, 0, 1, 0]), [1, 0, 1, 0])
