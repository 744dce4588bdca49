"""`crowdnash games`: the games with their parameters; no learner is imported for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from crowdnash.cli.parsing import parse
from crowdnash.games.registry import lookup, names, sample_parameters


@dataclass(frozen=True)
class GamesFlags:
    """List the games, with the parameters of each and their defaults."""

    json: bool = False
    """print the list as JSON"""


def show_games(arguments: Sequence[str]) -> None:
    """Run `crowdnash games` with the arguments after it.

    Raises:
        ValueError: a bad argument.
    """
    flags = parse(GamesFlags, "games", arguments)
    games = [_describe(name) for name in names()]
    if flags.json:
        print(json.dumps(games, indent=2))
        return
    table = Table(show_lines=True)
    table.add_column("game", no_wrap=True)
    table.add_column("what it is, and its parameters")
    for game in games:
        parameters = "  ".join(f"{name}={value}" for name, value in game["parameters"].items())
        table.add_row(game["name"], f"{game['summary']}\n[dim]{parameters}[/dim]")
    Console().print(table)


def _describe(name: str) -> dict[str, Any]:
    game = lookup(name)
    parameters = sample_parameters(game)
    return {
        "name": name,
        "summary": game.summary,
        "parameters": {key: parameter.default for key, parameter in parameters.items()},
    }
