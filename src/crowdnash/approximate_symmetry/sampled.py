"""A lower end of alpha and beta (Def. 7) for any `TabularGame`, from random queries of its law.

Axes: N agents, n of them queried, B permutations of the others, X = S*A pairs, D = S + 1 numbers
of one law (transition, then reward).
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from crowdnash.approximate_symmetry.deviation import search_populations
from crowdnash.approximate_symmetry.enumerated import QueryStudy, deviation_at
from crowdnash.games.base import TabularGame
from crowdnash.games.double_precision import as_double
from crowdnash.mean_field.queries import query_laws

_MAX_QUERIED = 100_000_000
_MAX_AGENTS = 32


class _Estimate(NamedTuple):
    """One law at one population: deviation as selected, on fresh queries, its error and place."""

    selected: float
    fresh: float
    error: float
    place: tuple[Any, ...]
    others: np.ndarray


def sample_laws(
    game: TabularGame,
    groups: Int[np.ndarray, " N"],
    num_populations: int,
    num_permutations: int,
    seed: int,
) -> QueryStudy:
    """A lower end of alpha and beta from random queries, with standard errors.

    At each random population the agent, pair and assignment that deviate most from the mean law
    are picked on one half of the queries, with the signs of the difference; the other half
    estimates the mean law anew. Fixed signs make that estimate unbiased for a quantity that is at
    most the deviation, so nothing is gained by picking.
    """
    game = as_double(game)
    rng = np.random.default_rng(seed)
    n, pairs = game.num_agents, game.num_states * game.num_actions
    num_groups = int(groups.max()) + 1
    once = min(n, _MAX_AGENTS) * num_permutations * n * pairs
    rounds = int(np.clip(_MAX_QUERIED // once, 1, max(1, num_populations // num_groups)))
    best: list[list[_Estimate | None]] = [[None] * num_groups for _ in range(2)]
    low, high = np.inf, -np.inf
    for k in range(rounds):
        for g in range(num_groups):
            step = int(rng.integers(game.horizon)) if k else 0
            halves = _two_halves(game, groups, g, num_permutations, step, rng)
            for values in (halves[0][2], halves[1][2]):
                low, high = min(low, values[..., -1].min()), max(high, values[..., -1].max())
            for law in range(2):
                estimate = _judge(halves, law, step)
                old = best[law][g]
                if old is None or estimate.selected > old.selected:
                    best[law][g] = estimate
    return _study_of(game, best, (float(low), float(high)))


def _study_of(
    game: TabularGame, best: list[list[_Estimate | None]], reward_range: tuple[float, float]
) -> QueryStudy:
    ends, errors, places = [], [], []
    for by_group in best:
        estimates = [e for e in by_group if e is not None]
        assert len(estimates) == len(by_group)
        top = max(estimates, key=lambda e: e.selected)
        places.append(deviation_at(game, max(top.fresh, 0.0), top.place, top.others))
        ends.append(np.array([max(e.fresh, 0.0) for e in estimates]))
        errors.append(top.error)
    return QueryStudy(
        ends[0],
        ends[1],
        (places[0], places[1]),
        reward_range,
        standard_errors=(errors[0], errors[1]),
    )


Half = tuple[np.ndarray, np.ndarray, np.ndarray]


def _two_halves(
    game: TabularGame,
    groups: np.ndarray,
    group: int,
    num_permutations: int,
    step: int,
    rng: np.random.Generator,
) -> list[Half]:
    """Twice: agents [n], the others' pairs [n,B,N-1] and laws [n,B,X,D], at one population."""
    n, pairs = game.num_agents, game.num_states * game.num_actions
    members = np.flatnonzero(groups == group)
    sizes = np.bincount(groups) - (np.arange(groups.max() + 1) == group)
    corners = np.eye(pairs)
    lists = []
    for size in sizes:
        drawn = search_populations(pairs, max(int(size), 1), 3, int(rng.integers(2**31)), corners)
        counts = np.rint(drawn[rng.integers(len(drawn))] * size).astype(int)
        lists.append(np.repeat(np.arange(pairs), counts))
    halves = []
    for _ in range(2):
        agents = members
        if len(members) > _MAX_AGENTS:
            agents = np.sort(rng.choice(members, _MAX_AGENTS, replace=False))
        others = np.empty((len(agents), max(1, num_permutations // 2), n - 1), int)
        for k, agent in enumerate(agents):
            label = np.delete(groups, agent)
            for row in others[k]:
                for g, content in enumerate(lists):
                    row[label == g] = rng.permutation(content)
        values = [query_laws(game, int(i), step, o) for i, o in zip(agents, others, strict=True)]
        halves.append((agents, others, np.stack(values)))
    return halves


def _judge(halves: list[Half], law: int, step: int) -> _Estimate:
    part: Any = slice(None, -1) if law == 0 else slice(-1, None)
    (agents, others, first), (_, _, second) = halves
    first, second = first[..., part], second[..., part]
    mean = first.mean((0, 1))
    apart = np.abs(first - mean).sum(-1)
    k, b, x = np.unravel_index(int(apart.argmax()), apart.shape)
    signs = np.sign(first[k, b, x] - mean[x])
    draws = (second[:, :, x] * signs).sum(-1)  # [n,B]
    fresh = float((first[k, b, x] * signs).sum() - draws.mean())
    error = _error_of_mean(draws)
    return _Estimate(float(apart.max()), fresh, error, (agents[k], x, step), others[k, b])


def _error_of_mean(draws: Float[np.ndarray, "n B"]) -> float:
    """Standard error of the mean of draws by agents that were sampled themselves.

    Conservative if the agents are all there are: differences between them are then no error.
    """
    if len(draws) > 1:
        return float(draws.mean(1).std(ddof=1) / len(draws) ** 0.5)
    return float(draws.std(ddof=1) / draws.size**0.5) if draws.size > 1 else float("inf")
