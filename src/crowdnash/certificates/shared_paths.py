"""What is computed along population paths, by one device or several that share them (Def. 2).

What is made of one path needs no other: devices take equally many paths each, and only sums over
paths are sent. Agents are not shared.

Axes: B paths of a chunk, all devices' together; K components of the aggregate, n agents examined.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from crowdnash.certificates.path_values import Gains, add_laws, gains_on_paths
from crowdnash.certificates.plans import MeanModel
from crowdnash.certificates.simulated import Paths, Watched, simulate_paths
from crowdnash.simulation.device_choice import Work, devices_for
from crowdnash.simulation.devices import Devices

_EVERYWHERE = PartitionSpec()
_FIRST, _SECOND, _THIRD = (PartitionSpec(*(None,) * k, "trajectories") for k in range(3))
_PATHS = Paths(_SECOND, _SECOND, _THIRD, _EVERYWHERE)


def devices_of_paths(mesh: Any, num_paths: int, num_agents: int) -> Devices:
    """The devices that share a certificate's paths.

    Raises:
        ValueError: the mesh is none of axis "trajectories", or there are several processes.
    """
    if mesh is not None and jax.process_count() > 1:
        raise ValueError("mesh: exploitability is shared by the devices of one process alone")
    unfit = "exploitability shares trajectories alone"
    return devices_for(mesh, Work(num_paths, num_agents, agents_unfit=unfit))


def simulate_on(devices: Devices, *arguments: Any) -> Paths:
    """`simulate_paths`; the paths lie with the devices that played them."""
    if devices.mesh is None:
        return simulate_paths(*arguments)
    return _simulate(devices, *arguments)


@eqx.filter_jit
def _simulate(devices: Devices, *arguments: Any) -> Paths:
    def here(*arguments: Any) -> Paths:
        paths = simulate_paths(*arguments)
        return paths._replace(rewards=devices.sum_over_trajectories(paths.rewards))

    watched = Watched(_FIRST, _FIRST, _SECOND)
    lie = (*(_EVERYWHERE,) * 4, _FIRST, watched)
    return devices.spread(here, lie, _PATHS, *arguments)


def gains_on(devices: Devices, *arguments: Any) -> Gains:
    """`gains_on_paths`, each path's with its device."""
    if devices.mesh is None:
        return gains_on_paths(*arguments)
    return _gains(devices, *arguments)


@eqx.filter_jit
def _gains(devices: Devices, *arguments: Any) -> Gains:
    lie = (*(_EVERYWHERE,) * 4, _PATHS)
    return devices.spread(gains_on_paths, lie, _FIRST, *arguments)


def add_laws_on(devices: Devices, *arguments: Any) -> MeanModel:
    """`add_laws`; the sums are those over all devices' paths."""
    if devices.mesh is None:
        return add_laws(*arguments)
    return _add_laws(devices, *arguments)


@eqx.filter_jit
def _add_laws(devices: Devices, *arguments: Any) -> MeanModel:
    *known, before = arguments

    def here(game: Any, layout: Any, agents: Any, paths: Any, weight: Any) -> MeanModel:
        nothing = jax.tree.map(jnp.zeros_like, before)
        return devices.sum_over_trajectories(add_laws(game, layout, agents, paths, weight, nothing))

    lie = (*(_EVERYWHERE,) * 3, _PATHS, _FIRST)
    more = devices.spread(here, lie, _EVERYWHERE, *known)
    return jax.tree.map(jnp.add, before, more)
