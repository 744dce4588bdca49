"""Run an experiment from a config: learn, certify, save; resume it bit for bit; evaluate it again.

Here the learner and the certificate meet, and nowhere else. Nothing is printed: an `Observer`
hears what happens.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import jax
import jax.numpy as jnp

from crowdnash.certificates.certificate import exploitability
from crowdnash.games.base import TabularGame
from crowdnash.learners.mirror_descent import EpochMetrics, MirrorDescentState, PolicyMirrorDescent
from crowdnash.policies.tabular import TabularPolicy
from crowdnash.runs.directory import RunDirectory, config_text
from crowdnash.runs.evaluation import Evaluation, PolicyEvaluation, evaluate_policy
from crowdnash.runs.experiment_config import ExperimentConfig
from crowdnash.runs.game_record import GameRecord
from crowdnash.runs.metrics_log import Row
from crowdnash.runs.training_loop import Interrupted, Observer, train, with_more_epochs

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


@dataclass(frozen=True)
class ExperimentResult:
    """A finished run.

    Attributes:
        directory: where it is saved.
        config: its settings.
        policy: Algorithm 2's average policy.
        last_policy: the last iterate.
        evaluation: the certificates of both and of the uniform policy.
        resumed_from: epochs that had been done before, 0 for a run from the start.
        seconds: wall time of this call.
    """

    directory: RunDirectory
    config: ExperimentConfig
    policy: TabularPolicy
    last_policy: TabularPolicy
    evaluation: Evaluation
    resumed_from: int
    seconds: float


def run(
    config: ExperimentConfig, out: str | PathLike[str], observer: Observer | None = None
) -> ExperimentResult:
    """Run an experiment from the start and save it in `out`.

    Args:
        config: the settings.
        out: a new or empty folder.
        observer: hears what happens.

    Raises:
        ValueError: a setting is out of range, or `out` is not new or empty.
        OSError: the disk is full or cannot be written; what was saved stays sound.
        Interrupted: Ctrl-C; `resume` goes on from there.
    """
    # Bad settings must not leave a directory behind, so the game and learner come first.
    game, learner = config.sample_game(), config.learner()
    state = learner.init(game, key=config.keys.learner)
    directory = RunDirectory.create(out, config.to_json())
    with directory.locked():
        return _train_and_finish(directory, config, game, learner, state, observer or Observer())


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
        observer: hears what happens.

    Raises:
        ValueError: not a run directory, fewer epochs than before, or a damaged config.
        CheckpointError: there are checkpoints and none can be restored.
        OSError, Interrupted: as in `run`.
    """
    observer = observer or Observer()
    directory = RunDirectory.open(path)
    with directory.locked():
        config = with_more_epochs(directory, load_config(directory), num_epochs)
        if is_finished(directory, config):
            return _load_result(directory, config)
        game, learner = config.sample_game(), config.learner()
        state = learner.init(game, key=config.keys.learner)
        return _train_and_finish(directory, config, game, learner, state, observer)


def evaluate(
    path: str | PathLike[str],
    *,
    num_trajectories: int | None = None,
    confidence: float | None = None,
    seed: int | None = None,
    observer: Observer | None = None,
) -> Evaluation:
    """Certify the saved policies of a run again and save the result in its directory.

    Args:
        path: the run directory.
        num_trajectories: paths per certificate; None: the run's.
        confidence: coverage of the intervals; None: the run's.
        seed: for fresh random draws; None: the draws of the run's own final evaluation.
        observer: hears what happens.

    Raises:
        ValueError: not a run directory, no policy yet, a damaged policy file or one that is for
            another game.
        OSError: the result cannot be written.
    """
    directory = RunDirectory.open(path)
    with directory.locked():
        config = load_config(directory)
        changes = {
            "num_evaluation_trajectories": num_trajectories,
            "confidence": confidence,
            "seed": seed,
        }
        settings = dataclasses.replace(
            config, **{name: value for name, value in changes.items() if value is not None}
        )
        if not (directory.policy.exists() and directory.last_policy.exists()):
            raise ValueError(f"{directory.path} has no final policy yet; resume the run first")
        game = config.sample_game()
        policy, last_policy = (
            load_policy(file, game) for file in (directory.policy, directory.last_policy)
        )
        # After num_epochs grew and before the run got there, the policies are the old ones.
        epoch = Evaluation.load(directory).epoch if directory.evaluation.exists() else None
        evaluation = _evaluate(
            settings, game, policy, last_policy, epoch or config.num_epochs, observer or Observer()
        )
        GameRecord.of(game).save(directory)  # a run of an earlier version has none
        evaluation.save(directory)
        return evaluation


def load_config(directory: RunDirectory) -> ExperimentConfig:
    """Return the settings of a run.

    Raises:
        ValueError: they are damaged.
    """
    return ExperimentConfig.from_json(config_text(directory), source=str(directory.config))


def load_policy(path: Path, game: TabularGame) -> TabularPolicy:
    """Return the policy saved at `path`, made sure to be one for `game`.

    Raises:
        ValueError: the file is damaged, or the policy is for another game.
    """
    policy = TabularPolicy.load(path)
    try:
        policy.check_fits(game)
    except ValueError as error:
        raise ValueError(f"{path} is a policy for another game: {error}") from None
    return policy


def is_finished(directory: RunDirectory, config: ExperimentConfig) -> bool:
    """Whether the run's policies and their evaluation are saved for all its epochs."""
    if not (directory.policy.exists() and directory.last_policy.exists()):
        return False
    try:
        return Evaluation.load(directory).epoch == config.num_epochs
    except ValueError:
        return False


def _load_result(directory: RunDirectory, config: ExperimentConfig) -> ExperimentResult:
    game = config.sample_game()
    return ExperimentResult(
        directory=directory,
        config=config,
        policy=load_policy(directory.policy, game),
        last_policy=load_policy(directory.last_policy, game),
        evaluation=Evaluation.load(directory),
        resumed_from=config.num_epochs,
        seconds=0.0,
    )


def _train_and_finish(
    directory: RunDirectory,
    config: ExperimentConfig,
    game: TabularGame,
    learner: PolicyMirrorDescent,
    state: MirrorDescentState,
    observer: Observer,
) -> ExperimentResult:
    began = time.monotonic()

    def step(state: MirrorDescentState, epoch: int) -> tuple[MirrorDescentState, Row]:
        state, metrics = learner.step(game, state)
        row: Row = dataclasses.asdict(metrics) | {"epoch": epoch}
        if _evaluation_is_due(config, epoch):
            observer.on_stage(f"evaluating the policy after epoch {epoch}")
            row |= _evaluate_on_the_way(config, game, learner, state, epoch)
        return state, row

    try:
        state, resumed_from = train(directory, config, step, METRICS_COLUMNS, state, observer)
        policies = learner.policies(game, state)
        policy, last_policy = policies["average"], policies["last"]
        directory.remove_results()
        last_policy.save(directory.last_policy)
        policy.save(directory.policy)
        observer.on_stage("measuring how alike the agents are")
        GameRecord.of(game).save(directory)
        evaluation = _evaluate(config, game, policy, last_policy, config.num_epochs, observer)
        evaluation.save(directory)  # last: its presence marks a finished run
    except Interrupted:
        raise
    except KeyboardInterrupt as interrupt:
        raise Interrupted(directory, config.num_epochs) from interrupt
    return ExperimentResult(
        directory=directory,
        config=config,
        policy=policy,
        last_policy=last_policy,
        evaluation=evaluation,
        resumed_from=resumed_from,
        seconds=time.monotonic() - began,
    )


def _evaluate(
    config: ExperimentConfig,
    game: TabularGame,
    policy: TabularPolicy,
    last_policy: TabularPolicy,
    epoch: int,
    observer: Observer,
) -> Evaluation:
    began = time.monotonic()
    # In the learned policy's own shape, so that what is compiled for one serves all three.
    uniform = TabularPolicy.grouped(
        jnp.full_like(policy.probs, 1.0 / policy.probs.shape[-1]), policy.groups
    )
    evaluations: dict[str, PolicyEvaluation] = {}
    for name, words, candidate in (
        ("last", "the last iterate", last_policy),
        ("average", "the average policy", policy),
        ("uniform", "the uniform policy", uniform),
    ):
        observer.on_stage(f"evaluating {words}")
        evaluations[name] = evaluate_policy(
            game,
            candidate,
            # Epoch 0 is never evaluated on the way, so these draws are used nowhere else.
            key=jax.random.fold_in(config.keys.evaluation, 0),
            num_trajectories=config.num_evaluation_trajectories,
            confidence=config.confidence,
            own_influence_agents=0 if name == "uniform" else config.own_influence_agents,
        )
    return Evaluation(
        game=config.game,
        num_agents=game.num_agents,
        horizon=game.horizon,
        state_names=tuple(game.state_names),
        action_names=tuple(game.action_names),
        epoch=epoch,
        num_trajectories=config.num_evaluation_trajectories,
        seconds=time.monotonic() - began,
        policies=evaluations,
    )


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
    certificate = exploitability(
        game,
        learner.policies(game, state)[config.iterate],
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
