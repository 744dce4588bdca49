"""One run in several processes, on one machine or many: who leads, and how all agree.

Every process plays its share of each epoch. Process 0 leads: it alone has the run directory, and
after every epoch it says to all whether to save and whether to stop, through the key-value store of
JAX's coordination service. No wait is without end: `limit` seconds after an epoch began, whoever
still waits for another process ends with a line that says so, and JAX's service ends all that are
left when a process has died.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
from jax.experimental import multihost_utils

from crowdnash import interrupts
from crowdnash.checks import check_count, check_number, shown
from crowdnash.simulation.devices import at_home

LIMIT = 600.0
"""Seconds that an epoch may take, with its certificate and checkpoint, unless the caller says."""

_HEARTBEAT = 100
_SHUTDOWN = 60
_END = "end"


class HostError(ConnectionError):
    """Another process of the run has failed, died or does not answer."""


class Cluster(NamedTuple):
    """How the processes find one another: all None where Slurm, Open MPI or a TPU says it."""

    coordinator_address: str | None = None
    num_processes: int | None = None
    process_id: int | None = None


@dataclass(frozen=True)
class Hosts:
    """The processes of a run; without a cluster it is this process alone, and all is at once.

    Attributes:
        count: how many there are.
        index: which one this is; 0 leads.
        limit: seconds that an epoch may take.
    """

    count: int = 1
    index: int = 0
    limit: float = LIMIT

    @property
    def leads(self) -> bool:
        """Whether this process has the run directory."""
        return self.index == 0

    @contextlib.contextmanager
    def leading(self) -> Iterator[None]:
        """The leader's run: the others end with it. Ctrl-C waits for a point where all can stop."""
        if self.count == 1:
            yield
            return
        with interrupts.holding():
            try:
                yield
            except KeyboardInterrupt:
                self._end(pressed=True)
                raise
            self._end(pressed=False)

    @contextlib.contextmanager
    def together(self, what: str) -> Iterator[None]:
        """A stretch that all processes go through, and that ends within the limit.

        Raises:
            HostError: another process has gone.
        """
        if self.count == 1:
            yield
            return
        timer = threading.Timer(self.limit, self._give_up, [what])
        timer.daemon = True
        timer.start()
        try:
            yield
        except Exception as error:
            if _is_of_the_connection(error):
                raise HostError(
                    f"another process has gone during {what}: {str(error).splitlines()[0]}"
                ) from error
            raise
        finally:
            timer.cancel()

    def say(self, subject: str, **word: Any) -> None:
        """The leader's word to all."""
        if self.count > 1:
            _store().key_value_set(f"crowdnash/{subject}", json.dumps(word))

    def hear(self, subject: str, *, patient: bool = False) -> dict[str, Any]:
        """The leader's word, once it is there; a Ctrl-C meanwhile is told to the leader.

        Args:
            subject: what it is about.
            patient: whether to wait without the limit, as long as the leader lives.

        Raises:
            HostError: it did not come within the limit, or the leader has gone.
            KeyboardInterrupt: the leader has ended the run instead.
        """
        began = time.monotonic()
        while (word := self._hear_for_a_second(subject)) is None:
            if interrupts.is_pressed():
                self.press()
            if subject != _END and self._hear_for_a_second(_END, wait=False):
                self.part()
                raise KeyboardInterrupt
            if not patient and time.monotonic() - began > self.limit:
                raise HostError(
                    f"process {self.index} waited {self.limit:g} s for process 0 to say: {subject}"
                )
        return word

    def _hear_for_a_second(self, subject: str, *, wait: bool = True) -> dict[str, Any] | None:
        store, name = _store(), f"crowdnash/{subject}"
        try:
            ask = store.blocking_key_value_get
            return json.loads(ask(name, 1000) if wait else store.key_value_try_get(name))
        except jax.errors.JaxRuntimeError as error:
            if any(code in str(error) for code in ("DEADLINE_EXCEEDED", "NOT_FOUND")):
                return None
            raise HostError("process 0 has gone") from error

    def press(self) -> None:
        """Tell the leader of a Ctrl-C here."""
        _store().key_value_set(f"crowdnash/pressed/{self.index}", "1", allow_overwrite=True)

    def is_pressed(self) -> bool:
        """Whether Ctrl-C was pressed in any process: for the leader."""
        here = interrupts.is_pressed()
        return here or (self.count > 1 and bool(_store().key_value_dir_get("crowdnash/pressed")))

    def check(self) -> None:
        """Stop where Ctrl-C was pressed in any process: for the leader.

        Raises:
            KeyboardInterrupt: it was.
        """
        if self.is_pressed():
            raise KeyboardInterrupt

    def share(self, state: Any) -> Any:
        """The leader's state, in every process."""
        if self.count == 1:
            return state
        with self.together("sharing the state"):
            return jax.tree.map(jax.numpy.asarray, multihost_utils.broadcast_one_to_all(state))

    def part(self) -> None:
        """Leave the others at the end of the run, which all have agreed on."""
        with contextlib.suppress(RuntimeError):  # whoever is gone already has done its work
            jax.distributed.shutdown()

    def _end(self, *, pressed: bool) -> None:
        self.say(_END, pressed=pressed)
        self.part()

    def _give_up(self, what: str) -> None:
        # The main thread waits inside compiled code, where no exception reaches it.
        sys.stderr.write(
            f"crowdnash: error: process {self.index} waited {self.limit:g} s for the others during "
            f"{what}; the newest checkpoint stands\n"
        )
        sys.stderr.flush()
        os._exit(2)


ALONE = Hosts()
"""This process alone."""


def join(cluster: Cluster, limit: float = LIMIT) -> Hosts:
    """Join the other processes of a run; to be called before anything touches a device.

    Args:
        cluster: where they are; empty where JAX finds out (Slurm, Open MPI, TPU).
        limit: seconds that an epoch may take.

    Raises:
        ValueError: the cluster is given by half, or nobody says where it is.
    """
    check_number("host_timeout", limit, above=0.0)
    if any(x is not None for x in cluster) and any(x is None for x in cluster):
        raise ValueError(
            "coordinator_address, num_processes and process_id must be given together, or none of "
            "them"
        )
    address = cluster.coordinator_address
    if address is not None and not address.rpartition(":")[2].isdigit():
        raise ValueError(f"coordinator_address must be HOST:PORT, not {shown(address)}")
    if cluster.num_processes is not None:
        check_count("num_processes", cluster.num_processes, 1)
        check_count("process_id", cluster.process_id, 0, cluster.num_processes - 1)
    # The only collectives between CPUs that JAX's wheels have on every platform.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # JAX would catch SIGTERM and go on: a job that is cancelled must end.
    jax.config.update("jax_enable_preemption_service", False)
    # Where the limit is short, it ends before JAX misses a heartbeat: our line is the clearer one.
    heartbeat = int(min(_HEARTBEAT, limit + 10))
    try:
        jax.distributed.initialize(
            *cluster,
            heartbeat_timeout_seconds=heartbeat,
            shutdown_timeout_seconds=_SHUTDOWN,
            initialization_timeout=int(max(10, min(300, limit))),
        )
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            "distributed: no cluster was found (Slurm, Open MPI, TPU), or it cannot be joined: "
            f"{str(error).splitlines()[0]}; give coordinator_address, num_processes and process_id"
        ) from error
    return Hosts(jax.process_count(), jax.process_index(), float(limit))


def leave_at_once(code: int) -> None:
    """End this process now if it is one of several: its others would wait for a farewell."""
    if jax.distributed.is_initialized() and jax.process_count() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@runtime_checkable
class Epochs(Protocol):
    """The epochs of a run, as every process does them; `runs.epochs` has them."""

    def check(self, state: Any) -> None:
        """Raise `ValueError` if the devices do not suit."""

    def start(self, state: Any) -> Any:
        """The state where the epochs need it."""

    def step(self, state: Any, epoch: int) -> tuple[Any, Any]:
        """One epoch, numbered from 1, and its row."""
        ...

    def is_last(self, row: dict[str, Any]) -> bool:
        """Whether a row says that its epoch is the last, before all epochs are done."""
        ...


def follow(hosts: Hosts, epochs: Epochs, state: Any) -> None:
    """Take part in a run that process 0 leads, up to its end.

    Args:
        hosts: the processes.
        epochs: the same as the leader's.
        state: before the first epoch.

    Raises:
        ValueError: the devices do not suit.
        HostError: the leader has failed, or does not answer within the limit.
        KeyboardInterrupt: Ctrl-C anywhere; the leader has saved a checkpoint.
    """
    if not hosts.hear("begin")["finished"]:
        epochs.check(state)
        epoch = hosts.hear("start")["epoch"]
        if epoch > 0:
            state = hosts.share(state)
        word = hosts.hear("go")
        if not word["stop"]:
            with hosts.together("placing the state"):
                state = epochs.start(state)
        while not word["stop"]:
            epoch += 1
            with hosts.together(f"epoch {epoch}"):
                state, _ = epochs.step(state, epoch)
                if interrupts.is_pressed():
                    hosts.press()
                word = hosts.hear(f"epoch {epoch}")
                if word["save"]:
                    at_home(state)
    word = hosts.hear(_END, patient=True)
    hosts.part()
    if word["pressed"]:
        raise KeyboardInterrupt


def _store() -> Any:
    """The key-value store of JAX's coordination service, which JAX has no public name for."""
    from jax._src import distributed

    return distributed.global_state.client


def _is_of_the_connection(error: Exception) -> bool:
    text = str(error)
    return any(word in text for word in ("Gloo", "NCCL", "Connection", "coordination"))
