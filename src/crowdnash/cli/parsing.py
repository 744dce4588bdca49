"""Flags of every command, read by tyro; what is wrong with them is said in one line."""

from __future__ import annotations

import dataclasses
import itertools
import types
import typing
from collections.abc import Sequence
from typing import Any, NoReturn, TypeVar

import tyro
from tyro import _errors as events
from tyro.conf import CascadeSubcommandArgs, OmitArgPrefixes, OmitSubcommandPrefixes

from crowdnash.games.registry import canonical_name
from crowdnash.messages import nearest

_Flags = TypeVar("_Flags")
STYLE = (CascadeSubcommandArgs, OmitArgPrefixes, OmitSubcommandPrefixes)
"""How flags are spelt: without the names of the records that they are in."""


def parse(
    flags: type[_Flags], command: str, arguments: Sequence[str], *, description: str | None = None
) -> _Flags:
    """Return the flags after `crowdnash COMMAND`.

    Args:
        flags: the record to fill, as tyro reads it.
        command: the command's name.
        arguments: what comes after it.
        description: the head of the help; the record's docstring if None.

    Raises:
        ValueError: an unknown flag, a missing or a bad value; one line for the user.
        SystemExit: after --help.
    """

    def refuse(event: events.ParseErrorEvent) -> NoReturn:
        raise ValueError(_complaint(event, flags, arguments)) from None

    with events.on_parse_error(refuse):
        return tyro.cli(
            flags,
            prog=f"crowdnash {command}",
            description=description,
            args=arguments,
            config=STYLE,
        )


def with_canonical_game(arguments: Sequence[str], *, tabular: bool = False) -> list[str]:
    """Replace an alias by the game's name, where a game comes first.

    Raises:
        ValueError: an unknown game, a simulator where only games with tables will do, or one of
            the user's own.
    """
    arguments = list(arguments)
    if arguments and not arguments[0].startswith("-"):
        if ":" in arguments[0]:
            raise ValueError(
                f"{arguments[0]} looks like a simulator of your own, and the command line plays "
                "the library's games: in Python, crowdnash.solve(simulator, learner, key=key)"
            )
        arguments[0] = canonical_name(arguments[0], tabular=tabular)
    return arguments


def _complaint(event: events.ParseErrorEvent, flags: Any, arguments: Sequence[str]) -> str:
    """What is wrong, in one line."""
    match event:
        case events.MissingArgs(unrecognized_tokens=[token, *_]):
            return _unknown(token, flags)
        case events.UnrecognizedArgs(tokens=[token, *_]):
            return _unknown(token, flags)
        case events.MissingArgs(missing_arguments=[first, *_]):
            return f"{_name(first.arg)} is missing"
        case events.MissingSubcommand(subcommand_spec=choice):
            return f"game must come first: one of {', '.join(choice.parser_from_name)}"
        case events.SubcommandConflict(attempted=word, already_selected=chosen, trigger_flag=flag):
            return f"{word} must come before {flag}, which is of {chosen}"
        case events.BadValue(argument=argument) if argument.is_positional():
            flags_of_all = _all_flags(flags)
            strange = [one for one in arguments if one[:1] == "-" and one not in flags_of_all]
            return _unknown(strange[0], flags) if strange else f"{_name(argument)} is missing"
        case events.BadValue(argument=argument):
            return f"{_name(argument)} needs a value"
        case events.InvalidChoice(argument=argument, value=value, choices=choices):
            return f"{_name(argument)} must be one of {', '.join(choices)}, not {value!r}"
        case events.InstantiationFailure(argument=None, message=message):
            return message
        case events.InstantiationFailure(argument=argument, message=message):
            return _misfit(argument, message, arguments)
    return f"the command line is not understood ({type(event).__name__})"


def _name(argument: Any) -> str:
    """What the help calls an argument."""
    return argument.lowered.metavar if argument.is_positional() else argument.display_name()


def _misfit(argument: Any, message: str, arguments: Sequence[str]) -> str:
    """A value that the argument cannot take; tyro's reason where it says more than that."""
    words = [part for word in arguments for part in word.split("=", 1)]
    values = [
        value
        for flag, value in itertools.pairwise(words)
        if flag.replace("_", "-") in argument.lowered.name_or_flags
    ]
    if not values:
        return f"{_name(argument)}: {message}"
    text = f"{_name(argument)} must be {argument.lowered.metavar}, not {values[-1]!r}"
    return text if repr(values[-1]) in message else f"{text}: {message}"


def _unknown(token: str, flags: Any) -> str:
    if not token.startswith("-"):
        return f"{token!r} is one word too many"
    flag = token.split("=")[0]
    return f"no flag {flag}{nearest(flag, _all_flags(flags))}"


def _all_flags(record: type) -> set[str]:
    """The flags of a record, and of the records in it."""
    flags: set[str] = set()
    kinds = typing.get_type_hints(record, include_extras=True)
    for field in dataclasses.fields(record):
        inner = _records(kinds[field.name])
        for one in inner:
            flags |= _all_flags(one)
        if not inner:
            name = field.name.replace("_", "-")
            flags |= {f"--{name}", f"--no-{name}"} if kinds[field.name] is bool else {f"--{name}"}
    return flags


def _records(kind: Any) -> list[type]:
    """The records that a type names: itself, or some of a union's members."""
    if typing.get_origin(kind) is typing.Annotated:
        return _records(typing.get_args(kind)[0])
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return [one for member in typing.get_args(kind) for one in _records(member)]
    return [kind] if dataclasses.is_dataclass(kind) and isinstance(kind, type) else []
