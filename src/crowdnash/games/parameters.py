"""Checking and drawing the per-agent parameters of games."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray

from crowdnash.game import PROBABILITY_TOLERANCE

DEFAULT_HALF_WIDTH = 0.1


def agent_array(
    name: str,
    value: Any,
    *,
    shape: tuple[int, ...],
    low: float = -math.inf,
    high: float = math.inf,
) -> Float[Array, "N ..."]:
    """`value` as float32 of the given shape, every entry within [low, high].

    **Raises:** `ValueError` naming the parameter, the rule and the first offending value.
    """
    array = jnp.asarray(value, jnp.float32)
    if len(shape) < 1 or array.shape != tuple(shape):
        want = "[" + ",".join(str(n) for n in shape) + "]" if shape else "[N]"
        raise ValueError(f"{name} must have shape {want}, not {list(array.shape)}")
    if isinstance(array, Tracer):
        return array
    values = np.asarray(array)
    wrong = ~((values >= np.float32(low)) & (values <= np.float32(high)) & np.isfinite(values))
    if wrong.any():
        where = tuple(int(k) for k in np.argwhere(wrong)[0])
        rule = "finite" if math.isinf(low) else f"in [{low:g}, {high:g}]"
        raise ValueError(f"{name} must be {rule}: {name}{list(where)} = {values[where]:g}")
    return array


def distribution(name: str, value: Any, size: int) -> Float[Array, " S"]:
    """`value` as a probability vector of the given size, float32."""
    array = agent_array(name, value, shape=(size,), low=0.0, high=1.0)
    if not isinstance(array, Tracer):
        total = float(np.asarray(array, np.float64).sum())
        if abs(total - 1) > PROBABILITY_TOLERANCE:
            raise ValueError(
                f"{name} must sum to 1 within {PROBABILITY_TOLERANCE}: its sum is {total:g}"
            )
    return array


def draw_around(
    key: PRNGKeyArray,
    centres: Mapping[str, float | tuple[float, ...]],
    heterogeneity: float | Mapping[str, float],
    num_agents: int,
) -> dict[str, Float[Array, "N ..."]]:
    """Every agent's parameters, uniform on centre +- half-width, independent of each other.

    **Arguments:** `centres` a number (drawn as [N]) or a tuple of k numbers ([N,k]) by name;
    `heterogeneity` one half-width >= 0 for all, or one for each name.

    **Raises:** `ValueError` for an unknown name, a negative or NaN half-width, or N < 2. Whether
    a draw leaves the parameter's range is for the game's constructor to say: nothing is clipped.
    """
    if num_agents < 2:
        raise ValueError(f"num_agents must be at least 2, not {num_agents}")
    if isinstance(heterogeneity, Mapping):
        unknown = set(heterogeneity) - set(centres)
        if unknown:
            raise ValueError(
                f"heterogeneity names must be among {sorted(centres)}: {sorted(unknown)}"
            )
        widths = {name: heterogeneity.get(name, DEFAULT_HALF_WIDTH) for name in centres}
    else:
        widths = dict.fromkeys(centres, heterogeneity)
    drawn = {}
    for index, (name, centre) in enumerate(centres.items()):
        width = widths[name]
        if not isinstance(width, Tracer) and not (0 <= width < math.inf):
            raise ValueError(f"heterogeneity must be >= 0 and finite: {name} has {width}")
        middle = jnp.asarray(centre, jnp.float32)
        noise = jax.random.uniform(
            jax.random.fold_in(key, index), (num_agents, *middle.shape), minval=-1.0, maxval=1.0
        )
        drawn[name] = middle + jnp.asarray(width, jnp.float32) * noise
    return drawn
