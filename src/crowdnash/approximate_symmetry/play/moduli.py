"""Lipschitz moduli of the groups' laws from trajectories, each a lower end with its error.

Laws are taken to be affine in the population. Every modulus is a maximum over candidates (pairs
of cells, or a cell and a direction in which populations moved); as in `symmetry_from_play` the
candidate and the signs are chosen on one half of the trajectories and evaluated on the other.

Axes: M trajectories, G groups, X = S*A pairs, K populations, D numbers of a law.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from crowdnash.approximate_symmetry.moduli import LipschitzModuli
from crowdnash.approximate_symmetry.play.laws import PooledLaw, bins_of, main_directions

_MOST_PAIRS = 16
_COVERED = 1e-6
_REACH = 3.0


class ModulusEstimate(NamedTuple):
    """Unbiased for a lower bound of the modulus; NaN if play shows nothing of it."""

    value: float
    standard_error: float


class PlayedModuli(NamedTuple):
    """As in `LipschitzModuli`, restricted to the populations of the play: L1, reward per step."""

    K_s: ModulusEstimate
    K_a: ModulusEstimate
    K_mu: ModulusEstimate
    L_s: ModulusEstimate
    L_a: ModulusEstimate
    L_mu: ModulusEstimate
    transition_spread: ModulusEstimate
    reward_spread: ModulusEstimate

    def as_lipschitz(self) -> LipschitzModuli:
        """The values, those below 0 or not known as 0; not exact."""
        known = {
            name: max(modulus.value, 0.0) if np.isfinite(modulus.value) else 0.0
            for name, modulus in self._asdict().items()
        }
        return LipschitzModuli(**known, exact=False)


class CellLaw(NamedTuple):
    """One law of a group in one cell, fitted on each half (None: not visited there).

    `populations` [P,X] are those of the cell's window, `weights` how often each occurred.
    """

    group: int
    step: int
    pair: int
    law: str
    first: PooledLaw | None
    second: PooledLaw | None
    populations: Float[np.ndarray, "P X"]
    weights: Float[np.ndarray, " P"]


class _Candidate(NamedTuple):
    """A difference of laws in both halves: value [D] and each trajectory's share of error [M,D]."""

    first: tuple[np.ndarray, np.ndarray]
    second: tuple[np.ndarray, np.ndarray]


def played_moduli(laws: list[CellLaw], num_actions: int, num_bins: int) -> PlayedModuli:
    """All moduli of Lemma 9 that trajectories show."""
    moduli = {}
    for law, letter in (("transition", "K"), ("reward", "L")):
        cells = [one for one in laws if one.law == law and one.first and one.second]
        for name, related, scale in (
            (f"{letter}_s", lambda x, y: x % num_actions == y % num_actions, 1.0),
            (f"{letter}_a", lambda x, y: x // num_actions == y // num_actions, 1.0),
            (f"{law}_spread", lambda x, y: True, 0.5),
        ):
            moduli[name] = _largest(_between_cells(cells, related, num_bins), scale)
        moduli[f"{letter}_mu"] = _largest(_along_populations(cells), 1.0)
    return PlayedModuli(**moduli)


def _between_cells(
    cells: list[CellLaw], related: Callable[[int, int], bool], num_bins: int
) -> Iterator[_Candidate]:
    """Differences between two cells of a group at the centres of the bins of populations."""
    for group, step in sorted({(one.group, one.step) for one in cells}):
        here = [one for one in cells if (one.group, one.step) == (group, step)]
        populations = here[0].populations
        weights = np.sum([one.weights for one in here], axis=0)
        place = bins_of(populations, weights, num_bins)
        centres = np.array(
            [
                np.average(populations[place == k], axis=0, weights=weights[place == k])
                for k in range(num_bins)
                if weights[place == k].sum() > 0
            ]
        )
        read = [[_read(fit, centres) for fit in (one.first, one.second)] for one in here]
        for i, one in enumerate(here):
            for j in range(i):
                if not related(one.pair, here[j].pair):
                    continue
                for k in range(len(centres)):
                    halves = (_less(read[i][half], read[j][half], k) for half in (0, 1))
                    yield _Candidate(*halves)


def _read(fit: PooledLaw | None, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    assert fit is not None  # played_moduli has seen to it
    return fit.at(centres), fit.errors_at(centres)


def _less(one: tuple, other: tuple, k: int) -> tuple[np.ndarray, np.ndarray]:
    return one[0][k] - other[0][k], one[1][k] - other[1][k]


def _along_populations(cells: list[CellLaw]) -> Iterator[_Candidate]:
    """How a law changes per unit (L1) of the directions in which populations moved."""
    for one in cells:
        assert one.first
        assert one.second
        for direction in _directions(one):
            unit = direction / np.abs(direction).sum()
            halves = (
                (unit @ fit.slope, np.einsum("x,mxd->md", unit, fit.slope_error))
                for fit in (one.first, one.second)
            )
            yield _Candidate(*halves)


def _directions(cell: CellLaw) -> Float[np.ndarray, "Q X"]:
    """Where populations moved most, and from one pair to another if that is covered by it."""
    moved = main_directions(cell.populations, cell.weights)
    size = cell.populations.shape[1]
    if size > _MOST_PAIRS:
        return moved
    vertices = np.eye(size)
    apart = np.array([vertices[x] - vertices[y] for x in range(size) for y in range(x)])
    covered = np.abs(apart - apart @ moved.T @ moved).max(1) < _COVERED
    return np.concatenate([moved, apart[covered]])


def _largest(candidates: Iterator[_Candidate], scale: float) -> ModulusEstimate:
    """Choose by the first half, with its noise taken off; evaluate on the second."""
    best, top = None, -np.inf
    for candidate in candidates:
        value, pushed = candidate.first
        score = float((np.abs(value) - _REACH * _error(pushed)).sum())
        if score > top:
            best, top = candidate, score
    if best is None:
        return ModulusEstimate(np.nan, np.nan)
    signs = np.where(best.first[0] >= 0, 1.0, -1.0)
    value, pushed = best.second
    error = float(_error((pushed @ signs)[:, None])[0])
    return ModulusEstimate(scale * float(value @ signs), scale * error)


def _error(pushed: Float[np.ndarray, "M D"]) -> Float[np.ndarray, " D"]:
    count = len(pushed)
    return np.sqrt(count / (count - 1) * (pushed**2).sum(0))
