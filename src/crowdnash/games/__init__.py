"""Games that come with the library, one file each, and the registry of their names."""

from crowdnash.games.base import DynamicGame, TabularGame
from crowdnash.games.beach_bar import BeachBar
from crowdnash.games.congestion import Congestion
from crowdnash.games.crowd_modelling import CrowdModelling
from crowdnash.games.garnet import Garnet
from crowdnash.games.rock_paper_scissors import RockPaperScissors
from crowdnash.games.sis import SIS
from crowdnash.games.taxi import Taxi

_GAMES: dict[str, type[DynamicGame]] = {
    game.name: game
    for game in (SIS, RockPaperScissors, Congestion, BeachBar, CrowdModelling, Garnet, Taxi)
}
_ALIASES = {"rps": RockPaperScissors.name}


def names() -> tuple[str, ...]:
    """The registered games' names, sorted."""
    return tuple(sorted(_GAMES))


def tabular_names() -> tuple[str, ...]:
    """The names of games with finitely many states and laws that can be queried, sorted."""
    return tuple(name for name in names() if issubclass(_GAMES[name], TabularGame))


def lookup(name: str) -> type[DynamicGame]:
    """The game class of that name (or of the alias "rps").

    **Raises:** `ValueError` naming the known games.
    """
    game = _GAMES.get(_ALIASES.get(name, name))
    if game is None:
        raise ValueError(f"game must be one of {', '.join(names())}, not {name!r}")
    return game


__all__ = [
    "SIS",
    "BeachBar",
    "Congestion",
    "CrowdModelling",
    "Garnet",
    "RockPaperScissors",
    "Taxi",
    "lookup",
    "names",
    "tabular_names",
]
