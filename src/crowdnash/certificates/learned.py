"""Exploitability from below, by deviations that were learned (Def. 2); no model is needed.

Axes: n agents examined, K trajectories.
"""

import jax
import numpy as np
from jaxtyping import Int, PRNGKeyArray

from crowdnash.certificates.intervals import lower_end, mean_interval
from crowdnash.certificates.ppo_deviations import (
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
) -> Exploitability:
    """The evaluation by method "learned"; see `certificate.exploitability`.

    Each deviation is really played, and alone, so that nothing is left out. A gain below 0 is
    reported as measured: then nothing better than the policy was learned.
    """
    learn_key, measure_key = jax.random.split(key)
    count = num_trajectories
    if isinstance(learner, OptimisticQLearning):
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
        deviations = learn_deviations(
            game, policy, agents, key=learn_key, learner=learner, num_trajectories=count
        )
        played = measure_deviations(
            game, policy, deviations, key=measure_key, num_trajectories=count
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
