"""Exploitability from below, by deviations that were learned (Def. 2); no model is needed.

Axes: n agents examined, K trajectories.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray

from crowdnash.certificates.bounded import bounded_lower_end
from crowdnash.certificates.intervals import lower_end, mean_interval, of_best_deviations
from crowdnash.certificates.ppo_deviations import (
    DeviationGains,
    LearningProgress,
    agent_steps_to_learn,
    best_response_learner,
    learn_deviations,
    measure_deviations,
)
from crowdnash.certificates.q_deviations import learn_table, measure_tables
from crowdnash.certificates.q_learning import OptimisticQLearning
from crowdnash.certificates.result import Exploitability
from crowdnash.certificates.table_deviations import (
    Search,
    TableSearch,
    learn_tables,
    measure_table_deviations,
    plays_of_tables,
)
from crowdnash.games.base import DynamicGame
from crowdnash.interval import Interval
from crowdnash.learners.ppo.learner import PPO
from crowdnash.policies.base import Policy
from crowdnash.simulators.game import OutsideGame

_ROUNDING = 1e-5
"""Of totals in float32, relative to the largest that there may be."""


class _Judged(NamedTuple):
    """What deviations gain on plays of their own, and what they had promised."""

    played: DeviationGains
    promise: Float[np.ndarray, " n"]


def learned_exploitability(
    game: DynamicGame,
    policy: Policy,
    agents: Int[np.ndarray, " n"],
    key: PRNGKeyArray,
    num_trajectories: int,
    confidence: float,
    learner: PPO | OptimisticQLearning | TableSearch | None,
    callback: Callable[[LearningProgress], Any] | None = None,
    reward_range: tuple[float | int, float | int] | None = None,
) -> Exploitability:
    """The evaluation by method "learned"; see `certificate.exploitability`.

    Each deviation is really played, and alone, so that nothing is left out. A gain below 0 is
    reported as measured: then nothing better than the policy was learned. The intervals are about
    the best deviations, which gain at least what the policy itself gains, 0.

    Raises:
        ValueError: there is a callback, and Q-learning in JAX, which tells nothing; or an agent's
            total reward is none that `reward_range` allows.
    """
    count = num_trajectories
    if isinstance(game, OutsideGame) and isinstance(learner, Search):
        judged = _by_tables(game, policy, agents, key, count, learner, callback)
    elif isinstance(learner, OptimisticQLearning):
        if callback is not None:
            raise ValueError("callback is for deviations that a PPO learns")
        judged = _by_q_learning(game, policy, agents, key, count, learner)
    else:
        assert not isinstance(learner, TableSearch)  # planned for simulators outside JAX
        learner = learner or best_response_learner(game)
        judged = _by_networks(game, policy, agents, key, count, learner, callback)
    played, gain = judged.played, judged.played.gain.mean(1)
    error = played.gain.std(1, ddof=1) / np.sqrt(count)
    pick = int(np.argmax(judged.promise))
    if reward_range is None:
        largest = lower_end(gain[pick], error[pick], confidence, count)
        average = mean_interval(played.gain.mean(0), confidence).lower
    else:
        limits = _limits_of_gains(game, played, agents, reward_range)
        # Nothing is said from above: the whole error is allowed below.
        ends = (played.gain[pick], played.gain.mean(0))
        largest, average = (bounded_lower_end(x, limits, 1 - confidence) for x in ends)
    return Exploitability(
        agents=agents,
        value=played.value.mean(1),
        lower=gain,
        upper=np.full(len(agents), np.inf),
        standard_error=error,
        upper_standard_error=np.zeros(len(agents)),
        maximum=of_best_deviations(largest, np.inf),
        mean=of_best_deviations(average, np.inf),
        confidence=confidence,
        method="learned",
        num_trajectories=count,
        reward_range=None if reward_range is None else Interval(*map(float, reward_range)),
    )


def _limits_of_gains(
    game: DynamicGame,
    played: DeviationGains,
    agents: Int[np.ndarray, " n"],
    reward_range: tuple[float | int, float | int],
) -> Interval:
    """Where the difference of two plays' total rewards lies, common random numbers or not."""
    low, high = (game.horizon * float(end) for end in reward_range)
    slack = _ROUNDING * max(abs(low), abs(high))
    for totals in (played.value, played.value + played.gain):
        wrong = (totals < low - slack) | (totals > high + slack)
        if wrong.any():
            k, play = (int(x) for x in np.argwhere(wrong)[0])
            raise ValueError(
                f"reward_range={tuple(reward_range)} allows total rewards from {low:g} to {high:g} "
                f"in {game.horizon} steps; agent {agents[k]} had {totals[k, play]:g} (who is out "
                "earns 0)"
            )
    return Interval(low - high, high - low)


def _by_q_learning(
    game: DynamicGame,
    policy: Policy,
    agents: Int[np.ndarray, " n"],
    key: PRNGKeyArray,
    count: int,
    learner: OptimisticQLearning,
) -> _Judged:
    """Tables, one agent after the other, in a game in JAX."""
    learn_key, measure_key = jax.random.split(key)
    learn_key, choose_key = jax.random.split(learn_key)
    actions = [
        learn_table(game, policy, int(agent), key=learn_key, learner=learner).actions
        for agent in agents
    ]
    planned, played = (
        measure_tables(game, policy, agents, actions, key=k, num_trajectories=count)
        for k in (choose_key, measure_key)
    )
    return _Judged(played, planned.gain.mean(1))


def _by_tables(
    game: OutsideGame,
    policy: Policy,
    agents: Int[np.ndarray, " n"],
    key: PRNGKeyArray,
    count: int,
    search: Search,
    callback: Callable[[LearningProgress], Any] | None,
) -> _Judged:
    """Tables, by sweeps or by Q-learning, from play of a simulator outside JAX."""
    learn_key, measure_key = jax.random.split(key)
    plays = plays_of_tables(game, len(agents), search, count)
    tell = _Teller(callback, game.horizon, plays * game.horizon)
    deviations = learn_tables(
        game, policy, agents, key=learn_key, search=search, num_trajectories=count, on_plays=tell
    )
    played = measure_table_deviations(
        game, policy, deviations, key=measure_key, num_trajectories=count, on_plays=tell
    )
    return _Judged(played, deviations.promise)


def _by_networks(
    game: DynamicGame,
    policy: Policy,
    agents: Int[np.ndarray, " n"],
    key: PRNGKeyArray,
    count: int,
    learner: PPO,
    callback: Callable[[LearningProgress], Any] | None,
) -> _Judged:
    """Networks, in any game."""
    learn_key, measure_key = jax.random.split(key)
    steps = agent_steps_to_learn(game, policy, len(agents), learner, count) // game.num_agents
    tell = _Teller(callback, game.horizon, steps)
    deviations = learn_deviations(
        game, policy, agents, key=learn_key, learner=learner, num_trajectories=count, on_plays=tell
    )
    played = measure_deviations(
        game, policy, deviations, key=measure_key, num_trajectories=count, on_plays=tell
    )
    return _Judged(played, deviations.promise)


class _Teller:
    """Tells a callback what is planned, before anything is played, and how far it is."""

    def __init__(
        self, callback: Callable[[LearningProgress], Any] | None, horizon: int, total_steps: int
    ) -> None:
        self._callback, self._horizon = callback, horizon
        self._steps, self._total = 0, total_steps
        self(0)

    def __call__(self, num_plays: int) -> None:
        """So many more episodes were played."""
        self._steps += num_plays * self._horizon
        if self._callback is not None:
            self._callback(LearningProgress(self._steps, self._total))
