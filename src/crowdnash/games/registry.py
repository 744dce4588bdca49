"""The names of the games that come with the library; a game is imported when it is looked up."""

from __future__ import annotations

import importlib
import inspect
import typing

if typing.TYPE_CHECKING:
    import crowdnash.games.base

_TABULAR = {
    "beach-bar": "BeachBar",
    "congestion": "Congestion",
    "crowd-modelling": "CrowdModelling",
    "fleet-charging": "FleetCharging",
    "garnet": "Garnet",
    "rock-paper-scissors": "RockPaperScissors",
    "route-choice": "RouteChoice",
    "sis": "SIS",
}
_SIMULATORS = {"taxi": "Taxi"}
_CLASSES = _TABULAR | _SIMULATORS
_ALIASES = {"rps": "rock-paper-scissors"}


def names() -> tuple[str, ...]:
    """The registered games' names, sorted."""
    return tuple(sorted(_CLASSES))


def tabular_names() -> tuple[str, ...]:
    """The names of games with finitely many states and laws that can be queried, sorted."""
    return tuple(sorted(_TABULAR))


def canonical_name(name: str, *, tabular: bool = False) -> str:
    """The game's own name, of which `name` may be an alias.

    Args:
        name: a name or an alias.
        tabular: refuse games that are only simulators.

    Raises:
        ValueError: an unknown game, or a simulator where only games with tables will do.
    """
    own_name = _ALIASES.get(name, name) if isinstance(name, str) else name
    if not isinstance(name, str) or own_name not in _CLASSES:
        raise ValueError(f"game must be one of {', '.join(names())}, not {name!r}")
    if tabular and own_name not in _TABULAR:
        raise ValueError(
            f"{own_name} is only a simulator, and this needs a game whose laws can be queried: "
            f"{', '.join(tabular_names())}"
        )
    return own_name


def lookup(name: str) -> type[crowdnash.games.base.DynamicGame]:
    """The game class of that name (or of the alias "rps").

    Raises:
        ValueError: an unknown game; the message names the known ones.
    """
    class_name = _CLASSES[canonical_name(name)]
    return getattr(importlib.import_module("crowdnash.games"), class_name)


def sample_parameters(game_class: type) -> dict[str, inspect.Parameter]:
    """Return the keywords of a game's `sample`, without the key, annotations resolved."""
    sample: typing.Any = game_class
    sample = inspect.unwrap(sample.sample)
    sample = getattr(sample, "__func__", sample)
    hints = typing.get_type_hints(sample)
    return {
        name: parameter.replace(annotation=hints[name])
        for name, parameter in inspect.signature(sample).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
