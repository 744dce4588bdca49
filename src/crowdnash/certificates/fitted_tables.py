"""Best responses fitted to one agent's own play: a backward sweep over everything it has seen.

Each step's values are means, by state and action, of what was earned there and of the value of
where that led (fitted evaluation). What few visits say is taken with caution where a deviation is
recommended, and with hope where more is to be tried. An agent that is out is in a state of its own.

Axes: E episodes, H steps, S states (one more, numbered S, for who is out), A actions.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

OWN = -1
"""In a table of actions: what the agent's own policy would do."""

_UNTRIED = 0.25
"""Visits that an action counts as having where it was never tried."""


class OwnPlay(NamedTuple):
    """What one agent saw, did and earned, and what it could have done.

    `states` are S and `actions` 0 where it was out. `policy` is what it would have played by
    itself in the states that it met, 0 elsewhere; `legal` the actions that it was seen to have.
    """

    states: Int[np.ndarray, "E H"]
    actions: Int[np.ndarray, "E H"]
    rewards: Float[np.ndarray, "E H"]
    policy: Float[np.ndarray, "H S A"]
    legal: Bool[np.ndarray, "H S A"]

    def without_states(self) -> "OwnPlay":
        """The same of an agent that does not see in which state it is."""
        num_states = self.policy.shape[1]
        out = self.states == num_states
        policy = np.zeros((len(self.policy), 1, self.policy.shape[2]))
        for step, states in enumerate(self.states.T):
            met = states[~out[:, step]]
            policy[step, 0] = self.policy[step, met].mean(0) if met.size else 0
        blind = np.where(out, 1, 0)
        legal = np.asarray(self.legal.any(1, keepdims=True))
        return OwnPlay(blind, self.actions, self.rewards, policy, legal)


def recommended_actions(play: OwnPlay, caution: float) -> Int[np.ndarray, "H S"]:
    """What to do instead of the policy, `OWN` where nothing is better beyond doubt.

    Args:
        play: of one agent.
        caution: by how many standard errors an action must be better.
    """

    def decide(sums: _Sums) -> tuple[np.ndarray, np.ndarray]:
        error = sums.noise / np.sqrt(np.maximum(sums.visits, 1))
        score = np.where(sums.visits > 0, sums.mean - caution * error, -np.inf)
        best = score.argmax(1)[:, None]
        base = sums.base[:, 0]
        better = np.take_along_axis(score, best, 1)[:, 0] > base
        value = np.where(better, np.take_along_axis(sums.mean, best, 1)[:, 0], base)
        return np.where(better, best[:, 0], OWN), value

    return _sweep(play, decide)


def actions_to_explore(play: OwnPlay, hope: float) -> Int[np.ndarray, "H S"]:
    """What may be best, and is worth a try; `OWN` in states where it never was.

    Args:
        play: of one agent.
        hope: what one visit leaves to hope for, in standard deviations of returns.
    """

    def decide(sums: _Sums) -> tuple[np.ndarray, np.ndarray]:
        likely = np.where(sums.visits > 0, sums.mean, sums.base)
        score = likely + hope * sums.spread / np.sqrt(np.maximum(sums.visits, _UNTRIED))
        score = np.where(sums.legal, score, -np.inf)
        came = sums.visits.any(1)
        return np.where(came, score.argmax(1), OWN), np.where(came, score.max(1), 0.0)

    return _sweep(play, decide)


class _Sums(NamedTuple):
    """Of one step, by state [S+1] and action: `mean` of returns, and `base` [S+1,1], the policy's.

    `noise` is the standard deviation of a return about its mean, `spread` that of all of them.
    """

    visits: Float[np.ndarray, "S A"]
    mean: Float[np.ndarray, "S A"]
    base: Float[np.ndarray, "S 1"]
    legal: Bool[np.ndarray, "S A"]
    noise: float
    spread: float


def _sweep(
    play: OwnPlay, decide: Callable[[_Sums], tuple[np.ndarray, np.ndarray]]
) -> Int[np.ndarray, "H S"]:
    """Backwards through time: sums of a step, the decision, and its value to the step before."""
    horizon, num_states, num_actions = play.policy.shape
    table = np.full((horizon, num_states), OWN)
    ahead = np.zeros(len(play.states))
    for step in reversed(range(horizon)):
        states = play.states[:, step]
        pairs = states * num_actions + play.actions[:, step]
        returns = play.rewards[:, step] + ahead
        size, shape = (num_states + 1) * num_actions, (num_states + 1, num_actions)
        visits = np.bincount(pairs, minlength=size)
        sums = np.bincount(pairs, returns, size)
        mean = sums / np.maximum(visits, 1)
        free = max(1, len(pairs) - np.count_nonzero(visits))
        noise = float(np.sqrt(((returns - mean[pairs]) ** 2).sum() / free))
        visits, mean = visits.reshape(shape).astype(np.float64), mean.reshape(shape)
        weights, legal = np.zeros(shape), np.zeros(shape, bool)
        weights[:-1], legal[:-1], legal[-1, 0] = play.policy[step], play.legal[step], True
        weights = np.where(visits > 0, weights, 0.0)
        # Where nothing that the policy would do was tried, what was tried stands for it.
        weights = np.where(weights.sum(1, keepdims=True) > 0, weights, visits)
        total = weights.sum(1, keepdims=True)
        base = (weights * mean).sum(1, keepdims=True) / np.where(total > 0, total, 1.0)
        actions, value = decide(_Sums(visits, mean, base, legal, noise, float(returns.std())))
        table[step], ahead = actions[:-1], value[states]
    return table
