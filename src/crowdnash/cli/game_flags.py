"""Flags of a game: the keywords of its `sample`, with the help of its docstring."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import tyro
from tyro.conf import arg

from crowdnash import games
from crowdnash.games.registry import sample_parameters
from crowdnash.runs.config import RunConfig


def game_subcommands(
    names: Sequence[str], stored: RunConfig | None = None
) -> tuple[dict[str, type], Any]:
    """Return the games' records of flags by name, and their union as subcommands."""
    game_flags = {name: _game_flags(games.lookup(name), stored) for name in names}
    union = typing.Union[  # noqa: UP007 (built at run time)
        tuple(
            Annotated[
                flags,
                tyro.conf.subcommand(name, description=games.lookup(name).summary),
            ]
            for name, flags in game_flags.items()
        )
    ]
    return game_flags, union


def _game_flags(game_class: Any, stored: RunConfig | None) -> type:
    """Return a record of the keywords of a game's `sample`, with defaults and help."""
    values = stored.game_parameters if stored and stored.game == game_class.name else {}
    help_texts = parameter_help(inspect.getdoc(game_class.sample) or "")
    fields = []
    for name, parameter in sample_parameters(game_class).items():
        annotation = parameter.annotation
        if _takes_mapping(annotation):
            annotation = _NUMBERS
        value = values.get(name, parameter.default)
        # A dataclass refuses a mapping as a plain default; the value is never changed, though.
        default = dataclasses.field(default_factory=lambda value=value: value)
        fields.append((name, Annotated[annotation, arg(help=help_texts.get(name, ""))], default))
    return dataclasses.make_dataclass(
        game_class.name, fields, namespace={"game": game_class.name}, frozen=True
    )


def parameter_help(docstring: str) -> dict[str, str]:
    """Return the help text of each argument that a docstring lists.

    Read are lines `name: text`, and list items "- `name`: text", with their continuation lines.
    """
    texts: dict[str, str] = {}
    current = None
    pattern = re.compile(r"^\s*(?:[-*]\s+)?`{0,2}(\w+)`{0,2}(?:\s*\([^)]*\))?:\s+(.*)$")
    for line in docstring.splitlines():
        match = pattern.match(line)
        if match:
            current = match[1]
            texts[current] = match[2].strip()
        elif not line.strip() or not line.startswith(" "):
            current = None
        elif current is not None:
            texts[current] += " " + line.strip()
    return {name: text.replace("`", "").rstrip(".") for name, text in texts.items()}


def _takes_mapping(annotation: Any) -> bool:
    options = (
        typing.get_args(annotation)
        if typing.get_origin(annotation) in (typing.Union, types.UnionType)
        else (annotation,)
    )
    kinds = [typing.get_origin(option) or option for option in options]
    return any(isinstance(kind, type) and issubclass(kind, Mapping) for kind in kinds)


def _numbers_from_text(texts: list[str]) -> float | dict[str, float]:
    text = texts[0]
    if "=" not in text:
        return float(text)
    pairs = [part.split("=", 1) for part in text.split(",")]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"{text!r} is neither a number nor NAME=NUMBER,NAME=NUMBER,...")
    numbers = {name.strip().replace("-", "_"): float(number) for name, number in pairs}
    if len(numbers) < len(pairs):
        raise ValueError(f"{text!r} gives a number to the same name twice")
    return numbers


def _numbers_to_text(value: float | Mapping[str, float]) -> list[str]:
    if isinstance(value, Mapping):
        return [",".join(f"{name}={number}" for name, number in value.items())]
    return [str(value)]


_NUMBERS = Annotated[
    Any,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="FLOAT|NAME=FLOAT,...",
        instance_from_str=_numbers_from_text,
        is_instance=lambda value: isinstance(value, int | float | Mapping),
        str_from_instance=_numbers_to_text,
    ),
]


def text_of(value: object) -> str:
    """A value as a flag has it."""
    return _numbers_to_text(value)[0] if isinstance(value, Mapping) else str(value)
