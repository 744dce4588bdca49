"""The settings of an experiment with neural policies and PPO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from crowdnash.learners.ppo.learner import PPO
from crowdnash.policies.identity import IdentityName
from crowdnash.runs.config import Parameter, RunConfig


@dataclass(frozen=True, kw_only=True)
class PPOConfig(RunConfig):
    """Everything that decides the outcome of a run; see `PPO` for the learner's settings.

    Attributes:
        identity: what the policy is told of the agent it acts for.
        groups: number of groups of similar agents, for identity "group"; otherwise 0.
        num_trajectories: plays of all agents per epoch.
        annealing_epochs: epochs over which the learning rate falls to 0; 0: it stays.
        hidden_layers: hidden layers of both networks, at least 1.
        hidden_width: their width.
        num_evaluation_trajectories: plays on which the final policy is judged, at least 2.
        best_response_agents: agents whose best response is learned at the end; 0: none.
        best_response_epochs: PPO epochs that each best response gets.
        confidence: coverage of intervals, in (0, 1).
    """

    learner_name: ClassVar[str] = "ppo"

    identity: IdentityName
    groups: int = 0
    num_trajectories: int
    num_passes: int
    minibatch_size: int
    learning_rate: float
    annealing_epochs: int
    discount: float
    gae_lambda: float
    entropy_weight: float
    value_weight: float
    max_gradient_norm: float
    clip: float
    clip_values: bool
    normalise_advantages: bool
    hidden_layers: int = 2
    hidden_width: int = 128
    horizon_is_end: bool
    matrix_dtype: Literal["float32", "bfloat16"]
    num_evaluation_trajectories: int = 16
    best_response_agents: int = 0
    best_response_epochs: int = 150
    confidence: float = 0.95

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.confidence < 1.0:
            raise ValueError(f"confidence must lie in (0, 1), got {self.confidence}")
        if (self.identity == "group") != (self.groups > 0):
            raise ValueError(
                "groups must be at least 1 with identity 'group', and 0 with any other: "
                f"groups is {self.groups}, identity {self.identity!r}"
            )

    @classmethod
    def least_values(cls) -> dict[str, int]:
        """See `RunConfig.least_values`."""
        return super().least_values() | {
            "groups": 0,
            "annealing_epochs": 0,
            "hidden_layers": 1,
            "hidden_width": 1,
            "num_evaluation_trajectories": 2,
            "best_response_agents": 0,
            "best_response_epochs": 1,
        }

    @classmethod
    def create(
        cls,
        game: str,
        *,
        game_parameters: Mapping[str, Parameter] | None = None,
        **settings: Any,
    ) -> PPOConfig:
        """Return a config with the game's defaults and those of `PPO` where nothing is given.

        Args:
            game: name or alias of a game.
            game_parameters: keywords of the game's `sample` that differ from its defaults.
            **settings: any other attribute; `annealing_epochs` None: as many as `num_epochs`.

        Raises:
            ValueError: an unknown name, or a value of the wrong type or range.
        """
        given = cls.create_defaults() | settings
        if given["annealing_epochs"] is None:
            given["annealing_epochs"] = given["num_epochs"]
        return cls.with_game_defaults(game, game_parameters, given)

    @classmethod
    def create_defaults(cls, preset: str = "") -> dict[str, Any]:
        """What `create` would fill in; PPO has no presets."""
        learner = PPO()
        # A checkpoint holds the optimiser's memory too: three times the networks.
        own = {"checkpoint_seconds": 60.0}
        return own | {name: getattr(learner, name) for name in _LEARNER_SETTINGS}

    def learner(self) -> PPO:
        """Return the learner.

        Raises:
            ValueError: a setting is out of the learner's range.
        """
        settings = {name: getattr(self, name) for name in _LEARNER_SETTINGS}
        widths = (self.hidden_width,) * self.hidden_layers
        return PPO(groups=self.groups or None, hidden_sizes=widths, **settings)


_LEARNER_SETTINGS = (
    "num_epochs",
    "num_trajectories",
    "identity",
    "num_passes",
    "minibatch_size",
    "learning_rate",
    "annealing_epochs",
    "discount",
    "gae_lambda",
    "entropy_weight",
    "value_weight",
    "max_gradient_norm",
    "clip",
    "clip_values",
    "normalise_advantages",
    "horizon_is_end",
    "matrix_dtype",
)
