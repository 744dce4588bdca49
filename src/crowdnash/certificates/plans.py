"""Policies and their values in an agent's mean model, by backward induction in NumPy (Def. 2).

Plans are small beside the paths that they are made from; on the host nothing has to be compiled.

Axes: n agents, H steps, S states, X = S*A pairs.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from crowdnash.games.starts import mean_at_start

Numbers = Any
"""An array, JAX's (inside compiled programs) or NumPy's (on the host)."""


class MeanModel(NamedTuple):
    """Mean over planning paths of each agent's laws: P [H,X,S,n] and R [H,X,n]."""

    transition: Float[Numbers, "H X S n"]
    reward: Float[Numbers, "H X n"]

    def at(self, columns: slice) -> "MeanModel":
        """The laws of some of the agents."""
        return MeanModel(self.transition[..., columns], self.reward[..., columns])


class Plan(NamedTuple):
    """Deterministic or random policies with their values in a `MeanModel`.

    `probs` [H,X,n] (X = s*A + a), `values` V [H,S,n], `action_values` Q [H,X,n].
    """

    probs: Float[Numbers, "H X n"]
    values: Float[Numbers, "H S n"]
    action_values: Float[Numbers, "H X n"]

    def start(self, initial: Float[Numbers, "S *n"]) -> Float[np.ndarray, " n"]:
        """Values at the start (`starts.start_of`), in float64."""
        return mean_at_start(
            np.asarray(initial, np.float64), np.asarray(self.values[0], np.float64)
        )


def plan_against(model: MeanModel, probs: Float[np.ndarray, "H X n"] | None) -> Plan:
    """Values of `probs` in the mean model, or its best response if `probs` is None."""
    transition, reward = (np.asarray(x) for x in model)
    horizon, num_pairs, num_states, count = transition.shape
    shape = (num_states, num_pairs // num_states, count)
    values = np.zeros((horizon, num_states, count), np.float32)
    action_values = np.zeros((horizon, num_pairs, count), np.float32)
    chosen = np.zeros((horizon, num_pairs, count), np.float32) if probs is None else probs
    later = np.zeros((num_states, count), np.float32)
    for h in reversed(range(horizon)):
        action_values[h] = reward[h] + expected_next(transition[h], later)
        by_state = action_values[h].reshape(shape)
        if probs is None:
            best = by_state.argmax(1)
            np.put_along_axis(chosen[h].reshape(shape), best[:, None], 1.0, 1)
        later = (chosen[h].reshape(shape) * by_state).sum(1)
        values[h] = later
    return Plan(np.asarray(chosen), values, action_values)


def expected_next(
    transition: Float[np.ndarray, "X S n"], values: Float[np.ndarray, "S n"]
) -> Float[np.ndarray, "X n"]:
    """P V."""
    return np.einsum("xsn,sn->xn", transition, values)


def best_values(model: MeanModel) -> Float[np.ndarray, "S n"]:
    """The best response's values at the first step, nothing else of it."""
    transition, reward = (np.asarray(x) for x in model)
    horizon, _, num_states, count = transition.shape
    later = np.zeros((num_states, count), np.float32)
    for h in reversed(range(horizon)):
        later = (reward[h] + expected_next(transition[h], later)).reshape(num_states, -1, count)
        later = later.max(1)
    return later
