"""Differences between agents that alpha and beta do not measure (Def. 7 is about laws alone)."""

from typing import Any

from jaxtyping import Int

from crowdnash.games.base import DynamicGame, TabularGame
from crowdnash.games.grouping import first_unlike
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
    differences: dict[str, Any] = {}
    if (legal := LegalActions.of(game)) is not None:
        differences["legal actions"] = legal.kinds
    if game.initial_distribution.ndim == 2:
        differences["initial distributions"] = game.initial_distribution
    for what, values in differences.items():
        if (unlike := first_unlike(groups, values)) is not None:
            one, other, group = unlike
            raise ValueError(
                f"groups must put agents together that have the same {what}, which alpha and beta "
                f"do not measure: agents {one} and {other} of group {group} have not"
            )
