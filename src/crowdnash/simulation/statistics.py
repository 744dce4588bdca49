"""Visit statistics: what tabular learners need of simulated play, counted.

A tabular learner asks of a trajectory only, for every group and step: how many agents visited the
pair x = (s,a), the sum R of their rewards, and how many of them came to x' at the next step; for

    sum over visitors of [r_h + Q_{h+1}(x')] = R[x] + sum_x' moves[x,x'] Q_{h+1}[x'].

Algorithm 1 replays the statistics of one trajectory after the other; sums over trajectories serve
learners that take all data at once. Trajectories simulated elsewhere need one concatenation along
B (to replay) or one addition (to sum). Play comes as a `Chunk` from a game in JAX, or through
`chunk_from_arrays` from a simulator outside JAX.

Axes: X = S*A pairs, [B,L,T] trajectories and places, H steps, G groups, N agents, M trajectories.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from crowdnash.games.base import DynamicGame
from crowdnash.games.vectorised import sums_together
from crowdnash.simulation.devices import ALONE, Devices
from crowdnash.simulation.layout import AgentLayout
from crowdnash.simulation.rollouts import fold_trajectories
from crowdnash.simulation.samplers import ActionSampler
from crowdnash.simulation.trajectories import Chunk
from crowdnash.tuning import tuning


class VisitStatistics(eqx.Module):
    """What the agents of each group did, counted: of every trajectory (axis B), or of all (none).

    Attributes:
        visits: how many agents visited x.
        rewards: the sum of their rewards.
        moves: how many of them visited y at the next step, y a pair or, for learners that ask no
            more, a state; none at the last step, nor of agents that had left the game by then.
    """

    visits: Float[Array, "X *B H G"]
    rewards: Float[Array, "X *B H G"]
    moves: Float[Array, "X Y *B H G"]

    def over_trajectories(self) -> "VisitStatistics":
        """Statistics of every trajectory, [X,B,H,G], summed over B."""
        return VisitStatistics(self.visits.sum(1), self.rewards.sum(1), self.moves.sum(2))

    def __add__(self, other: "VisitStatistics") -> "VisitStatistics":
        """Statistics of further trajectories, added."""
        return jax.tree.map(jnp.add, self, other)


def visit_statistics(
    chunk: Chunk,
    layout: AgentLayout,
    num_pairs: int,
    *,
    summed: bool = False,
    actions_apart: int = 1,
) -> VisitStatistics:
    """Count what a chunk's agents did; inside `jit`.

    Args:
        chunk: play; pairs equal to X mark places and steps to leave out.
        layout: where its agents lie and which group they belong to.
        num_pairs: X.
        summed: whether to sum over the trajectories at once, at no memory for each.
        actions_apart: A to count moves to states, 1 to count moves to pairs.
    """
    pairs = chunk.pairs
    ended = jnp.full_like(pairs[:1], num_pairs)
    after = jnp.concatenate([pairs[1:], ended]) // actions_apart
    columns = num_pairs // actions_apart
    count = _masked_counts if num_pairs <= tuning().masked_pairs else _scattered_counts
    return count(chunk, after, layout, num_pairs, columns, summed)


def simulate_statistics(
    game: DynamicGame,
    sampler: ActionSampler,
    layout: AgentLayout,
    key: PRNGKeyArray,
    num_trajectories: Int[Array, ""],
    num_states: int,
    size: int,
    devices: Devices = ALONE,
) -> tuple[VisitStatistics, Float[Array, ""]]:
    """Statistics of trajectories 0..num_trajectories-1, summed, in chunks of `size`; inside `jit`.

    Where `devices` share the work, inside `devices.map`: all have the sums of all, once an epoch.

    Returns:
        The statistics, moves counted to states, and the mean return (over trajectories and agents).
    """
    num_pairs = num_states * game.num_actions

    def count(statistics: VisitStatistics, chunk: Chunk, active: Array) -> VisitStatistics:
        nobody = jnp.asarray(num_pairs, chunk.pairs.dtype)
        pairs = jnp.where(active[:, None, None], chunk.pairs, nobody)
        return statistics + visit_statistics(
            Chunk(pairs, chunk.rewards, chunk.totals),
            layout,
            num_pairs,
            summed=True,
            actions_apart=game.num_actions,
        )

    by_group = (game.horizon, layout.num_groups)
    start = VisitStatistics(
        jnp.zeros((num_pairs, *by_group), jnp.float32),
        jnp.zeros((num_pairs, *by_group), jnp.float32),
        jnp.zeros((num_pairs, num_states, *by_group), jnp.float32),
    )
    statistics, mean_return = fold_trajectories(
        game,
        sampler,
        layout,
        key,
        num_trajectories,
        layout.valid,
        size,
        num_pairs,
        count,
        start,
        devices,
    )
    return devices.sum_of_groups(devices.sum_over_trajectories(statistics)), mean_return


def _masked_counts(
    chunk: Chunk, after: Array, layout: AgentLayout, num_pairs: int, columns: int, summed: bool
) -> VisitStatistics:
    """By comparisons: small X."""
    pairs = chunk.pairs
    here = [pairs == k for k in range(num_pairs)]
    there = [after == k for k in range(columns)]

    def total(terms: list[Array]) -> Array:
        tiles = jnp.stack(sums_together(terms, (1, 2) if summed else (2,)))
        sums = layout.gather(tiles.astype(jnp.float32))
        return sums if summed else sums.swapaxes(1, 2)

    # A tile has at most 64 agents, so bytes can count them: 32 in one instruction.
    number = jnp.int32 if summed else jnp.uint8
    counted = total([x.astype(number) for x in here + [x & y for x in here for y in there]])
    moves = counted[num_pairs:].reshape(num_pairs, columns, *counted.shape[1:])
    rewards = total([jnp.where(x, chunk.rewards, 0.0) for x in here])
    return VisitStatistics(counted[:num_pairs], rewards, moves)


def _scattered_counts(
    chunk: Chunk, after: Array, layout: AgentLayout, num_pairs: int, columns: int, summed: bool
) -> VisitStatistics:
    """By scattered sums: cost per agent free of X."""
    horizon, batch = chunk.pairs.shape[:2]
    shape = ((horizon,) if summed else (batch, horizon)) + (layout.num_groups,)
    trajectory = jnp.zeros((1, batch, 1, 1), jnp.int32)
    if not summed:
        trajectory = jnp.arange(batch, dtype=jnp.int32).reshape(trajectory.shape)
    step = jnp.arange(horizon, dtype=jnp.int32).reshape(-1, 1, 1, 1)
    cell = (trajectory * horizon + step) * layout.num_groups + layout.tile_group
    pairs, after = chunk.pairs.astype(jnp.int32), after.astype(jnp.int32)
    ones = jnp.ones(pairs.shape, jnp.float32)

    def total(terms: Array, index: Array, here: Array, size: int) -> Array:
        segment = jnp.where(here, cell * size + index, -1)  # negative ones are dropped
        sums = jax.ops.segment_sum(terms.ravel(), segment.ravel(), int(np.prod(shape)) * size)
        return jnp.moveaxis(sums.reshape(*shape, size), -1, 0)

    seen = pairs < num_pairs
    visits = total(ones, pairs, seen, num_pairs)
    rewards = total(chunk.rewards, pairs, seen, num_pairs)
    stays = seen & (after < columns)
    moves = total(ones, pairs * columns + after, stays, num_pairs * columns)
    return VisitStatistics(visits, rewards, moves.reshape(num_pairs, columns, *shape))
