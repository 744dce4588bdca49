"""Differences between agents that alpha and beta do not measure (Def. 7 is about laws alone)."""

from typing import Any

import numpy as np
from jaxtyping import Int

from crowdnash.games.base import DynamicGame, TabularGame
from crowdnash.games.legal import LegalActions


def check_same_start_and_actions(game: DynamicGame, groups: Int[Any, " N"]) -> None:
    """Make sure that agents of a group start alike and have the same legal actions.

    Def. 7 compares laws, and Theorem 1 takes it that all else is the same: an agent that starts
    elsewhere, or may do something else, is another agent however alike its laws are.

    Args:
        game: the game.
        groups: 0..G-1 of every agent.

    Raises:
        ValueError: two agents of a group differ; the message names them.
    """
    if not isinstance(game, TabularGame):
        return
    groups = np.asarray(groups)
    _, first = np.unique(groups, return_index=True)
    if (legal := LegalActions.of(game)) is not None:
        kinds = np.asarray(legal.kinds)
        _refuse_where(kinds != kinds[first][groups], "legal actions", groups, first)
    initial = np.asarray(game.initial_distribution)
    if initial.ndim == 2:
        differs = (initial != initial[first][groups]).any(1)
        _refuse_where(differs, "initial distributions", groups, first)


def _refuse_where(wrong: np.ndarray, what: str, groups: np.ndarray, first: np.ndarray) -> None:
    if wrong.any():
        agent = int(np.argmax(wrong))
        raise ValueError(
            f"groups must put agents together that have the same {what}, which alpha and beta do "
            f"not measure: agents {int(first[groups[agent]])} and {agent} of group "
            f"{int(groups[agent])} have not"
        )
