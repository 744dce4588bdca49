"""Play of a game under policies that lead the population to different places.

How laws bend with the population is only seen where populations differ, and every action has to
be played somewhere: hence several policies, none of which rules an action out.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from crowdnash.checks import check_count
from crowdnash.games.base import DynamicGame
from crowdnash.games.checks import states_for_tables
from crowdnash.games.legal import LegalActions
from crowdnash.policies.base import Policy
from crowdnash.policies.tabular import TabularPolicy
from crowdnash.simulation.kept_play import simulate
from crowdnash.simulation.trajectories import MaskedTrajectories, Trajectories

_RANDOM_POLICIES = 7
_LEAST = 16


def exploring_policies(game: DynamicGame, seed: int) -> list[Policy]:
    """Uniform, and seven random ones that lean to some actions, the same at all steps."""
    rng = np.random.default_rng(seed)
    shape = (states_for_tables(game), game.num_actions)
    leaning = rng.dirichlet(np.full(shape[1], 0.5), (_RANDOM_POLICIES, shape[0]))
    tables = np.concatenate([np.full((1, *shape), 1 / shape[1]), leaning])
    tables = 0.7 * tables + 0.3 / shape[1]
    if (legal := LegalActions.of(game)) is not None:
        limited = [np.where(legal.tables, table, 0.0) for table in tables]
        return [
            TabularPolicy.grouped(one / one.sum(-1, keepdims=True), legal.kinds) for one in limited
        ]
    return [
        TabularPolicy.symmetric(np.broadcast_to(table, (game.horizon, *shape)), game.num_agents)
        for table in tables
    ]


def explore(
    game: DynamicGame, policy: Policy | Sequence[Policy] | None, num_trajectories: int, seed: int
) -> Trajectories:
    """Simulate every policy equally often, an even number of times, and join along M.

    Args:
        game: a game whose agents observe integers.
        policy: one or several (None: `exploring_policies`).
        num_trajectories: >= 16 in all; rounded up.
        seed: of the policies and the play.

    Raises:
        ValueError: an argument is out of its range, or the game has no tables.
    """
    states_for_tables(game)
    check_count("num_trajectories", num_trajectories, _LEAST)
    check_count("seed", seed, 0)
    if policy is None:
        policies = exploring_policies(game, seed)
    else:
        policies = list(policy if isinstance(policy, Sequence) else (policy,))
    if not policies:
        raise ValueError("policy must be a policy or several, not an empty sequence")
    each = 2 * -(-num_trajectories // (2 * len(policies)))
    keys = jax.random.split(jax.random.key(seed), len(policies))
    parts: list[Any] = [
        simulate(game, one, key=key, num_trajectories=each)
        for one, key in zip(policies, keys, strict=True)
    ]
    played = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
    if not isinstance(parts[0], MaskedTrajectories):
        return Trajectories(*played)
    return MaskedTrajectories(*played, alive=np.concatenate([part.alive for part in parts]))
