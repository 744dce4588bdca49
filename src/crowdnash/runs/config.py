"""The settings of a run, whatever its learner: one frozen record, kept as config.json."""

from __future__ import annotations

import abc
import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import jax
from jaxtyping import Key

from crowdnash import games
from crowdnash.games.base import DynamicGame
from crowdnash.games.registry import sample_parameters

FORMAT = 1

_Config = TypeVar("_Config", bound="RunConfig")

Parameter = bool | int | float | str | Mapping[str, float]
"""A parameter of a game's `sample`; a mapping gives one number per name."""


class ExperimentKeys(typing.NamedTuple):
    """Independent random keys of one experiment, derived from its seed."""

    game: Key[jax.Array, ""]
    learner: Key[jax.Array, ""]
    evaluation: Key[jax.Array, ""]


@dataclass(frozen=True, kw_only=True)
class RunConfig(abc.ABC):
    """What every learner's settings have in common; a learner adds its own.

    Attributes:
        game: name of the game, see `games.names`.
        game_parameters: every keyword of the game's `sample`, with its value.
        num_epochs: epochs of the learner, at least 1.
        seed: decides the game's draw and all randomness of learning and evaluation.
        checkpoint_every: epochs between checkpoints; 0: by time alone.
        checkpoint_seconds: a checkpoint is also due after this many seconds; 0: by epochs alone.
    """

    learner_name: ClassVar[str]

    game: str
    game_parameters: Mapping[str, Parameter]
    num_epochs: int
    seed: int = 0
    checkpoint_every: int = 0
    checkpoint_seconds: float = 10.0

    def __post_init__(self) -> None:
        self.check_types({item.name: getattr(self, item.name) for item in dataclasses.fields(self)})
        for name, least in self.least_values().items():
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.seed >= 2**32:  # jax.random.key reads no more of it
            raise ValueError(f"seed must be below 2**32, got {self.seed}")
        if self.checkpoint_every == 0 and self.checkpoint_seconds == 0:
            raise ValueError("checkpoint_every and checkpoint_seconds must not both be 0")
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

    @classmethod
    def least_values(cls) -> dict[str, int]:
        """The smallest allowed value of settings that have one."""
        return {"num_epochs": 1, "seed": 0, "checkpoint_every": 0, "checkpoint_seconds": 0}

    @classmethod
    def with_game_defaults(
        cls: type[_Config],
        game: str,
        game_parameters: Mapping[str, Parameter] | None,
        settings: dict[str, Any],
    ) -> _Config:
        """Build the config of `settings` with the game's own defaults written out.

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
        merged = settings | {
            "game": game_class.name,
            "game_parameters": defaults | dict(game_parameters or {}),
        }
        cls.check_types(merged)
        return cls(**merged)

    @classmethod
    def from_json(cls: type[_Config], text: str, source: str = "config.json") -> _Config:
        """Read what `to_json` wrote.

        Raises:
            ValueError: the text is damaged, of another format or learner, has unknown or missing
                settings or a bad value; the message names `source`.
        """
        stored = stored_settings(text, source)
        learner = stored.pop("learner")
        if learner != cls.learner_name:
            raise ValueError(f"{source} is of learner {learner!r}, not {cls.learner_name!r}")
        known = {setting.name for setting in dataclasses.fields(cls)}
        for problem, names in (("unknown", stored.keys() - known), ("no", known - stored.keys())):
            if names:
                raise ValueError(f"{source} has {problem} setting {', '.join(sorted(names))}")
        if not isinstance(stored["game_parameters"], dict):
            raise ValueError(f"{source}: game_parameters must be an object")
        try:
            cls.check_types(stored)
            return cls(**stored)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None

    def to_json(self) -> str:
        """Return the settings as JSON; floats round-trip exactly."""
        head = {"format": FORMAT, "learner": self.learner_name}
        return json.dumps(head | dataclasses.asdict(self), indent=2) + "\n"

    def settings(self) -> tuple[tuple[str, Any], ...]:
        """All settings by name, the game's parameters in their place, for people to read."""
        own = ((n, v) for n, v in vars(self).items() if n not in ("game", "game_parameters"))
        return (("game", self.game), *self.game_parameters.items(), *own)

    @classmethod
    def check_types(cls, settings: Mapping[str, Any]) -> None:
        """Make sure that settings are of the types that the class declares.

        Raises:
            ValueError: naming the first that is not.
        """
        hints = typing.get_type_hints(cls)
        for name, value in settings.items():
            if name != "game_parameters" and not fits(value, hints[name]):
                raise ValueError(f"{name} must be {describe(hints[name])}, got {value!r}")

    @property
    def keys(self) -> ExperimentKeys:
        """The random keys that `seed` stands for."""
        return ExperimentKeys(*jax.random.split(jax.random.key(self.seed), 3))

    @classmethod
    @abc.abstractmethod
    def create(cls, game: str, **settings: Any) -> RunConfig:
        """Return a config with the game's and the learner's defaults where nothing is given."""

    @classmethod
    @abc.abstractmethod
    def create_defaults(cls, preset: str) -> dict[str, Any]:
        """What `create` would fill in for settings that have no default of their own."""

    @abc.abstractmethod
    def learner(self) -> Any:
        """Return the learner.

        Raises:
            ValueError: a setting is out of the learner's range.
        """

    def draw_game(self) -> DynamicGame:
        """Draw the game; the same config draws the same game.

        Raises:
            ValueError: a parameter is out of the game's range.
        """
        game_class: Any = games.lookup(self.game)
        return game_class.sample(self.keys.game, **self.game_parameters)


def stored_settings(text: str, source: str) -> dict[str, Any]:
    """The settings that a config.json holds, with its "learner", unchecked otherwise.

    Raises:
        ValueError: the text is damaged or of another format; the message names `source`.
    """
    try:
        stored = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{source} is damaged: {error}") from None
    if not isinstance(stored, dict) or stored.pop("format", None) != FORMAT:
        raise ValueError(f"{source} is not a crowdnash config of format {FORMAT}")
    # Runs of before there was a second learner do not say theirs.
    stored.setdefault("learner", "policy mirror descent")
    return stored


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
