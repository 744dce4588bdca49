"""Several devices for one game: which axis they share, and how what they computed is put together.

- "trajectories": a device plays some of an epoch's trajectories. All that is drawn is a function of
  (run, trajectory, step, agent), so a share is known by the numbers of its trajectories. Statistics
  are summed once an epoch, or gathered in the order of trajectories where they are replayed.
- "agents": a device plays some of the agents, and one sum over devices a step makes the aggregate.
  Tables of groups are everywhere; where each agent has its own table, it lies with its agent.

A mesh may have one of these axes or both. Programs are `jax.shard_map`s with `psum` and
`all_gather` alone: what XLA partitions by itself may add scattered sums in another order
(openxla/xla issue 42481), and `psum_scatter` may err on CPUs (jax issue 40830).

Axes: M trajectories, B of one chunk, G groups.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding
from jaxtyping import Array, PRNGKeyArray, UInt32

AXES = ("trajectories", "agents")

Tree = TypeVar("Tree")


@dataclass(frozen=True)
class Devices:
    """The devices of a program; without a mesh it is the program of one device, unchanged.

    Its sums and gathers are called inside `map`, and are the identity along axes that are not
    shared.

    Attributes:
        mesh: of axes "trajectories", "agents" or both; None for one device.
        own_tables: whether the tables of groups lie with their agents, one agent a group.
        reason: why these devices and axes, in words; empty where the caller chose.
    """

    mesh: Mesh | None = None
    own_tables: bool = False
    reason: str = dataclasses.field(default="", compare=False)

    def size(self, axis: str) -> int:
        """Among how many devices an axis is shared."""
        return 1 if self.mesh is None else self.mesh.shape.get(axis, 1)

    def shares(self, axis: str) -> bool:
        """Whether the mesh has this axis."""
        return self.mesh is not None and axis in self.mesh.axis_names

    def __str__(self) -> str:
        sizes = [(self.size(axis), axis) for axis in AXES if self.size(axis) > 1]
        text = " and ".join(f"{n} devices share the {axis}" for n, axis in sizes) or "one device"
        return f"{text} ({self.reason})" if self.reason else text

    def map(
        self, function: Callable[..., Any], in_specs: Any, out_specs: Any
    ) -> Callable[..., Any]:
        """`function` on every device, for arguments that lie as `in_specs` say; arrays alone."""
        # Values that are the same everywhere come from psum, pmax and all_gather: nothing to check.
        return jax.shard_map(
            function, mesh=self.mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
        )

    def run(self, function: Callable, *arguments: Any) -> Any:
        """`function(*arguments)` on every device; arguments and results lie everywhere."""
        everywhere = PartitionSpec()
        return self.spread(function, (everywhere,) * len(arguments), everywhere, *arguments)

    def spread(
        self, function: Callable, in_specs: tuple[Any, ...], out_specs: Any, *arguments: Any
    ) -> Any:
        """`function(*arguments)` on every device, where arrays lie as their specs say; in `jit`."""
        if self.mesh is None:
            return function(*arguments)
        arrays, static = eqx.partition(arguments, eqx.is_array)

        def on_device(*arrays: Any) -> Any:
            return function(*eqx.combine(arrays, static))

        return self.map(on_device, in_specs, out_specs)(*arrays)

    def numbers(self, round_: Array, size: int) -> UInt32[Array, " B"]:
        """Numbers of this device's `size` trajectories in a round, in which each has as many."""
        place, index = self.size("trajectories"), round_.astype(jnp.uint32)
        if self.shares("trajectories"):
            own = jax.lax.axis_index("trajectories").astype(jnp.uint32)
            index = index * place + own
        return index * size + jnp.arange(size, dtype=jnp.uint32)

    def sum_over_trajectories(self, tree: Tree) -> Tree:
        """What was summed over each device's trajectories, over all of them."""
        return self._sum(tree, "trajectories", self.shares("trajectories"))

    def mean_over_trajectories(self, tree: Tree) -> Tree:
        """The mean of what devices have, who have equally many trajectories."""
        return jax.lax.pmean(tree, "trajectories") if self.shares("trajectories") else tree

    def own_key(self, key: PRNGKeyArray) -> PRNGKeyArray:
        """A key for this device's trajectories alone; `key` itself where no other has any."""
        if self.size("trajectories") == 1:
            return key
        return jax.random.fold_in(key, jax.lax.axis_index("trajectories"))

    def gather_trajectories(self, tree: Tree, axis: int) -> Tree:
        """Arrays with the trajectories of a round along `axis`, those of all devices in order."""
        if not self.shares("trajectories"):
            return tree
        return jax.tree.map(
            lambda x: jax.lax.all_gather(x, "trajectories", axis=axis, tiled=True), tree
        )

    def sum_over_agents(self, tree: Tree) -> Tree:
        """What was summed over each device's agents, over all of them."""
        return self._sum(tree, "agents", self.shares("agents"))

    def sum_of_groups(self, tree: Tree) -> Tree:
        """Sums of groups over this device's agents, over all; done where each has its own table."""
        return self._sum(tree, "agents", self.shares("agents") and not self.own_tables)

    def sum_over_tables(self, tree: Tree) -> Tree:
        """What was summed over this device's tables, over all tables."""
        return self._sum(tree, "agents", self.own_tables)

    def mean_over_tables(self, x: Array) -> Array:
        """The mean over this device's tables, over all tables: devices have equally many."""
        return jax.lax.pmean(x, "agents") if self.own_tables else x

    def max_over_tables(self, x: Array) -> Array:
        """The largest of this device's tables, of all tables."""
        return jax.lax.pmax(x, "agents") if self.own_tables else x

    def _sum(self, tree: Tree, axis: str, shared: bool) -> Tree:
        return jax.lax.psum(tree, axis) if shared else tree

    def place(self, tree: Tree, specs: Any = None) -> Tree:
        """Put arrays where `specs` say, everywhere by default; nothing moves that lies there."""
        if self.mesh is None:
            return tree
        arrays, rest = eqx.partition(tree, eqx.is_array)
        mesh = self.mesh

        def put(spec: Any, x: Any) -> Any:
            return x if x is None else jax.device_put(x, NamedSharding(mesh, spec))

        if specs is None:
            specs = jax.tree.map(lambda _: PartitionSpec(), arrays)
        placed = jax.tree.map(
            put, specs, arrays, is_leaf=lambda x: x is None or isinstance(x, PartitionSpec)
        )
        return eqx.combine(placed, rest)


ALONE = Devices()
"""One device, the default one."""


def at_home(tree: Tree) -> Tree:
    """Arrays that lie on several devices, or hosts, whole on the default one of this host."""

    def home(x: Any) -> Any:
        if not isinstance(x, jax.Array) or isinstance(x.sharding, SingleDeviceSharding):
            return x
        return jnp.asarray(_whole(x))

    return jax.tree.map(home, tree)


def on_host(tree: Any) -> Any:
    """Arrays that lie on several devices, or hosts, whole in this host's memory, NumPy's."""
    return jax.tree.map(_whole, tree)


def _whole(x: jax.Array) -> np.ndarray:
    if x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))
