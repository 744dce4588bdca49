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

import jax

from crowdnash import interrupts
from crowdnash.certificates.certificate import exploitability
from crowdnash.certificates.target import Target, is_due, missed
from crowdnash.games.base import DynamicGame, TabularGame
from crowdnash.learners.base import Learner, metrics_columns, metrics_row
from crowdnash.policies.base import Policy
from crowdnash.runs import checkpoint
from crowdnash.runs.config import RunConfig
from crowdnash.runs.directory import RunDirectory, config_text
from crowdnash.runs.evaluation import (
    Evaluation,
    agents_to_draw,
    evaluate_policies,
    policy_title,
)
from crowdnash.runs.game_record import GameRecord
from crowdnash.runs.metrics_log import Row
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

EVALUATION_COLUMNS = (
    "exploitability_max_lower",
    "exploitability_max_upper",
    "exploitability_mean_lower",
    "exploitability_mean_upper",
    "evaluation_seconds",
)
"""Metrics columns of tabular games, empty for epochs without a certificate."""


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
    """

    directory: RunDirectory
    config: RunConfig
    policies: Mapping[str, Policy]
    evaluation: Evaluation
    resumed_from: int
    seconds: float

    @property
    def policy(self) -> Any:
        """The recommended policy."""
        return next(iter(self.policies.values()))


def run(
    config: RunConfig, out: str | PathLike[str], observer: Observer | None = None
) -> ExperimentResult:
    """Run an experiment from the start and save it in `out`.

    Args:
        config: the settings.
        out: a new or empty folder.
        observer: receives progress events.

    Raises:
        ValueError: a setting is out of range, or `out` is not new or empty.
        OSError: the disk is full or cannot be written; what was saved stays sound.
        Interrupted: Ctrl-C; `resume` goes on from there.
    """
    # Bad settings must not leave a directory behind, so the game and the state come first.
    game = config.draw_game()
    columns = run_columns(config.learner, game)
    state = config.learner.init(game, key=config.keys.learner)
    directory = RunDirectory.create(out, config.to_json())
    with directory.locked(), interruptible(directory):
        return _train_and_finish(directory, config, game, columns, state, attentive(observer))


def resume(
    path: str | PathLike[str],
    *,
    num_epochs: int | None = None,
    observer: Observer | None = None,
) -> ExperimentResult:
    """Continue a run to the policies that it would have reached without interruption.

    A run without a checkpoint starts over; a finished one is returned as it is.

    Args:
        path: the run directory.
        num_epochs: a larger number of epochs than the run was made for, or None.
        observer: receives progress events.

    Raises:
        ValueError: not a run directory, fewer epochs than before, a damaged config, or one that
            is not that of the checkpoints.
        CheckpointError: there are checkpoints and none can be restored.
        OSError, Interrupted: as in `run`.
    """
    directory = RunDirectory.open(path)
    with directory.locked(), interruptible(directory):
        stored = load_config(directory)
        checkpoint.check_settings(
            directory.checkpoints, stored.decisive_settings(), stored.num_epochs
        )
        config = with_more_epochs(directory, stored, num_epochs)
        if is_finished(directory, config.num_epochs):
            policies, _ = load_policies(directory)
            evaluation = Evaluation.load(directory)
            return ExperimentResult(directory, config, policies, evaluation, config.num_epochs, 0.0)
        game = config.draw_game()
        columns = run_columns(config.learner, game)
        state = config.learner.init(game, key=config.keys.learner)
        return _train_and_finish(directory, config, game, columns, state, attentive(observer))


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


def run_columns(learner: Learner[Any, Any, Any], game: DynamicGame) -> tuple[str, ...]:
    """All metrics columns of a run; `epoch` counts the epochs done, from 1.

    Raises:
        ValueError: the game calls one of its statistics as the learner calls a metric.
    """
    state = jax.eval_shape(lambda: game.reset(jax.random.key(0)))
    columns = metrics_columns(learner, list(jax.eval_shape(game.statistics, state)))
    return (*columns, *EVALUATION_COLUMNS) if isinstance(game, TabularGame) else columns


def _train_and_finish(
    directory: RunDirectory,
    config: RunConfig,
    game: DynamicGame,
    columns: tuple[str, ...],
    state: Any,
    observer: Observer,
) -> ExperimentResult:
    began, learner = time.monotonic(), config.learner
    write_config(directory, config)

    def step(state: Any, epoch: int) -> tuple[Any, Row]:
        state, metrics = learner.step(game, state)
        row: Row = metrics_row(metrics) | {"epoch": epoch}
        if isinstance(game, TabularGame) and is_due(
            epoch, config.num_epochs, config.evaluation.evaluate_every
        ):
            name, policy = next(iter(learner.policies(game, state).items()))
            title = policy_title(name)
            observer.on_stage(f"certifying the {title} after epoch {epoch}")
            row |= _certify_on_the_way(config, game, policy, epoch)
        return state, row

    goal = _target(config)

    def is_last(row: Row) -> bool:
        upper = row.get("exploitability_max_upper")
        return goal is not None and isinstance(upper, int | float) and upper <= goal.largest

    state, epoch, resumed_from = train(directory, config, step, columns, state, is_last, observer)
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
    return ExperimentResult(directory, config, policies, evaluation, resumed_from, seconds)


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


def _target(config: RunConfig) -> Target | None:
    settings = config.evaluation
    if settings.target == 0:
        return None
    return Target(
        settings.target,
        num_trajectories=settings.num_evaluation_trajectories,
        confidence=settings.confidence,
        check_every=settings.evaluate_every,
    )


def _certify_on_the_way(config: RunConfig, game: TabularGame, policy: Policy, epoch: int) -> Row:
    began, goal, settings = time.monotonic(), _target(config), config.evaluation
    certificate = exploitability(
        game,
        policy,
        key=jax.random.fold_in(config.keys.evaluation, epoch),
        num_trajectories=settings.num_evaluation_trajectories,
        confidence=goal.confidence_of_a_look(config.num_epochs) if goal else settings.confidence,
        own_influence_agents=0,
        agents=None if goal else agents_to_draw(game, settings),
    )
    return {
        "exploitability_max_lower": float(certificate.maximum.lower),
        "exploitability_max_upper": float(certificate.maximum.upper),
        "exploitability_mean_lower": float(certificate.mean.lower),
        "exploitability_mean_upper": float(certificate.mean.upper),
        "evaluation_seconds": time.monotonic() - began,
    }
