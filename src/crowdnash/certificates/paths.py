"""The sampled certificate: exact best responses against simulated population paths (Def. 2).

Population paths are simulated under the policy, and against each path all agents' best responses
are computed exactly, so that only the path is random.

Axes: n agents examined, K population paths, B of them in one chunk.
"""

from dataclasses import replace
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt32

from crowdnash.certificates.path_values import (
    Gains,
    MeanModel,
    Plan,
    gains_on_paths,
    model_sums,
    plan_against,
    returns_when_played,
    tabulate,
)
from crowdnash.certificates.result import (
    Exploitability,
    OwnInfluence,
    maximum_interval,
    mean_interval,
)
from crowdnash.games.base import PopulationGame
from crowdnash.policies.base import Policy
from crowdnash.simulation.faults import explain_fault
from crowdnash.simulation.layout import AgentLayout
from crowdnash.simulation.rollouts import MAX_LANES, policy_layout, simulate
from crowdnash.simulation.samplers import (
    ActionSampler,
    DeviatingSampler,
    action_sampler,
    table_sampler,
)

_AGENTS_AT_ONCE = 65_536


class _Setting(NamedTuple):
    """What every stage of the sampled certificate works with."""

    game: PopulationGame
    policy: Policy
    layout: AgentLayout
    sampler: ActionSampler
    planning_key: Array
    evaluation_key: Array
    num_paths: int

    def chunks(self, num_agents: int) -> list[tuple[Array, np.ndarray]]:
        """Numbers of the paths [B] of every chunk, and which of them count."""
        at_once = max(1, MAX_LANES // max(num_agents, self.game.num_agents))
        size = -(-self.num_paths // -(-self.num_paths // at_once))
        starts = range(0, self.num_paths, size)
        numbers = [np.arange(first, first + size, dtype=np.uint32) for first in starts]
        return [(jnp.asarray(n), n < self.num_paths) for n in numbers]

    def check(self, total_reward: Array, key: Array) -> None:
        """Name the fault if a simulated reward was not a number."""
        if not np.isfinite(float(total_reward)):
            explain_fault(
                self.game,
                simulate(self.game, self.policy, key=key, num_trajectories=self.num_paths),
            )

    def gains(self, agents: Array, base: Plan, best: Plan, numbers: Array) -> Gains:
        """Values along the evaluation paths with these numbers."""
        gains, total = gains_on_paths(
            self.game,
            self.sampler,
            self.layout,
            agents,
            base.probs,
            best.probs,
            self.evaluation_key,
            numbers,
        )
        self.check(total, self.evaluation_key)
        return gains


class _Measured(NamedTuple):
    """Along evaluation paths for one block of agents: means and variances [n], sums [K]."""

    value: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    lower_variance: np.ndarray
    upper_variance: np.ndarray
    planned_gain: np.ndarray
    lower_sums: np.ndarray
    upper_sums: np.ndarray


def exploitability_on_paths(
    game: PopulationGame,
    policy: Policy,
    key: PRNGKeyArray,
    num_paths: int,
    agents: np.ndarray,
    confidence: float,
    own_influence_agents: int,
) -> Exploitability:
    """The certificate by method "paths"; see `certificate.exploitability`."""
    layout = policy_layout(policy, game.num_agents)
    sampler = action_sampler(policy, layout)
    planning, evaluation = jax.random.split(key)
    setting = _Setting(game, policy, layout, sampler, planning, evaluation, num_paths)
    blocks = [
        _measure_block(setting, agents[first : first + _AGENTS_AT_ONCE])
        for first in range(0, len(agents), _AGENTS_AT_ONCE)
    ]
    columns = zip(*(block[:6] for block in blocks), strict=True)
    value, lower, upper, lower_var, upper_var, planned = (np.concatenate(c) for c in columns)
    lower_error, upper_error = (np.sqrt(v / num_paths) for v in (lower_var, upper_var))
    path_means = [np.sum([block[k] for block in blocks], axis=0) / len(agents) for k in (6, 7)]
    certificate = Exploitability(
        agents=agents,
        value=value,
        lower=lower,
        upper=upper,
        standard_error=lower_error,
        upper_standard_error=upper_error,
        maximum=maximum_interval(
            lower, lower_error, upper, upper_error, planned, confidence, num_paths
        ),
        mean=mean_interval(path_means[0], path_means[1], confidence),
        confidence=confidence,
        method="paths",
        num_trajectories=num_paths,
    )
    if own_influence_agents == 0:
        return certificate
    largest = np.argsort(-lower, kind="stable")[:own_influence_agents]
    return replace(certificate, own_influence=_own_influence(setting, agents[largest]))


def _plans(setting: _Setting, agents: Int[np.ndarray, " n"]) -> tuple[Plan, Plan]:
    """The policy itself and the best response to it, in the mean model of the planning paths."""
    index = jnp.asarray(agents, jnp.int32)
    sums = None
    for numbers, active in setting.chunks(len(agents)):
        part, total = model_sums(
            setting.game,
            setting.sampler,
            setting.layout,
            index,
            setting.planning_key,
            numbers,
            jnp.asarray(active),
        )
        setting.check(total, setting.planning_key)
        sums = part if sums is None else jax.tree_util.tree_map(jnp.add, sums, part)
    assert sums is not None
    model = MeanModel(sums.transition / setting.num_paths, sums.reward / setting.num_paths)
    probs = tabulate(setting.game, setting.policy, index)
    return (
        plan_against(setting.game, model, probs),
        plan_against(setting.game, model, None),
    )


def _measure_block(setting: _Setting, agents: Int[np.ndarray, " n"]) -> _Measured:
    base, best = _plans(setting, agents)
    initial = np.asarray(setting.game.initial_distribution, np.float64)
    planned_gain = initial @ (np.asarray(best.values[0]) - np.asarray(base.values[0]))
    index = jnp.asarray(agents, jnp.int32)
    moments = _Moments(len(agents))
    by_path: list[tuple[np.ndarray, np.ndarray]] = []
    for numbers, active in setting.chunks(len(agents)):
        gains = setting.gains(index, base, best, numbers)
        kept = [np.asarray(x)[active] for x in gains]
        moments.add(*kept)
        by_path.append((kept[1].sum(1, dtype=np.float64), kept[2].sum(1, dtype=np.float64)))
    value, lower, upper = moments.mean
    _, lower_var, upper_var = moments.variance
    lower_sums, upper_sums = (np.concatenate(x) for x in zip(*by_path, strict=True))
    return _Measured(
        value, lower, upper, lower_var, upper_var, planned_gain, lower_sums, upper_sums
    )


class _Moments:
    """Running means and variances of three per-agent quantities, in float64."""

    def __init__(self, num_agents: int):
        self.count = 0
        self.mean = np.zeros((3, num_agents))
        self._squares = np.zeros((3, num_agents))

    def add(self, *samples: np.ndarray) -> None:
        """Take in [B,n] samples of each quantity (Chan, Golub and LeVeque's update)."""
        batch = len(samples[0])
        total = self.count + batch
        for k, sample in enumerate(samples):
            mean = sample.mean(0, dtype=np.float64)
            shift = mean - self.mean[k]
            self._squares[k] += ((sample - mean) ** 2).sum(0)
            self._squares[k] += shift**2 * self.count * batch / total
            self.mean[k] += shift * batch / total
        self.count = total

    @property
    def variance(self) -> np.ndarray:
        """Unbiased variance of one path, [3,n]."""
        return self._squares / (self.count - 1)


def _own_influence(setting: _Setting, agents: Int[np.ndarray, " k"]) -> OwnInfluence:
    """Play the planned deviations for real, on the very draws of the evaluation paths."""
    base, best = _plans(setting, agents)
    index = jnp.asarray(agents, jnp.int32)
    differences: list[np.ndarray] = []
    for numbers, active in setting.chunks(len(agents)):
        gains = setting.gains(index, base, best, numbers)
        play = (setting.evaluation_key, numbers)
        stays = returns_when_played(
            setting.game, setting.sampler, setting.layout, index, base, *play
        )
        leaves = [
            _returns_of_deviation(
                setting.game, setting.sampler, setting.layout, index, jnp.asarray(k), best, *play
            )
            for k in range(len(agents))
        ]
        real = np.concatenate(leaves, axis=1) - np.asarray(stays)
        differences.append((real - np.asarray(gains.planned))[active])
    difference = np.concatenate(differences).astype(np.float64)
    error = difference.std(0, ddof=1) / np.sqrt(len(difference))
    return OwnInfluence(agents, difference.mean(0), error)


@eqx.filter_jit
def _returns_of_deviation(
    game: PopulationGame,
    base: ActionSampler,
    layout: AgentLayout,
    agents: Int[Array, " k"],
    column: Int[Array, ""],
    best: Plan,
    key: PRNGKeyArray,
    numbers: UInt32[Array, " B"],
) -> Float[Array, "B 1"]:
    """Return of one agent when it alone plays its best response; one compilation for all."""
    plan = Plan(*(jax.lax.dynamic_slice_in_dim(x, column, 1, axis=-1) for x in best))
    table = plan.probs.reshape(1, game.horizon, game.num_states, game.num_actions)
    agent = agents[column]
    sampler = DeviatingSampler(base, table_sampler(table, None), layout.place[agent])
    return returns_when_played(game, sampler, layout, agent[None], plan, key, numbers)
