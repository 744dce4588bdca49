"""Run an experiment from a config: learn, certify, save; resume it bit for bit; evaluate it again.

Here learners and certificates meet, and nowhere else; no learner is known by name. Nothing is
printed: an `Observer` receives progress events.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

from crowdnash import interrupts
from crowdnash.certificates.target import missed
from crowdnash.games.base import DynamicGame
from crowdnash.policies.base import Policy
from crowdnash.runs import checkpoint
from crowdnash.runs.config import RunConfig
from crowdnash.runs.directory import RunDirectory, config_text
from crowdnash.runs.epochs import RunEpochs, run_columns
from crowdnash.runs.evaluation import Evaluation, evaluate_policies
from crowdnash.runs.game_record import GameRecord
from crowdnash.runs.hosts import ALONE, Hosts, follow
from crowdnash.runs.saved_policies import load_policies, save_policies
from crowdnash.runs.seal import is_finished
from crowdnash.runs.training_loop import (
    Observer,
    attentive,
    interruptible,
    train,
    with_more_epochs,
    write_config,
)
from crowdnash.simulation.devices import ALONE as ONE_DEVICE
from crowdnash.simulation.devices import Devices


@dataclass(frozen=True)
class ExperimentResult:
    """A finished run.

    Attributes:
        directory: where it is saved.
        config: its settings.
        policies: by name, the recommended one first.
        evaluation: how they do.
        resumed_from: epochs that had been done before, 0 for a run from the start.
        seconds: wall time of this call.
        devices: which shared the epochs, and why.
    """

    directory: RunDirectory
    config: RunConfig
    policies: Mapping[str, Policy]
    evaluation: Evaluation
    resumed_from: int
    seconds: float
    devices: Devices = ONE_DEVICE

    @property
    def policy(self) -> Any:
        """The recommended policy."""
        return next(iter(self.policies.values()))


def run(
    config: RunConfig,
    out: str | PathLike[str],
    observer: Observer | None = None,
    *,
    mesh: Any = None,
    hosts: Hosts = ALONE,
) -> ExperimentResult:
    """Run an experiment from the start and save it in `out`.

    Args:
        config: the settings.
        out: a new or empty folder.
        observer: receives progress events.
        mesh: the devices that share an epoch, see `crowdnash.solve`.
        hosts: the processes of the run; this one leads, the others call `take_part`.

    Raises:
        ValueError: a setting is out of range, `mesh` does not suit the learner or the game, or
            `out` is not new or empty.
        OSError: the disk is full or cannot be written; what was saved stays sound.
        Interrupted: Ctrl-C; `resume` goes on from there.
    """
    # Bad settings must not leave a directory behind, so the game and the state come first.
    game = config.draw_game()
    columns = run_columns(config.learner, game)
    state = config.learner.init(game, key=config.keys.learner)
    epochs = RunEpochs(config, game, mesh, hosts, observer or Observer())
    hosts.say("begin", finished=False)
    epochs.check(state)
    directory = RunDirectory.create(out, config.to_json())
    with directory.locked(), interruptible(directory), hosts.leading():
        return _train_and_finish(directory, epochs, columns, state)


def resume(
    path: str | PathLike[str],
    *,
    num_epochs: int | None = None,
    observer: Observer | None = None,
    mesh: Any = None,
    hosts: Hosts = ALONE,
) -> ExperimentResult:
    """Continue a run to the policies that it would have reached without interruption.

    A run without a checkpoint starts over; a finished one is returned as it is.

    Args:
        path: the run directory.
        num_epochs: a larger number of epochs than the run was made for, or None.
        observer: receives progress events.
        mesh: as in `run`; it may be another one than before, and results are then equal up to the
            rounding of sums.
        hosts: as in `run`.

    Raises:
        ValueError: not a run directory, fewer epochs than before, a damaged config, or one that
            is not that of the checkpoints.
        CheckpointError: there are checkpoints and none can be restored.
        OSError, Interrupted: as in `run`.
    """
    directory = RunDirectory.open(path)
    with directory.locked(), interruptible(directory), hosts.leading():
        stored = load_config(directory)
        checkpoint.check_settings(
            directory.checkpoints, stored.decisive_settings(), stored.num_epochs
        )
        config = with_more_epochs(directory, stored, num_epochs)
        finished = is_finished(directory, config.num_epochs)
        hosts.say("begin", finished=finished)
        if finished:
            policies, _ = load_policies(directory)
            evaluation = Evaluation.load(directory)
            return ExperimentResult(directory, config, policies, evaluation, config.num_epochs, 0.0)
        game = config.draw_game()
        columns = run_columns(config.learner, game)
        state = config.learner.init(game, key=config.keys.learner)
        epochs = RunEpochs(config, game, mesh, hosts, observer or Observer())
        epochs.check(state)
        return _train_and_finish(directory, epochs, columns, state)


def take_part(config: RunConfig, hosts: Hosts, mesh: Any = "auto") -> None:
    """Take part in `run` or `resume` of process 0; this process keeps and returns nothing.

    Args:
        config: the settings, the same in every process.
        hosts: the processes.
        mesh: as in `run`, the same in every process.

    Raises:
        ValueError: as `run`.
        HostError: another process has gone, or does not answer within the limit.
        KeyboardInterrupt: Ctrl-C in any process.
    """
    with interrupts.watching(), interrupts.holding():
        game = config.draw_game()
        state = config.learner.init(game, key=config.keys.learner)
        follow(hosts, RunEpochs(config, game, mesh, hosts, Observer()), state)


def evaluate(
    path: str | PathLike[str],
    *,
    num_trajectories: int | None = None,
    confidence: float | None = None,
    best_response_agents: int | None = None,
    agents: int | None = None,
    seed: int | None = None,
    observer: Observer | None = None,
) -> Evaluation:
    """Certify the saved policies of a run again and save the result in its directory.

    The run's report, if there is one, is removed: it spoke of the evaluation before.

    Args:
        path: the run directory.
        num_trajectories: paths per certificate, or plays; None: the run's.
        confidence: coverage of the intervals; None: the run's.
        best_response_agents: simulators: agents that learn to deviate; None: the run's.
        agents: random agents to examine, beside the worst, 0 for all; None: the run's.
        seed: for fresh random draws of the evaluation; None: those of the run's own.
        observer: receives progress events.

    Raises:
        ValueError: not a run directory, no policy yet, a damaged policy file or one that is for
            another game.
        OSError: the result cannot be written.
    """
    directory, observer = RunDirectory.open(path), attentive(observer)
    with directory.locked(), interrupts.watching():
        config = load_config(directory)
        changes = {
            "num_evaluation_trajectories": num_trajectories,
            "confidence": confidence,
            "best_response_agents": best_response_agents,
            "agents": agents,
        }
        changes = {name: value for name, value in changes.items() if value is not None}
        settings = dataclasses.replace(config.evaluation, **changes)
        config = dataclasses.replace(config, evaluation=settings)
        draws = config if seed is None else dataclasses.replace(config, seed=seed)
        game = config.draw_game()
        policies, epoch = load_policies(directory, game)
        return _evaluate_and_save(directory, config, game, policies, epoch, draws, observer)


def load_config(directory: RunDirectory) -> RunConfig:
    """Return the settings of a run.

    Raises:
        ValueError: they are damaged, or of another version.
    """
    return RunConfig.from_json(config_text(directory), source=str(directory.config))


def _train_and_finish(
    directory: RunDirectory, epochs: RunEpochs, columns: tuple[str, ...], state: Any
) -> ExperimentResult:
    began, config, goal = time.monotonic(), epochs.config, epochs.goal
    game, learner = epochs.game, config.learner
    observer = attentive(epochs.observer, epochs.hosts)
    write_config(directory, config)
    state, epoch, resumed_from = train(
        directory, config, epochs, columns, state, observer, epochs.hosts
    )
    policies = learner.policies(game, state)
    directory.remove_results()
    if epoch < config.num_epochs:  # the target is reached: a run of so many epochs, from now on
        config = config.with_num_epochs(epoch)
        write_config(directory, config)
    save_policies(directory, policies, config.num_epochs)
    evaluation = _evaluate_and_save(
        directory, config, game, policies, config.num_epochs, config, observer
    )
    certificate = evaluation.policies[evaluation.recommended].exploitability
    if goal is not None and certificate is not None and not goal.is_reached(certificate.maximum):
        observer.on_warning(missed(goal, certificate.maximum, epoch))
    seconds = time.monotonic() - began
    return ExperimentResult(
        directory, config, policies, evaluation, resumed_from, seconds, epochs.devices
    )


def _evaluate_and_save(
    directory: RunDirectory,
    config: RunConfig,
    game: DynamicGame,
    policies: Mapping[str, Policy],
    epoch: int,
    draws: RunConfig,
    observer: Observer,
) -> Evaluation:
    observer.on_stage("measuring how alike the agents are")
    GameRecord.of(game).save(directory)
    evaluation, episode = evaluate_policies(
        game,
        policies,
        config,
        epoch=epoch,
        key=draws.keys.evaluation,
        on_stage=observer.on_stage,
    )
    if episode is not None:
        episode.save(directory)
    evaluation.save(directory)  # last: its digest covers all the rest
    return evaluation
