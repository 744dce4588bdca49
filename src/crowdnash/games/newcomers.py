"""More agents in a game: what a policy of the agents' parameters is tried on."""

import dataclasses
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from crowdnash.checks import check_instance
from crowdnash.games.base import PopulationGame

Game = TypeVar("Game", bound=PopulationGame)


def join(game: Game, newcomers: Game) -> Game:
    """The game of all N + n agents: those of `game` first, then those of `newcomers`.

    Both groups meet one another: the aggregate is the mean over all others (Def. 1). What is no
    agent's own (horizon, prices, a map) must be the same in both games; so must the initial
    distribution, unless each agent of either game has one of its own, [N,S].
    Agents' arrays are taken as they are: where a game's author made a parameter depend on N (a
    weight of 10/N, say), say whether it still should be what it was.

    `exploitability(join(game, newcomers), policy, agents=range(N, N + n))` certifies agents that
    the policy was never trained on.

    Args:
        game: a game of N agents.
        newcomers: a game of n agents, of the same class and settings.

    Raises:
        ValueError: the classes, a setting or the sizes of the agents' arrays differ; the message
            names which. Or the game's `agents`, or their starts, are not among its fields: such a
            game must be constructed anew.
    """
    check_instance("game", game, PopulationGame)
    check_instance("newcomers", newcomers, PopulationGame)
    if type(game) is not type(newcomers):
        raise ValueError(
            f"newcomers must be a {type(game).__name__}, as game is, not a "
            f"{type(newcomers).__name__}"
        )
    own = [_own_leaves(g) for g in (game, newcomers)]
    for field in dataclasses.fields(game):
        _check_same(field.name, getattr(game, field.name), getattr(newcomers, field.name), own)
    leaves = zip(*(jax.tree_util.tree_leaves(g) for g in (game, newcomers)), strict=True)
    together = [
        jnp.concatenate([one, other]) if id(one) in own[0] else one for one, other in leaves
    ]
    whole = jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(game), together)
    if not _holds_both(whole, game, newcomers):
        raise ValueError(
            f"game must hold its agents' arrays in its fields to be joined: {type(game).__name__} "
            "computes its `agents` from them, so construct the game of all agents instead"
        )
    return whole


def _own_leaves(game: PopulationGame) -> set[int]:
    """The arrays, by `id`, that have a row for every agent."""
    leaves = jax.tree_util.tree_leaves(game.agents)
    if np.ndim(game.initial_distribution) == 2:
        leaves.append(game.initial_distribution)
    return {id(leaf) for leaf in leaves}


def _check_same(name: str, one: Any, other: Any, own: list[set[int]]) -> None:
    """Agents' arrays of the same sizes but for N, anything else equal."""
    first, second = (jax.tree_util.tree_flatten(x) for x in (one, other))
    same = first[1] == second[1]
    for a, b in zip(first[0], second[0], strict=False):
        if id(a) in own[0]:
            if id(b) not in own[1] or np.shape(a)[1:] != np.shape(b)[1:]:
                raise ValueError(
                    f"newcomers must have {name} of shape {['n', *np.shape(a)[1:]]}, not "
                    f"{list(np.shape(b))}"
                )
        else:
            same = same and np.array_equal(np.asarray(a), np.asarray(b))
    if not same:
        raise ValueError(f"newcomers must have the same {name} as game")


def _holds_both(whole: PopulationGame, *parts: PopulationGame) -> bool:
    records = [jax.tree_util.tree_leaves(g.agents) for g in (whole, *parts)]
    starts = [np.asarray(g.initial_distribution) for g in (whole, *parts)]
    if starts[1].ndim == 2:
        records = [[*record, start] for record, start in zip(records, starts, strict=True)]
    return all(
        np.array_equal(np.asarray(both), np.concatenate([np.asarray(a), np.asarray(b)]))
        for both, a, b in zip(*records, strict=True)
    )
