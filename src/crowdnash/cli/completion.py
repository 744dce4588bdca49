"""`crowdnash completion SHELL`: tyro's script for commands, games, flags and choices."""

from __future__ import annotations

import contextlib
import dataclasses
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional, arg, subcommand

from crowdnash.cli.parsing import STYLE, parse

Shell = Literal["bash", "zsh", "fish"]


@dataclass(frozen=True)
class CompletionFlags:
    """Print a script for a shell's completion; it needs Python when it completes.

    bash: crowdnash completion bash > ~/.local/share/bash-completion/completions/crowdnash;
    zsh: crowdnash completion zsh > _crowdnash, in a folder of $fpath;
    fish: crowdnash completion fish > ~/.config/fish/completions/crowdnash.fish.
    """

    shell: Annotated[Positional[Shell], arg(metavar="{bash,zsh,fish}")]
    """the shell"""


def show_completion(arguments: Sequence[str]) -> None:
    """Run `crowdnash completion` with the arguments after it.

    Raises:
        ValueError: an unknown shell.
    """
    shell = parse(CompletionFlags, "completion", arguments).shell
    commands: Any = typing.Union[  # noqa: UP007 (built at run time)
        tuple(Annotated[record, subcommand(name)] for name, record in _records().items())
    ]
    request = ["--tyro-write-completion", shell, "-"]
    with contextlib.suppress(SystemExit):  # after it has printed the script
        tyro.cli(commands, prog="crowdnash", args=request, config=STYLE)


def _records() -> dict[str, Any]:
    """The record of flags of every command."""
    from crowdnash.cli.case import CASES, CaseFlags
    from crowdnash.cli.commands import EvaluateFlags, ReportFlags
    from crowdnash.cli.flags import solve_records
    from crowdnash.cli.games_list import GamesFlags
    from crowdnash.cli.reproduce import ReproduceFlags, experiment_names
    from crowdnash.cli.sweep import SweepFlags
    from crowdnash.cli.theory import MeanFieldOptions, SymmetryOptions, options_record
    from crowdnash.cli.verify import VerifyFlags

    return {
        "solve": _by_game(*solve_records()),
        "evaluate": EvaluateFlags,
        "sweep": SweepFlags,
        "verify": VerifyFlags,
        "report": ReportFlags,
        "games": GamesFlags,
        "symmetry": _by_game(options_record(SymmetryOptions)),
        "mean-field": _by_game(options_record(MeanFieldOptions)),
        "reproduce": _after_word(experiment_names(), ReproduceFlags),
        "case": _after_word(CASES, CaseFlags),
        "completion": _after_word(typing.get_args(Shell), CompletionFlags),
    }


def _by_game(*records: type) -> type:
    """One record in which the flags stand after the game too, where tyro's script looks for them.

    Args:
        *records: each has the union of games as `game`, and records of flags beside it.
    """
    flags: dict[str, Any] = {}
    by_game: dict[str, dict[str, Any]] = {}
    for record in records:
        kinds = typing.get_type_hints(record, include_extras=True)
        games = typing.get_args(kinds.pop("game"))
        own: dict[str, Any] = {}
        for kind in kinds.values():
            own |= typing.get_type_hints(kind, include_extras=True)
        flags |= own
        for game in games:
            name, parameters = game.__origin__.game, game.__origin__.__annotations__
            by_game[name] = by_game.get(name, {}) | parameters | own
    return _record({"game": _union(by_game)} | flags)


def _after_word(words: Sequence[str], record: type) -> type:
    """The record with its first field, a word, as subcommands: tyro's script completes only them.

    Args:
        words: what the first field may be.
        record: the record.
    """
    (word, _), *others = typing.get_type_hints(record, include_extras=True).items()
    return _record({word: _union({one: dict(others) for one in words})})


def _union(by_word: Mapping[str, Mapping[str, Any]]) -> Any:
    """Subcommands by name, with the fields of each."""
    return typing.Union[  # noqa: UP007 (built at run time)
        tuple(Annotated[_record(kinds), subcommand(name)] for name, kinds in by_word.items())
    ]


def _record(kinds: Mapping[str, Any]) -> type:
    """A record with these fields; the defaults play no part in a completion."""
    # A switch without a default would take a value.
    fields = [(name, kind, False) if kind is bool else (name, kind) for name, kind in kinds.items()]
    return dataclasses.make_dataclass("Flags", fields, kw_only=True)
