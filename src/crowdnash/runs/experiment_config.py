"""The settings of an experiment with policy mirror descent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from crowdnash.games.base import TabularGame
from crowdnash.learners.mirror_descent import PolicyMirrorDescent
from crowdnash.learners.temporal_difference import TDStep
from crowdnash.runs.config import Parameter, RunConfig

Groups = Literal["symmetric", "independent"] | int
Preset = Literal["practical", "theorem"]
StepSize = Literal["theorem"] | float
Iterate = Literal["last", "average"]


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig(RunConfig):
    """Everything that decides the outcome of a run. `create` fills in the defaults.

    Attributes:
        preset: the preset that the learner's settings started from.
        groups: how agents share policies: all one, each its own, or this many groups.
        td_epochs: trajectories per policy evaluation (M of Algorithm 1).
        temperature: entropy temperature, reward units, at least 0.
        step_size: mirror-descent step: "theorem" (1/√(t+1)) or a constant.
        mixing: whether every iterate is mixed with the uniform policy (Algorithm 2).
        td_step_size: step-size rule of temporal-difference learning, see `StepRule.named`.
        td_delta: delta of the theorem's rule, in (0, 1].
        evaluate_every: epochs between certificates along the way; 0: only after the last epoch.
        num_evaluation_trajectories: paths per certificate, at least 2.
        confidence: coverage of the certificate's intervals, in (0, 1).
        own_influence_agents: agents whose own influence the final evaluation measures.
        iterate: which policy the certificates along the way are for.
    """

    learner_name: ClassVar[str] = "policy mirror descent"

    preset: Preset
    groups: Groups
    td_epochs: int
    temperature: float
    step_size: StepSize
    mixing: bool
    td_step_size: TDStep
    td_delta: float
    evaluate_every: int = 25
    num_evaluation_trajectories: int = 256
    confidence: float = 0.95
    own_influence_agents: int = 8
    iterate: Iterate = "last"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.confidence < 1.0:
            raise ValueError(f"confidence must lie in (0, 1), got {self.confidence}")

    @classmethod
    def least_values(cls) -> dict[str, int]:
        """See `RunConfig.least_values`."""
        return super().least_values() | {
            "td_epochs": 1,
            "num_evaluation_trajectories": 2,
            "evaluate_every": 0,
            "own_influence_agents": 0,
        }

    @classmethod
    def create(
        cls,
        game: str,
        *,
        game_parameters: Mapping[str, Parameter] | None = None,
        preset: str = "practical",
        **settings: Any,
    ) -> ExperimentConfig:
        """Return a config with the game's and the preset's defaults where nothing is given.

        All defaults are written out, so that a stored config keeps its meaning.

        Args:
            game: name or alias of a game.
            game_parameters: keywords of the game's `sample` that differ from its defaults.
            preset: where the learner's settings start from.
            **settings: any other attribute.

        Raises:
            ValueError: an unknown name, or a value of the wrong type or range.
        """
        given = preset_settings(preset) | settings | {"preset": preset}
        return cls.with_game_defaults(game, game_parameters, given)

    @classmethod
    def create_defaults(cls, preset: str) -> dict[str, Any]:
        """What `create` would fill in for settings that have no default of their own."""
        return {"preset": preset} | preset_settings(preset)

    def sample_game(self) -> TabularGame:
        """Draw the game; the same config draws the same game.

        Raises:
            ValueError: a parameter is out of the game's range, or the game has no tables.
        """
        game = self.draw_game()
        if not isinstance(game, TabularGame):
            raise ValueError(
                f"game must be one with tables (a TabularGame), not {self.game!r}: "
                "solve it with a neural policy"
            )
        return game

    def learner(self) -> PolicyMirrorDescent:
        """Return the learner.

        Raises:
            ValueError: a setting is out of the learner's range.
        """
        return PolicyMirrorDescent(**{name: getattr(self, name) for name in LEARNER_SETTINGS})


LEARNER_SETTINGS = (
    "num_epochs",
    "td_epochs",
    "temperature",
    "groups",
    "step_size",
    "mixing",
    "td_step_size",
    "td_delta",
)


def preset_settings(preset: str) -> dict[str, Any]:
    """Return the learner's settings under a preset.

    Raises:
        ValueError: there is no such preset.
    """
    match preset:
        case "practical":
            learner = PolicyMirrorDescent.practical()
        case "theorem":
            learner = PolicyMirrorDescent()
        case _:
            raise ValueError(f"preset must be 'practical' or 'theorem', got {preset!r}")
    return {name: getattr(learner, name) for name in LEARNER_SETTINGS}
