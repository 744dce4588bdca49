"""A grid of runs: settings as a run's config.toml has them, some of them with lists of values."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import itertools
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from crowdnash import games
from crowdnash.checks import shown
from crowdnash.games.registry import sample_parameters
from crowdnash.learners import registry
from crowdnash.messages import nearest
from crowdnash.runs.config import (
    SECTIONS,
    RunConfig,
    read_sections,
)
from crowdnash.runs.sections import CheckpointSettings, EvaluationSettings
from crowdnash.runs.setting_types import parsed_settings, setting_types

_LONGEST_NAME = 160
_LONGEST_VALUE = 24


class Cell(NamedTuple):
    """One run of a grid: its name, which is its folder's, its values by axis, and its settings."""

    name: str
    values: Mapping[str, Any]
    config: RunConfig


@dataclass(frozen=True)
class Grid:
    """Runs that differ in some settings: one for each combination of values.

    Attributes:
        settings: those that all runs share, as a run's config.toml has them.
        axes: lists of values by setting; a setting in a section is "section.name".
        source: what messages call it.

    Raises:
        ValueError: at construction: no axis, an unknown setting, a list that is none, is empty or
            holds a value twice, or a value of the wrong type or out of range.
    """

    settings: Mapping[str, Any]
    axes: Mapping[str, Any]
    source: str = "the grid"

    def __post_init__(self) -> None:
        if not self.axes:
            raise ValueError(
                f"{self.source} has no [grid]: settings, each with a list of its values"
            )
        for axis, values in self.axes.items():
            if not isinstance(values, list | tuple):
                raise ValueError(
                    f"{self.source}: {axis} in [grid] must be a list of values, got {shown(values)}"
                )
            if not values:
                raise ValueError(f"{self.source}: {axis} in [grid] is an empty list")
            texts = [json.dumps(value, default=repr, sort_keys=True) for value in values]
            twice = [text for text, count in collections.Counter(texts).items() if count > 1]
            if twice:
                raise ValueError(f"{self.source}: {axis} in [grid] has {twice[0]} twice")
        known = _known_settings(self.settings, self.axes, self.source)
        written = [
            f"{section}.{name}"
            for section in SECTIONS
            if isinstance(self.settings.get(section), Mapping)
            for name in self.settings[section]
        ]
        for axis in (*self.axes, *written):
            if axis not in known:
                _refuse(axis, known, self.source)
        object.__setattr__(self, "axes", {axis: tuple(self.axes[axis]) for axis in self.axes})
        for _ in self._configs():
            pass

    @classmethod
    def from_toml(cls, text: str, source: str = "grid.toml") -> Grid:
        """Read a config.toml with one more section, `[grid]`, of settings with lists of values.

        A setting is named there by its section, as in `[grid.learner]`, or alone, where only one
        section has it.

        Raises:
            ValueError: the text is damaged, or as at construction.
        """
        stored = parsed_settings(text, tomllib.loads, source)
        table = stored.pop("grid", {})
        if not isinstance(table, dict):
            raise ValueError(f"{source}: [grid] must be settings by name, got {shown(table)}")
        written: dict[str, Any] = {}
        for name, value in table.items():
            if isinstance(value, dict):
                written |= {f"{name}.{inner}": values for inner, values in value.items()}
            else:
                written[name] = value
        short = {"learner": "learner.name"}
        plain = {short.get(name, name): value for name, value in written.items()}
        known = _known_settings(stored, plain, source)
        return cls(stored, {_full(name, known, source): x for name, x in plain.items()}, source)

    @property
    def columns(self) -> dict[str, str]:
        """What each axis is called for short: without its section, where that is clear."""
        short = {"learner.name": "learner"}
        last = {axis: short.get(axis, axis.rpartition(".")[2]) for axis in self.axes}
        counts = collections.Counter(last.values())
        return {axis: name if counts[name] == 1 else axis for axis, name in last.items()}

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All runs; the last axis changes fastest."""
        columns = self.columns
        return tuple(
            Cell(_name(named := {columns[a]: x for a, x in values.items()}), named, config)
            for values, config in self._configs()
        )

    def _configs(self) -> Iterator[tuple[dict[str, Any], RunConfig]]:
        for combination in itertools.product(*self.axes.values()):
            values = dict(zip(self.axes, combination, strict=True))
            settings = {**self.settings}
            for axis, value in values.items():
                section, _, name = axis.rpartition(".")
                if section:
                    settings[section] = {**settings.get(section, {}), name: value}
                else:
                    settings[name] = value
            yield values, read_sections(settings, self.source)


def _known_settings(
    settings: Mapping[str, Any], axes: Mapping[str, Any], source: str
) -> tuple[str, ...]:
    """Every setting that some run of the grid can have.

    Raises:
        ValueError: no game, or an unknown game or learner.
    """
    learner = settings.get("learner", {})
    first = next(iter(registry.LEARNERS))
    names = {
        "game": axes.get("game", [settings[n] for n in ("game",) if n in settings]),
        "learner": axes.get(
            "learner.name", [learner.get("name", first) if isinstance(learner, Mapping) else first]
        ),
    }
    known = ["game", "seed", "learner.name", "learner.preset"]
    if not names["game"]:
        raise ValueError(f"{source} has no setting game")
    try:
        for name in names["game"]:
            known += [f"game_parameters.{one}" for one in sample_parameters(games.lookup(name))]
        for name in names["learner"]:
            known += [f"learner.{one}" for one in setting_types(registry.lookup(name))]
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    for section, kind in (("evaluation", EvaluationSettings), ("checkpoints", CheckpointSettings)):
        known += [f"{section}.{item.name}" for item in dataclasses.fields(kind)]
    return tuple(dict.fromkeys(known))


def _full(name: str, known: Sequence[str], source: str) -> str:
    """The setting with its section."""
    if name in known:
        return name
    full = [one for one in known if one.rpartition(".")[2] == name]
    if not full:
        _refuse(name, known, source)
    if len(full) > 1:
        raise ValueError(f"{source}: {name} in [grid] may be {' or '.join(full)}: write which")
    return full[0]


def _refuse(name: str, known: Sequence[str], source: str) -> NoReturn:
    hint = nearest(name, known) or nearest(name, [one.rpartition(".")[2] for one in known])
    raise ValueError(f"{source}: no setting {name!r}{hint}")


def _name(values: Mapping[str, Any]) -> str:
    """A folder's name that says which values, and differs where they do."""
    name = ",".join(f"{axis}={_value_text(value)}" for axis, value in values.items())
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}-{_digest(name)}"


def _value_text(value: Any) -> str:
    """A value as a part of a file's name; with a digest where it does not fit."""
    text = value if isinstance(value, str) else json.dumps(value)
    plain = re.sub(r"[^A-Za-z0-9.+-]+", "_", text).strip("_")
    if plain == text and len(text) <= _LONGEST_VALUE:
        return text
    return f"{plain[:_LONGEST_VALUE]}-{_digest(text)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]
