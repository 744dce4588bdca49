"""Games that come with the library, one file each, and the registry of their names."""

from crowdnash.game import PopulationGame
from crowdnash.games.beach_bar import BeachBar
from crowdnash.games.congestion import Congestion
from crowdnash.games.crowd_modelling import CrowdModelling
from crowdnash.games.garnet import Garnet
from crowdnash.games.rock_paper_scissors import RockPaperScissors
from crowdnash.games.sis import SIS

_GAMES: dict[str, type[PopulationGame]] = {
    game.name: game
    for game in (SIS, RockPaperScissors, Congestion, BeachBar, CrowdModelling, Garnet)
}
_ALIASES = {"rps": RockPaperScissors.name}


def names() -> tuple[str, ...]:
    """The registered games' names, sorted."""
    return tuple(sorted(_GAMES))


def lookup(name: str) -> type[PopulationGame]:
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
    "lookup",
    "names",
]
