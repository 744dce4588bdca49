"""The settings of a run, whatever its learner: one frozen record, kept as JSON and as TOML.

The learner is nested as it is: its own fields are what is stored, and nothing types them again.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jaxtyping import Key

from crowdnash import games
from crowdnash.games.base import DynamicGame, TabularGame
from crowdnash.games.registry import sample_parameters
from crowdnash.learners import registry
from crowdnash.learners.base import Learner
from crowdnash.runs.seal import FORMAT
from crowdnash.runs.sections import PLAYS, CheckpointSettings, EvaluationSettings
from crowdnash.runs.setting_types import (
    describe,
    fits,
    parsed_settings,
    setting_types,
    toml_text,
)

Parameter = bool | int | float | str | Mapping[str, float]
"""A parameter of a game's `sample`; a mapping gives one number per name."""

SECTIONS = ("game_parameters", "learner", "evaluation", "checkpoints")


class ExperimentKeys(typing.NamedTuple):
    """Independent random keys of one experiment, derived from its seed."""

    game: Key[jax.Array, ""]
    learner: Key[jax.Array, ""]
    evaluation: Key[jax.Array, ""]


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides the outcome of a run; `create` fills in the defaults.

    Attributes:
        game: name of the game, see `games.names`.
        game_parameters: every keyword of the game's `sample`, with its value.
        learner: the learner, one of `learners.registry`.
        evaluation: how policies are judged.
        seed: decides the game's draw and all randomness of learning and evaluation.
        checkpoints: when a checkpoint is due.
    """

    game: str
    game_parameters: Mapping[str, Parameter]
    learner: Learner[Any, Any, Any]
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    seed: int = 0
    checkpoints: CheckpointSettings = field(default_factory=CheckpointSettings)

    def __post_init__(self) -> None:
        if not fits(self.seed, int):
            raise ValueError(f"seed must be an integer, got {self.seed!r}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")
        if self.seed >= 2**32:  # jax.random.key reads no more of it
            raise ValueError(f"seed must be below 2**32, got {self.seed}")
        registry.name_of(self.learner)
        if self.num_epochs < 1:
            raise ValueError(f"num_epochs must be at least 1, got {self.num_epochs}")
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
        if self.evaluation.target > 0 and not self.is_tabular:
            raise ValueError(
                f"target needs a game whose laws can be queried: {self.game} is only a simulator, "
                "and has no certificate from above"
            )
        if self.evaluation.agents and not self.is_tabular:
            raise ValueError(
                "agents is for games whose laws can be queried; of a simulator as many agents "
                "learn to deviate as best_response_agents says"
            )
        if self.evaluation.best_response_agents and self.is_tabular:
            raise ValueError(
                "best_response_agents is for games that are only simulators: the certificate of "
                f"{self.game} covers all agents"
            )

    @classmethod
    def create(
        cls,
        game: str,
        *,
        game_parameters: Mapping[str, Parameter] | None = None,
        learner: Learner[Any, Any, Any] | str | None = None,
        preset: str | None = None,
        seed: int = 0,
        **settings: Any,
    ) -> RunConfig:
        """Return a config with all defaults written out, so that it keeps its meaning.

        Args:
            game: name or alias of a game.
            game_parameters: keywords of the game's `sample` that differ from its defaults.
            learner: a learner, or the name of one; None: the first that is registered.
            preset: of the learner, where its settings start from; None: its first one.
            seed: as the attribute.
            **settings: fields of the learner (unless it is there already), of `EvaluationSettings`
                and of `CheckpointSettings` that differ from the defaults.

        Raises:
            ValueError: an unknown name, or a value of the wrong type or range.
        """
        game_class = games.lookup(game)
        defaults = {n: p.default for n, p in sample_parameters(game_class).items()}
        if not issubclass(game_class, TabularGame):
            settings = {"num_evaluation_trajectories": PLAYS} | settings
        parts: list[Any] = []
        for kind in (EvaluationSettings, CheckpointSettings):
            names = [item.name for item in dataclasses.fields(kind)]
            own = {name: settings.pop(name) for name in names if name in settings}
            parts.append(kind(**own))
        if not isinstance(learner, Learner):
            learner = make_learner(learner or next(iter(registry.LEARNERS)), settings, preset)
        elif settings:
            raise ValueError(f"no setting is called {next(iter(settings))!r}")
        return cls(
            game=game_class.name,
            game_parameters=defaults | dict(game_parameters or {}),
            learner=learner.pinned(),
            evaluation=parts[0],
            seed=seed,
            checkpoints=parts[1],
        )

    @property
    def num_epochs(self) -> int:
        """Epochs of the learner."""
        return self.learner.num_epochs

    @property
    def is_tabular(self) -> bool:
        """Whether the game's laws can be queried, so that certificates are two-sided."""
        return issubclass(games.lookup(self.game), TabularGame)

    @property
    def keys(self) -> ExperimentKeys:
        """The random keys that `seed` stands for."""
        return ExperimentKeys(*jax.random.split(jax.random.key(self.seed), 3))

    def draw_game(self) -> DynamicGame:
        """Draw the game; the same config draws the same game.

        Raises:
            ValueError: a parameter is out of the game's range, or the game does not suit the
                learner or the evaluation.
        """
        game_class: Any = games.lookup(self.game)
        game = game_class.sample(self.keys.game, **self.game_parameters)
        self.learner.check_suits(game)
        if self.evaluation.agents > game.num_agents:
            raise ValueError(
                f"agents must be at most N = {game.num_agents}, got {self.evaluation.agents}"
            )
        if self.evaluation.best_response_agents > game.num_agents:
            raise ValueError(
                f"best_response_agents must be at most N = {game.num_agents}, "
                f"got {self.evaluation.best_response_agents}"
            )
        return game

    def with_num_epochs(self, num_epochs: int) -> RunConfig:
        """The same settings for another number of epochs.

        Raises:
            ValueError: the learner cannot have so many.
        """
        learner = dataclasses.replace(self.learner, num_epochs=num_epochs)
        return dataclasses.replace(self, learner=learner)

    def sections(self) -> dict[str, Any]:
        """All settings as plain values: what the files hold, and what people read."""
        return {
            "game": self.game,
            "seed": self.seed,
            "game_parameters": dict(self.game_parameters),
            "learner": {"name": registry.name_of(self.learner)} | learner_settings(self.learner),
            "evaluation": dataclasses.asdict(self.evaluation),
            "checkpoints": dataclasses.asdict(self.checkpoints),
        }

    def decisive_settings(self) -> dict[str, Any]:
        """What decides the learner's states, as JSON has it: a checkpoint is of one such choice."""
        sections = json.loads(json.dumps(self.sections()))
        del sections["learner"]["num_epochs"], sections["evaluation"], sections["checkpoints"]
        return sections

    def settings(self) -> tuple[tuple[str, Any], ...]:
        """All settings by name, for people to read."""
        sections = self.sections()
        learner = {"learner": sections["learner"].pop("name")} | sections["learner"]
        rows = {"game": self.game} | sections["game_parameters"] | learner | {"seed": self.seed}
        return tuple((rows | sections["evaluation"] | sections["checkpoints"]).items())

    def to_json(self) -> str:
        """Return the settings as JSON; floats round-trip exactly."""
        return json.dumps({"format": FORMAT} | self.sections(), indent=2) + "\n"

    def to_toml(self) -> str:
        """Return the settings as `--config` takes them; settings that are None are left out."""
        sections = self.sections()
        lines = [f"{name} = {toml_text(sections[name])}" for name in ("game", "seed")]
        for section in SECTIONS:
            values = sections[section].items()
            lines += ["", f"[{section}]"]
            lines += [f"{name} = {toml_text(value)}" for name, value in values if value is not None]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str = "config.json") -> RunConfig:
        """Read what `to_json` wrote.

        Raises:
            ValueError: the text is damaged, of another version, has unknown or missing settings or
                a bad value; the message names `source`.
        """
        stored = parsed_settings(text, json.loads, source)
        version = stored.pop("format", None)
        if version == 1:
            raise ValueError(f"{source} is of crowdnash 0.1, whose runs this version does not read")
        if version != FORMAT:
            raise ValueError(f"{source} is not a crowdnash config of format {FORMAT}")
        _refuse_missing(stored, source)
        return read_sections(stored, source)

    @classmethod
    def from_toml(cls, text: str, source: str = "run.toml") -> RunConfig:
        """Read what `to_toml` wrote, or a part of it by hand: what is not there has its default.

        `[learner]` may name a `preset` to start from.

        Raises:
            ValueError: as `from_json`.
        """
        return read_sections(parsed_settings(text, tomllib.loads, source), source)


def make_learner(
    name: str, settings: Mapping[str, Any], preset: str | None = None
) -> Learner[Any, Any, Any]:
    """The learner called `name`, with a preset's settings (None: the first's) where none is given.

    Raises:
        ValueError: there is no such learner, preset or setting, or a value is of the wrong type or
            out of range.
    """
    learner_class = registry.lookup(name)
    presets = learner_class.presets()
    if preset is not None and preset not in presets:
        raise ValueError(f"preset must be {' or '.join(map(repr, presets))}, got {preset!r}")
    hints = setting_types(learner_class)
    for setting, value in settings.items():
        if setting not in hints:
            raise ValueError(f"no setting is called {setting!r}; there are {', '.join(hints)}")
        if not fits(value, hints[setting]):
            raise ValueError(f"{setting} must be {describe(hints[setting])}, got {value!r}")
    values = {n: tuple(v) if isinstance(v, list) else v for n, v in settings.items()}
    return presets[preset or next(iter(presets))](**values)


def learner_settings(learner: Learner[Any, Any, Any]) -> dict[str, Any]:
    """A learner's hyperparameters as plain values."""
    values = {item.name: getattr(learner, item.name) for item in dataclasses.fields(learner)}
    return {
        name: np.asarray(value).tolist() if np.ndim(value) else value
        for name, value in values.items()
    }


def _refuse_missing(stored: Mapping[str, Any], source: str) -> None:
    """Raise `ValueError` unless a stored config has every setting."""
    sections = {name: stored.get(name) for name in SECTIONS}
    for name, values in sections.items():
        if not isinstance(values, dict):
            raise ValueError(f"{source} has no settings called {name}")
    kinds: dict[str, Any] = {
        "learner": registry.lookup(stored["learner"].get("name")),
        "evaluation": EvaluationSettings,
        "checkpoints": CheckpointSettings,
    }
    missing = {"game", "seed"} - stored.keys()
    for section, kind in kinds.items():
        missing |= {item.name for item in dataclasses.fields(kind)} - stored[section].keys()
    if missing:
        raise ValueError(f"{source} has no setting {', '.join(sorted(missing))}")


def read_sections(stored: Mapping[str, Any], source: str) -> RunConfig:
    """The config that plain values by name stand for; what is not there has its default.

    Raises:
        ValueError: an unknown setting, or a bad value; the message names `source`.
    """
    unknown = stored.keys() - {"game", "seed", *SECTIONS}
    if unknown:
        raise ValueError(f"{source} has unknown setting {', '.join(sorted(unknown))}")
    if "game" not in stored:
        raise ValueError(f"{source} has no setting game")
    for name, kind in (("game", str), ("seed", int)):
        if not fits(stored.get(name, kind()), kind):
            raise ValueError(f"{source}: {name} must be {describe(kind)}, got {stored[name]!r}")
    sections: dict[str, Any] = {name: stored.get(name, {}) for name in SECTIONS}
    for name, values in sections.items():
        if not isinstance(values, dict):
            raise ValueError(f"{source}: {name} must be settings by name, got {values!r}")
    learner = dict(sections["learner"])
    name, preset = learner.pop("name", None), learner.pop("preset", None)
    try:
        return RunConfig.create(
            stored["game"],
            game_parameters=sections["game_parameters"],
            learner=make_learner(name or next(iter(registry.LEARNERS)), learner, preset),
            seed=stored.get("seed", 0),
            **(sections["evaluation"] | sections["checkpoints"]),
        )
    except (ValueError, TypeError) as error:
        raise ValueError(f"{source}: {error}") from None
