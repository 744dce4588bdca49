"""Policy mirror descent from simulated N-player trajectories (Algorithm 2), for any grouping.

One group is Symm-PMD, N groups of one are IPMD, anything between shares samples within groups.
An epoch has two stages: TD learning of the current policy's regularised Q-values (Algorithm 1),
and the mirror step

    pi_{t+1}(.|s)  ~  pi_t^(1 - tau xi_t) exp(xi_t q),     q = Q - tau H(pi_t),

optionally mixed with the uniform policy at weight 1/(t+1).

Axes: G groups, H steps, S states, A actions, N agents.
"""

import time
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt32

from crowdnash.checks import check_count
from crowdnash.games.base import DynamicGame
from crowdnash.games.checks import states_for_tables
from crowdnash.games.grouping import Groups, assign_groups
from crowdnash.learners.temporal_difference import (
    StepRule,
    TDStep,
    entropy_bonus,
    learn_values,
    tables_by_group,
)
from crowdnash.policies.mirror_update import mirror_step
from crowdnash.policies.tabular import TabularPolicy
from crowdnash.simulation.layout import AgentLayout, agent_layout
from crowdnash.simulation.rollouts import action_sampler, chunk_size, simulate


class MirrorDescentState(eqx.Module):
    """Run state of Algorithm 2 before epoch t = `epoch`; arrays only, enough to continue exactly.

    `log_probs` is log pi_t and `average` the mean of pi_0..pi_t, both [G,H,S,A]; `groups` [N];
    `key` the raw words of the run's key.
    """

    epoch: Int[Array, ""]
    log_probs: Float[Array, "G H S A"]
    average: Float[Array, "G H S A"]
    groups: Int[Array, " N"]
    key: UInt32[Array, "..."]
    layout: AgentLayout
    rule: StepRule
    key_impl: str = eqx.field(static=True)

    @property
    def probs(self) -> Float[Array, "G H S A"]:
        """The last iterate pi_t."""
        return jnp.exp(self.log_probs)


@dataclass(frozen=True)
class EpochMetrics:
    """What one epoch did, in Python numbers.

    `mean_return` is the mean over agents and trajectories of the total reward under the policy
    that the epoch began with; `policy_change` the largest total-variation distance between the
    old and the new policy over groups, steps and states; `seconds` wall time.
    """

    epoch: int
    mean_return: float
    policy_change: float
    agent_steps: int
    seconds: float


class PolicyMirrorDescent(eqx.Module):
    """Algorithm 2; the defaults are the theorem's (Theorem 3), `practical` learns faster.

    **Arguments:**

    - `num_epochs` T >= 0 mirror steps, `td_epochs` M >= 1 trajectories for each;
    - `temperature` tau >= 0, entropy weight in units of reward;
    - `groups` "symmetric", "independent", an integer G or a map [N] (see `assign_groups`);
    - `step_size` xi_t: "theorem" for 1/sqrt(t+1), or a constant > 0; tau xi_t < 1;
    - `mixing` whether pi_{t+1} is mixed with uniform at weight 1/(t+1);
    - `td_step_size`, `td_delta`: see `StepRule.named`.

    **Raises:** `ValueError` naming the argument, the rule and the value.
    """

    num_epochs: int = 300
    td_epochs: int = 100
    temperature: float = 0.01
    groups: Groups = "symmetric"
    step_size: Literal["theorem"] | float = "theorem"
    mixing: bool = True
    td_step_size: TDStep = "adaptive"
    td_delta: float = 1.0

    def __check_init__(self):
        check_count("num_epochs", self.num_epochs, 0)
        check_count("td_epochs", self.td_epochs, 1)
        if not 0 <= self.temperature < np.inf:
            raise ValueError(f"temperature must be >= 0 and finite, not {self.temperature}")
        if isinstance(self.step_size, str):
            if self.step_size != "theorem":
                raise ValueError(f"step_size must be 'theorem' or > 0, not {self.step_size!r}")
        elif not 0 < self.step_size < np.inf:
            raise ValueError(f"step_size must be 'theorem' or > 0, not {self.step_size}")
        largest = 1.0 if isinstance(self.step_size, str) else self.step_size
        if self.temperature * largest >= 1:
            raise ValueError(
                "temperature * step_size must be below 1 for the mirror step: "
                f"{self.temperature} * {largest} = {self.temperature * largest}"
            )
        StepRule.named(self.td_step_size, 1, np.ones(1, np.int64), self.td_delta)

    @classmethod
    def practical(cls, **changes: Any) -> "PolicyMirrorDescent":
        """The preset that learns fastest in our measurements: constant step, no mixing.

        Take `SolveResult.last_policy` with it. Any argument can be changed by keyword.

        **Raises:** as the class; `TypeError` for a keyword that it does not have.
        """
        preset: dict[str, Any] = {"step_size": 0.3, "mixing": False}
        return cls(**(preset | changes))

    def init(self, game: DynamicGame, *, key: PRNGKeyArray) -> MirrorDescentState:
        """The state before epoch 0: every group plays uniformly.

        **Raises:** `ValueError` if the game has no `num_states` or its agents do not observe
        integers, or `groups` does not suit it.
        """
        num_states = states_for_tables(game)
        groups = assign_groups(game, self.groups)
        num_groups = int(groups.max()) + 1
        shape = (num_groups, game.horizon, num_states, game.num_actions)
        uniform = jnp.full(shape, 1.0 / game.num_actions, jnp.float32)
        return MirrorDescentState(
            epoch=jnp.asarray(0, jnp.int32),
            log_probs=jnp.log(uniform),
            average=uniform,
            groups=jnp.asarray(groups, jnp.int32),
            key=jax.random.key_data(key) if _is_typed(key) else jnp.asarray(key),
            layout=agent_layout(groups, num_groups),
            rule=StepRule.named(
                self.td_step_size, game.horizon, np.bincount(groups), self.td_delta
            ),
            key_impl=str(jax.random.key_impl(key)),
        )

    def step(
        self, game: DynamicGame, state: MirrorDescentState
    ) -> tuple[MirrorDescentState, EpochMetrics]:
        """One epoch: TD learning of the current policy, then the mirror step.

        **Raises:** `GameError` if the game pays a NaN or a transition is not a distribution.
        """
        begun = time.perf_counter()
        size = chunk_size(game.num_agents, self.td_epochs)
        epoch = int(state.epoch)
        state_after, mean_return, change = _epoch(game, state, self._numbers(epoch), size)
        mean_return, change = jax.device_get((mean_return, change))
        if not np.isfinite(mean_return):
            self._explain(game, state)
        agent_steps = self.td_epochs * game.horizon * game.num_agents
        seconds = time.perf_counter() - begun
        return state_after, _metrics(epoch, mean_return, change, agent_steps, seconds)

    def step_together(
        self, games: DynamicGame, states: MirrorDescentState
    ) -> tuple[MirrorDescentState, tuple[EpochMetrics, ...]]:
        """`step` for R runs at once, in one vectorised program; see `learning.solve_together`.

        Every array of `games` and `states` has a leading axis R; all runs are at the same epoch.
        The policies are those of `step` up to rounding. `seconds` is each run's equal share.

        **Raises:** as `step`.
        """
        begun = time.perf_counter()
        # Stacked games cannot be asked for N: they take R for it.
        num_runs, num_agents = states.groups.shape
        size = chunk_size(num_agents * num_runs, self.td_epochs)
        epoch = int(states.epoch[0])
        after, returns, changes = _epoch_of_many(games, states, self._numbers(epoch), size)
        returns, changes = jax.device_get((returns, changes))
        for run in np.flatnonzero(~np.isfinite(returns)):
            self._explain(*jax.tree_util.tree_map(lambda x, k=run: x[k], (games, states)))
        seconds = (time.perf_counter() - begun) / num_runs
        agent_steps = self.td_epochs * games.horizon * num_agents
        metrics = [
            _metrics(epoch, mean_return, change, agent_steps, seconds)
            for mean_return, change in zip(returns, changes, strict=True)
        ]
        return after, tuple(metrics)

    def _numbers(self, epoch: int) -> "_EpochNumbers":
        step_size = 1 / np.sqrt(epoch + 1) if self.step_size == "theorem" else self.step_size
        return _EpochNumbers(
            td_epochs=jnp.asarray(self.td_epochs, jnp.int32),
            temperature=jnp.float32(self.temperature),
            step_size=jnp.float32(step_size),
            uniform_weight=jnp.float32(1 / (epoch + 1) if self.mixing else 0.0),
        )

    def average_policy(self, state: MirrorDescentState) -> TabularPolicy:
        """The output of Algorithm 2: the mean of pi_0..pi_t."""
        return TabularPolicy.grouped(state.average, state.groups)

    def last_policy(self, state: MirrorDescentState) -> TabularPolicy:
        """The last iterate pi_t, often the better policy."""
        return TabularPolicy.grouped(state.probs, state.groups)

    def _explain(self, game: DynamicGame, state: MirrorDescentState) -> None:
        """Play the failed epoch again where the fault can be named."""
        simulate(
            game,
            self.last_policy(state),
            key=_epoch_key(state),
            num_trajectories=self.td_epochs,
        )
        raise FloatingPointError("the mean return of an epoch is not a finite number")


def _is_typed(key: Any) -> bool:
    return jnp.issubdtype(key.dtype, jax.dtypes.prng_key)


def _epoch_key(state: MirrorDescentState) -> PRNGKeyArray:
    key = jax.random.wrap_key_data(state.key, impl=state.key_impl)
    return jax.random.fold_in(key, state.epoch)


def _metrics(
    epoch: int, mean_return: Any, change: Any, agent_steps: int, seconds: float
) -> EpochMetrics:
    return EpochMetrics(epoch, float(mean_return), float(change), agent_steps, seconds)


class _EpochNumbers(NamedTuple):
    """Scalars that decide an epoch, on the device."""

    td_epochs: Int[Array, ""]
    temperature: Float[Array, ""]
    step_size: Float[Array, ""]
    uniform_weight: Float[Array, ""]


@eqx.filter_jit
def _epoch(
    game: DynamicGame, state: MirrorDescentState, numbers: _EpochNumbers, size: int
) -> tuple[MirrorDescentState, Array, Array]:
    """The two stages of an epoch; also the mean return and the largest change of policy."""
    td_epochs, temperature, step_size, uniform_weight = numbers
    layout = state.layout
    probs = state.probs
    values, mean_return = learn_values(
        game,
        action_sampler(TabularPolicy.grouped(probs, state.groups), layout),
        layout,
        _epoch_key(state),
        td_epochs,
        entropy_bonus(probs, temperature),
        state.rule,
        layout.valid,
        size,
    )
    log_probs = mirror_step(
        state.log_probs, tables_by_group(values, game.num_actions), temperature, step_size
    )
    uniform = jnp.log(uniform_weight / game.num_actions)
    log_probs = jnp.logaddexp(jnp.log1p(-uniform_weight) + log_probs, uniform)
    new = jnp.exp(log_probs)
    average = state.average + (new - state.average) / (state.epoch + 2)
    after = MirrorDescentState(
        epoch=state.epoch + 1,
        log_probs=log_probs,
        average=average,
        groups=state.groups,
        key=state.key,
        layout=layout,
        rule=state.rule,
        key_impl=state.key_impl,
    )
    return after, mean_return, (0.5 * jnp.abs(new - probs).sum(-1)).max()


@eqx.filter_jit
def _epoch_of_many(
    games: DynamicGame, states: MirrorDescentState, numbers: _EpochNumbers, size: int
) -> tuple[MirrorDescentState, Array, Array]:
    """`_epoch` for every run of a leading axis."""
    return jax.vmap(lambda game, state: _epoch(game, state, numbers, size))(games, states)
