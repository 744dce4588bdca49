"""Exploitability from below, by deviations that PPO learned (Def. 2); no model is needed.

Axes: n agents examined, K trajectories.
"""

import jax
import numpy as np
from jaxtyping import Int, PRNGKeyArray

from crowdnash.certificates.ppo_deviations import (
    best_response_learner,
    learn_deviations,
    measure_deviations,
)
from crowdnash.certificates.result import Exploitability, maximum_interval, mean_interval
from crowdnash.games.base import DynamicGame
from crowdnash.learners.ppo.learner import PPO
from crowdnash.policies.tabular import Policy


def learned_exploitability(
    game: DynamicGame,
    policy: Policy,
    agents: Int[np.ndarray, " n"],
    key: PRNGKeyArray,
    num_trajectories: int,
    confidence: float,
    learner: PPO | None,
) -> Exploitability:
    """The evaluation by method "learned"; see `certificate.exploitability`.

    Each deviation is really played, and alone, so that nothing is left out. A gain below 0 is
    reported as measured: then nothing better than the policy was found.
    """
    learn_key, measure_key = jax.random.split(key)
    deviations = learn_deviations(
        game,
        policy,
        agents,
        key=learn_key,
        learner=learner or best_response_learner(game),
        num_trajectories=num_trajectories,
    )
    played = measure_deviations(
        game, policy, deviations, key=measure_key, num_trajectories=num_trajectories
    )
    gain = played.gain.mean(1)
    error = played.gain.std(1, ddof=1) / np.sqrt(num_trajectories)
    unknown = np.full(len(agents), np.inf)
    return Exploitability(
        agents=agents,
        value=played.value.mean(1),
        lower=gain,
        upper=unknown,
        standard_error=error,
        upper_standard_error=np.zeros(len(agents)),
        maximum=maximum_interval(
            gain,
            error,
            unknown,
            np.zeros(len(agents)),
            deviations.promise,
            confidence,
            num_trajectories,
        ),
        mean=mean_interval(played.gain.mean(0), np.full(num_trajectories, np.inf), confidence),
        confidence=confidence,
        method="learned",
        num_trajectories=num_trajectories,
    )
