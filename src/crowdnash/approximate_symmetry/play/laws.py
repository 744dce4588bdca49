"""Agents' laws read off trajectories, cell by cell, with errors clustered by trajectory.

All agents of a cell (s,a) at one step of one trajectory meet the same population sigma(rho^-i).
Here are the two estimates that `symmetry_from_play` compares: the pooled law of a group in a
cell, affine in the population, and every agent's own mean distance from it in each bin of
populations. Trajectories are independent, so an estimate's variance is the sum over trajectories
of the square of what each contributes to its error, whatever happens within a trajectory.

Axes: M trajectories, N agents (of one group), V visits, K bins of populations, R = K + 1 bins and
all of them together, P populations (one for each trajectory and step), X = S*A pairs, D numbers of
a law (S for transitions, 1 for rewards).
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

_FEW = 1e-6
_ROUNDING = float(np.finfo(np.float32).eps)


class Visits(NamedTuple):
    """What happened to agents of one group in one cell: who, when, and what followed.

    `row` is the number of the population there, `place` its bin; `values` are next states as
    one-hot rows, or rewards. `populations` [P,X] are all of them, the agent's own share left out.
    """

    agent: Int[np.ndarray, " V"]
    trajectory: Int[np.ndarray, " V"]
    row: Int[np.ndarray, " V"]
    place: Int[np.ndarray, " V"]
    values: Float[np.ndarray, "V D"]
    populations: Float[np.ndarray, "P X"]

    def of_half(self, half: int) -> "Visits":
        """Those of the trajectories 0, 2, 4, .. or 1, 3, 5, .., renumbered."""
        mine = self.trajectory % 2 == half
        agent, trajectory, row, place, values = (x[mine] for x in self[:5])
        return Visits(agent, trajectory // 2, row, place, values, self.populations)


class PooledLaw(NamedTuple):
    """The mean of a group's laws in one cell: y = mean + (mu - centre) . slope.

    `mean_error` [M,D] and `slope_error` [M,X,D] are what each trajectory adds to the errors of
    `mean` and `slope`. Directions in which populations did not move have slope 0.
    """

    centre: Float[np.ndarray, " X"]
    mean: Float[np.ndarray, " D"]
    slope: Float[np.ndarray, "X D"]
    mean_error: Float[np.ndarray, "M D"]
    slope_error: Float[np.ndarray, "M X D"]

    def at(self, populations: Float[np.ndarray, "P X"]) -> Float[np.ndarray, "P D"]:
        """The law at some populations."""
        return self.mean + (populations - self.centre) @ self.slope

    def errors_at(self, populations: Float[np.ndarray, "K X"]) -> Float[np.ndarray, "K M D"]:
        """What each trajectory adds to the error of the law at some populations."""
        moved = np.einsum("kx,mxd->kmd", populations - self.centre, self.slope_error)
        return self.mean_error + moved


def pooled_law(visits: Visits, num_agents: int, num_trajectories: int) -> PooledLaw:
    """Least squares over all visits of the group, with a level for every agent.

    The levels keep out who is there: agents that the crowd brings here more often would else
    bend the law. `mean` is over the agents that were here, each of the same weight.
    """
    agent, row = visits.agent, visits.row
    count = np.bincount(agent, minlength=num_agents)
    number = np.maximum(count, 1)[:, None]
    share = (count > 0) / (count > 0).sum()
    populations = visits.populations[row]
    own_populations = _sums(agent, populations, num_agents) / number
    own = _sums(agent, visits.values, num_agents) / number
    moved = populations - own_populations[agent]
    inverse = np.linalg.pinv(moved.T @ moved, rcond=_FEW, hermitian=True)
    slope = inverse @ (moved.T @ (visits.values - own[agent]))
    centre = share @ own_populations
    left = visits.values - own[agent] - moved @ slope
    mean_error = _sums(
        visits.trajectory, left * (share / number[:, 0])[agent, None], num_trajectories
    )
    pushed = np.stack(
        [_sums(visits.trajectory, moved * column[:, None], num_trajectories) for column in left.T],
        2,
    )
    return PooledLaw(centre, share @ own, slope, mean_error, inverse @ pushed)


def _sums(
    index: Int[np.ndarray, " V"], values: Float[np.ndarray, "V C"], size: int
) -> Float[np.ndarray, "size C"]:
    return np.stack([np.bincount(index, column, size) for column in values.T], 1)


class Deviations(NamedTuple):
    """How far every agent's law is from the mean over the agents seen, in every bin."""

    value: Float[np.ndarray, "R N"]
    standard_error: Float[np.ndarray, "R N"]


def deviations(
    visits: Visits,
    residuals: Float[np.ndarray, " V"],
    seen: Bool[np.ndarray, "R N"],
    num_trajectories: int,
    scale: float,
) -> Deviations:
    """Mean residual of every agent `seen` less the mean of that over all agents here, by bin.

    The last row of `seen` is for all bins together.
    The error is at least what the residuals' variance pooled over agents gives: an agent to whom
    something rare happened not to happen would show none of its own. `scale` is the size of the
    numbers that the residuals were computed from, for their rounding.
    """
    rows, num_agents = seen.shape
    value, error = np.zeros(seen.shape), np.zeros(seen.shape)
    for k in range(rows):
        here = (visits.place == k) | (k == rows - 1)
        if not seen[k].any():
            continue
        cell = visits.agent[here] * num_trajectories + visits.trajectory[here]
        size = num_agents * num_trajectories
        shape = (num_agents, num_trajectories)
        count = np.bincount(cell, minlength=size).reshape(shape)
        total = np.bincount(cell, residuals[here], size).reshape(shape)
        number = np.maximum(count.sum(1), 1)
        mean = total.sum(1) / number
        present = count.sum(1) > 0
        share = present / present.sum()
        pushed = (total - mean[:, None] * count) / number[:, None]
        pushed = pushed - share @ pushed
        spare = num_trajectories / (num_trajectories - 1)
        clustered = spare * (pushed**2).sum(1)
        inner = (residuals[here] ** 2).sum() - (count.sum(1) * mean**2).sum()
        spare_visits = count.sum() - present.sum()
        pooled = max(inner, 0.0) / max(int(spare_visits), 1)
        if present.sum() == 1:  # nobody to compare with: the agent's law is the mean
            continue
        value[k] = np.where(present, mean - share @ mean, 0.0)
        error[k] = np.sqrt(np.maximum(clustered, pooled / number) + (_ROUNDING * scale) ** 2)
        error[k] = np.where(present, error[k], np.inf)
    return Deviations(np.where(seen, value, 0.0), np.where(seen, error, 0.0))


def visits_seen(
    visits: Visits, num_agents: int, num_bins: int, least: int
) -> Bool[np.ndarray, "R N"]:
    """Which agents have `least` visits in a bin; last row: in all bins together."""
    cell = visits.place * num_agents + visits.agent
    count = np.bincount(cell, minlength=num_bins * num_agents).reshape(num_bins, num_agents)
    return np.concatenate([count, count.sum(0, keepdims=True)]) >= least


def bins_of(
    populations: Float[np.ndarray, "P X"], weights: Float[np.ndarray, " P"], num_bins: int
) -> Int[np.ndarray, " P"]:
    """Bins of equal weight along the direction in which populations differ most."""
    directions = main_directions(populations, weights)
    if not len(directions):
        return np.zeros(len(populations), int)
    along = populations @ directions[0]
    order = np.argsort(along, kind="stable")
    below = np.cumsum(weights[order]) - weights[order] / 2
    place = np.empty(len(populations), int)
    place[order] = np.minimum((below / weights.sum() * num_bins).astype(int), num_bins - 1)
    return place


def main_directions(
    populations: Float[np.ndarray, "P X"], weights: Float[np.ndarray, " P"]
) -> Float[np.ndarray, "Q X"]:
    """Principal directions of the populations, those they moved along most first."""
    share = weights / weights.sum()
    moved = populations - share @ populations
    values, vectors = np.linalg.eigh((moved * share[:, None]).T @ moved)
    kept = values > max(_FEW * values[-1], 1e-12)
    return vectors[:, kept].T[::-1]


def cells(
    pairs: Int[np.ndarray, "M H N"], num_pairs: int
) -> Iterator[tuple[int, Int[np.ndarray, " V"]]]:
    """Each pair with the flat indices of its visits."""
    order = np.argsort(pairs, axis=None, kind="stable")
    ends = np.searchsorted(pairs.ravel()[order], np.arange(num_pairs + 1))
    for x in range(num_pairs):
        yield x, order[ends[x] : ends[x + 1]]
