"""`--devices` and `--distributed`: read before all other flags, because they come before JAX."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import arg

from crowdnash.checks import check_choice, check_count

if TYPE_CHECKING:
    from crowdnash.runs.hosts import Hosts


@dataclass(frozen=True)
class DeviceFlags:
    """Which devices and processes share the run; not part of its settings."""

    devices: Annotated[
        int | None, arg(metavar="INT", help_behavior_hint="(default: one, undivided)")
    ] = None
    """how many devices of this process share an epoch; CPUs are divided into so many"""
    share: Literal["auto", "trajectories", "agents"] = "auto"
    """what they share; "auto": chosen by the game, the learner and their memory, and said"""
    distributed: bool = False
    """join the processes of srun, mpirun or a TPU, each of which runs this command"""
    coordinator_address: Annotated[
        str | None, arg(metavar="HOST:PORT", help_behavior_hint="(default: found)")
    ] = None
    """where process 0 listens"""
    num_processes: Annotated[
        int | None, arg(metavar="INT", help_behavior_hint="(default: found)")
    ] = None
    """how many processes there are"""
    process_id: Annotated[int | None, arg(metavar="INT", help_behavior_hint="(default: found)")] = (
        None
    )
    """the number of this one, from 0"""
    host_timeout: float = 600.0
    """seconds within which an epoch must end, with its certificate, before waiting ends"""


def start(arguments: Sequence[str]) -> Hosts:
    """Divide the CPU or join the other processes if that is asked for.

    Args:
        arguments: those after `crowdnash solve`; the real parse reads them again.

    Raises:
        ValueError: a number is out of range, flags contradict each other, or nobody can be joined.
    """
    from crowdnash.runs import hosts

    texts = _texts(arguments)
    explicit = {
        "coordinator_address": texts["coordinator_address"],
        "num_processes": _integer("num_processes", texts["num_processes"]),
        "process_id": _integer("process_id", texts["process_id"]),
    }
    count = _integer("devices", texts["devices"])
    if texts["distributed"]:
        if count is not None:
            raise ValueError(
                "devices is for one process: with distributed all devices of all processes share"
            )
        limit = _number("host_timeout", texts["host_timeout"], hosts.LIMIT)
        return hosts.join(hosts.Cluster(**explicit), limit)
    for name, value in explicit.items():
        if value is not None:
            raise ValueError(f"{name} is for runs with distributed")
    if count is not None:
        check_count("devices", count, 1)
        _divide_cpu(count)
    return hosts.ALONE


def mesh_of(flags: DeviceFlags) -> Any:
    """The mesh that the flags ask for; None for one device, undivided.

    Raises:
        ValueError: there are not so many devices.
    """
    import jax
    import numpy as np
    from jax.sharding import Mesh

    from crowdnash.simulation.device_choice import Auto

    check_choice("share", flags.share, ("auto", "trajectories", "agents"))
    if flags.devices is None and not flags.distributed:
        if flags.share != "auto":
            raise ValueError("share is for runs with devices or distributed")
        return None
    devices = jax.devices()
    if flags.devices is not None and flags.devices > len(devices):
        raise ValueError(
            f"devices must be at most {len(devices)}, for so many there are "
            f"({devices[0].platform}), not {flags.devices}"
        )
    some = tuple(devices[: flags.devices])
    return Auto(some) if flags.share == "auto" else Mesh(np.asarray(some), (flags.share,))


def _divide_cpu(count: int) -> None:
    import jax

    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # JAX has begun: `mesh_of` compares with the devices there are
        return


def _texts(arguments: Sequence[str]) -> dict[str, Any]:
    import argparse

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for item in dataclasses.fields(DeviceFlags):
        names = {f"--{item.name}", _flag(item.name)}
        if item.name == "distributed":
            parser.add_argument(*names, action="store_true", dest=item.name)
        else:
            parser.add_argument(*names, nargs="?", dest=item.name)
    return vars(parser.parse_known_args(list(arguments))[0])


def _integer(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not text.removeprefix("-").isdigit():
        raise ValueError(f"{_flag(name)} must be INT, not {text!r}")
    return int(text)


def _number(name: str, text: str | None, default: float) -> float:
    try:
        return default if text is None else float(text)
    except ValueError:
        raise ValueError(f"{_flag(name)} must be FLOAT, not {text!r}") from None


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
