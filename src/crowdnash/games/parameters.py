"""Checking and drawing the per-agent parameters of games."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray

from crowdnash.checks import as_array, check_count, check_key, check_number
from crowdnash.games.base import PROBABILITY_TOLERANCE
from crowdnash.games.checks import check_fits_memory

DEFAULT_HALF_WIDTH = 0.1


class _Scalar(type):
    """Instances are JAX arrays without axes, traced ones too."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, jax.Array) and instance.ndim == 0

    def __str__(cls) -> str:  # in messages about what a parameter may be
        return "a JAX scalar"


if TYPE_CHECKING:
    Scalar = Array
else:

    class Scalar(metaclass=_Scalar):
        """A JAX array without axes: what a sweep under `jax.vmap` hands in for a number."""


Heterogeneity = float | Scalar | Mapping[str, float | Scalar]
"""One half-width for all parameters of a game, or one for each name; traced ones too, so that
`jax.vmap` over half-widths draws a batch of games. What is traced is checked when it runs."""


def agent_array(
    name: str,
    value: Any,
    *,
    shape: tuple[int, ...],
    low: float = -math.inf,
    high: float = math.inf,
) -> Float[Array, "N ..."]:
    """`value` as float32 of a shape, every entry within [low, high].

    Raises:
        ValueError: naming the parameter, the rule and the first offending value. Traced values
            raise equinox's runtime error, naming the parameter and the rule, when they are run.
    """
    array = jnp.asarray(as_array(name, value), jnp.float32)
    if len(shape) < 1 or array.shape != tuple(shape):
        expected = "[" + ",".join(str(n) for n in shape) + "]" if shape else "[N]"
        raise ValueError(f"{name} must have shape {expected}, not {list(array.shape)}")
    rule = "finite" if math.isinf(low) else f"in [{low:g}, {high:g}]"
    if isinstance(array, Tracer):
        right = (array >= low) & (array <= high) & jnp.isfinite(array)
        return eqx.error_if(array, ~right.all(), f"{name} must be {rule}")
    values = np.asarray(array)
    wrong = ~((values >= np.float32(low)) & (values <= np.float32(high)) & np.isfinite(values))
    if wrong.any():
        where = tuple(int(k) for k in np.argwhere(wrong)[0])
        raise ValueError(f"{name} must be {rule}: {name}{list(where)} = {values[where]:g}")
    return array


def leading_axis(name: str, value: Any) -> tuple[int, ...]:
    """(N,), as the parameter `name` has it; () if it is a number; `ValueError` if it is ragged."""
    return as_array(name, value).shape[:1]


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
    heterogeneity: Heterogeneity,
    num_agents: int,
) -> dict[str, Float[Array, "N ..."]]:
    """Every agent's parameters, uniform on centre +- half-width, independent of each other.

    Args:
        key: decides the draw.
        centres: by name, a number (drawn as [N]) or a tuple of k numbers ([N,k]).
        heterogeneity: one half-width >= 0 for all, or one for each name.
        num_agents: N.

    Raises:
        ValueError: an unknown name, a centre that is no number, a negative or NaN half-width,
            N < 2, or more agents than fit the memory. Whether a draw leaves the parameter's range
            is for the game's constructor to say: nothing is clipped.
    """
    check_key("key", key)
    check_count("num_agents", num_agents, 2)
    if isinstance(heterogeneity, Mapping):
        unknown = set(heterogeneity) - set(centres)
        if unknown:
            raise ValueError(
                f"heterogeneity names must be among {sorted(centres)}: {sorted(unknown)}"
            )
        widths = {name: heterogeneity.get(name, DEFAULT_HALF_WIDTH) for name in centres}
    else:
        widths = dict.fromkeys(centres, heterogeneity)
    sizes = [np.size(centre) for centre in centres.values()]
    # All arrays, float32, and the random bits and noise of the one being drawn.
    check_fits_memory(num_agents, 4 * (sum(sizes) + 2 * max(sizes)))
    drawn = {}
    for index, (name, centre) in enumerate(centres.items()):
        width = widths[name]
        single = not isinstance(heterogeneity, Mapping)
        check_number("heterogeneity" if single else f"heterogeneity[{name!r}]", width, least=0)
        for number in centre if isinstance(centre, tuple) else (centre,):
            check_number(name, number)
        if isinstance(width, Tracer):
            wrong = ~((width >= 0) & jnp.isfinite(width))
            width = eqx.error_if(width, wrong, f"heterogeneity must be >= 0 and finite: {name}")
        middle = jnp.asarray(centre, jnp.float32)
        noise = jax.random.uniform(
            jax.random.fold_in(key, index), (num_agents, *middle.shape), minval=-1.0, maxval=1.0
        )
        drawn[name] = middle + jnp.asarray(width, jnp.float32) * noise
    return drawn
