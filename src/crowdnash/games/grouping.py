"""Which agents share a policy: one group, N groups, k-means on parameters, or a map by hand."""

from typing import Any, Literal

import numpy as np
from jax.core import Tracer
from jaxtyping import Float, Int
from scipy.cluster.vq import ClusterError, kmeans2, vq

from crowdnash.checks import as_array, check_instance
from crowdnash.games.base import DynamicGame

Groups = Literal["symmetric", "independent"] | int | Any
"""How to group: a name, a number of clusters G, or an integer array [N] -> 0..G-1."""

_KMEANS_ATTEMPTS = 10
_CLUSTERED = 65_536
"""Of more agents, so many drawn at random, or eight a group, are clustered: k-means on ten million
would take half an hour. The others join the nearest centre."""


def assign_groups(game: DynamicGame, groups: Groups) -> Int[np.ndarray, " N"]:
    """Each agent's group, [N] -> 0..G-1, every group non-empty.

    Args:
        game: whose agents are grouped.
        groups: "symmetric" (one group, Symm-PMD), "independent" (G = N, IPMD), an integer G
            (k-means on the standardised `game.agent_features`), or a map [N].

    Raises:
        ValueError: naming the rule that `groups` breaks.
    """
    check_instance("game", game, DynamicGame)
    n = game.num_agents
    if isinstance(groups, str):
        if groups not in ("symmetric", "independent"):
            raise ValueError(
                f"groups must be 'symmetric', 'independent', an integer or an array: {groups!r}"
            )
        return np.zeros(n, np.int32) if groups == "symmetric" else np.arange(n, dtype=np.int32)
    array = as_array("groups", groups, integers=True)
    return _clusters(game, int(array)) if array.ndim == 0 else check_group_map(array, n)


def check_group_map(groups: Any, num_agents: int) -> Int[np.ndarray, " N"]:
    """A map [N] -> 0..G-1 as an array; `ValueError` unless it is one and no group is empty."""
    array = np.asarray(as_array("groups", groups, integers=True))
    if array.shape != (num_agents,):
        raise ValueError(
            f"groups must have one entry an agent, [{num_agents}], not {list(array.shape)}"
        )
    present = np.unique(array)
    if present[0] < 0 or present[-1] != len(present) - 1:
        raise ValueError(
            "groups must use every number 0..G-1: it uses "
            f"{len(present)} numbers from {present[0]} to {present[-1]}"
        )
    return array.astype(np.int32)


def first_unlike(groups: Any, values: Any) -> tuple[int, int, int] | None:
    """Two agents of one group with different values [N,...]: both, and the group; None if none are.

    The one is its group's first agent.
    """
    groups, values = np.asarray(groups), np.asarray(values)
    _, first = np.unique(groups, return_index=True)
    differs = (values != values[first][groups]).reshape(len(groups), -1).any(1)
    if not differs.any():
        return None
    agent = int(np.argmax(differs))
    group = int(groups[agent])
    return int(first[group]), agent, group


def check_group_numbers(groups: Any, num_groups: int) -> None:
    """Raise `ValueError` unless `groups` [N] are numbers of 0..G-1; a group may be left out."""
    array = groups if isinstance(groups, Tracer) else np.atleast_1d(np.asarray(groups))
    if np.ndim(groups) != 1 or array.shape[0] == 0:
        raise ValueError(f"groups must have shape [N], N >= 1, not {np.shape(groups)}")
    as_array("groups", groups, integers=True)
    if isinstance(array, Tracer):
        return
    wrong = (array < 0) | (array >= num_groups)
    if wrong.any():
        raise ValueError(
            f"groups must lie in 0..{num_groups - 1} (probs has G groups): {array[wrong][0]}"
        )


def standardised_features(game: DynamicGame) -> Float[np.ndarray, "N d"] | None:
    """`game.agent_features` with mean 0 and variance 1 over the agents, constant columns left out.

    None if the game has no features.
    """
    if game.agent_features is None:
        return None
    points = np.asarray(game.agent_features, np.float64)
    varying = points.std(0) > 0
    return (points[:, varying] - points[:, varying].mean(0)) / points[:, varying].std(0)


def _clusters(game: DynamicGame, count: int) -> Int[np.ndarray, " N"]:
    n = game.num_agents
    if not 1 <= count <= n:
        raise ValueError(f"groups must be between 1 and the number of agents {n}, not {count}")
    if count == 1:
        return np.zeros(n, np.int32)
    if count == n:
        return np.arange(n, dtype=np.int32)
    points = standardised_features(game)
    if points is None:
        raise ValueError(
            f"groups={count} needs game.agent_features to cluster by; "
            f"{type(game).__name__} has none: give an array [N] instead"
        )
    size = max(_CLUSTERED, 8 * count)
    some = points if n <= size else points[np.random.default_rng(0).choice(n, size, replace=False)]
    distinct = len(np.unique(some, axis=0)) if some.shape[1] else 1
    if distinct < count:
        among = "" if some is points else f", of {size} drawn from {n}"
        raise ValueError(
            f"groups={count} needs as many different agents: {distinct} differ in their "
            f"parameters{among}"
        )
    labels, centres = _kmeans(some, count)
    if some is points:
        return labels
    labels = vq(points, centres)[0].astype(np.int32)
    if np.bincount(labels, minlength=count).min() == 0:
        raise ValueError(f"groups={count}: a cluster is empty; ask for fewer groups")
    return labels


def _kmeans(points: np.ndarray, count: int) -> tuple[Int[np.ndarray, " n"], np.ndarray]:
    """Best of several k-means++ runs with no empty cluster, and its centres; deterministic."""
    best, least = None, np.inf
    for seed in range(_KMEANS_ATTEMPTS):
        try:
            centres, labels = kmeans2(points, count, minit="++", rng=seed, missing="raise")
        except ClusterError:
            continue
        spread = float(((points - centres[labels]) ** 2).sum())
        if spread < least and len(np.unique(labels)) == count:
            best, least = (labels.astype(np.int32), centres), spread
    if best is None:
        raise ValueError(
            f"groups={count}: k-means left a cluster empty in {_KMEANS_ATTEMPTS} attempts; "
            "ask for fewer groups or give an array [N]"
        )
    return best
