"""Which devices share what: a mesh that the caller hands in, checked, or "auto", chosen."""

import dataclasses
import os
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from crowdnash.checks import shown
from crowdnash.games.base import DynamicGame, PopulationGame
from crowdnash.simulation.devices import ALONE, AXES, Devices
from crowdnash.simulators.game import OutsideGame

BYTES_OF_AN_AGENT = 180
"""Of an agent's parameters, place and share of the chunk that is played, without tables."""

_TABLES_AT_ONCE = 3
"""The state before an epoch, that after it, and what lies between them."""

_SHARE_OF_MEMORY = 0.5


class Work(NamedTuple):
    """What devices are to share.

    Attributes:
        num_trajectories: M.
        num_agents: N.
        own_tables: whether each agent has a table of its own.
        table_bytes: of the tables and all else that is kept from epoch to epoch.
        agents_unfit: why agents cannot be shared; empty if they can be.
        even: whether devices that share the trajectories must have equally many.
    """

    num_trajectories: int
    num_agents: int
    own_tables: bool = False
    table_bytes: int = 0
    agents_unfit: str = ""
    even: bool = False

    @classmethod
    def of(cls, game: DynamicGame, num_trajectories: int, **more: Any) -> "Work":
        """Of so many trajectories of a game; `more` are further attributes.

        Raises:
            ValueError: the game is a simulator outside JAX.
        """
        if isinstance(game, OutsideGame):
            raise ValueError(
                "mesh is for games in JAX: a simulator is played outside JAX, by workers"
            )
        unfit, name = "", type(game).__name__
        if not isinstance(game, PopulationGame):
            unfit = f"agents can be shared in a PopulationGame alone, and {name} is none"
        work = cls(num_trajectories, game.num_agents, agents_unfit=unfit)
        return work._replace(**more)

    @property
    def bytes_needed(self) -> int:
        """On one device, if agents are not shared."""
        return BYTES_OF_AN_AGENT * self.num_agents + _TABLES_AT_ONCE * self.table_bytes

    def trajectories_refusal(self, shares: int) -> str:
        """Why so many devices cannot share the trajectories; empty if they can."""
        if not self.even or self.num_trajectories % shares == 0:
            return ""
        return (
            "num_trajectories must be a multiple of the devices that share them: "
            f"{self.num_trajectories} trajectories, {shares} devices"
        )

    def refusal(self, shares: int) -> str:
        """Why so many devices cannot share the agents; empty if they can."""
        if self.agents_unfit:
            return self.agents_unfit
        if self.own_tables and self.num_agents % shares:
            return (
                "num_agents must be a multiple of the devices that share the agents where each "
                f"agent has a table: {self.num_agents} agents, {shares} devices"
            )
        if shares > self.num_agents:
            return f"there are {self.num_agents} agents for {shares} devices"
        return ""


class Auto(NamedTuple):
    """A choice as "auto" makes it, among these devices."""

    devices: tuple[Any, ...]


def devices_for(mesh: Any, work: Work) -> Devices:
    """The devices of `mesh`, checked, or those that suit the work best.

    Args:
        mesh: a `jax.sharding.Mesh` with axes "trajectories", "agents" or both; "auto"; or None for
            the default device alone.
        work: what they are to share.

    Raises:
        ValueError: `mesh` is none of these, has another axis, or one that does not suit the work.
    """
    if mesh is None:
        return ALONE
    if isinstance(mesh, str) and mesh == "auto":
        return _chosen(work, tuple(jax.devices()))
    if isinstance(mesh, Auto):
        return _chosen(work, mesh.devices)
    if not isinstance(mesh, Mesh):
        raise ValueError(f"mesh must be a jax.sharding.Mesh, 'auto' or None, not {shown(mesh)}")
    for axis in mesh.axis_names:
        if axis not in AXES:
            raise ValueError(f"mesh must have axes of {' and '.join(AXES)}, not {axis!r}")
    if "agents" in mesh.axis_names and (refusal := work.refusal(mesh.shape["agents"])):
        raise ValueError(f"mesh: {refusal}")
    if refusal := work.trajectories_refusal(mesh.shape.get("trajectories", 1)):
        raise ValueError(f"mesh: {refusal}")
    return _devices(mesh.devices, mesh.axis_names, work)


def _devices(devices: Any, axes: tuple[Any, ...], work: Work, reason: str = "") -> Devices:
    # A mesh of `jax.make_mesh` has explicit axes, which would be part of all arrays' types.
    mesh = Mesh(np.asarray(devices), axes)
    return Devices(mesh, work.own_tables and "agents" in axes, reason)


def _chosen(work: Work, devices: tuple[Any, ...]) -> Devices:
    several = jax.process_count() > 1
    count, trajectories = len(devices), work.num_trajectories
    if count == 1:
        return dataclasses.replace(ALONE, reason="there is no other")
    if work.even:
        return _chosen_evenly(work, devices, several)
    limit = _memory_of_a_device()
    needed = f"about {_size(work.bytes_needed)} of {_size(limit)} on a device"
    fits = work.bytes_needed <= _SHARE_OF_MEMORY * limit
    if fits and trajectories >= count:
        reason = f"{trajectories} trajectories, and agents and tables need {needed}"
        return _devices(devices, ("trajectories",), work, reason)
    because = f"{trajectories} trajectories are too few" if fits else f"agents need {needed}"
    if not (refusal := work.refusal(count)):
        return _devices(devices, ("agents",), work, because)
    if trajectories == 1 and not several:
        return dataclasses.replace(ALONE, reason=f"one trajectory, and {refusal}")
    # Processes stay together, also if some have nothing to play.
    some = devices if several else devices[:trajectories]
    return _devices(some, ("trajectories",), work, f"{because}, but {refusal}")


def _chosen_evenly(work: Work, devices: tuple[Any, ...], several: bool) -> Devices:
    most, trajectories = len(devices), work.num_trajectories
    count = max(k for k in range(1, most + 1) if not work.trajectories_refusal(k))
    if several and count < most:  # processes stay together
        raise ValueError(f"mesh: {work.trajectories_refusal(most)}")
    reason = f"of {most}: {trajectories} trajectories"
    if count == 1:
        return dataclasses.replace(ALONE, reason=reason)
    return _devices(devices[:count], ("trajectories",), work, reason)


def _memory_of_a_device() -> int:
    """In bytes; of a CPU, what the machine has for each of its devices."""
    device = jax.local_devices()[0]
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if limit:
        return int(limit)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // jax.local_device_count()


def _size(nbytes: int) -> str:
    """In words."""
    return f"{nbytes / 2**30:.1f} GiB" if nbytes >= 2**29 else f"{nbytes / 2**20:.0f} MiB"
