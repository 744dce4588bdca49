"""The grid of empirical distributions and piecewise-linear interpolation on it.

K others over X pairs have C(K+X-1, X-1) count vectors. They are numbered through their partial
sums u_1 <= .. <= u_{X-1} (u_m others in the first m pairs): number = sum_m C(u_m + m - 1, m).
In these coordinates the simplex is an ordered cone, which Kuhn's triangulation of the integer
lattice cuts into simplices exactly; interpolation is affine on each of them.

Axes: X pairs (state, action), n grid points.
"""

import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


class GridCell(NamedTuple):
    """The grid points, [X] numbers, around a distribution and their weights, [X], sum 1."""

    numbers: Int[Array, " X"]
    weights: Float[Array, " X"]


def grid_size(num_pairs: int, total: int) -> int:
    """How many ways `total` others can be spread over `num_pairs` pairs: C(K+X-1, X-1)."""
    return math.comb(total + num_pairs - 1, num_pairs - 1)


def grid_counts(num_pairs: int, total: int) -> Int[np.ndarray, "n X"]:
    """All count vectors of `total` others, in the order of their numbers."""
    sums = itertools.combinations_with_replacement(range(total + 1), num_pairs - 1)
    partial = np.array(list(sums), np.int64).reshape(grid_size(num_pairs, total), num_pairs - 1)
    bounds = np.pad(partial, ((0, 0), (1, 1)))
    bounds[:, -1] = total
    counts = np.diff(bounds, axis=1)
    return counts[np.argsort(grid_numbers(counts))]


def grid_numbers(counts: Int[np.ndarray, "T X"]) -> Int[np.ndarray, " T"]:
    """Number of each count vector; all must have the same total."""
    num_pairs = counts.shape[1]
    partial = counts.cumsum(1)[:, :-1]
    total = int(counts[0].sum()) if len(counts) else 0
    order = np.arange(num_pairs - 1)
    return _binomials(num_pairs, total)[partial + order, order].sum(1)


def grid_cell(distribution: Float[Array, " X"], total: int) -> GridCell:
    """The cell of the triangulation in which a distribution over pairs lies.

    Differentiable in the weights almost everywhere. Coordinates that rounding has pushed out of
    order or over the edge are put back; the caller checks that it is a distribution.
    """
    num_pairs = distribution.shape[0]
    sums = jax.lax.cummax(jnp.cumsum(distribution)[:-1])
    scaled = jnp.clip(total * sums, 0.0, total)
    base = jnp.floor(scaled)
    beyond = scaled - base
    # The largest remainder moves first. Of equal ones the last: the order of the sums is kept.
    order = num_pairs - 2 - jnp.argsort(-beyond[::-1], stable=True)
    rank = jnp.argsort(order)
    moved = jnp.arange(num_pairs)[:, None] > rank[None, :]
    vertices = jnp.minimum(base.astype(jnp.int32) + moved, total)  # [X,X-1]
    index = jnp.arange(num_pairs - 1)
    binomials = jnp.asarray(_binomials(num_pairs, total), jnp.int32)
    numbers = binomials[vertices + index, index].sum(1, dtype=jnp.int32)
    sorted_beyond = beyond[order]
    one, zero = jnp.ones(1, scaled.dtype), jnp.zeros(1, scaled.dtype)
    weights = jnp.concatenate([one, sorted_beyond]) - jnp.concatenate([sorted_beyond, zero])
    return GridCell(numbers, weights)


def interpolate_on_grid(
    table: Float[Array, "n *shape"], distribution: Float[Array, " X"], total: int
) -> Float[Array, "*shape"]:
    """Piecewise-linear interpolation of values at all grid points (`grid_counts`' order).

    A convex combination of at most X values; it interpolates, is continuous, reproduces affine
    functions, and interpolates a function of one pair's count linearly in that count. If moving
    one of the K others changes the values by at most c, the result changes by at most
    K (X-1) c / 2 times the L1 distance: X-1 times what the data show, unlike Kirszbraun's.
    """
    cell = grid_cell(distribution, total)
    return jnp.tensordot(cell.weights.astype(table.dtype), table[cell.numbers], axes=1)


def interpolate_own_count(
    values: Float[Array, " N"], share: Float[Array, "*B"]
) -> Float[Array, "*B"]:
    """A congestion game's h(1), .., h(N) at the share u of the others in one's own pair (D.1).

    Agent i itself is in the pair, so the count is k = 1 + (N-1) u in [1,N]; linear between
    integers, with modulus (N-1) max_k |h(k+1) - h(k)| in u. (The paper interpolates at N u, with
    weights that vanish at integers.) It is what `interpolate_on_grid` gives for such values.

    Args:
        values: h at the counts 1..N.
        share: In [0,1].
    """
    last = values.shape[0] - 1
    others = last * jnp.asarray(share)
    low = jnp.clip(jnp.floor(others), 0, last).astype(jnp.int32)
    weight = others - low
    return (1.0 - weight) * values[low] + weight * values[jnp.minimum(low + 1, last)]


def _binomials(num_pairs: int, total: int) -> np.ndarray:
    """C(v, m+1) at [v,m] for v up to total + X - 2 and m = 0..X-2."""
    rows = range(total + num_pairs - 1)
    table = [[math.comb(v, m + 1) for m in range(num_pairs - 1)] for v in rows]
    return np.array(table, np.int64).reshape(len(table), num_pairs - 1)
