"""What a random sample of agents says of those who were not examined (Def. 2), free of assumptions.

Order statistics of a sample without replacement (Wilks 1941, for N agents instead of infinitely
many; the same count as in conformal prediction). Let y_1 <= .. <= y_N be the gains that all agents
would be found to have. More than D of them exceed the k-th smallest of m drawn ones only if k drawn
ones lie among the N - D - 1 smallest, whose number is hypergeometric: exact for any N and m, and
conservative where gains are equal.
"""

import scipy.stats


def most_above(num_agents: int, num_drawn: int, rank: int, tail: float) -> int:
    """How many of all agents exceed the `rank`-th smallest of the drawn ones, at most.

    With probability 1 - `tail`; `rank` is 1..m.
    """
    low, high = num_drawn - rank, num_agents - rank  # those drawn above it; all but those below it
    while low < high:
        middle = (low + high) // 2
        if _chance(num_agents, num_drawn, rank, middle) <= tail:
            high = middle
        else:
            low = middle + 1
    return low


def rank_for(num_agents: int, num_drawn: int, most: int, tail: float) -> int | None:
    """The lowest rank that at most so many of all agents exceed; None if no rank is sure of it."""
    for rank in range(max(1, num_drawn - most), num_drawn + 1):
        if _chance(num_agents, num_drawn, rank, most) <= tail:
            return rank
    return None


def _chance(num_agents: int, num_drawn: int, rank: int, most: int) -> float:
    """That more than `most` of all exceed the drawn one of this rank, at worst."""
    rest = num_agents - most - 1
    if rest < rank:
        return 0.0
    return float(scipy.stats.hypergeom.sf(rank - 1, num_agents, rest, num_drawn))
