"""Naming what is wrong with a game, once a simulation of it has shown that something is."""

import jax.numpy as jnp
import numpy as np

from crowdnash.games.base import DynamicGame, GameError, TabularGame
from crowdnash.games.checks import law_error, named, observes_integers
from crowdnash.simulation.trajectories import Trajectories


def explain_fault(game: DynamicGame, played: Trajectories) -> None:
    """Raise `GameError` naming the first agent whose reward, transition or state is not allowed."""
    low, high = _declared_range(game)
    faults = np.argwhere(~((played.rewards >= low) & (played.rewards <= high)))
    if not len(faults):
        return
    m, h, i = (int(k) for k in faults[0])
    where = f"{named(game)}: agent {i} at step {h}"
    if not isinstance(game, TabularGame):
        num_states = game.num_states
        state = int(played.states[m, h, i]) if observes_integers(game) else 0
        if num_states is not None and not 0 <= state < num_states:
            raise GameError(f"{where} observes {state}: must lie in 0..{num_states - 1}")
        raise GameError(f"{where}: reward must be a finite number, not {played.rewards[m, h, i]}")
    if np.isfinite(played.rewards[m, h, i]):
        raise GameError(
            f"{where} in state {played.states[m, h, i]} with action {played.actions[m, h, i]}: "
            f"reward must lie in reward_range {game.reward_range}, not {played.rewards[m, h, i]}"
        )
    states, actions = (jnp.asarray(x[m, h], jnp.int32) for x in played[:2])
    probs, reward = game.joint_law(states, actions, jnp.asarray(h, jnp.int32))
    raise law_error(game, i, h, int(states[i]), int(actions[i]), probs[i], float(reward[i]))


def _declared_range(game: DynamicGame) -> tuple[float, float]:
    """The rewards that a game may pay: what it declares, rounding allowed for, or any number."""
    declared = game.reward_range if isinstance(game, TabularGame) else None
    if declared is None:
        return float(-np.finfo(np.float32).max), float(np.finfo(np.float32).max)
    slack = 1e-5 * max(abs(declared[0]), abs(declared[1]), declared[1] - declared[0])
    return declared[0] - slack, declared[1] + slack
