"""Exploitability from below, by deviations that were learned (Def. 2); no model is needed.

Axes: n agents examined, K trajectories.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Int, PRNGKeyArray

from crowdnash.certificates.intervals import lower_end, mean_interval
from crowdnash.certificates.ppo_deviations import (
    LearningProgress,
    agent_steps_to_learn,
    best_response_learner,
    learn_deviations,
    measure_deviations,
)
from crowdnash.certificates.q_deviations import learn_table, measure_tables
from crowdnash.certificates.q_learning import OptimisticQLearning
from crowdnash.certificates.result import Exploitability
from crowdnash.games.base import DynamicGame
from crowdnash.interval import Interval
from crowdnash.learners.ppo.learner import PPO
from crowdnash.policies.base import Policy


def learned_exploitability(
    game: DynamicGame,
    policy: Policy,
    agents: Int[np.ndarray, " n"],
    key: PRNGKeyArray,
    num_trajectories: int,
    confidence: float,
    learner: PPO | OptimisticQLearning | None,
    callback: Callable[[LearningProgress], Any] | None = None,
) -> Exploitability:
    """The evaluation by method "learned"; see `certificate.exploitability`.

    Each deviation is really played, and alone, so that nothing is left out. A gain below 0 is
    reported as measured: then nothing better than the policy was learned.

    Raises:
        ValueError: there is a callback, and the learner is no PPO.
    """
    learn_key, measure_key = jax.random.split(key)
    count = num_trajectories
    if isinstance(learner, OptimisticQLearning):
        if callback is not None:
            raise ValueError("callback is for deviations that a PPO learns")
        learn_key, choose_key = jax.random.split(learn_key)
        actions = [
            learn_table(game, policy, int(agent), key=learn_key, learner=learner).actions
            for agent in agents
        ]
        planned, played = (
            measure_tables(game, policy, agents, actions, key=k, num_trajectories=count)
            for k in (choose_key, measure_key)
        )
        promise = planned.gain.mean(1)
    else:
        learner = learner or best_response_learner(game)
        steps = agent_steps_to_learn(game, policy, len(agents), learner, count) // game.num_agents
        tell = _Teller(callback, game.horizon, steps)
        deviations = learn_deviations(
            game,
            policy,
            agents,
            key=learn_key,
            learner=learner,
            num_trajectories=count,
            on_plays=tell,
        )
        played = measure_deviations(
            game, policy, deviations, key=measure_key, num_trajectories=count, on_plays=tell
        )
        promise = deviations.promise
    gain = played.gain.mean(1)
    error = played.gain.std(1, ddof=1) / np.sqrt(count)
    pick = int(np.argmax(promise))
    largest = lower_end(gain[pick], error[pick], confidence, count)
    average = mean_interval(played.gain.mean(0), confidence)
    return Exploitability(
        agents=agents,
        value=played.value.mean(1),
        lower=gain,
        upper=np.full(len(agents), np.inf),
        standard_error=error,
        upper_standard_error=np.zeros(len(agents)),
        maximum=Interval(largest, np.inf),
        mean=Interval(average.lower, np.inf),
        confidence=confidence,
        method="learned",
        num_trajectories=count,
    )


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
