"""Population paths, simulated by one program for all of a certificate's purposes (Def. 2).

Planning, judging and playing deviations differ in what is made of a path, not in how it is
simulated: one compiled program serves all three. In a path at most one agent deviates.

Axes: B paths of a chunk, H steps, [L,T] the places of the agents, K components of the aggregate.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num, PRNGKeyArray, Shaped, UInt32

from crowdnash.certificates.plans import Numbers
from crowdnash.games.base import PopulationGame
from crowdnash.simulation.layout import AgentLayout
from crowdnash.simulation.rollouts import simulate_chunk
from crowdnash.simulation.samplers import ActionSampler, DeviatingSampler


class Watched(NamedTuple):
    """One agent of each path, at flat place `place` [B]; it plays `probs` if it `deviates` [B].

    A deviator draws by numbers of its own, on which the path without it does not depend.
    """

    place: Int[Numbers, " B"]
    deviates: Bool[Numbers, " B"]
    probs: Float[Numbers, "H B S A"]

    @classmethod
    def nobody(cls, game: PopulationGame, num_paths: int) -> "Watched":
        """No agent deviates on any path."""
        shape = (game.horizon, num_paths, game.num_states, game.num_actions)
        place = np.zeros(num_paths, np.int32)
        return cls(place, np.zeros(num_paths, bool), np.zeros(shape, np.float32))


class Paths(NamedTuple):
    """Pairs s*A + a of everybody and of the agents watched, and the paths' total contributions.

    `rewards` is the sum of all rewards, NaN if any is.
    """

    pairs: Shaped[Numbers, "H B L T"]
    watched: Shaped[Numbers, "H B"]
    totals: Num[Numbers, "H K B"]
    rewards: Float[Numbers, ""]


@eqx.filter_jit
def simulate_paths(
    game: PopulationGame,
    sampler: ActionSampler,
    layout: AgentLayout,
    key: PRNGKeyArray,
    paths: UInt32[Array, " B"],
    watched: Watched,
) -> Paths:
    """Simulate the paths of these numbers."""
    place = jnp.where(watched.deviates, watched.place, -1)
    flat = jnp.arange(layout.agent.size, dtype=jnp.int32).reshape(layout.agent.shape)
    number = layout.agent + jnp.where(flat == place[:, None, None], game.num_agents, 0)
    deviating = DeviatingSampler(sampler, watched.probs, place)
    chunk = simulate_chunk(game, deviating, layout, key, paths, number.astype(jnp.uint32))
    own = chunk.pairs.reshape(game.horizon, len(paths), -1)
    own = jnp.take_along_axis(own, watched.place[None, :, None], 2)[..., 0]
    return Paths(chunk.pairs, own, chunk.totals, chunk.rewards.sum())


def own_pairs(
    pairs: Shaped[Array, "H B L T"], layout: AgentLayout, agents: Int[Array, " n"]
) -> Shaped[Array, "H B n"]:
    """The pairs of some agents."""
    return pairs.reshape(*pairs.shape[:2], -1)[..., layout.place[agents]]


@jax.jit
def two_keys(key: PRNGKeyArray) -> tuple[PRNGKeyArray, PRNGKeyArray]:
    """A key to plan with and one to judge with."""
    first, second = jax.random.split(key)
    return first, second
