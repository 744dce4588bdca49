"""What games on a ring, a line or a torus share: moving about, and shunning crowds."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from crowdnash.checks import check_number


def shifted(
    position: Int[Array, ""], by: Int[Array, ""], size: int, *, ring: bool = True
) -> Int[Array, ""]:
    """`position + by` on 0..size-1, for |by| <= size.

    On a ring what leaves at one end comes back at the other; on a line it stays at the end.
    """
    moved = position + by
    if ring:
        return jnp.where(moved < 0, moved + size, jnp.where(moved >= size, moved - size, moved))
    return jnp.clip(moved, 0, size - 1)


def landing(
    targets: Sequence[Int[Array, ""]], weights: Sequence[Float[Array, ""]], num_positions: int
) -> Float[Array, " S"]:
    """Distribution over positions that puts `weights` (of sum 1) on `targets`."""
    positions = jnp.arange(num_positions, dtype=jnp.int32)
    probs = jnp.where(positions == targets[0], weights[0], 0.0)
    for target, weight in zip(targets[1:], weights[1:], strict=True):
        probs = probs + jnp.where(positions == target, weight, 0.0)
    return probs


def log_crowding(share: Float[Array, "..."], least_share: float) -> Float[Array, "..."]:
    """-log(share), continued below `least_share` e along its tangent there, so finite at 0.

    phi(u) = -log(max(u, e)) + max(0, 1 - u/e): the published games' -log(u) for u >= e, and
    1 - log(e) at u = 0. It is convex, decreasing and continuously differentiable, with modulus
    1/e, so a game that is monotone with -log(u) stays so. Among N agents a place where nobody
    else is must have a finite reward; log(u + e), the other common choice, would change the
    reward everywhere.
    """
    return -jnp.log(jnp.maximum(share, least_share)) + jnp.maximum(0.0, 1.0 - share / least_share)


def check_least_share(least_share: float) -> None:
    """Raise `ValueError` unless 0 < least_share <= 1."""
    check_number("least_share", least_share, above=0, most=1)
