"""How agents lie in memory while they are simulated and learned from.

Agents are laid out as `[L, T]`: T columns ("tiles") of L agents, every tile inside one group.
What is read for a group (its policy) is then a row of T numbers that serves L agents, and what is
summed over a group (its TD errors) is a reduction over the leading axis L, which vectorises
whatever the group sizes are, followed by a small sum over the tiles of each group. One layout
thus serves one group (L up to 64), a few unequal groups, and N groups of one (L = 1, T = N).
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Shaped

from crowdnash.tuning import tuning

MAX_TILE_AGENTS = 64
MIN_TILES = 100
MAX_PADDING = 1.15


class AgentLayout(eqx.Module):
    """Places of N agents in an [L,T] block; `valid` is False where a place holds nobody.

    `agent` [L,T] is the agent's index (0 in empty places), `tile_group` [T] the group of each
    tile, `place` [N] each agent's flat position l*T + t. `one_tile_per_group` says that tile t is
    group t, so that nothing is left to sum over tiles.
    """

    agent: Int[Array, "L T"]
    valid: Bool[Array, "L T"]
    tile_group: Int[Array, " T"]
    place: Int[Array, " N"]
    num_groups: int = eqx.field(static=True)
    padded: bool = eqx.field(static=True)
    one_tile_per_group: bool = eqx.field(static=True)

    @property
    def shape(self) -> tuple[int, int]:
        """(L, T)."""
        length, tiles = self.agent.shape
        return length, tiles

    def dealt(self, shares: int) -> "AgentLayout":
        """The same with empty tiles at the end, so that so many devices get equally many tiles.

        A device may then have several tiles of a group, or none.
        """
        tiles = self.shape[1]
        empty = -tiles % shares
        return AgentLayout(
            jnp.pad(self.agent, ((0, 0), (0, empty))),
            jnp.pad(self.valid, ((0, 0), (0, empty))),
            jnp.pad(self.tile_group, (0, empty), mode="edge"),
            self.place,
            self.num_groups,
            self.padded or empty > 0,
            False,
        )

    def specs(self, shared: bool) -> Any:
        """Where its arrays lie, a `PartitionSpec` each: places with the devices that share them."""
        specs = jax.tree.map(lambda _: PartitionSpec(), self)
        if not shared:
            return specs
        places = PartitionSpec(None, "agents")
        return eqx.tree_at(
            lambda x: (x.agent, x.valid, x.tile_group),
            specs,
            (places, places, PartitionSpec("agents")),
        )

    def of_own_tables(self) -> "AgentLayout":
        """Of the agents whose tables lie here, tile t being of the t-th of these tables."""
        tiles = self.shape[1]
        tile_group = jnp.arange(tiles, dtype=jnp.int32)
        return dataclasses.replace(
            self, tile_group=tile_group, num_groups=tiles, one_tile_per_group=True
        )

    def in_order(self, x: Shaped[Array, "... L T"]) -> Shaped[Array, "... N"]:
        """What lies at the agents' places, agents in their own order."""
        return x.reshape(*x.shape[:-2], -1)[..., self.place]

    def group_sizes(self, counted: Bool[Array, "L T"]) -> Int[Array, " G"]:
        """How many of the counted places each group has."""
        return self.gather(counted.sum(0, dtype=jnp.float32)).astype(jnp.int32)

    def spread(self, table: Float[Array, "... G"]) -> Float[Array, "... T"]:
        """Read a per-group row, [..., G], at every tile, [..., T]."""
        if self.one_tile_per_group:
            return table
        if self.num_groups == 1:
            return jnp.broadcast_to(table, (*table.shape[:-1], self.shape[1]))
        return table[..., self.tile_group]

    def gather(self, tiles: Float[Array, "... T"]) -> Float[Array, "... G"]:
        """Sum a row over the tiles of each group, [..., T] -> [..., G]."""
        if self.one_tile_per_group:
            return tiles
        if self.num_groups == 1:
            return tiles.sum(-1, keepdims=True)
        if self.num_groups <= tuning().dense_groups:
            # A product with the 0/1 membership matrix.
            member = jax.nn.one_hot(self.tile_group, self.num_groups, dtype=tiles.dtype)
            return jnp.matmul(tiles, member, precision=jax.lax.Precision.HIGHEST)
        rows = jnp.moveaxis(tiles, -1, 0)
        sums = jax.ops.segment_sum(rows, self.tile_group, self.num_groups, indices_are_sorted=True)
        return jnp.moveaxis(sums, 0, -1)


def agent_layout(groups: Int[np.ndarray, " N"], num_groups: int) -> AgentLayout:
    """Lay N agents out for the map `groups` [N] -> 0..G-1; plain NumPy, done once a run."""
    groups = np.asarray(groups)
    if num_groups == len(groups) and _counts_up(groups):
        return _in_own_order(num_groups)
    sizes = np.bincount(groups, minlength=num_groups)
    length = _tile_length(sizes, len(groups))
    tiles = -(-sizes // length)
    tile_group = np.repeat(np.arange(num_groups), tiles)
    order = np.argsort(groups, kind="stable")
    rank = np.arange(len(groups)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    first_tile = np.cumsum(tiles) - tiles
    column = first_tile[groups[order]] + rank // length
    row = rank % length
    agent = np.zeros((length, len(tile_group)), np.int32)
    valid = np.zeros(agent.shape, bool)
    agent[row, column] = order
    valid[row, column] = True
    place = np.zeros(len(groups), np.int32)
    place[order] = row * agent.shape[1] + column
    return AgentLayout(
        jnp.asarray(agent),
        jnp.asarray(valid),
        jnp.asarray(tile_group, jnp.int32),
        jnp.asarray(place),
        num_groups,
        bool(valid.size > len(groups)),
        bool(np.array_equal(tile_group, np.arange(num_groups))),
    )


def _counts_up(groups: Int[np.ndarray, " N"]) -> bool:
    return bool((np.diff(groups) == 1).all() and groups[0] == 0)


def _in_own_order(num_agents: int) -> AgentLayout:
    """Every agent a group: no sorting, which for very many would need gigabytes."""
    place = jnp.arange(num_agents, dtype=jnp.int32)
    valid = jnp.ones((1, num_agents), bool)
    return AgentLayout(place[None], valid, place, place, num_agents, False, True)


def _tile_length(sizes: np.ndarray, num_agents: int) -> int:
    """The longest power of two that neither wastes places nor leaves too few tiles."""
    length = MAX_TILE_AGENTS
    while length > 1:
        tiles = int((-(-sizes // length)).sum())
        if tiles >= MIN_TILES and tiles * length <= MAX_PADDING * num_agents:
            break
        length //= 2
    return length
