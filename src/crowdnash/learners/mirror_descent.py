"""Policy mirror descent from simulated N-player trajectories (Algorithm 2), for any grouping.

One group is Symm-PMD, N groups of one are IPMD, anything between shares samples within groups.
An epoch has two stages: TD learning of the current policy's regularised Q-values (Algorithm 1),
and the mirror step

    pi_{t+1}(.|s)  ~  pi_t^(1 - tau xi_t) exp(xi_t q),     q = Q - tau H(pi_t),

optionally mixed with the uniform policy at weight 1/(t+1).

Axes: G groups, H steps, S states, A actions, N agents.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt32

from crowdnash.checks import check_count
from crowdnash.games.base import DynamicGame
from crowdnash.games.checks import states_for_tables
from crowdnash.games.grouping import Groups, assign_groups
from crowdnash.learners.base import Metrics, StackedLearner, game_fingerprint
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
from crowdnash.simulation.rollouts import chunk_size, simulate
from crowdnash.simulation.samplers import action_sampler


class MirrorDescentState(eqx.Module):
    """Run state of Algorithm 2 before epoch t = `epoch`; arrays only, enough to continue exactly.

    `log_probs` is log pi_t and `average` the mean of pi_0..pi_t, both [G,H,S,A]; `groups` [N];
    `fingerprint` is of the game; `key` the raw words of the run's key.
    """

    epoch: Int[Array, ""]
    log_probs: Float[Array, "G H S A"]
    average: Float[Array, "G H S A"]
    groups: Int[Array, " N"]
    fingerprint: UInt32[Array, " 8"]
    key: UInt32[Array, "..."]
    layout: AgentLayout
    rule: StepRule
    key_impl: str = eqx.field(static=True)

    @property
    def probs(self) -> Float[Array, "G H S A"]:
        """The last iterate pi_t."""
        return jnp.exp(self.log_probs)


@dataclass(frozen=True, kw_only=True)
class EpochMetrics(Metrics):
    """What one epoch of policy mirror descent did, in Python numbers.

    Attributes:
        policy_change: the largest total-variation distance between the old and the new policy,
            over groups, steps and states.
    """

    policy_change: float


class PolicyMirrorDescent(StackedLearner[MirrorDescentState, EpochMetrics, TabularPolicy]):
    """Algorithm 2; the defaults are the theorem's (Theorem 3), `practical` learns faster.

    Args:
        num_epochs: mirror steps T, at least 0.
        td_epochs: trajectories M for each policy evaluation, at least 1.
        temperature: weight tau >= 0 of the entropy bonus, in reward units; tau xi_t < 1.
        groups: who shares a policy: "symmetric" (all agents), "independent" (nobody), this many
            groups of similar agents, or a map [N] (see `assign_groups`).
        step_size: mirror-descent step xi_t: "theorem" for 1/sqrt(t+1), or a constant > 0.
        mixing: whether pi_{t+1} is mixed with the uniform policy, with weight 1/(t+1).
        td_step_size: step-size rule of temporal-difference learning, see `StepRule.named`.
        td_delta: visitation probability that the theorem's rule takes, in (0, 1].
        iterate: the policy that is recommended: the "average" of all iterates (the output of
            Algorithm 2) or the "last" one.

    Raises:
        ValueError: naming the argument, the rule and the value.
    """

    metrics_class: ClassVar[type[Metrics]] = EpochMetrics

    num_epochs: int = 300
    td_epochs: int = 100
    temperature: float = 0.01
    groups: Groups = "symmetric"
    step_size: Literal["theorem"] | float = "theorem"
    mixing: bool = True
    td_step_size: TDStep = "adaptive"
    td_delta: float = 1.0
    iterate: Literal["last", "average"] | str = "average"

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
        if self.iterate not in ("average", "last"):
            raise ValueError(f"iterate must be 'average' or 'last', not {self.iterate!r}")

    @classmethod
    def practical(cls, **changes: Any) -> "PolicyMirrorDescent":
        """The preset that learns fastest in our measurements: constant step, no mixing.

        It recommends the last iterate. Any argument can be changed by keyword.

        Raises:
            ValueError: as the class.
            TypeError: a keyword that the class does not have.
        """
        preset: dict[str, Any] = {"step_size": 0.3, "mixing": False, "iterate": "last"}
        return cls(**(preset | changes))

    @classmethod
    def presets(cls) -> Mapping[str, Callable[..., "PolicyMirrorDescent"]]:
        """See `Learner.presets`: "practical", and "theorem", the defaults of the class."""
        return {"practical": cls.practical, "theorem": cls}

    def check_suits(self, game: DynamicGame) -> None:
        """Make sure that tables can be made for the game, and groups of its agents.

        Raises:
            ValueError: the game has no `num_states` or its agents do not observe integers, or
                `groups` does not suit it.
        """
        states_for_tables(game)
        assign_groups(game, self.groups)

    def init(self, game: DynamicGame, *, key: PRNGKeyArray) -> MirrorDescentState:
        """The state before epoch 0: every group plays uniformly.

        Raises:
            ValueError: as `check_suits`.
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
            fingerprint=game_fingerprint(game),
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

        Raises:
            GameError: the game pays a NaN or a transition is not a distribution.
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
        """`step` for R runs at once, in one vectorised program; see `solve_together`.

        Every array of `games` and `states` has a leading axis R; all runs are at the same epoch.
        The policies are those of `step` up to rounding. `seconds` is each run's equal share.

        Raises:
            GameError: as `step`.
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

    def policies(self, game: DynamicGame, state: MirrorDescentState) -> dict[str, TabularPolicy]:
        """The mean of pi_0..pi_t, "average" (the output of Algorithm 2), and pi_t, "last"."""
        both = {
            "average": TabularPolicy.grouped(state.average, state.groups),
            "last": TabularPolicy.grouped(state.probs, state.groups),
        }
        return {self.iterate: both[self.iterate]} | both

    def summary(self) -> str:
        """Who shares a policy."""
        if isinstance(self.groups, str):
            words = {"symmetric": "one shared policy", "independent": "one policy per agent"}
            return words[self.groups]
        sizes = np.asarray(self.groups)
        return f"{int(sizes if sizes.ndim == 0 else sizes.max() + 1)} groups"

    def _explain(self, game: DynamicGame, state: MirrorDescentState) -> None:
        """Play the failed epoch again where the fault can be named."""
        simulate(
            game,
            self.policies(game, state)["last"],
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
    return EpochMetrics(
        epoch=epoch,
        mean_return=float(mean_return),
        agent_steps=agent_steps,
        seconds=seconds,
        policy_change=float(change),
    )


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
    after = dataclasses.replace(state, epoch=state.epoch + 1, log_probs=log_probs, average=average)
    return after, mean_return, (0.5 * jnp.abs(new - probs).sum(-1)).max()


@eqx.filter_jit
def _epoch_of_many(
    games: DynamicGame, states: MirrorDescentState, numbers: _EpochNumbers, size: int
) -> tuple[MirrorDescentState, Array, Array]:
    """`_epoch` for every run of a leading axis."""
    return jax.vmap(lambda game, state: _epoch(game, state, numbers, size))(games, states)
