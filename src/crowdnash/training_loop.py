"""The loop of an experiment: epoch after epoch, with metrics, certificates and checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jax

from crowdnash import checkpoint
from crowdnash.certificate import exploitability
from crowdnash.experiment_config import ExperimentConfig
from crowdnash.game import TabularGame
from crowdnash.mirror_descent import EpochMetrics, MirrorDescentState, PolicyMirrorDescent
from crowdnash.run_directory import MetricsLog, Row, RunDirectory

EVALUATION_COLUMNS = (
    "exploitability_max_lower",
    "exploitability_max_upper",
    "exploitability_mean_lower",
    "exploitability_mean_upper",
    "evaluation_seconds",
)
"""Metrics columns that are empty for epochs without a certificate."""

METRICS_COLUMNS = (
    "epoch",
    *(field.name for field in dataclasses.fields(EpochMetrics) if field.name != "epoch"),
    *EVALUATION_COLUMNS,
)
"""All metrics columns; `epoch` counts the epochs done, from 1."""


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

    def __init__(self, directory: RunDirectory, epoch: int) -> None:
        super().__init__(f"stopped; {epoch} epochs are saved in {directory.path}")
        self.directory = directory
        self.epoch = epoch


def train(
    directory: RunDirectory,
    config: ExperimentConfig,
    game: TabularGame,
    learner: PolicyMirrorDescent,
    state: MirrorDescentState,
    epoch: int,
    log: MetricsLog,
    observer: Observer,
) -> MirrorDescentState:
    """Run the epochs that are left; log each, certify and checkpoint when due.

    Args:
        directory: where checkpoints go.
        config: how many epochs, and what is due when.
        game: the game.
        learner: the learner.
        state: its state after `epoch` epochs.
        epoch: the number of epochs done.
        log: takes a row for every epoch.
        observer: hears what happens.

    Raises:
        Interrupted: Ctrl-C; the newest state has been saved if that was possible.
        OSError: a row or a checkpoint cannot be written.
    """
    saved = epoch
    due = _CheckpointSchedule(config)
    try:
        while epoch < config.num_epochs:
            next_state, metrics = learner.step(game, state)
            row: Row = dataclasses.asdict(metrics) | {"epoch": epoch + 1}
            if _evaluation_is_due(config, epoch + 1):
                observer.on_stage(f"evaluating the policy after epoch {epoch + 1}")
                row |= _evaluate_on_the_way(config, game, learner, next_state, epoch + 1)
            with _interrupts_held():
                log.append(row)
                state, epoch = next_state, epoch + 1
                if due(epoch):
                    # The rows must be durable before the checkpoint that promises them.
                    log.sync()
                    checkpoint.save(directory.checkpoints, epoch, state)
                    saved = epoch
            observer.on_epoch(row)
    except KeyboardInterrupt as interrupt:
        if epoch > saved:
            # A second failure here would hide the interruption; the older checkpoint stands.
            with contextlib.suppress(OSError, RuntimeError), _interrupts_held():
                log.sync()
                checkpoint.save(directory.checkpoints, epoch, state)
                saved = epoch
        raise Interrupted(directory, saved) from interrupt
    return state


class _CheckpointSchedule:
    """Says after which epochs a checkpoint is due: by count, by time, and after the last."""

    def __init__(self, config: ExperimentConfig) -> None:
        self._config = config
        self._last = time.monotonic()

    def __call__(self, epoch: int) -> bool:
        config, now = self._config, time.monotonic()
        due = (
            epoch == config.num_epochs
            or (config.checkpoint_every > 0 and epoch % config.checkpoint_every == 0)
            or (config.checkpoint_seconds > 0 and now - self._last >= config.checkpoint_seconds)
        )
        if due:
            self._last = now
        return due


def _evaluation_is_due(config: ExperimentConfig, epoch: int) -> bool:
    every = config.evaluate_every
    return epoch == config.num_epochs or (every > 0 and epoch % every == 0)


def _evaluate_on_the_way(
    config: ExperimentConfig,
    game: TabularGame,
    learner: PolicyMirrorDescent,
    state: MirrorDescentState,
    epoch: int,
) -> Row:
    began = time.monotonic()
    policy_of = learner.last_policy if config.iterate == "last" else learner.average_policy
    certificate = exploitability(
        game,
        policy_of(state),
        key=jax.random.fold_in(config.keys.evaluation, epoch),
        num_trajectories=config.num_evaluation_trajectories,
        confidence=config.confidence,
        own_influence_agents=0,
    )
    return {
        "exploitability_max_lower": float(certificate.maximum.lower),
        "exploitability_max_upper": float(certificate.maximum.upper),
        "exploitability_mean_lower": float(certificate.mean.lower),
        "exploitability_mean_upper": float(certificate.mean.upper),
        "evaluation_seconds": time.monotonic() - began,
    }


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Put Ctrl-C off to the end of the block, so that it cannot split a write."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[object] = []
    previous = signal.signal(signal.SIGINT, lambda *_: caught.append(None))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous or signal.default_int_handler)
    if caught:
        raise KeyboardInterrupt
