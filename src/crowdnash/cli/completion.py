"""`crowdnash completion SHELL`: a script that completes commands, games, flags and their choices.

Everything is read from the commands' own help, so the script cannot fall behind them. It is made
once and then needs no Python: completing costs nothing.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, arg

Shell = Literal["bash", "zsh", "fish"]
_FLAG = re.compile(r"(?<![\w-])(--[a-z][a-z0-9-]*)(?: (?:\{([^}\s]+)\}|([A-Z]{3,})))?")


@dataclass(frozen=True)
class CompletionFlags:
    """Print a script for a shell's completion.

    bash: crowdnash completion bash > ~/.local/share/bash-completion/completions/crowdnash;
    zsh: crowdnash completion zsh > ~/.crowdnash.zsh, and source that in ~/.zshrc;
    fish: crowdnash completion fish > ~/.config/fish/completions/crowdnash.fish.
    """

    shell: Annotated[Positional[Shell], arg(metavar="{bash,zsh,fish}")]
    """the shell"""


@dataclass(frozen=True)
class Words:
    """What may follow a command: first `places` (games, experiments), then `flags` by place.

    `flags[place]` maps every flag to its choices, () where any value goes, None where it takes
    none; place "" is for commands whose flags do not depend on what comes first.
    """

    places: tuple[str, ...]
    flags: Mapping[str, Mapping[str, tuple[str, ...] | None]]


def show_completion(
    arguments: Sequence[str], run: Callable[[Sequence[str]], int], commands: Sequence[str]
) -> None:
    """Run `crowdnash completion`; `run` is the command line, whose help is read.

    **Raises:** `SystemExit` is tyro's own.
    """
    flags = tyro.cli(CompletionFlags, prog="crowdnash completion", args=arguments)
    print(script(flags.shell, words_of(run, commands)), end="")


def words_of(run: Callable[[Sequence[str]], int], commands: Sequence[str]) -> dict[str, Words]:
    """What each command takes, from its help."""
    from crowdnash import games
    from crowdnash.cli.reproduce import experiment_names

    places = {
        "solve": games.names(),
        "symmetry": games.tabular_names(),
        "mean-field": games.tabular_names(),
        "reproduce": experiment_names(),
        "completion": ("bash", "zsh", "fish"),
    }
    # A game's flags depend on it; an experiment's and a shell's do not.
    by_place = ("solve", "symmetry", "mean-field")
    found = {}
    for command in commands:
        known = places.get(command, ())
        asked = known if command in by_place else ("",)
        flags = {place: _flags(run, command, place) for place in asked}
        found[command] = Words(known, flags)
    return found


def _flags(
    run: Callable[[Sequence[str]], int], command: str, place: str
) -> dict[str, tuple[str, ...] | None]:
    """The flags in a help text; `solve` has more where a network learns."""
    asked = [[command, *([place] if place else []), "--help"]]
    if command == "solve":
        asked.append([command, place, "--identity", "none", "--help"])
    found: dict[str, tuple[str, ...] | None] = {}
    for arguments in asked:
        for flag, choices, value in _FLAG.findall(_help(run, arguments)):
            takes = tuple(choices.split(",")) if choices else () if value else None
            # A flag is also named in sentences, without its value.
            found[flag] = takes if takes is not None else found.get(flag)
    return dict(sorted(found.items()))


def _help(run: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> str:
    text, before = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "500"  # wide, so that no list of choices is broken
    try:
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            run(arguments)
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    return text.getvalue()


def script(shell: Shell, words: Mapping[str, Words]) -> str:
    """The script for one shell."""
    if shell == "fish":
        return "\n".join(_fish(words)) + "\n"
    head = ["autoload -U +X bashcompinit && bashcompinit"] if shell == "zsh" else []
    return "\n".join([*head, *_bash(words)]) + "\n"


def _bash(words: Mapping[str, Words]) -> list[str]:
    lines = [
        "_crowdnash() {",
        '  local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}" words=""',
        '  case "$COMP_CWORD ${COMP_WORDS[1]} ${COMP_WORDS[2]} $prev" in',
        f'    "1 "*) words="{" ".join(words)} --help --version" ;;',
    ]
    for command, known in words.items():
        if known.places:
            lines.append(f'    "2 {command} "*) words="{" ".join(known.places)} --help" ;;')
        for place, flags in known.flags.items():
            where = f"* {command} {place} " if place else f"* {command} * "
            for flag, choices in flags.items():
                if choices is not None:
                    words_after = " ".join(choices)
                    lines.append(f'    {_pattern(where + flag)}) words="{words_after}" ;;')
            lines.append(f'    {_pattern(where + "*")}) words="{" ".join(flags)}" ;;')
    return [
        *lines,
        "  esac",
        '  COMPREPLY=($(compgen -W "$words" -- "$cur"))',
        "}",
        "complete -o default -F _crowdnash crowdnash",
    ]


def _pattern(where: str) -> str:
    """A pattern of `case` in which only the stars are not quoted."""
    return "*".join(f'"{part}"' if part else "" for part in where.split("*"))


def _fish(words: Mapping[str, Words]) -> list[str]:
    lines = [
        f'complete -c crowdnash -n __fish_use_subcommand -f -a "{" ".join(words)}"',
        "complete -c crowdnash -n __fish_use_subcommand -l version",
    ]
    for command, known in words.items():
        seen = f"__fish_seen_subcommand_from {command}"
        if known.places:
            options = " ".join(known.places)
            lines.append(
                f"complete -c crowdnash -n '{seen}; and not __fish_seen_subcommand_from "
                f'{options}\' -f -a "{options}"'
            )
        for place, flags in known.flags.items():
            when = f"{seen}; and __fish_seen_subcommand_from {place}" if place else seen
            for flag, choices in flags.items():
                values = f' -x -a "{" ".join(choices)}"' if choices else ""
                values = " -r" if choices == () else values
                lines.append(f"complete -c crowdnash -n '{when}' -l {flag[2:]}{values}")
    return lines
