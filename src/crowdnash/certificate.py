"""N-player exploitability with confidence intervals (Def. 2).

    E^i(pi) = max_{pi'} J^i(pi', pi^-i) - J^i(pi)

Three methods. "enumerate": tiny games, the joint chain in full. "exact": agents that move
independently with rewards affine in the crowd. "paths": any `PopulationGame`; population paths
are simulated under the policy, and against each path all agents' best responses are computed
exactly, so that only the path is random.

Axes: n agents examined (all N unless `agents` says otherwise), K population paths.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jaxtyping import Array, Float, Int, PRNGKeyArray

from crowdnash.enumeration import can_enumerate, enumerate_values, enumeration_size
from crowdnash.frozen_paths import (
    Gains,
    MeanModel,
    Plan,
    gains_on_paths,
    model_sums,
    plan_against,
    returns_when_played,
    tabulate,
)
from crowdnash.game import PopulationGame, TabularGame
from crowdnash.independent_agents import independent_values, is_exact
from crowdnash.interval import Interval
from crowdnash.layout import AgentLayout
from crowdnash.policy import Policy, TabularPolicy
from crowdnash.simulation import (
    MAX_LANES,
    ActionSampler,
    DeviatingSampler,
    action_sampler,
    explain_fault,
    policy_layout,
    simulate,
    table_sampler,
)

Method = Literal["auto", "paths", "exact", "enumerate"]

_AGENTS_AT_ONCE = 65_536
_AUTO_JOINT, _AUTO_POLICIES = 200_000, 2_000_000


@dataclass(frozen=True)
class OwnInfluence:
    """What holding the population's path fixed leaves out, measured for some agents, [k].

    `difference` is the gain of agent i's deviation when it is really played (the others feel it)
    minus its gain against frozen paths, with `standard_error`; O(1/N). Add it to
    `Exploitability.lower` for an unbiased estimate of what that deviation gains.
    """

    agents: Int[np.ndarray, " k"]
    difference: Float[np.ndarray, " k"]
    standard_error: Float[np.ndarray, " k"]


@dataclass(frozen=True)
class Exploitability:
    """How much single agents can gain by deviating, in units of total reward (Def. 2).

    Per agent, [n]: a known policy gains `lower` over the policy's own return `value`; none gains
    more than `upper` (point estimates, with `standard_error` and `upper_standard_error`). Over
    the agents: `maximum` and `mean`, intervals that cover at `confidence`. With method "paths"
    all of this holds against frozen population paths; `own_influence` is what that leaves out.
    """

    agents: Int[np.ndarray, " n"]
    value: Float[np.ndarray, " n"]
    lower: Float[np.ndarray, " n"]
    upper: Float[np.ndarray, " n"]
    standard_error: Float[np.ndarray, " n"]
    upper_standard_error: Float[np.ndarray, " n"]
    maximum: Interval
    mean: Interval
    confidence: float
    method: str
    num_trajectories: int
    own_influence: OwnInfluence | None = None

    @property
    def best_response_value(self) -> Float[np.ndarray, " n"]:
        """Return of the deviation behind `lower`."""
        return self.value + self.lower


def exploitability(
    game: TabularGame,
    policy: Policy,
    *,
    key: PRNGKeyArray,
    num_trajectories: int = 256,
    agents: Any = None,
    confidence: float = 0.95,
    own_influence_agents: int = 8,
    method: Method = "auto",
) -> Exploitability:
    """Measure how much each agent could gain by deviating alone from `policy` (Def. 2).

    **Arguments:**

    - `num_trajectories` K >= 2 population paths to evaluate on, and as many again to plan on;
    - `agents` indices of the agents to examine, default all N;
    - `confidence` in (0,1) of the intervals `maximum` and `mean`;
    - `own_influence_agents` for how many agents, those with the largest gain, the deviation is
      also really played (method "paths" only; 0 for none);
    - `method` "enumerate", "exact", "paths", or "auto": "exact" if the game declares transitions
      free of the aggregate and rewards affine in it, "enumerate" if it is tiny, else "paths".

    **Raises:** `ValueError` if the policy does not fit the game, an argument is out of range or
    the method does not apply to the game; `GameError` if the game pays a NaN or a transition is
    not a distribution.
    """
    chosen = _check(game, policy, num_trajectories, agents, confidence, own_influence_agents)
    used = _resolve(game, method)
    if used == "paths":
        assert isinstance(game, PopulationGame)  # _resolve has seen to it
        return _on_paths(
            game, policy, key, num_trajectories, chosen, confidence, own_influence_agents
        )
    if used == "exact":
        assert isinstance(game, PopulationGame)
        value, best = independent_values(game, policy)
    else:
        everyone = jnp.arange(game.num_agents, dtype=jnp.int32)
        tables = np.asarray(tabulate(game, policy, everyone))
        shape = (game.horizon, game.num_states, game.num_actions, game.num_agents)
        value, best = enumerate_values(game, np.moveaxis(tables.reshape(shape), -1, 0))
    gain, zero = (best - value)[chosen], np.zeros(len(chosen))
    return Exploitability(
        agents=chosen,
        value=value[chosen],
        lower=gain,
        upper=gain,
        standard_error=zero,
        upper_standard_error=zero,
        maximum=Interval(float(gain.max()), float(gain.max())),
        mean=Interval(float(gain.mean()), float(gain.mean())),
        confidence=confidence,
        method=used,
        num_trajectories=0,
    )


def _check(
    game: TabularGame,
    policy: Policy,
    num_trajectories: int,
    agents: Any,
    confidence: float,
    own_influence_agents: int,
) -> Int[np.ndarray, " n"]:
    if not isinstance(game, TabularGame):
        raise ValueError(f"game must be a TabularGame, not {type(game).__name__}")
    if isinstance(policy, TabularPolicy):
        policy.check_fits(game)
    if num_trajectories < 2:
        raise ValueError(f"num_trajectories must be at least 2, not {num_trajectories}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), not {confidence}")
    if own_influence_agents < 0:
        raise ValueError(f"own_influence_agents must be >= 0, not {own_influence_agents}")
    if agents is None:
        return np.arange(game.num_agents)
    chosen = np.atleast_1d(np.asarray(agents))
    if chosen.ndim != 1 or chosen.size == 0 or not np.issubdtype(chosen.dtype, np.integer):
        raise ValueError(f"agents must be indices of agents, [n], n >= 1: {agents!r}")
    if chosen.min() < 0 or chosen.max() >= game.num_agents:
        raise ValueError(f"agents must lie in 0..{game.num_agents - 1}: {agents!r}")
    if len(np.unique(chosen)) != len(chosen):
        raise ValueError(f"agents must be different: {agents!r}")
    return chosen


def _resolve(game: TabularGame, method: Method) -> str:
    if method not in get_args(Method):
        raise ValueError(f"method must be one of {get_args(Method)}, not {method!r}")
    population = isinstance(game, PopulationGame)
    if method == "auto":
        joint, policies = enumeration_size(game)
        tiny = joint <= _AUTO_JOINT and policies <= _AUTO_POLICIES
        if is_exact(game):
            return "exact"
        if tiny or (not population and can_enumerate(game)):
            return "enumerate"
        return "paths" if population else "enumerate"
    if method == "exact" and not is_exact(game):
        raise ValueError(
            "method='exact' needs a PopulationGame with transition_in_aggregate 'free' and "
            f"reward_in_aggregate 'free' or 'affine'; {type(game).__name__} is not: use 'paths'"
        )
    if method == "paths" and not population:
        raise ValueError(
            f"method='paths' needs a PopulationGame; {type(game).__name__} is not, "
            "and it is too large to enumerate"
        )
    return method


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
        """Values along the evaluation paths of the given numbers."""
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


def _on_paths(
    game: PopulationGame,
    policy: Policy,
    key: PRNGKeyArray,
    num_paths: int,
    agents: np.ndarray,
    confidence: float,
    own_influence_agents: int,
) -> Exploitability:
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
    found = Exploitability(
        agents=agents,
        value=value,
        lower=lower,
        upper=upper,
        standard_error=lower_error,
        upper_standard_error=upper_error,
        maximum=_maximum(lower, lower_error, upper, upper_error, planned, confidence, num_paths),
        mean=_mean(path_means[0], path_means[1], confidence),
        confidence=confidence,
        method="paths",
        num_trajectories=num_paths,
    )
    if own_influence_agents == 0:
        return found
    largest = np.argsort(-lower, kind="stable")[:own_influence_agents]
    return replace(found, own_influence=_own_influence(setting, agents[largest]))


def _maximum(
    lower: np.ndarray,
    lower_error: np.ndarray,
    upper: np.ndarray,
    upper_error: np.ndarray,
    planned_gain: np.ndarray,
    confidence: float,
    num_paths: int,
) -> Interval:
    """The agent is picked on the planning paths, so that fresh paths judge it without bias.

    The upper end must hold for whichever agent is the worst: a union bound over all of them.
    """
    tail = (1 - confidence) / 2
    pick = int(np.argmax(planned_gain))
    one = scipy.stats.t.ppf(1 - tail, num_paths - 1)
    all_ = scipy.stats.t.ppf(1 - tail / len(lower), num_paths - 1)
    return Interval(
        float(lower[pick] - one * lower_error[pick]), float((upper + all_ * upper_error).max())
    )


def _mean(lower_by_path: np.ndarray, upper_by_path: np.ndarray, confidence: float) -> Interval:
    """Agents share paths: the error of a mean over agents is that of the per-path means."""
    count = len(lower_by_path)
    wide = scipy.stats.t.ppf(1 - (1 - confidence) / 2, count - 1) / np.sqrt(count)
    return Interval(
        float(lower_by_path.mean() - wide * lower_by_path.std(ddof=1)),
        float(upper_by_path.mean() + wide * upper_by_path.std(ddof=1)),
    )


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
        stays = _returns(setting, setting.sampler, index, base, numbers)
        leaves = [
            _return_of_deviation(setting, k, index, best, numbers) for k in range(len(agents))
        ]
        real = np.concatenate(leaves, axis=1) - stays
        differences.append((real - np.asarray(gains.planned))[active])
    difference = np.concatenate(differences).astype(np.float64)
    error = difference.std(0, ddof=1) / np.sqrt(len(difference))
    return OwnInfluence(agents, difference.mean(0), error)


def _return_of_deviation(
    setting: _Setting, column: int, agents: Array, best: Plan, numbers: Array
) -> np.ndarray:
    """Return of one agent when it alone plays its best response, [B,1]."""
    game, one = setting.game, slice(column, column + 1)
    plan = Plan(*(x[..., one] for x in best))
    table = plan.probs.reshape(1, game.horizon, game.num_states, game.num_actions)
    place = setting.layout.place[agents[column]]
    deviating = DeviatingSampler(setting.sampler, table_sampler(table, None), place)
    return _returns(setting, deviating, agents[one], plan, numbers)


def _returns(
    setting: _Setting, sampler: ActionSampler, agents: Array, plan: Plan, numbers: Array
) -> np.ndarray:
    """Returns of agents in real play on the evaluation draws, [B,n]."""
    game, layout = setting.game, setting.layout
    return np.asarray(
        returns_when_played(game, sampler, layout, agents, plan, setting.evaluation_key, numbers)
    )
