"""What functions ask of a game before they trust it, and how they speak of one that breaks a rule.

Axes: N agents, S states.
"""

import dataclasses
import hashlib
import math
import os
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from crowdnash.checks import check_instance
from crowdnash.games.base import PROBABILITY_TOLERANCE, DynamicGame, GameError, TabularGame


def named(game: DynamicGame) -> str:
    """The game as error messages speak of it."""
    return f"game {game.name or type(game).__name__!r}"


def fail(game: DynamicGame, rule: str, where: str = "") -> NoReturn:
    """Raise the `GameError` that names the game, the place and the rule."""
    place = f": {where}" if where else ""
    raise GameError(f"{named(game)}{place}: {rule}")


def check_shape(
    game: DynamicGame, what: str, shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    """Raise `GameError` unless what the game returns has the shape that it must have."""
    if shape != expected:
        raise GameError(
            f"{named(game)}: {what} must have shape {list(expected)}, not {list(shape)}"
        )


def law_error(
    game: TabularGame, agent: int, step: int, state: int, action: int, probs: Any, reward: float
) -> GameError:
    """What is wrong with one agent's law at one place, where something is."""
    where = f"{named(game)}: agent {agent} at step {step} in state {state} with action {action}"
    if not np.isfinite(reward):
        return GameError(f"{where}: reward must be a finite number, not {reward}")
    return GameError(
        f"{where}: transition must be probabilities that sum to 1 within "
        f"{PROBABILITY_TOLERANCE}, not {np.asarray(probs).tolist()}"
    )


def check_joint_law(game: TabularGame, probs: tuple[int, ...], rewards: tuple[int, ...]) -> None:
    """Raise `GameError` unless these are the shapes of what `joint_law` must give."""
    check_shape(game, "all agents' rewards", rewards, (game.num_agents,))
    check_shape(game, "all transitions", probs, (game.num_agents, game.num_states))


def observation_shapes(game: DynamicGame) -> PyTree:
    """Shapes and types of what `observe` gives; nothing is run."""
    return jax.eval_shape(lambda key: game.observe(game.reset(key)), jax.random.key(0))


def observes_integers(game: DynamicGame) -> bool:
    """Whether each agent observes one integer, as in every `TabularGame`."""
    if isinstance(game, TabularGame):
        return True
    seen = observation_shapes(game)
    return (
        isinstance(seen, jax.ShapeDtypeStruct)
        and seen.shape == (game.num_agents,)
        and jnp.issubdtype(seen.dtype, jnp.integer)
    )


def check_integer_observations(game: DynamicGame) -> None:
    """Raise `ValueError` unless each agent observes one integer: tables need that."""
    if not observes_integers(game):
        seen = observation_shapes(game)
        raise ValueError(f"game must let each of its N agents observe one integer: {seen}")


def states_for_tables(game: DynamicGame) -> int:
    """S, of a game that tables can be made for; `ValueError` for any other."""
    check_instance("game", game, DynamicGame)
    if game.num_states is None:
        raise ValueError(f"game must have num_states for tables; {type(game).__name__} has none")
    check_integer_observations(game)
    return int(game.num_states)


def fingerprint(game: DynamicGame) -> str:
    """A text that is the same for games of the same class, sizes, numbers and arrays."""
    own = {
        item.name: value
        for item in dataclasses.fields(game)
        if isinstance(value := getattr(game, item.name), bool | int | float | str)
    }
    sizes = (game.num_agents, game.num_actions, game.horizon)
    digest = hashlib.sha256(repr((type(game).__qualname__, sizes, own)).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(game):
        array = np.asarray(leaf)
        digest.update(repr((jax.tree_util.keystr(path), array.dtype, array.shape)).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def check_fits_memory(num_agents: int, bytes_per_agent: int) -> None:
    """Raise `ValueError` where so many agents do not fit this machine; nothing is allocated.

    Args:
        num_agents: number of agents N.
        bytes_per_agent: what drawing one agent's parameters takes.
    """
    needed, memory = num_agents * bytes_per_agent, _memory_bytes()
    if needed > memory:
        raise ValueError(
            f"num_agents must fit the memory: {num_agents} agents need {needed} bytes "
            f"({needed / 1e9:.3g} GB), and there are {memory / 1e9:.3g} GB"
        )
    if num_agents >= 2**31:  # arrays of agents' numbers are int32
        raise ValueError(f"num_agents must be below 2**31, not {num_agents} ({needed} bytes)")


def _memory_bytes() -> int | float:
    device = jax.local_devices()[0]
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if limit is not None:
        return limit
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # no such figure on this platform
        return math.inf
