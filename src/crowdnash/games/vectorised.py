"""A `PopulationGame` read for whole blocks of agents at once.

The game's author writes laws for one agent; here they are vectorised over agents ("lanes", any
number of axes that the agent records share) and over a batch of populations B in front of them.
Components of vectors come first ([S,B,...], [K,B,...]): XLA then evaluates only the components
that are used, and every kernel runs along the lanes.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from crowdnash.games.base import PopulationGame, TabularGame, summed_exactly_as
from crowdnash.games.checks import check_shape
from crowdnash.tuning import tuning

Law = Literal["transition", "reward"]


def contributions(
    game: PopulationGame, agents: PyTree, states: Int[Array, "..."], actions: Int[Array, "..."]
) -> Array:
    """Every agent's contribution, [K,B,lanes]; states and actions are [B,lanes]."""
    lanes = states.ndim - 1
    return _over_lanes(game.contribution, lanes, (None, 0, 0), (0, 0, 0))(agents, states, actions)


def contribution_table(game: PopulationGame, agents: PyTree) -> Array:
    """Contributions of n agents at every pair s*A + a, [n,X,K], in the type the game gives them."""
    states, actions = all_pairs(game)
    over_pairs = jax.vmap(game.contribution, in_axes=(None, 0, 0))
    return jax.vmap(over_pairs, in_axes=(0, None, None))(agents, states, actions)


def all_pairs(game: TabularGame) -> tuple[Int[Array, " X"], Int[Array, " X"]]:
    """States and actions of all X = S*A pairs, in the order s*A + a."""
    pairs = jnp.arange(game.num_states * game.num_actions, dtype=jnp.int32)
    return pairs // game.num_actions, pairs % game.num_actions


def sum_over_agents(contributed: Array) -> Array:
    """Total contribution of a population, [K,B,lanes] -> [K,B]; int32 if bool or int.

    The only place where agents are summed: agents shared among devices need one `psum` after it.
    """
    contributed = contributed.astype(summed_exactly_as(contributed.dtype))
    axes = tuple(range(1, contributed.ndim - 1))
    if contributed.shape[0] > tuning().reduced_together:
        return contributed.sum(tuple(range(2, contributed.ndim)))
    return jnp.stack(sums_together([contributed[k] for k in range(len(contributed))], axes))


def sums_together(terms: Sequence[Array], axes: tuple[int, ...]) -> tuple[Array, ...]:
    """Every array summed over `axes`; all have one shape and type, and are read together.

    XLA's own reduction of K arrays makes K passes; here one pass sums `tuning().reduced_together`.
    """
    zero, together = jnp.zeros((), terms[0].dtype), tuning().reduced_together
    sums: list[Array] = []
    for first in range(0, len(terms), together):
        some = tuple(terms[first : first + together])
        sums += jax.lax.reduce(
            some,
            (zero,) * len(some),
            lambda a, b: tuple(p + q for p, q in zip(a, b, strict=True)),
            axes,
        )
    return tuple(sums)


def aggregates_of_others(total: Array, own: Array, num_agents: int) -> Float[Array, "..."]:
    """Mean contribution of the *others*, [K,B,lanes], from totals [K,B] and own contributions."""
    total = total.reshape(*total.shape, *(1,) * (own.ndim - 2))
    others = total - own.astype(total.dtype)
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


def laws_of_agents(
    game: PopulationGame,
    law: Law,
    agents: PyTree,
    aggregates: Float[Array, "n K"],
    step: Int[Array, ""],
) -> Float[Array, "n S A ..."]:
    """A law of n agents at all pairs, each at the aggregate that it meets.

    Args:
        game: the game.
        law: "transition" or "reward".
        agents: the n agents' records.
        aggregates: what each of them meets.
        step: h.

    Returns:
        Next-state probabilities [n,S,A,S] or rewards [n,S,A], in the precision of the game.
    """
    values = laws_at_pairs(game, law, agents, aggregates.T[:, None], step)
    values = jnp.moveaxis(values[..., 0, :], -1, 0)
    return values.reshape(-1, game.num_states, game.num_actions, *values.shape[2:])


def laws_at_pairs(
    game: PopulationGame,
    law: Law,
    agents: PyTree,
    aggregates: Float[Array, "..."],
    step: Int[Array, ""],
    *,
    summary: Callable[[Array], Any] = lambda values: values,
    at_once: int | None = None,
    unroll: bool = False,
) -> Any:
    """A law of all agents at all pairs: the one place where a game is asked at every (s,a).

    Args:
        game: the game.
        law: "transition" or "reward".
        agents: the agents' records, with the axes `lanes`.
        aggregates: what they meet in each of B populations, [K,B,lanes].
        step: h.
        summary: what to keep of the values at one pair, [S,B,lanes] or [B,lanes]; by default all.
        at_once: how many pairs are computed together, to bound memory; None for all.
        unroll: write the pairs out one by one: the compiler then sees constant states and drops
            the branches not taken.

    Returns:
        The summaries, stacked along a leading axis of X pairs in the order s*A + a.
    """
    function = transitions if law == "transition" else rewards
    shape = aggregates.shape[1:]

    def at_pair(pair: Any) -> Any:
        state = jnp.full(shape, pair // game.num_actions, jnp.int32)
        action = jnp.full(shape, pair % game.num_actions, jnp.int32)
        return summary(function(game, agents, state, action, aggregates, step))

    num_pairs = game.num_states * game.num_actions
    if unroll:
        values = [at_pair(pair) for pair in range(num_pairs)]
        return jax.tree_util.tree_map(lambda *x: jnp.stack(x), *values)
    pairs = jnp.arange(num_pairs, dtype=jnp.int32)
    if at_once is None or at_once >= num_pairs:
        return jax.vmap(at_pair)(pairs)
    return jax.lax.map(at_pair, pairs, batch_size=at_once)


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
