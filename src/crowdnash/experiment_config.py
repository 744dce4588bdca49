"""The settings of an experiment: one frozen record that a run directory keeps as config.json."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
from jaxtyping import Key

from crowdnash import games
from crowdnash.game import TabularGame
from crowdnash.mirror_descent import PolicyMirrorDescent
from crowdnash.temporal_difference import TDStep

FORMAT = 1

Parameter = bool | int | float | str | Mapping[str, float]
"""A parameter of a game's `sample`; a mapping gives one number per name."""

Groups = Literal["symmetric", "independent"] | int
Preset = Literal["practical", "theorem"]
StepSize = Literal["theorem"] | float
Iterate = Literal["last", "average"]


class ExperimentKeys(typing.NamedTuple):
    """Independent random keys of one experiment, derived from its seed."""

    game: Key[jax.Array, ""]
    learner: Key[jax.Array, ""]
    evaluation: Key[jax.Array, ""]


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """Everything that decides the outcome of a run. `create` fills in the defaults.

    Attributes:
        game: name of the game, see `games.names`.
        game_parameters: every keyword of the game's `sample`, with its value.
        preset: the preset that the learner's settings started from.
        groups: how agents share policies: all one, each its own, or this many groups.
        num_epochs: epochs of policy mirror descent, at least 1.
        td_epochs: trajectories per policy evaluation (M of Algorithm 1).
        temperature: entropy temperature, reward units, at least 0.
        step_size: mirror-descent step: "theorem" (1/√(t+1)) or a constant.
        mixing: whether every iterate is mixed with the uniform policy (Algorithm 2).
        td_step_size: step-size rule of temporal-difference learning, see `StepRule.named`.
        td_delta: delta of the theorem's rule, in (0, 1].
        seed: decides the game's draw and all randomness of learning and evaluation.
        evaluate_every: epochs between certificates along the way; 0: only after the last epoch.
        num_evaluation_trajectories: paths per certificate, at least 2.
        confidence: coverage of the certificate's intervals, in (0, 1).
        own_influence_agents: agents whose own influence the final evaluation measures.
        iterate: which policy the certificates along the way are for.
        checkpoint_every: epochs between checkpoints; 0: by time alone.
        checkpoint_seconds: a checkpoint is also due after this many seconds; 0: by epochs alone.
    """

    game: str
    game_parameters: Mapping[str, Parameter]
    preset: Preset
    groups: Groups
    num_epochs: int
    td_epochs: int
    temperature: float
    step_size: StepSize
    mixing: bool
    td_step_size: TDStep
    td_delta: float
    seed: int = 0
    evaluate_every: int = 25
    num_evaluation_trajectories: int = 256
    confidence: float = 0.95
    own_influence_agents: int = 8
    iterate: Iterate = "last"
    checkpoint_every: int = 0
    checkpoint_seconds: float = 10.0

    def __post_init__(self) -> None:
        check_types({item.name: getattr(self, item.name) for item in dataclasses.fields(self)})
        self._check_ranges()
        known = sample_parameters(games.lookup(self.game))
        for name, value in self.game_parameters.items():
            if name not in known:
                raise ValueError(
                    f"{self.game} has no parameter {name!r}; it has {', '.join(known)}"
                )
            if not fits(value, known[name].annotation):
                raise ValueError(
                    f"{name} must be {describe(known[name].annotation)}, got {value!r}"
                )

    def _check_ranges(self) -> None:
        least = {"num_epochs": 1, "td_epochs": 1, "num_evaluation_trajectories": 2}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name} must be at least {bound}, got {getattr(self, name)}")
        for name in (
            "seed",
            "evaluate_every",
            "own_influence_agents",
            "checkpoint_every",
            "checkpoint_seconds",
        ):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.seed >= 2**63:
            raise ValueError(f"seed must be below 2**63, got {self.seed}")
        if not 0.0 < self.confidence < 1.0:
            raise ValueError(f"confidence must lie in (0, 1), got {self.confidence}")
        if self.checkpoint_every == 0 and self.checkpoint_seconds == 0:
            raise ValueError("checkpoint_every and checkpoint_seconds must not both be 0")

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
        game_class = games.lookup(game)
        defaults = {
            name: parameter.default for name, parameter in sample_parameters(game_class).items()
        }
        known = {setting.name for setting in dataclasses.fields(cls)}
        for name in settings:
            if name not in known:
                raise ValueError(f"no setting is called {name!r}; there are {', '.join(known)}")
        merged: dict[str, Any] = (
            preset_settings(preset)
            | settings
            | {
                "game": game_class.name,
                "game_parameters": defaults | dict(game_parameters or {}),
                "preset": preset,
            }
        )
        check_types(merged)
        return cls(**merged)

    @classmethod
    def from_json(cls, text: str, source: str = "config.json") -> ExperimentConfig:
        """Read what `to_json` wrote.

        Raises:
            ValueError: the text is damaged, of another format, has unknown or missing settings
                or a bad value; the message names `source`.
        """
        try:
            stored = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{source} is damaged: {error}") from None
        if not isinstance(stored, dict) or stored.pop("format", None) != FORMAT:
            raise ValueError(f"{source} is not a crowdnash config of format {FORMAT}")
        known = {setting.name for setting in dataclasses.fields(cls)}
        for problem, names in (("unknown", stored.keys() - known), ("no", known - stored.keys())):
            if names:
                raise ValueError(f"{source} has {problem} setting {', '.join(sorted(names))}")
        if not isinstance(stored["game_parameters"], dict):
            raise ValueError(f"{source}: game_parameters must be an object")
        try:
            check_types(stored)
            return cls(**stored)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None

    def to_json(self) -> str:
        """Return the settings as JSON; floats round-trip exactly."""
        return json.dumps({"format": FORMAT} | dataclasses.asdict(self), indent=2) + "\n"

    @property
    def keys(self) -> ExperimentKeys:
        """The random keys that `seed` stands for."""
        return ExperimentKeys(*jax.random.split(jax.random.key(self.seed), 3))

    def sample_game(self) -> TabularGame:
        """Draw the game; the same config draws the same game.

        Raises:
            ValueError: a parameter is out of the game's range.
        """
        game_class: Any = games.lookup(self.game)
        return game_class.sample(self.keys.game, **self.game_parameters)

    def learner(self) -> PolicyMirrorDescent:
        """Return the learner.

        Raises:
            ValueError: a setting is out of the learner's range.
        """
        return PolicyMirrorDescent(**{name: getattr(self, name) for name in LEARNER_SETTINGS})


def check_types(settings: Mapping[str, Any]) -> None:
    """Make sure that settings are of the types that `ExperimentConfig` declares.

    Raises:
        ValueError: naming the first that is not.
    """
    hints = typing.get_type_hints(ExperimentConfig)
    for name, value in settings.items():
        if name != "game_parameters" and not fits(value, hints[name]):
            raise ValueError(f"{name} must be {describe(hints[name])}, got {value!r}")


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


def sample_parameters(game_class: type) -> dict[str, inspect.Parameter]:
    """Return the keywords of a game's `sample`, without the key, annotations resolved."""
    sample = inspect.unwrap(game_class.sample)
    sample = getattr(sample, "__func__", sample)
    hints = typing.get_type_hints(sample)
    return {
        name: parameter.replace(annotation=hints[name])
        for name, parameter in inspect.signature(sample).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def fits(value: object, annotation: Any) -> bool:
    """Whether `value` is of the simple type `annotation`; an int counts as a float, NaN does not.

    Known are bool, int, float, str, Literal, mappings to numbers, and unions of these.
    """
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, option) for option in typing.get_args(annotation))
    if origin is Literal:
        return any(
            type(value) is type(option) and value == option
            for option in typing.get_args(annotation)
        )
    if annotation is float:
        return (
            isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        )
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if isinstance(origin or annotation, type) and issubclass(origin or annotation, Mapping):
        return isinstance(value, Mapping) and all(
            isinstance(name, str) and fits(number, float) for name, number in value.items()
        )
    return isinstance(value, annotation)


def describe(annotation: Any) -> str:
    """Return a simple type in words, for messages."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(option) for option in typing.get_args(annotation))
    if origin is Literal:
        return " or ".join(repr(option) for option in typing.get_args(annotation))
    if isinstance(origin or annotation, type) and issubclass(origin or annotation, Mapping):
        return "numbers by name"
    names = {bool: "true or false", int: "an integer", float: "a finite number", str: "text"}
    return names.get(annotation, str(annotation))
