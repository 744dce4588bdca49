"""A `PopulationGame` read for whole blocks of agents at once.

The game's author writes laws for one agent; here they are vectorised over agents ("lanes", any
number of axes that the agent records share) and over a batch of populations B in front of them.
Components of vectors come first ([S,B,...], [K,B,...]): XLA then evaluates only the components
that are used, and every kernel runs along the lanes.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from crowdnash.games.base import PopulationGame, summed_exactly_as
from crowdnash.games.checks import check_shape

_MAX_REDUCE_OPERANDS = 32


def contributions(
    game: PopulationGame, agents: PyTree, states: Int[Array, "..."], actions: Int[Array, "..."]
) -> Array:
    """Every agent's contribution, [K,B,lanes]; states and actions are [B,lanes]."""
    lanes = states.ndim - 1
    return _over_lanes(game.contribution, lanes, (None, 0, 0), (0, 0, 0))(agents, states, actions)


def sum_over_agents(given: Array) -> Array:
    """Total contribution of a population, [K,B,lanes] -> [K,B]; int32 if bool or int.

    The only place where agents are summed: agents sharded over devices need one `psum` here.
    """
    given = given.astype(summed_exactly_as(given.dtype))
    axes = tuple(range(1, given.ndim - 1))
    if given.shape[0] > _MAX_REDUCE_OPERANDS:
        return given.sum(tuple(range(2, given.ndim)))
    # One pass over the agents for all components: XLA's own K-fold reduction makes K passes.
    zero = jnp.zeros((), given.dtype)
    parts = tuple(given[k] for k in range(given.shape[0]))
    return jnp.stack(
        jax.lax.reduce(
            parts,
            tuple(zero for _ in parts),
            lambda a, b: tuple(p + q for p, q in zip(a, b, strict=True)),
            axes,
        )
    )


def aggregates_met(total: Array, given: Array, num_agents: int) -> Float[Array, "..."]:
    """Mean contribution of the *others*, [K,B,lanes], from totals [K,B] and own shares."""
    total = total.reshape(*total.shape, *(1,) * (given.ndim - 2))
    others = total - given.astype(total.dtype)
    return others.astype(jnp.float32) / (num_agents - 1)


def transitions(
    game: PopulationGame,
    agents: PyTree,
    states: Int[Array, "..."],
    actions: Int[Array, "..."],
    aggregates: Float[Array, "..."],
    step: Int[Array, ""],
) -> Float[Array, "..."]:
    """Next-state probabilities [S,B,lanes]; states, actions [B,lanes], aggregates [K,B,lanes]."""
    probs = _law(game.transition, agents, states, actions, aggregates, step)
    lanes = states.ndim
    check_shape(game, "a transition", probs.shape[: probs.ndim - lanes], (game.num_states,))
    return probs


def rewards(
    game: PopulationGame,
    agents: PyTree,
    states: Int[Array, "..."],
    actions: Int[Array, "..."],
    aggregates: Float[Array, "..."],
    step: Int[Array, ""],
) -> Float[Array, "..."]:
    """Rewards [B,lanes]; arguments as for `transitions`."""
    reward = _law(game.reward, agents, states, actions, aggregates, step)
    check_shape(game, "a reward", reward.shape[: reward.ndim - states.ndim], ())
    return reward


def _law(
    function: Callable[..., Array],
    agents: PyTree,
    states: Array,
    actions: Array,
    aggregates: Array,
    step: Array,
) -> Array:
    batch, lane = (None, 0, 0, 1, None), (0, 0, 0, 1, None)
    mapped = _over_lanes(function, states.ndim - 1, batch, lane)
    return mapped(agents, states, actions, aggregates, step)


def _over_lanes(
    function: Callable[..., Array], num_lane_axes: int, batch: tuple, lane: tuple
) -> Callable[..., Any]:
    """Map over the lane axes (innermost last) and one batch axis; outputs [..., B, lanes]."""
    for axis in range(num_lane_axes):
        function = jax.vmap(function, in_axes=lane, out_axes=-1 - axis)
    return jax.vmap(function, in_axes=batch, out_axes=-1 - num_lane_axes)
