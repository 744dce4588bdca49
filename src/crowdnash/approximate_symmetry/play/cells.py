"""The cells (s,a) of trajectories: one group's visits to each, whole and by halves.

Axes: M trajectories, n agents of one group, V visits, R rows of bins (see `played_laws`), D numbers
of a law.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from crowdnash.approximate_symmetry.play.laws import (
    PooledLaw,
    Visits,
    bins_of,
    cells,
    pooled_law,
    visits_seen,
)
from crowdnash.approximate_symmetry.play.moduli import CellLaw


class Sizes(NamedTuple):
    """Numbers of states, actions and bins, and visits that an agent needs to be compared.

    `num_outcomes` of a move is S, or S + 1 where agents may leave.
    """

    num_states: int
    num_actions: int
    num_outcomes: int
    num_bins: int
    min_visits: int


class PlayedCell(NamedTuple):
    """One group's visits to one pair in a window of steps (`step` -1: all)."""

    group: int
    members: Int[np.ndarray, " n"]
    pair: int
    step: int
    law: str
    visits: Visits
    seen: Bool[np.ndarray, "R n"]
    scale: float
    num_trajectories: int

    def half(self, which: int) -> "Part":
        """The visits of one half of the trajectories, and the group's law from them."""
        mine, count = self.visits.of_half(which), (self.num_trajectories + 1 - which) // 2
        if not len(mine.agent):
            return Part(mine, None, count)
        return Part(mine, pooled_law(mine, len(self.members), count), count)

    def all(self) -> "Part":
        """All visits."""
        law = pooled_law(self.visits, len(self.members), self.num_trajectories)
        return Part(self.visits, law, self.num_trajectories)


class Part(NamedTuple):
    """Some of a cell's visits, and the law they show (None: no visits)."""

    visits: Visits
    law: PooledLaw | None
    num_trajectories: int

    def residuals(self) -> Float[np.ndarray, "V D"]:
        """What the group's affine law leaves of every visit."""
        assert self.law is not None
        return self.visits.values - self.law.at(self.visits.populations)[self.visits.row]


def played_cells(
    play: Any, index: np.ndarray, step: int, window: slice, sizes: Sizes
) -> Iterator[PlayedCell]:
    """Every visited cell of every group, its transitions and its rewards by themselves."""
    others = play.pairs.shape[2] - 1
    counts = play.counts[:, window]
    length = counts.shape[1]
    counts = counts.reshape(-1, counts.shape[-1])
    scale = float(np.abs(play.rewards).max())
    for g in range(int(index.max()) + 1):
        members = np.flatnonzero(index == g)
        pairs = play.pairs[:, window][:, :, members]
        after = play.next_states[:, window][:, :, members].ravel()
        rewards = play.rewards[:, window][:, :, members].ravel()
        for x, where in cells(pairs, counts.shape[1]):
            row, agent = np.divmod(where, len(members))
            populations = (counts - np.eye(counts.shape[1])[x]) / others
            for law in ("transition", "reward"):
                kept = after[where] >= 0 if law == "transition" else np.ones(len(where), bool)
                if not kept.any():
                    continue
                r, a, at = row[kept], agent[kept], where[kept]
                if law == "transition":
                    values = np.eye(sizes.num_outcomes)[after[at]]
                else:
                    values = rewards[at][:, None]
                weights = np.bincount(r, minlength=len(populations)).astype(float)
                place = bins_of(populations, weights, sizes.num_bins)[r]
                visits = Visits(a, r // length, r, place, values, populations)
                enough = visits_seen(
                    visits.of_half(0), len(members), sizes.num_bins, sizes.min_visits
                )
                size = 1.0 if law == "transition" else scale
                yield PlayedCell(g, members, x, step, law, visits, enough, size, len(play.pairs))


def law_of(cell: PlayedCell, first: PooledLaw | None, second: PooledLaw | None) -> CellLaw:
    """What the moduli are read off: the law on both halves."""
    populations = cell.visits.populations
    weights = np.bincount(cell.visits.row, minlength=len(populations)).astype(float)
    return CellLaw(cell.group, cell.step, cell.pair, cell.law, first, second, populations, weights)
