"""An epoch of policy mirror descent on a simulator outside JAX: the same stages, on played arrays.

What is legal is part of the simulator, not of the tables. A table's policy is renormalised over
the actions that are legal when it is played; its values are learned for that renormalised policy,
by which an action counts at (h,s) if anyone was seen there to have it in this epoch.

Axes: G groups, H steps, S states, A actions, [B,L,T] trajectories and places (see `layout`).
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from crowdnash.learners.mirror_epoch import PolicyValues, finish_epoch, fit_statistics
from crowdnash.learners.mirror_state import EpochNumbers, MirrorDescentState, epoch_key
from crowdnash.learners.temporal_difference import (
    TDTables,
    entropy_bonus,
    tables_by_group,
    td_update,
)
from crowdnash.policies.tabular import TabularPolicy
from crowdnash.simulation.outside import simulate_outside
from crowdnash.simulation.statistics import visit_statistics
from crowdnash.simulation.trajectories import Chunk, MaskedTrajectories, chunk_from_arrays
from crowdnash.simulators.game import OutsideGame


def run_epoch_outside(
    game: OutsideGame, state: MirrorDescentState, numbers: EpochNumbers, num_trajectories: int
) -> tuple[MirrorDescentState, Array, Array, Array]:
    """`mirror_epoch.run_epoch` for a simulator: play outside JAX, evaluate and improve inside.

    Raises:
        SimulatorError: the simulator breaks its contract.
    """
    policy = TabularPolicy.grouped(state.probs, state.groups)
    played = simulate_outside(game, policy, epoch_key(state), num_trajectories)
    assert game.num_states is not None  # `check_suits` has seen to it
    chunk = chunk_from_arrays(
        played.states,
        played.actions,
        played.rewards,
        state.layout,
        game.num_states,
        game.num_actions,
        played.alive,
    )
    legal = legal_pairs(played, game.num_states)
    legal = None if legal is None else jnp.asarray(legal)
    after, change, step_size = _learn(state, chunk, legal, numbers)
    return after, jnp.asarray(played.rewards.sum(1).mean()), change, step_size


def legal_pairs(played: MaskedTrajectories, num_states: int) -> Bool[np.ndarray, "H S A"] | None:
    """Whether anyone was seen to have an action at (h,s); all have it where nobody came."""
    if played.legal is None:
        return None
    horizon, num_actions = played.legal.shape[1], played.legal.shape[3]
    seen = np.zeros((horizon, num_states, num_actions), bool)
    _, step, _ = here = np.nonzero(played.alive)
    np.logical_or.at(seen, (step, played.states[here]), played.legal[here])
    return seen | ~seen.any(-1, keepdims=True)


@eqx.filter_jit
def _learn(
    state: MirrorDescentState,
    chunk: Chunk,
    legal: Bool[Array, "H S A"] | None,
    numbers: EpochNumbers,
) -> tuple[MirrorDescentState, Float[Array, ""], Float[Array, ""]]:
    """Evaluate the policy on what was played, and improve it."""
    probs = state.probs
    if legal is not None:
        masked = jnp.where(legal, probs, 0.0)
        probs = masked / jnp.maximum(masked.sum(-1, keepdims=True), 1e-30)
    horizon, num_states, num_actions = probs.shape[1:]
    num_pairs = num_states * num_actions
    if state.kept is None and state.weights is None:
        tables = td_update(
            TDTables.zeros(num_pairs, horizon, probs.shape[0]),
            chunk,
            jnp.ones(chunk.pairs.shape[1], bool),
            entropy_bonus(probs, numbers.temperature),
            state.rule,
            state.layout,
        )
        evaluated = PolicyValues(tables_by_group(tables.values, num_actions))
    else:
        statistics = visit_statistics(
            chunk, state.layout, num_pairs, summed=True, actions_apart=num_actions
        )
        evaluated = fit_statistics(state, statistics, probs, numbers)
    return finish_epoch(state, evaluated, numbers)
