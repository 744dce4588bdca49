"""Run a PPO experiment from a config: learn, evaluate, save; resume it bit for bit.

Nothing is printed: an `Observer` hears what happens.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from os import PathLike

import jax

from crowdnash.games.base import DynamicGame
from crowdnash.games.checks import named
from crowdnash.learners.ppo.learner import PPOMetrics, PPOState
from crowdnash.policies.neural import NeuralPolicy
from crowdnash.runs.directory import RunDirectory, config_text
from crowdnash.runs.game_record import GameRecord
from crowdnash.runs.metrics_log import Row
from crowdnash.runs.ppo_config import PPOConfig
from crowdnash.runs.ppo_evaluation import PPOEvaluation, evaluate_neural_policy
from crowdnash.runs.training_loop import Interrupted, Observer, train, with_more_epochs


@dataclass(frozen=True)
class PPOResult:
    """A finished run.

    Attributes:
        directory: where it is saved.
        config: its settings.
        policy: the final policy.
        evaluation: how it does.
        resumed_from: epochs that had been done before, 0 for a run from the start.
        seconds: wall time of this call.
    """

    directory: RunDirectory
    config: PPOConfig
    policy: NeuralPolicy
    evaluation: PPOEvaluation
    resumed_from: int
    seconds: float


def run(config: PPOConfig, out: str | PathLike[str], observer: Observer | None = None) -> PPOResult:
    """Run an experiment from the start and save it in `out`; as `experiment.run`.

    Raises:
        ValueError: a setting is out of range, or `out` is not new or empty.
        OSError: the disk is full or cannot be written; what was saved stays sound.
        Interrupted: Ctrl-C; `resume` goes on from there.
    """
    game, learner = _draw_game(config), config.learner()
    state = learner.init(game, key=config.keys.learner)
    directory = RunDirectory.create(out, config.to_json())
    with directory.locked():
        return _train_and_finish(directory, config, game, state, observer or Observer())


def resume(
    path: str | PathLike[str],
    *,
    num_epochs: int | None = None,
    observer: Observer | None = None,
) -> PPOResult:
    """Continue a run to the policy that it would have reached without interruption.

    A run without a checkpoint starts over; a finished one is returned as it is. `num_epochs` may
    grow up to the run's `annealing_epochs`.

    Raises:
        ValueError: not a run directory of PPO, fewer epochs than before, or a damaged config.
        CheckpointError: there are checkpoints and none can be restored.
        OSError, Interrupted: as in `run`.
    """
    directory = RunDirectory.open(path)
    with directory.locked():
        config = with_more_epochs(directory, load_config(directory), num_epochs)
        game = _draw_game(config)
        if _is_finished(directory, config):
            policy = NeuralPolicy.load(directory.policy, game, identity=config.identity)
            evaluation = PPOEvaluation.load(directory)
            return PPOResult(directory, config, policy, evaluation, config.num_epochs, 0.0)
        state = config.learner().init(game, key=config.keys.learner)
        return _train_and_finish(directory, config, game, state, observer or Observer())


def evaluate(
    path: str | PathLike[str],
    *,
    num_trajectories: int | None = None,
    best_response_agents: int | None = None,
    confidence: float | None = None,
    seed: int | None = None,
) -> PPOEvaluation:
    """Evaluate the saved policy of a run again and save the result in its directory.

    Args:
        path: the run directory.
        num_trajectories: plays on which the policy is judged; None: the run's.
        best_response_agents: agents that learn to deviate; None: the run's.
        confidence: coverage of the intervals; None: the run's.
        seed: for fresh random draws; None: the draws of the run's own evaluation.

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
            "best_response_agents": best_response_agents,
            "confidence": confidence,
            "seed": seed,
        }
        settings = dataclasses.replace(
            config, **{name: value for name, value in changes.items() if value is not None}
        )
        if not directory.policy.exists():
            raise ValueError(f"{directory.path} has no final policy yet; resume the run first")
        game = _draw_game(settings)
        policy = NeuralPolicy.load(directory.policy, game, identity=config.identity)
        epoch = PPOEvaluation.load(directory).epoch if directory.evaluation.exists() else None
        GameRecord.of(game).save(directory)  # a run of an earlier version has none
        return _evaluate(directory, settings, game, policy, epoch or config.num_epochs)


def load_config(directory: RunDirectory) -> PPOConfig:
    """Return the settings of a run.

    Raises:
        ValueError: they are damaged, or of another learner.
    """
    return PPOConfig.from_json(config_text(directory), source=str(directory.config))


def metrics_columns(game: DynamicGame) -> tuple[str, ...]:
    """All metrics columns; `epoch` counts the epochs done, from 1.

    Raises:
        ValueError: the game calls one of its statistics as PPO calls a metric.
    """
    own = [item.name for item in dataclasses.fields(PPOMetrics) if item.name != "statistics"]
    state = jax.eval_shape(lambda: game.reset(jax.random.key(0)))
    of_game = list(jax.eval_shape(game.statistics, state))
    for name in of_game:
        if name in own:
            raise ValueError(f"{named(game)}: a statistic must not be called {name!r}, as PPO's is")
    return (*own, *of_game)


def _draw_game(config: PPOConfig) -> DynamicGame:
    game = config.draw_game()
    if config.best_response_agents > game.num_agents:
        raise ValueError(
            f"best_response_agents must be at most N = {game.num_agents}, "
            f"got {config.best_response_agents}"
        )
    return game


def _is_finished(directory: RunDirectory, config: PPOConfig) -> bool:
    if not (directory.evaluation.exists() and directory.policy.exists()):
        return False
    try:
        return PPOEvaluation.load(directory).epoch == config.num_epochs
    except ValueError:
        return False


def _train_and_finish(
    directory: RunDirectory,
    config: PPOConfig,
    game: DynamicGame,
    state: PPOState,
    observer: Observer,
) -> PPOResult:
    began = time.monotonic()
    learner = config.learner()

    def step(state: PPOState, epoch: int) -> tuple[PPOState, Row]:
        state, metrics = learner.step(game, state)
        row = dataclasses.asdict(metrics)
        return state, row | row.pop("statistics") | {"epoch": epoch}

    try:
        columns = metrics_columns(game)
        state, resumed_from = train(directory, config, step, columns, state, observer)
        policy = learner.policies(game, state)["last"]
        directory.remove_results()
        policy.save(directory.policy)
        observer.on_stage("measuring how alike the agents are")
        GameRecord.of(game).save(directory)
        observer.on_stage("evaluating the policy")
        evaluation = _evaluate(directory, config, game, policy, config.num_epochs)
    except Interrupted:
        raise
    except KeyboardInterrupt as interrupt:
        raise Interrupted(directory, config.num_epochs) from interrupt
    seconds = time.monotonic() - began
    return PPOResult(directory, config, policy, evaluation, resumed_from, seconds)


def _evaluate(
    directory: RunDirectory,
    config: PPOConfig,
    game: DynamicGame,
    policy: NeuralPolicy,
    epoch: int,
) -> PPOEvaluation:
    evaluation, episode = evaluate_neural_policy(
        game, policy, config, epoch, config.keys.evaluation
    )
    episode.save(directory)
    evaluation.save(directory)
    return evaluation
