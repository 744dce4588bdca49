"""One table of a policy of N agents, for libraries whose mean-field policies are one for all.

Axes: N agents, n agents asked, H steps, S states, A actions.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from crowdnash.checks import check_count
from crowdnash.games.base import DynamicGame
from crowdnash.policies.base import Policy, check_policy

_SAME = 1e-6


def shared_table(
    policy: Policy, game: DynamicGame, agent: int | None
) -> Float[np.ndarray, "H S A"]:
    """What one agent plays, or all of them if they play alike.

    Args:
        policy: of the game's agents.
        game: its agents observe integers below its `num_states`.
        agent: whose table; None where all have the same.

    Raises:
        ValueError: the policy does not fit the game, there is no such agent, or there is none and
            agents play differently.
    """
    check_policy(game, policy)
    if agent is not None:
        check_count("agent", agent, 0, game.num_agents - 1)
    index = np.arange(game.num_agents) if agent is None else np.array([agent])
    plain, num_states = policy.numpy(game), game.num_states or 0
    states, agents = np.tile(np.arange(num_states), len(index)), np.repeat(index, num_states)
    table = []
    for step in range(game.horizon):
        rows = plain.probabilities(states, step, agents)
        rows = rows.reshape(len(index), num_states, -1)
        apart = np.abs(rows - rows[:1]).max((1, 2)) > _SAME
        if apart.any():
            raise ValueError(
                f"agent must say whose table is meant: agents 0 and {int(np.argmax(apart))} play "
                f"differently at step {step}, and a mean-field policy is one for all"
            )
        table.append(rows[0])
    return np.stack(table)
