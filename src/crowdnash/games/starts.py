"""Where agents start: all alike, or each by an initial distribution of its own.

Axes: N agents, n agents asked, S states.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from crowdnash.games.base import TabularGame


def start_of(game: TabularGame, agents: Int[Array, " n"]) -> Float[Array, "S *n"]:
    """rho_0: [S] for all agents alike, or [S,n] of these agents; float32."""
    initial = game.initial_distribution.astype(jnp.float32)
    return initial if initial.ndim == 1 else initial[agents].T


def mean_at_start(start: Any, values: Any) -> Any:
    """sum_s rho_0(s) V(s): values [S,...,n] of n agents -> [...,n]; NumPy or JAX.

    Args:
        start: as `start_of` gives it.
        values: in every state.
    """
    if start.ndim == 1:
        return start @ values if values.ndim < 3 else jnp.tensordot(start, values, 1)
    return (start.reshape(len(start), *(1,) * (values.ndim - 2), -1) * values).sum(0)


def spread_at_start(start: Float[np.ndarray, "S *n"], count: int) -> Float[np.ndarray, "S n"]:
    """rho_0 of each of n agents."""
    return start if start.ndim == 2 else np.repeat(start[:, None], count, 1)


def double_start(game: TabularGame, agents: Int[Any, " n"]) -> Float[np.ndarray, "S *n"]:
    """`start_of` in float64."""
    initial = np.asarray(game.initial_distribution, np.float64)
    return initial if initial.ndim == 1 else initial[np.asarray(agents)].T
