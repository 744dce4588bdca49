"""Play, in the two forms in which it is kept: for callers, and for learners.

Axes: M trajectories, B of one chunk, H steps, N agents, [L,T] the places of the agents (see
`layout`).
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer

from crowdnash.games.base import DynamicGame
from crowdnash.simulation.layout import AgentLayout


class Trajectories(NamedTuple):
    """Simulated play: `states`, `actions` (int32) and `rewards` (float32), each [M,H,N].

    For a game that is only a simulator, `states` holds what the agents observed: int32 [M,H,N] if
    that is one integer each, else what `observe` gives, every array [M,H,N,...].
    """

    states: Any
    actions: Int[np.ndarray, "M H N"]
    rewards: Float[np.ndarray, "M H N"]


class MaskedTrajectories(Trajectories):
    """Play of a simulator outside JAX, whose agents may end and have fewer actions at times.

    `alive` [M,H,N] says who acts at a step: of others, actions and rewards are 0 and `states` mean
    nothing. `legal` [M,H,N,A] are the actions they had, None where the simulator limits none.
    """

    alive: Bool[np.ndarray, "M H N"]
    legal: Bool[np.ndarray, "M H N A"] | None

    def __new__(
        cls, states: Any, actions: Any, rewards: Any, alive: Any = None, legal: Any = None
    ) -> "MaskedTrajectories":
        """As a tuple it has three parts, like any `Trajectories`."""
        made = super().__new__(cls, states, actions, rewards)
        made.alive, made.legal = alive, legal
        return made


class Chunk(eqx.Module):
    """B simulated trajectories as the learners read them.

    `pairs` s*A + a and `rewards` (0 in empty places), [H,B,L,T]; `totals` [H,K,B], the sum of all
    agents' contributions (K = 0 unless the game is a `PopulationGame`).
    """

    pairs: Integer[Array, "H B L T"]
    rewards: Float[Array, "H B L T"]
    totals: Array


def pair_dtype(num_pairs: int) -> np.dtype:
    """The smallest unsigned type that holds 0..num_pairs, the last meaning "nobody"."""
    return np.min_scalar_type(num_pairs)


def in_order(game: DynamicGame, layout: AgentLayout, chunk: Chunk) -> tuple[Array, Array, Array]:
    """States, actions and rewards of a chunk, [B,H,N], agents in their own order."""
    pairs = layout.in_order(chunk.pairs).swapaxes(0, 1).astype(jnp.int32)
    reward = layout.in_order(chunk.rewards).swapaxes(0, 1)
    return pairs // game.num_actions, pairs % game.num_actions, reward


def chunk_from_arrays(
    states: Int[np.ndarray, "M H N"],
    actions: Int[np.ndarray, "M H N"],
    rewards: Float[np.ndarray, "M H N"],
    layout: AgentLayout,
    num_states: int,
    num_actions: int,
    alive: Bool[np.ndarray, "M H N"] | None = None,
) -> Chunk:
    """Trajectories from a simulator outside JAX as learners read them.

    Args:
        states: s_h of every agent, 0..S-1 where it is alive.
        actions: a_h, 0..A-1 where it is alive.
        rewards: r_h.
        layout: where the agents are to lie; its groups are those that share statistics.
        num_states: S.
        num_actions: A.
        alive: who acts at step h (default: everybody). What others did is left out, and a move
            out of the game is no move: nothing is to be expected from there on.

    Raises:
        ValueError: a state, action or reward of an agent that is alive is out of its range.
    """
    num_pairs = num_states * num_actions
    alive = np.ones(states.shape, bool) if alive is None else alive
    for name, array, size in (("states", states, num_states), ("actions", actions, num_actions)):
        wrong = array[alive & ((array < 0) | (array >= size))]
        if wrong.size:
            raise ValueError(f"{name} must lie in 0..{size - 1}, not {wrong[0]}")
    if not np.isfinite(rewards[alive]).all():
        raise ValueError("rewards must be finite numbers")
    pairs = np.where(alive, states * num_actions + actions, num_pairs)

    def placed(array: np.ndarray, empty: int, dtype: np.dtype) -> Array:
        places = np.full((*array.shape[1::-1], layout.agent.size), empty, dtype)
        places[..., np.asarray(layout.place)] = array.swapaxes(0, 1)
        return jnp.asarray(places.reshape(*places.shape[:2], *layout.shape))

    return Chunk(
        placed(pairs, num_pairs, pair_dtype(num_pairs)),
        placed(np.where(alive, rewards, 0.0), 0, np.dtype(np.float32)),
        jnp.zeros((states.shape[1], 0, states.shape[0])),
    )
