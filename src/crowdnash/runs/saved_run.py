"""What a run directory of policy mirror descent holds, read for its report."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike

from crowdnash.policies.tabular import TabularPolicy
from crowdnash.runs.directory import RunDirectory
from crowdnash.runs.evaluation import Evaluation, PolicyEvaluation
from crowdnash.runs.experiment import load_config
from crowdnash.runs.experiment_config import ExperimentConfig
from crowdnash.runs.game_record import GameRecord
from crowdnash.runs.metrics_log import Row, read_metrics


@dataclass(frozen=True)
class SavedRun:
    """What a run directory holds, as far as the run has got.

    Attributes:
        directory: the run.
        config: its settings.
        rows: its metrics.
        policies: the learned policies by name ("last", "average"), empty before the end.
        evaluation: their certificates, or None before the end.
        game: what the run keeps of its game; empty before the end and in runs of old.
    """

    directory: RunDirectory
    config: ExperimentConfig
    rows: tuple[Row, ...]
    policies: dict[str, TabularPolicy]
    evaluation: Evaluation | None
    game: GameRecord

    @classmethod
    def load(cls, path: str | PathLike[str]) -> SavedRun:
        """Read a run.

        Raises:
            ValueError: not a run directory, a damaged file, or nothing to report yet.
        """
        directory = RunDirectory.open(path)
        config = load_config(directory)
        rows = read_metrics(directory.metrics_jsonl)
        files = {"last": directory.last_policy, "average": directory.policy}
        evaluation = Evaluation.load(directory) if directory.evaluation.exists() else None
        policies = {name: TabularPolicy.load(file) for name, file in files.items() if file.exists()}
        if evaluation is not None:
            shape = evaluation.policies["uniform"].flow.shape
            for name, policy in policies.items():
                if policy.probs.shape[1:] != shape or policy.num_agents != evaluation.num_agents:
                    raise ValueError(f"{files[name]} is a policy for another game than the run's")
        num_agents = None if evaluation is None else evaluation.num_agents
        game = GameRecord.load(directory, num_agents)
        if not rows and evaluation is None:
            raise ValueError(f"{directory.path} has nothing to report yet: no epoch is done")
        return cls(directory, config, rows, policies, evaluation, game)

    @property
    def certified_rows(self) -> tuple[Row, ...]:
        """The metrics of the epochs that were certified."""
        return tuple(row for row in self.rows if row.get("exploitability_max_lower") is not None)

    @property
    def uniform(self) -> PolicyEvaluation | None:
        """The certificate of the uniform policy."""
        return None if self.evaluation is None else self.evaluation.policies["uniform"]
