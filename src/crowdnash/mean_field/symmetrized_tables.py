"""Symmetrization and lifting of a function in a table (Def. 3).

Axes: K arguments, each one of X pairs; T = X^K profiles; n points of the grid of empirical
distributions; D the shape of the values.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from crowdnash.checks import as_array, check_count
from crowdnash.mean_field.simplex_grid import grid_counts, grid_numbers, grid_size

_SYMMETRY_TOLERANCE = 1e-6


class LiftedTable(NamedTuple):
    """A symmetric function on the grid: `counts` [n,X], `values` [n,*D]."""

    counts: Int[np.ndarray, "n X"]
    values: Float[np.ndarray, "n ..."]


def symmetrize_table(table: Any, num_arguments: int) -> Float[np.ndarray, "..."]:
    """Sym(f)(x) = (1/K!) sum_g f(g(x)) of a function in a table (Def. 3).

    Args:
        table: [X]*K + [*D], f at every (x_1, .., x_K) with values of any shape.
        num_arguments: K >= 1.

    Returns:
        A table of the same shape, float64.

    Raises:
        ValueError: The first K axes are not of one size X.
    """
    values = _checked_table(table, num_arguments)
    num_pairs = values.shape[0]
    profiles = all_profiles(num_pairs, num_arguments)
    numbers = grid_numbers(count_pairs(profiles, num_pairs))
    size = grid_size(num_pairs, num_arguments)
    flat = values.reshape(len(profiles), -1)
    return (averaging_matrix(numbers, size) @ flat)[numbers].reshape(values.shape)


def lift_table(table: Any, num_arguments: int) -> LiftedTable:
    """A symmetric function's table [X]*K + [*D] as one on the grid of empirical distributions.

    Raises:
        ValueError: The table is not symmetric (to 1e-6 of its largest entry): pass it through
            `symmetrize_table` first; or its shape is wrong.
    """
    values = _checked_table(table, num_arguments)
    difference = np.abs(values - symmetrize_table(values, num_arguments))
    if difference.max() > _SYMMETRY_TOLERANCE * max(1.0, np.abs(values).max()):
        where = np.unravel_index(int(difference.argmax()), values.shape)[:num_arguments]
        raise ValueError(
            f"table must be symmetric in its {num_arguments} arguments; at "
            f"{tuple(int(x) for x in where)} it differs from its mean over their permutations by "
            f"{difference.max():.3g}: symmetrize_table makes it symmetric"
        )
    counts = grid_counts(values.shape[0], num_arguments)
    ordered = [tuple(np.repeat(np.arange(len(row)), row)) for row in counts]
    return LiftedTable(counts, np.array([values[x] for x in ordered]))


def all_profiles(num_pairs: int, num_arguments: int) -> Int[np.ndarray, "T K"]:
    """All of X^K, in the order of a table's entries."""
    return np.indices((num_pairs,) * num_arguments).reshape(num_arguments, -1).T


def count_pairs(profiles: Int[np.ndarray, "T K"], num_pairs: int) -> Int[np.ndarray, "T X"]:
    """How often each pair occurs in each profile."""
    return np.stack([(profiles == x).sum(1) for x in range(num_pairs)], axis=1)


def averaging_matrix(numbers: Int[np.ndarray, " T"], size: int) -> sparse.csr_matrix:
    """The matrix [n,T] that takes the mean of the rows with each number."""
    weights = 1.0 / np.bincount(numbers, minlength=size)[numbers]
    return sparse.csr_matrix((weights, (numbers, np.arange(len(numbers)))), (size, len(numbers)))


def num_arrangements(counts: np.ndarray) -> int:
    """Distinct orders of a multiset: the multinomial coefficient."""
    orders = math.factorial(int(counts.sum()))
    return orders // math.prod(math.factorial(int(c)) for c in counts)


def arrangements(counts: np.ndarray) -> Iterator[tuple[int, ...]]:
    """The distinct orders themselves; `counts` is used as scratch space and restored."""
    if not counts.any():
        yield ()
    for pair in np.flatnonzero(counts):
        counts[pair] -= 1
        for rest in arrangements(counts):
            yield (int(pair), *rest)
        counts[pair] += 1


def _checked_table(table: Any, num_arguments: int) -> np.ndarray:
    values = np.asarray(as_array("table", table), np.float64)
    check_count("num_arguments", num_arguments, 1)
    lead = values.shape[:num_arguments]
    if len(lead) < num_arguments or len(set(lead)) != 1 or values.size == 0:
        raise ValueError(
            f"table must have {num_arguments} leading axes of one size X, "
            f"not shape {list(values.shape)}"
        )
    return values
