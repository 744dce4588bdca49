"""One epoch of policy mirror descent: the run state, the evaluation of its policy, the mirror step.

Axes: G groups, H steps, S states, A actions, N agents, X = S*A pairs, d features.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt32

from crowdnash.games.base import DynamicGame
from crowdnash.games.legal import uniform_over
from crowdnash.learners.automatic_step import AutomaticStep
from crowdnash.learners.base import Metrics
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
from crowdnash.simulation.devices import ALONE, Devices
from crowdnash.simulation.layout import AgentLayout
from crowdnash.simulation.samplers import ActionSampler, action_sampler
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
        automatic: the step and its measurement; None for a step that is given.
        legal: the actions of every group, of every agent for "features"; None where all are legal.
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
    automatic: AutomaticStep | None
    legal: Bool[Array, "G H S A"] | None
    groups: Int[Array, " N"]
    fingerprint: UInt32[Array, " 8"]
    key: UInt32[Array, "..."]
    layout: AgentLayout
    rule: StepRule
    key_impl: str = eqx.field(static=True)

    @property
    def scores(self) -> Float[Array, "..."]:
        """What a mirror step adds to: log pi_t [G,H,S,A], or W [H,S,A,d]."""
        scores = self.log_probs if self.weights is None else self.weights
        assert scores is not None
        return scores

    @property
    def probs(self) -> Float[Array, "G H S A"]:
        """The last iterate pi_t; for "features" a table for each agent, [N,H,S,A]."""
        if self.weights is not None:
            assert self.features is not None
            return log_linear_tables(self.weights, self.features, self.legal)
        assert self.log_probs is not None
        return jnp.exp(self.log_probs)


@dataclass(frozen=True, kw_only=True)
class EpochMetrics(Metrics):
    """What one epoch of policy mirror descent did, in Python numbers.

    Attributes:
        policy_change: the largest total-variation distance between the old and the new policy,
            over groups, steps and states.
        step_size: xi_t, in 1 / reward.
    """

    policy_change: float
    step_size: float


def epoch_metrics(
    epoch: int, figures: Sequence[Any], agent_steps: int, seconds: float
) -> EpochMetrics:
    """From mean return, largest change of policy and step size, as an epoch returns them."""
    mean_return, policy_change, step_size = map(float, figures)
    return EpochMetrics(
        epoch=epoch,
        mean_return=mean_return,
        agent_steps=agent_steps,
        seconds=seconds,
        policy_change=policy_change,
        step_size=step_size,
    )


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
    evaluate = _td_values if state.kept is None and state.weights is None else _fitted_values
    evaluated, mean_return = evaluate(game, state, layout, state.probs, numbers, size, devices)
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
        automatic = automatic.measured(
            state.epoch,
            _modes(state, values, devices),
            _weight(state, visits, devices),
            numbers.temperature,
        )
        numbers = numbers._replace(step_size=automatic.size)
    after = _improved(state, values, numbers)
    if automatic is not None:
        move = after.scores - state.scores
        if state.legal is not None and state.weights is None:
            move = jnp.where(state.legal, move, 0.0)  # of an illegal action both are -inf
        automatic = automatic.moved(_modes(state, move, devices))
    old, new = state.probs, after.probs
    average = state.average
    if average is not None:
        average = average + (new - average) / (state.epoch + 2)
    after = dataclasses.replace(
        after, epoch=state.epoch + 1, average=average, kept=kept, automatic=automatic
    )
    change = devices.max_over_tables((0.5 * jnp.abs(new - old).sum(-1)).max())
    return after, change, numbers.step_size


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
        fit = fit_features(state.features, num_actions, devices)
        _, weights = sweep(statistics, probs, numbers.temperature, fit, None)
        return PolicyValues(weights.reshape(horizon, num_states, num_actions, -1), None, visits)
    if state.features is not None:
        fit = fit_mixed(state.features, num_actions, devices)
    else:
        fit = fit_tables(num_actions, devices)
    values, kept = sweep(statistics, probs, numbers.temperature, fit, state.kept)
    return PolicyValues(values, kept, visits)


def num_modes(features: Any, num_groups: int, num_agents: int) -> int:
    """Over how many features or groups the automatic step is measured.

    Over the features, else over the groups; where every agent is a group, over their mean.
    """
    if features is not None:
        return features.shape[1]
    return num_groups if num_groups < num_agents else 1


def _modes(
    state: MirrorDescentState, x: Float[Array, "..."], devices: Devices
) -> Float[Array, "K H S A"]:
    """Tables by group, or weights, [H,S,A,d], as the automatic step takes them."""
    if state.weights is not None:
        return jnp.moveaxis(x, -1, 0)
    if state.features is not None:
        sums = jnp.einsum("nd,nhsa->dhsa", state.features, x) / x.shape[0]
        return devices.mean_over_tables(sums)
    if x.shape[0] < state.groups.shape[0]:
        return x
    return devices.mean_over_tables(x.mean(0, keepdims=True))


def _weight(
    state: MirrorDescentState, visits: Float[Array, "G H S A"], devices: Devices
) -> Float[Array, "#K H S A"]:
    """Shares of visits, summing to 1 at every step."""
    if state.features is not None or visits.shape[0] == state.groups.shape[0]:
        visits = devices.sum_over_tables(visits.sum(0, keepdims=True))
    return visits / jnp.maximum(visits.sum((0, 2, 3), keepdims=True), 1)


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
