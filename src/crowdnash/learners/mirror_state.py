"""The run state of policy mirror descent, what an epoch tells, and the numbers that decide one.

Axes: G groups, H steps, S states, A actions, N agents, X = S*A pairs, d features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt32

from crowdnash.learners.automatic_step import AutomaticStep
from crowdnash.learners.base import Metrics
from crowdnash.learners.fitted import ResidualMemory
from crowdnash.learners.temporal_difference import StepRule
from crowdnash.policies.features import log_linear_tables
from crowdnash.simulation.layout import AgentLayout


class MirrorDescentState(eqx.Module):
    """Run state of Algorithm 2 before epoch t = `epoch`; arrays only, enough to continue exactly.

    Attributes:
        epoch: epochs done.
        log_probs: log pi_t; None for "features".
        average: the mean of pi_0..pi_t; None for "features".
        weights: W of a log-linear policy pi_t ~ exp(phi . W); None but for "features".
        features: phi of the agents, [H,N,d] if it depends on the step; None for "tables".
        kept: what fitted evaluation remembers; None if that is nothing.
        automatic: the step and its measurement; None for a step that is given.
        before: Q of the epoch before, for "features" its weights; None for a step that is given.
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
    features: Float[Array, "*H N d"] | None
    kept: ResidualMemory | Float[Array, "H X G"] | None
    automatic: AutomaticStep | None
    before: Float[Array, "..."] | None
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
