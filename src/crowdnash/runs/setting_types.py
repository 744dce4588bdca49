"""Settings as files and flags have them: their types, checked and put in words, and their text."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal

from crowdnash.learners.base import Learner
from crowdnash.runs.seal import FORMAT


def setting_types(learner_class: type[Learner[Any, Any, Any]]) -> dict[str, Any]:
    """The simple types that a learner's hyperparameters may have in a file: no arrays, no code."""
    hints = typing.get_type_hints(learner_class)
    return {item.name: _simple(hints[item.name]) for item in dataclasses.fields(learner_class)}


def _simple(annotation: Any) -> Any:
    """The simple types among those of an annotation; where anything goes, a list of integers."""
    options = [
        tuple[int, ...] if option is Any else option
        for option in (typing.get_args(annotation) if is_union(annotation) else (annotation,))
        if option in (bool, int, float, str, type(None), Any)
        or typing.get_origin(option) in (Literal, tuple)
    ]
    if any(typing.get_origin(option) is Literal for option in options):
        options = [option for option in options if option is not str]
    return typing.Union[tuple(options)]  # noqa: UP007 (built at run time)


def is_union(annotation: Any) -> bool:
    """Whether the annotation is a union of types."""
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def check_types(settings: Any, least: Mapping[str, int]) -> None:
    """Raise `ValueError` unless a record's numbers are of their types and >= `least` (or 0)."""
    hints = typing.get_type_hints(type(settings))
    for item in dataclasses.fields(settings):
        value = getattr(settings, item.name)
        if not fits(value, hints[item.name]):
            raise ValueError(f"{item.name} must be {describe(hints[item.name])}, got {value!r}")
        if value < least.get(item.name, 0):
            raise ValueError(f"{item.name} must be at least {least.get(item.name, 0)}, got {value}")


def fits(value: object, annotation: Any) -> bool:
    """Whether `value` is of the simple type `annotation`; an int counts as a float, NaN does not.

    Known are bool, int, float, str, None, Literal, tuples of one type (of any length), mappings
    to numbers, and unions of these.
    """
    origin = typing.get_origin(annotation)
    if is_union(annotation):
        return any(fits(value, option) for option in typing.get_args(annotation))
    if origin is Literal:
        return any(
            type(value) is type(option) and value == option
            for option in typing.get_args(annotation)
        )
    if origin is tuple:
        kind = typing.get_args(annotation)[0]
        return isinstance(value, tuple | list) and all(fits(item, kind) for item in value)
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
    if is_union(annotation):
        return " or ".join(describe(option) for option in typing.get_args(annotation))
    if origin is Literal:
        return " or ".join(repr(option) for option in typing.get_args(annotation))
    if origin is tuple:
        return f"a list, each {describe(typing.get_args(annotation)[0])}"
    if isinstance(origin or annotation, type) and issubclass(origin or annotation, Mapping):
        return "numbers by name"
    names = {bool: "true or false", int: "an integer", float: "a finite number", str: "text"}
    return names.get(annotation, "nothing" if annotation is type(None) else str(annotation))


def parsed_settings(text: str, parse: Callable[[str], Any], source: str) -> dict[str, Any]:
    """The settings by name that a file's text holds.

    Raises:
        ValueError: the text is damaged or no such record; the message names `source`.
    """
    try:
        stored = parse(text)
    except (ValueError, RecursionError) as error:  # both kinds of decoding error are ValueErrors
        raise ValueError(f"{source} is damaged: {error}") from None
    if not isinstance(stored, dict):
        raise ValueError(f"{source} is not a crowdnash config of format {FORMAT}")
    return stored


def toml_text(value: Any) -> str:
    """A plain value in TOML; JSON's strings, numbers and lists are TOML's too."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name} = {toml_text(x)}" for name, x in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)
