"""An epoch of policy mirror descent on several devices: where its arrays lie, and the program.

The game is everywhere. Tables of groups are everywhere too, and every device makes the same mirror
step; where each agent has a table of its own and the agents are shared, what is one agent's lies
with it. In both cases arrays are in the order of agents, or groups, so that a state can go on with
any number of devices.
"""

from typing import Any

import equinox as eqx
import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array

from crowdnash.games.base import DynamicGame
from crowdnash.learners.fitted import ResidualMemory
from crowdnash.learners.mirror_epoch import epoch_in_jit, run_epoch
from crowdnash.learners.mirror_state import EpochNumbers, MirrorDescentState
from crowdnash.simulation.device_choice import Work, devices_for
from crowdnash.simulation.devices import Devices
from crowdnash.simulation.layout import AgentLayout

_EVERYWHERE = PartitionSpec()


def mirror_devices(
    game: DynamicGame, state: MirrorDescentState, mesh: Any, num_trajectories: int
) -> Devices:
    """The devices of a mesh, or those that "auto" chooses, for this game and state.

    Raises:
        ValueError: the mesh has other axes, or one that does not suit the game.
    """
    work = Work.of(
        game,
        num_trajectories,
        own_tables=state.layout.num_groups == game.num_agents,
        table_bytes=sum(leaf.nbytes for leaf in jax.tree.leaves(state)),
    )
    return devices_for(mesh, work)


def run_epoch_on(
    devices: Devices,
    game: DynamicGame,
    state: MirrorDescentState,
    numbers: EpochNumbers,
    size: int,
) -> tuple[MirrorDescentState, Array, Array, Array]:
    """`mirror_epoch.run_epoch`, of several devices if there are; as `state_specs` says."""
    if devices.mesh is None:
        return run_epoch(game, state, numbers, size)
    return _run_shared(devices, game, state, numbers, size)


@eqx.filter_jit
def _run_shared(
    devices: Devices,
    game: DynamicGame,
    state: MirrorDescentState,
    numbers: EpochNumbers,
    size: int,
) -> tuple[MirrorDescentState, Array, Array, Array]:
    layout = state.layout
    if devices.shares("agents") and not devices.own_tables:
        layout = layout.dealt(devices.size("agents"))
    arrays, static = eqx.partition((game, state), eqx.is_array)

    def on_device(arrays: Any, layout: AgentLayout, numbers: EpochNumbers) -> Any:
        game, own = eqx.combine(arrays, static)
        if devices.own_tables:
            layout = layout.of_own_tables()
        return epoch_in_jit(game, own, layout, numbers, size, devices)

    here = state_specs(state, devices)
    program = devices.map(
        on_device,
        ((_EVERYWHERE, here), layout.specs(devices.shares("agents")), _EVERYWHERE),
        (here, _EVERYWHERE, _EVERYWHERE, _EVERYWHERE),
    )
    return program(arrays, layout, numbers)


def state_specs(state: MirrorDescentState, devices: Devices) -> Any:
    """Where the arrays of a state lie: everywhere, but for what is each agent's own."""
    specs = jax.tree.map(lambda _: _EVERYWHERE, state)
    if not devices.own_tables:
        return specs
    first, last = PartitionSpec("agents"), PartitionSpec(None, None, "agents")
    own = dict.fromkeys(("log_probs", "average", "before", "features", "legal", "groups"), first)
    if state.weights is not None:
        own.pop("before")  # weights, too
    if state.features is not None and state.features.ndim == 3:  # a leading axis H
        own["features"] = PartitionSpec(None, "agents")
    own = {name: spec for name, spec in own.items() if getattr(state, name) is not None}

    def parts(tree: Any) -> list[Any]:
        leaves = [getattr(tree, name) for name in own] + [tree.rule.scale, tree.rule.sizes]
        if isinstance(state.kept, ResidualMemory):
            return [*leaves, tree.kept.sums, tree.kept.visits]
        return leaves if state.kept is None else [*leaves, tree.kept]

    lie = [*own.values(), first, first]
    return eqx.tree_at(parts, specs, lie + [last] * (len(parts(state)) - len(lie)))
