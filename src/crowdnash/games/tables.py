"""Tables that hold a law: their checks, random draws and look-ups."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PRNGKeyArray

from crowdnash.games.base import PROBABILITY_TOLERANCE
from crowdnash.games.parameters import agent_array

_MAX_COMPARED = 128


def probability_tables(
    name: str, value: Any, *, shape: tuple[int, ...], or_zero: bool = False
) -> Float[Array, "... S"]:
    """`value` as float32 of the given shape, probabilities over the last axis.

    With `or_zero` a row may also be all zeros, which means "none".

    Raises:
        ValueError: naming the table, the rule and the first offending row.
    """
    array = agent_array(name, value, shape=shape, low=0.0, high=1.0)
    if isinstance(array, Tracer):
        return array
    total = np.asarray(array, np.float64).sum(-1)
    wrong = np.abs(total - 1) > PROBABILITY_TOLERANCE
    if or_zero:
        wrong &= total != 0
    if wrong.any():
        where = tuple(int(k) for k in np.argwhere(wrong)[0])
        rule = f"must sum to 1 within {PROBABILITY_TOLERANCE}" + (" or be 0" if or_zero else "")
        raise ValueError(
            f"{name} {rule} over the last axis: the sum of {name}{list(where)} is {total[where]:g}"
        )
    return array


def uniform_if_none(value: Any, num_states: int) -> Any:
    """An initial distribution, uniform unless one is given."""
    return np.full(num_states, 1 / num_states) if value is None else value


def component(vector: Float[Array, " K"], index: Int[Array, ""]) -> Float[Array, ""]:
    """`vector[index]`; where the vector is short, by comparing with every index and adding up.

    For thousands of agents at once that vectorises, and look-ups in an aggregate, whose
    components lie far apart in memory, do not.
    """
    if vector.shape[0] > _MAX_COMPARED:
        return vector[index]
    return jnp.where(jnp.arange(vector.shape[0], dtype=jnp.int32) == index, vector, 0.0).sum()


def random_distributions(
    key: PRNGKeyArray, shape: tuple[int, ...], support: Any = True
) -> Float[Array, "... S"]:
    """Distributions drawn uniformly from the simplex over `support` (bool, of that shape)."""
    weights = jnp.where(support, jax.random.exponential(key, shape) + 1e-6, 0.0)
    return weights / weights.sum(-1, keepdims=True)


def perturbed_distributions(
    key: PRNGKeyArray,
    shared: Float[Array, "S A S"],
    weight: Float[Array, " N"],
    support: Any = True,
) -> Float[Array, "N S A S"]:
    """Every agent's own tables: (1 - weight_i) shared + weight_i (a draw of its own).

    Mixtures of distributions are distributions, so nothing has to be clipped or renormalised;
    with weights up to w no row is further than 2w from the shared one in L1.
    """
    shape = (*weight.shape, *shared.shape)
    own = random_distributions(key, shape, jnp.broadcast_to(support, shape))
    weight = weight.reshape(-1, *(1,) * shared.ndim)
    return (1 - weight) * shared + weight * own
