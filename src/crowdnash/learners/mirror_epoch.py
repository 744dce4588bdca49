"""One epoch of policy mirror descent: the run state, the evaluation of its policy, the mirror step.

Axes: G groups, H steps, S states, A actions, N agents, X = S*A pairs, d features.
"""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt32

from crowdnash.games.base import DynamicGame
from crowdnash.learners.fitted import (
    ResidualMemory,
    fit_features,
    fit_mixed,
    fit_tables,
    sweep,
)
from crowdnash.learners.temporal_difference import (
    StepRule,
    entropy_bonus,
    learn_values,
    tables_by_group,
)
from crowdnash.policies.features import log_linear_tables
from crowdnash.policies.mirror_update import mirror_step
from crowdnash.policies.tabular import TabularPolicy
from crowdnash.simulation.layout import AgentLayout
from crowdnash.simulation.samplers import action_sampler
from crowdnash.simulation.statistics import VisitStatistics, simulate_statistics


class MirrorDescentState(eqx.Module):
    """Run state of Algorithm 2 before epoch t = `epoch`; arrays only, enough to continue exactly.

    Attributes:
        epoch: epochs done.
        log_probs: log pi_t; None for "features".
        average: the mean of pi_0..pi_t; None for "features".
        weights: W of a log-linear policy pi_t ~ exp(phi . W); None but for "features".
        features: phi of the agents; None for "tables".
        kept: what fitted evaluation remembers; None if that is nothing.
        groups: the agents' groups.
        fingerprint: of the game.
        key: the raw words of the run's key.
        layout: where agents lie while they play.
        rule: step sizes of Algorithm 1.
        key_impl: the kind of `key`.
    """

    epoch: Int[Array, ""]
    log_probs: Float[Array, "G H S A"] | None
    average: Float[Array, "G H S A"] | None
    weights: Float[Array, "H S A d"] | None
    features: Float[Array, "N d"] | None
    kept: ResidualMemory | Float[Array, "H X G"] | None
    groups: Int[Array, " N"]
    fingerprint: UInt32[Array, " 8"]
    key: UInt32[Array, "..."]
    layout: AgentLayout
    rule: StepRule
    key_impl: str = eqx.field(static=True)

    @property
    def probs(self) -> Float[Array, "G H S A"]:
        """The last iterate pi_t; for "features" a table for each agent, [N,H,S,A]."""
        if self.weights is not None:
            assert self.features is not None
            return log_linear_tables(self.weights, self.features)
        assert self.log_probs is not None
        return jnp.exp(self.log_probs)


def epoch_key(state: MirrorDescentState) -> PRNGKeyArray:
    """The key of the epoch that comes next."""
    key = jax.random.wrap_key_data(state.key, impl=state.key_impl)
    return jax.random.fold_in(key, state.epoch)


class EpochNumbers(NamedTuple):
    """Scalars that decide an epoch, on the device."""

    td_epochs: Int[Array, ""]
    temperature: Float[Array, ""]
    step_size: Float[Array, ""]
    uniform_weight: Float[Array, ""]


@eqx.filter_jit
def run_epoch(
    game: DynamicGame, state: MirrorDescentState, numbers: EpochNumbers, size: int
) -> tuple[MirrorDescentState, Array, Array]:
    """The two stages of an epoch; also the mean return and the largest change of policy."""
    probs = state.probs
    if state.kept is None and state.weights is None:
        kept = None
        values, mean_return = _td_values(game, state, probs, numbers, size)
    else:
        values, kept, mean_return = _fitted_values(game, state, probs, numbers, size)
    after, change = finish_epoch(state, values, kept, numbers)
    return after, mean_return, change


def finish_epoch(
    state: MirrorDescentState, values: Float[Array, "..."], kept: Any, numbers: EpochNumbers
) -> tuple[MirrorDescentState, Float[Array, ""]]:
    """The second stage, from the evaluation of the policy; also the largest change of policy."""
    after = _improved(state, values, numbers)
    old, new = state.probs, after.probs
    average = state.average
    if average is not None:
        average = average + (new - average) / (state.epoch + 2)
    after = dataclasses.replace(after, epoch=state.epoch + 1, average=average, kept=kept)
    return after, (0.5 * jnp.abs(new - old).sum(-1)).max()


def _td_values(
    game: DynamicGame,
    state: MirrorDescentState,
    probs: Float[Array, "G H S A"],
    numbers: EpochNumbers,
    size: int,
) -> tuple[Float[Array, "G H S A"], Float[Array, ""]]:
    """Q by Algorithm 1, and the mean return."""
    values, mean_return = learn_values(
        game,
        action_sampler(TabularPolicy.grouped(probs, state.groups), state.layout),
        state.layout,
        epoch_key(state),
        numbers.td_epochs,
        entropy_bonus(probs, numbers.temperature),
        state.rule,
        state.layout.valid,
        size,
    )
    return tables_by_group(values, game.num_actions), mean_return


def _fitted_values(
    game: DynamicGame,
    state: MirrorDescentState,
    probs: Float[Array, "G H S A"],
    numbers: EpochNumbers,
    size: int,
) -> tuple[Float[Array, "..."], Any, Float[Array, ""]]:
    """Q by fitted evaluation ("features": its weights), what is kept of it, the mean return."""
    statistics, mean_return = simulate_statistics(
        game,
        action_sampler(TabularPolicy.grouped(probs, state.groups), state.layout),
        state.layout,
        epoch_key(state),
        numbers.td_epochs,
        probs.shape[2],
        size,
    )
    return *fit_statistics(state, statistics, probs, numbers), mean_return


def fit_statistics(
    state: MirrorDescentState,
    statistics: VisitStatistics,
    probs: Float[Array, "G H S A"],
    numbers: EpochNumbers,
) -> tuple[Float[Array, "..."], Any]:
    """Q by fitted evaluation ("features": its weights) from an epoch's statistics, what is kept."""
    horizon, num_states, num_actions = probs.shape[1:]
    if state.weights is not None:
        assert state.features is not None
        fit = fit_features(state.features, num_actions)
        _, weights = sweep(statistics, probs, numbers.temperature, fit, None)
        return weights.reshape(horizon, num_states, num_actions, -1), None
    if state.features is not None:
        fit = fit_mixed(state.features, num_actions)
    else:
        fit = fit_tables(num_actions)
    return sweep(statistics, probs, numbers.temperature, fit, state.kept)


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
    log_probs = jnp.logaddexp(jnp.log1p(-uniform_weight) + log_probs, uniform)
    return dataclasses.replace(state, log_probs=log_probs)


@eqx.filter_jit
def epoch_of_many(
    games: DynamicGame, states: MirrorDescentState, numbers: EpochNumbers, size: int
) -> tuple[MirrorDescentState, Array, Array]:
    """`run_epoch` for every run of a leading axis."""
    return jax.vmap(lambda game, state: run_epoch(game, state, numbers, size))(games, states)
