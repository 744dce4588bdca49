"""One epoch of policy mirror descent: the evaluation of its policy, and the mirror step.

Axes: G groups, H steps, S states, A actions, N agents, X = S*A pairs, d features.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from crowdnash.games.base import DynamicGame, PopulationGame
from crowdnash.games.legal import uniform_over
from crowdnash.learners.feature_epoch import evaluate_by_blocks, largest_change
from crowdnash.learners.fitted import (
    Fit,
    Visited,
    fit_features,
    fit_mixed,
    fit_tables,
    sweep,
)
from crowdnash.learners.mirror_state import EpochNumbers, MirrorDescentState, epoch_key
from crowdnash.learners.step_measurement import measure, record_move
from crowdnash.learners.temporal_difference import (
    entropy_bonus,
    learn_values,
    tables_by_group,
)
from crowdnash.policies.mirror_update import mirror_step
from crowdnash.policies.tabular import TabularPolicy
from crowdnash.simulation.devices import ALONE, Devices
from crowdnash.simulation.layout import AgentLayout
from crowdnash.simulation.rollouts import chunk_size
from crowdnash.simulation.samplers import ActionSampler, action_sampler
from crowdnash.simulation.statistics import VisitStatistics, simulate_statistics


class PolicyValues(NamedTuple):
    """What evaluating a policy gave.

    Attributes:
        values: Q; for "features" its weights, [H,S,A,d].
        kept: what fitted evaluation remembers of it.
        visits: of agents to pairs; None from Algorithm 1.
    """

    values: Float[Array, "..."]
    kept: Any = None
    visits: Float[Array, "G H S A"] | None = None


@eqx.filter_jit
def run_epoch(
    game: DynamicGame, state: MirrorDescentState, numbers: EpochNumbers, size: int
) -> tuple[MirrorDescentState, Array, Array, Array]:
    """`epoch_in_jit`, compiled, on one device."""
    return epoch_in_jit(game, state, state.layout, numbers, size)


def epoch_in_jit(
    game: DynamicGame,
    state: MirrorDescentState,
    layout: AgentLayout,
    numbers: EpochNumbers,
    size: int,
    devices: Devices = ALONE,
) -> tuple[MirrorDescentState, Array, Array, Array]:
    """The two stages of an epoch; also mean return, largest change of policy, and step size.

    Where `devices` share it, inside `devices.map`: `layout` has this device's agents.
    """
    evaluated, mean_return = _evaluated(game, state, layout, numbers, size, devices)
    after, change, step_size = finish_epoch(state, evaluated, numbers, devices)
    return after, mean_return, change, step_size


def finish_epoch(
    state: MirrorDescentState,
    evaluated: PolicyValues,
    numbers: EpochNumbers,
    devices: Devices = ALONE,
) -> tuple[MirrorDescentState, Float[Array, ""], Float[Array, ""]]:
    """The second stage, the mirror step; also the largest change of policy, and the step size."""
    automatic, (values, kept, visits) = state.automatic, evaluated
    if automatic is not None:
        assert visits is not None
        automatic = measure(state, values, visits, numbers.temperature, devices)
        numbers = numbers._replace(step_size=automatic.size)
    after = _improved(state, values, numbers)
    if automatic is not None:
        automatic = record_move(automatic, state, after, devices)
    average = state.average
    if average is None:
        change = largest_change(state, after, devices)
    else:
        old, new = state.probs, after.probs
        average = average + (new - average) / (state.epoch + 2)
        change = devices.max_over_tables((0.5 * jnp.abs(new - old).sum(-1)).max())
    after = dataclasses.replace(
        after,
        epoch=state.epoch + 1,
        average=average,
        kept=kept,
        automatic=automatic,
        before=None if automatic is None else values,
    )
    return after, change, numbers.step_size


def _evaluated(
    game: DynamicGame,
    state: MirrorDescentState,
    layout: AgentLayout,
    numbers: EpochNumbers,
    size: int,
    devices: Devices,
) -> tuple[PolicyValues, Float[Array, ""]]:
    """The first stage, and the mean return."""
    if state.weights is not None and isinstance(game, PopulationGame):
        values = evaluate_by_blocks(game, state, layout.agent[0], numbers, size, devices)
        return PolicyValues(values.weights, None, values.visits), values.mean_return
    evaluate = _td_values if state.kept is None and state.weights is None else _fitted_values
    return evaluate(game, state, layout, state.probs, numbers, size, devices)


def epoch_size(
    game: DynamicGame, state: MirrorDescentState, num_trajectories: int, devices: Devices
) -> int:
    """Trajectories that a device plays at once: a chunk of them, by blocks its whole share."""
    if state.weights is not None and isinstance(game, PopulationGame):
        return -(-num_trajectories // devices.size("trajectories"))
    return chunk_size(game.num_agents, num_trajectories, devices)


def _td_values(
    game: DynamicGame,
    state: MirrorDescentState,
    layout: AgentLayout,
    probs: Float[Array, "G H S A"],
    numbers: EpochNumbers,
    size: int,
    devices: Devices,
) -> tuple[PolicyValues, Float[Array, ""]]:
    """Q by Algorithm 1, and the mean return."""
    values, mean_return = learn_values(
        game,
        _sampler(state, layout, probs, devices),
        layout,
        epoch_key(state),
        numbers.td_epochs,
        entropy_bonus(probs, numbers.temperature),
        state.rule,
        layout.valid,
        size,
        devices,
    )
    return PolicyValues(tables_by_group(values, game.num_actions)), mean_return


def _fitted_values(
    game: DynamicGame,
    state: MirrorDescentState,
    layout: AgentLayout,
    probs: Float[Array, "G H S A"],
    numbers: EpochNumbers,
    size: int,
    devices: Devices,
) -> tuple[PolicyValues, Float[Array, ""]]:
    """Q by fitted evaluation, and the mean return."""
    statistics, mean_return = simulate_statistics(
        game,
        _sampler(state, layout, probs, devices),
        layout,
        epoch_key(state),
        numbers.td_epochs,
        probs.shape[2],
        size,
        devices,
    )
    return fit_statistics(state, statistics, probs, numbers, devices), mean_return


def _sampler(
    state: MirrorDescentState, layout: AgentLayout, probs: Float[Array, "G H S A"], devices: Devices
) -> ActionSampler:
    if not devices.own_tables:
        return action_sampler(TabularPolicy.grouped(probs, state.groups), layout)
    # The agents here are numbered as their tables are, for who looks tables up by agent.
    here = jnp.arange(probs.shape[0], dtype=jnp.int32)
    own = dataclasses.replace(layout, agent=here[None])
    return action_sampler(TabularPolicy.grouped(probs, here), own)


def fit_statistics(
    state: MirrorDescentState,
    statistics: VisitStatistics,
    probs: Float[Array, "G H S A"],
    numbers: EpochNumbers,
    devices: Devices = ALONE,
) -> PolicyValues:
    """Q by fitted evaluation from an epoch's statistics."""
    horizon, num_states, num_actions = probs.shape[1:]
    visits = jnp.moveaxis(statistics.visits, -1, 0).swapaxes(1, 2).reshape(probs.shape)
    if state.weights is not None:
        assert state.features is not None
        fit, kept = _with_features(fit_features, state.features, num_actions, devices, None)
        _, weights = sweep(statistics, probs, numbers.temperature, fit, kept)
        return PolicyValues(weights.reshape(horizon, num_states, num_actions, -1), None, visits)
    if state.features is not None:
        fit, kept = _with_features(fit_mixed, state.features, num_actions, devices, state.kept)
    else:
        fit, kept = fit_tables(num_actions, devices), state.kept
    values, kept = sweep(statistics, probs, numbers.temperature, fit, kept)
    return PolicyValues(values, kept, visits)


def _with_features(
    make: Callable[..., Fit],
    features: Float[Array, "*H N d"],
    num_actions: int,
    devices: Devices,
    kept: Any,
) -> tuple[Fit, Any]:
    """A fit on features, and what `sweep` hands it: the step's features too, if they depend on it.

    Features that do not are not repeated H times.
    """
    if features.ndim == 2:
        return make(features, num_actions, devices), kept

    def fit(seen: Visited, own: tuple[Any, Array]) -> tuple[Array, Any]:
        kept, features = own
        return make(features, num_actions, devices)(seen, kept)

    return fit, (kept, features)


def _improved(
    state: MirrorDescentState, values: Float[Array, "..."], numbers: EpochNumbers
) -> MirrorDescentState:
    """The mirror step: of log-linear policies in their weights, else in the tables."""
    _, temperature, step_size, uniform_weight = numbers
    if state.weights is not None:
        weights = (1 - temperature * step_size) * state.weights + step_size * values
        return dataclasses.replace(state, weights=weights)
    assert state.log_probs is not None
    log_probs = mirror_step(state.log_probs, values, temperature, step_size)
    uniform = jnp.log(uniform_weight / values.shape[-1])
    if state.legal is not None:
        uniform = jnp.log(uniform_weight * uniform_over(state.legal))
    log_probs = jnp.logaddexp(jnp.log1p(-uniform_weight) + log_probs, uniform)
    return dataclasses.replace(state, log_probs=log_probs)


@eqx.filter_jit
def epoch_of_many(
    games: DynamicGame, states: MirrorDescentState, numbers: EpochNumbers, size: int
) -> tuple[MirrorDescentState, Array, Array, Array]:
    """`run_epoch` for every run of a leading axis."""
    return jax.vmap(lambda game, state: run_epoch(game, state, numbers, size))(games, states)
