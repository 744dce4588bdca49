"""The loop of an experiment: epoch after epoch, with metrics and checkpoints, for any learner."""

from __future__ import annotations

import contextlib
import dataclasses
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from crowdnash import interrupts
from crowdnash.files import write_atomically
from crowdnash.runs import checkpoint
from crowdnash.runs.config import RunConfig
from crowdnash.runs.directory import RunDirectory
from crowdnash.runs.hosts import ALONE, Epochs, Hosts
from crowdnash.runs.metrics_log import MetricsLog, Row, read_metrics
from crowdnash.runs.sections import CheckpointSettings
from crowdnash.simulation.devices import at_home


def _ignore(_: object) -> None:
    pass


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=3)


@dataclass(frozen=True)
class Observer:
    """Functions that are called as a run goes on.

    Attributes:
        on_start: the number of epochs done before, when training begins.
        on_epoch: the metrics row of an epoch, after it.
        on_stage: what is about to be done besides training, in words.
        on_warning: what went wrong without stopping the run; a Python warning by default.
    """

    on_start: Callable[[int], object] = _ignore
    on_epoch: Callable[[Row], object] = _ignore
    on_stage: Callable[[str], object] = _ignore
    on_warning: Callable[[str], object] = _warn


class Interrupted(KeyboardInterrupt):
    """A run was stopped by Ctrl-C; `epoch` epochs are saved in `directory`."""

    def __init__(self, directory: RunDirectory) -> None:
        epoch = max(checkpoint.epochs(directory.checkpoints), default=0)
        super().__init__(f"stopped; {epoch} epochs are saved in {directory.path}")
        self.directory = directory
        self.epoch = epoch


@contextlib.contextmanager
def interruptible(directory: RunDirectory) -> Iterator[None]:
    """Write down every Ctrl-C in the block; the one that stops it is an `Interrupted`."""
    with interrupts.watching():
        try:
            yield
        except KeyboardInterrupt as interrupt:
            raise Interrupted(directory) from interrupt


def attentive(observer: Observer | None, hosts: Hosts = ALONE) -> Observer:
    """`observer`, or one that ignores all; a Ctrl-C that did not stop yet stops the next stage."""
    observer = observer or Observer()

    def on_stage(words: str) -> None:
        hosts.check()
        observer.on_stage(words)

    return dataclasses.replace(observer, on_stage=on_stage)


def with_more_epochs(
    directory: RunDirectory, config: RunConfig, num_epochs: int | None
) -> RunConfig:
    """Let a stored run have `num_epochs` from now on, unless that is None.

    Raises:
        ValueError: it has more already, or its learner cannot have so many.
    """
    if num_epochs is None or num_epochs == config.num_epochs:
        return config
    if num_epochs < config.num_epochs:
        raise ValueError(
            f"num_epochs can only grow: {directory.path} has {config.num_epochs}, got {num_epochs}"
        )
    try:
        config = config.with_num_epochs(num_epochs)
    except ValueError as error:
        raise ValueError(
            f"{directory.path} cannot go on to {num_epochs} epochs: {error}. Its settings, "
            "num_epochs apart, were fixed when it began"
        ) from None
    write_config(directory, config)
    return config


def write_config(directory: RunDirectory, config: RunConfig) -> None:
    """Replace a run's settings, in both of their files."""
    write_atomically(directory.config, config.to_json().encode())
    write_atomically(directory.config_toml, config.to_toml().encode())


class Trained(NamedTuple):
    """The state after the last epoch, its number, and that of epochs done before this call."""

    state: Any
    epoch: int
    resumed_from: int


def train(
    directory: RunDirectory,
    config: RunConfig,
    epochs: Epochs,
    columns: Sequence[str],
    state: Any,
    observer: Observer,
    hosts: Hosts = ALONE,
) -> Trained:
    """Run the epochs that are left, from the newest checkpoint on; log each, checkpoint when due.

    Args:
        directory: where metrics and checkpoints are.
        config: how many epochs, and when a checkpoint is due.
        epochs: does them.
        columns: of the metrics.
        state: the learner's state before the first epoch: arrays only.
        observer: receives progress events.
        hosts: the processes of the run; this one leads.

    Raises:
        ValueError: the checkpoints are of another game, or the devices do not suit.
        CheckpointError: there are checkpoints and none can be restored.
        KeyboardInterrupt: Ctrl-C; the newest state has been saved if that was possible.
        OSError: a row or a checkpoint cannot be written, or another process has gone.
    """
    restored = checkpoint.restore_newest(directory.checkpoints, state, observer.on_warning)
    epoch = 0
    if restored is not None:
        if not np.array_equal(state.fingerprint, restored.state.fingerprint):
            raise ValueError(
                f"the checkpoints in {directory.path} are of a game with other agents than the one "
                f"that {directory.config.name} draws here"
            )
        state, epoch = restored.state, restored.epoch
    rows = read_metrics(directory.metrics_jsonl, up_to_epoch=epoch)
    if len(rows) < epoch:
        observer.on_warning(f"{directory.metrics_jsonl} lacks {epoch - len(rows)} epochs")
    hosts.check()
    hosts.say("start", epoch=epoch)
    if epoch > 0:
        state = hosts.share(state)
    observer.on_start(epoch)
    with MetricsLog(directory, columns, rows) as log:
        ended = epoch == config.num_epochs or (len(rows) == epoch > 0 and epochs.is_last(rows[-1]))
        hosts.say("go", stop=ended)
        if ended:
            return Trained(state, epoch, epoch)
        with hosts.together("placing the state"):
            state = epochs.start(state)
        now = _run_epochs(directory, config, epochs, state, epoch, log, observer, hosts)
        return Trained(*now, epoch)


def _run_epochs(
    directory: RunDirectory,
    config: RunConfig,
    epochs: Epochs,
    state: Any,
    epoch: int,
    log: MetricsLog,
    observer: Observer,
    hosts: Hosts,
) -> tuple[Any, int]:
    saved, settings = epoch, config.decisive_settings()
    due = _CheckpointSchedule(config.checkpoints)
    ended = False
    try:
        while not ended:
            with hosts.together(f"epoch {epoch + 1}"):
                next_state, row = _one_epoch(epochs, state, epoch + 1)
                with interrupts.holding():
                    log.append(row)
                    state, epoch = next_state, epoch + 1
                    ended = epoch == config.num_epochs or epochs.is_last(row)
                    # One process stops in the middle; several stop together, here.
                    pressed = hosts.count > 1 and hosts.is_pressed()
                    save, stop = due(epoch) or ended or pressed, ended or pressed
                    hosts.say(f"epoch {epoch}", save=save, stop=stop)
                    if save:
                        # The rows must be durable before the checkpoint that promises them.
                        log.sync()
                        home = at_home(state)
                        checkpoint.save(directory.checkpoints, epoch, home, settings=settings)
                        saved = epoch
                        due.saved()
                        state = home if stop else state
            if pressed:
                raise KeyboardInterrupt
            if hosts.count == 1:
                interrupts.check()
            observer.on_epoch(row)
    except KeyboardInterrupt:
        if epoch > saved and hosts.count == 1:
            # A second failure here would hide the interruption; the older checkpoint stands.
            with contextlib.suppress(OSError, RuntimeError), interrupts.holding():
                log.sync()
                checkpoint.save(directory.checkpoints, epoch, at_home(state), settings=settings)
        raise
    return state, epoch


def _one_epoch(epochs: Epochs, state: Any, epoch: int) -> tuple[Any, Row]:
    try:
        return epochs.step(state, epoch)
    except Exception:
        interrupts.check()  # Ctrl-C in a callback of compiled code comes out as another error
        raise


class _CheckpointSchedule:
    """Says after which epochs a checkpoint is due: by count and by time."""

    def __init__(self, settings: CheckpointSettings) -> None:
        self._settings = settings
        self._last = time.monotonic()
        self._save_seconds = 0.0

    def saved(self) -> None:
        """Take note that the checkpoint that was due has been saved."""
        self._save_seconds = time.monotonic() - self._last

    def __call__(self, epoch: int) -> bool:
        now, every = time.monotonic(), self._settings.checkpoint_every
        seconds = self._settings.checkpoint_seconds
        if seconds > 0:  # saving large networks takes a while: at most a twentieth of the time
            seconds = max(seconds, 20 * self._save_seconds)
        due = (every > 0 and epoch % every == 0) or (seconds > 0 and now - self._last >= seconds)
        if due:
            self._last = now
        return due
