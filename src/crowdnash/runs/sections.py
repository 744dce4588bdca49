"""The sections of a run's settings that are not its learner's: certificates and checkpoints."""

from __future__ import annotations

import math
from dataclasses import dataclass

from crowdnash.runs.setting_types import check_types

PATHS, PLAYS = 256, 16
"""On which a policy is judged by default, in a game with laws and in one that is only played."""


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How policies are judged, along the way and at the end.

    Attributes:
        evaluate_every: epochs between certificates; 0: only after the last epoch. A game that is
            only a simulator has none along the way.
        target: the run ends when a certificate along the way finds the largest exploitability to be
            at most this, in reward units; 0: it ends after `num_epochs`.
        num_evaluation_trajectories: simulated population paths per certificate, or plays of a game
            that is only a simulator, at least 2.
        confidence: coverage of the intervals, in (0, 1).
        own_influence_agents: agents whose own influence on the population is measured at the end.
        agents: of a large game, so many random agents are examined for the mean over all, and for
            the largest those whom a coarse pass over everybody finds worst; 0: all agents.
        best_response_agents: simulators: agents that learn at the end how to gain by deviating;
            0: none.
        best_response_epochs: simulators: epochs of PPO that each of them gets.
    """

    evaluate_every: int = 25
    target: float = 0.0
    num_evaluation_trajectories: int = PATHS
    confidence: float = 0.95
    own_influence_agents: int = 8
    agents: int = 0
    best_response_agents: int = 0
    best_response_epochs: int = 150

    def __post_init__(self) -> None:
        check_types(self, {"num_evaluation_trajectories": 2, "best_response_epochs": 1})
        if self.agents == 1:
            raise ValueError("agents must be at least 2, or 0 for all, got 1")
        if not 0.0 < self.confidence < 1.0:
            raise ValueError(f"confidence must lie in (0, 1), got {self.confidence}")
        if not 0.0 <= self.target < math.inf:
            raise ValueError(f"target must be at least 0, got {self.target}")
        if self.target > 0 and self.evaluate_every == 0:
            raise ValueError("target needs certificates along the way: evaluate_every above 0")


@dataclass(frozen=True, kw_only=True)
class CheckpointSettings:
    """When a run is saved, so that little is lost when it is stopped.

    Attributes:
        checkpoint_every: epochs between checkpoints; 0: by time alone.
        checkpoint_seconds: a checkpoint is also saved after this many seconds; 0: by epochs alone.
    """

    checkpoint_every: int = 0
    checkpoint_seconds: float = 10.0

    def __post_init__(self) -> None:
        check_types(self, {})
        if self.checkpoint_every == 0 and self.checkpoint_seconds == 0:
            raise ValueError("checkpoint_every and checkpoint_seconds must not both be 0")
