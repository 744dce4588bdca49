"""What a run directory holds, read for its report: files only, nothing is computed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from os import PathLike

from crowdnash.policies.base import Policy
from crowdnash.runs.config import RunConfig
from crowdnash.runs.directory import RunDirectory
from crowdnash.runs.episode import Episode
from crowdnash.runs.epochs import EVALUATION_COLUMNS
from crowdnash.runs.evaluation import Evaluation, PolicyEvaluation
from crowdnash.runs.experiment import load_config
from crowdnash.runs.game_record import GameRecord
from crowdnash.runs.metrics_log import Row, read_metrics
from crowdnash.runs.saved_policies import load_policies


@dataclass(frozen=True)
class SavedRun:
    """What a run directory holds, as far as the run has got.

    Attributes:
        directory: the run.
        config: its settings.
        metrics: its rows, one an epoch.
        policies: the learned policies by name, the recommended one first; empty before the end.
        evaluation: how they do, or None before the end.
        episode: simulators: one episode of the recommended policy, or None before the end.
        game_record: what the run keeps of its game; empty before the end.
    """

    directory: RunDirectory
    config: RunConfig
    metrics: tuple[Row, ...]
    policies: dict[str, Policy]
    evaluation: Evaluation | None
    episode: Episode | None
    game_record: GameRecord

    @classmethod
    def load(cls, path: str | PathLike[str]) -> SavedRun:
        """Read a run.

        Raises:
            ValueError: not a run directory, a damaged file, or nothing to report yet.
        """
        directory = RunDirectory.open(path)
        config = load_config(directory)
        metrics = read_metrics(directory.metrics_jsonl)
        evaluation = Evaluation.load(directory) if directory.evaluation.exists() else None
        if not metrics and evaluation is None:
            raise ValueError(f"{directory.path} has nothing to report yet: no epoch is done")
        finished = evaluation is not None
        return cls(
            directory=directory,
            config=config,
            metrics=metrics,
            policies=load_policies(directory).policies if finished else {},
            evaluation=evaluation,
            episode=Episode.load(directory) if finished and directory.episode.exists() else None,
            game_record=GameRecord.load(directory, evaluation and evaluation.num_agents),
        )

    @property
    def certified_rows(self) -> tuple[Row, ...]:
        """The metrics of the epochs that were certified."""
        return tuple(row for row in self.metrics if row.get(EVALUATION_COLUMNS[0]) is not None)

    @property
    def recommended(self) -> str | None:
        """The name of the policy to use; None before the end."""
        return None if self.evaluation is None else self.evaluation.recommended

    @property
    def uniform(self) -> PolicyEvaluation | None:
        """How the uniform policy does, where that was measured."""
        return None if self.evaluation is None else self.evaluation.policies.get("uniform")

    @property
    def statistics(self) -> tuple[str, ...]:
        """The names of the game's own figures among the metrics."""
        own = {item.name for item in dataclasses.fields(self.config.learner.metrics_class)}
        names = self.metrics[0] if self.metrics else {}
        return tuple(name for name in names if name not in own and name not in EVALUATION_COLUMNS)

    @property
    def diagnostics(self) -> tuple[str, ...]:
        """The names of the learner's own figures among the metrics, besides what all have."""
        shared = {"epoch", "mean_return", "agent_steps", "seconds", "statistics"}
        names = [item.name for item in dataclasses.fields(self.config.learner.metrics_class)]
        return tuple(name for name in names if name not in shared)
