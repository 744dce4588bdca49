"""Asking any `TabularGame` for one agent's law at arrangements of the others (Def. 1).

Axes: T arrangements, K = N-1 others, X = S*A pairs (number s*A + a), D = S + 1 numbers of a law.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from crowdnash.games.base import PROBABILITY_TOLERANCE, GameError, TabularGame
from crowdnash.games.checks import named

_ENTRIES_AT_ONCE = 4_000_000


def query_laws(
    game: TabularGame, agent: int, step: int, others: Int[np.ndarray, "T K"]
) -> Float[np.ndarray, "T X D"]:
    """Next-state probabilities and, last, the reward of one agent in each of its pairs, float64.

    Args:
        game: A game in the precision that is switched on; see `as_double`.
        agent: Index of the agent.
        step: The step.
        others: The pairs of the other agents, in ascending order of agents, one row a query.

    Raises:
        GameError: A reward is not finite or a transition is not a distribution.
    """
    num_pairs = game.num_states * game.num_actions
    # A law may hold one entry for each of the others and each pair while it is computed.
    size = min(len(others), max(1, _ENTRIES_AT_ONCE // (num_pairs**2 * others.shape[1])))
    here = jnp.asarray(agent, jnp.int32), jnp.asarray(step, jnp.int32)
    parts = []
    for start in range(0, len(others), size):
        block = others[start : start + size].astype(np.int32)
        padded = np.pad(block, ((0, size - len(block)), (0, 0)), mode="edge")  # one compilation
        parts.append(np.asarray(_laws(game, *here, jnp.asarray(padded)))[: len(block)])
    values = np.concatenate(parts).astype(np.float64)
    wrong = ~np.isfinite(values).all(-1)
    wrong |= np.abs(values[..., :-1].sum(-1) - 1.0) > PROBABILITY_TOLERANCE
    wrong |= values[..., :-1].min(-1) < -PROBABILITY_TOLERANCE
    if wrong.any():
        t, x = (int(k) for k in np.argwhere(wrong)[0])
        state, action = divmod(x, game.num_actions)
        raise GameError(
            f"{named(game)}: law(agent={agent}, state={state}, action={action}, step={step}) with "
            f"the others in the pairs {others[t].tolist()} must give probabilities that sum to 1 "
            f"and a finite reward, not {values[t, x, :-1].tolist()} and {values[t, x, -1]}"
        )
    return values


@eqx.filter_jit
def _laws(
    game: TabularGame, agent: Int[Array, ""], step: Int[Array, ""], others: Int[Array, "T K"]
) -> Float[Array, "T X D"]:
    pairs = jnp.arange(game.num_states * game.num_actions, dtype=jnp.int32)

    def one(rest: Array, pair: Array) -> Array:
        state, action = jnp.divmod(pair, game.num_actions)
        states, actions = jnp.divmod(rest, game.num_actions)
        return jnp.append(*game.law(agent, state, action, states, actions, step))

    return jax.vmap(lambda rest: jax.vmap(one, (None, 0))(rest, pairs))(others)
