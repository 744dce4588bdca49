"""Optimistic Q-learning of one agent in an episodic problem with tables.

UCB-Hoeffding (Jin, Allen-Zhu, Bubeck and Jordan, "Is Q-learning provably efficient?", NeurIPS
2018, Algorithm 1): the n-th visit of (h,s,a) does

    Q_h(s,a) += (H+1)/(H+n) * ( r + V_{h+1}(s') + c sqrt(H^3 log(SAHK/p) / n) - Q_h(s,a) )

with V_h = min(H-h, max_a Q_h), rewards scaled to [0,1], and Q starting at its largest value.
Three deviations from it. Episodes come in rounds of B that play the same greedy policy (one
simulated episode at a time would waste the machine) and are learned from one after the other.
Actions whose Q is at its cap H-h are equally promising, so the least tried of them is played: a
bonus that is too large then costs episodes, but no action is neglected. And a second table learns
from the same play without bonus, from a pessimistic start and with the rate 3/(n+2), which
averages more noise out: the first table decides what to try, the second what to recommend.

Axes: H steps, S states, A actions, K episodes, B episodes of one round.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from crowdnash.checks import check_count, check_number, check_range

_FAILURE_PROBABILITY = 0.05
_RECOMMENDING_RATE = 2.0


@dataclass(frozen=True)
class OptimisticQLearning:
    """Settings for deviations that a table can hold: `exploitability(..., method="learned")`.

    Optimistic Q-learning with a bonus for rarely tried actions (Jin et al. 2018), a lower bound on
    Def. 2.

    Args:
        num_episodes: Episodes to learn from, at least 1.
        bonus_scale: c >= 0 of the exploration bonus. Theory wants a constant above 1, for which
            the bonus exceeds every value until millions of visits; in practice 0.01 explores
            enough (0.003 to 0.03 do about as well). Larger is slower and surer; 0 leaves
            exploration to the optimistic start alone.
        reward_range: (lowest, highest) reward of one step. Default: what the game declares, else
            the agent's range in a short pilot run (a reward outside that estimate is no error).
        batch_size: Episodes of a round, which play the same policy; default at most 32, fewer for
            large N.

    Raises:
        ValueError: An argument is out of range.
    """

    num_episodes: int = 20_000
    bonus_scale: float = 0.01
    reward_range: tuple[float, float] | None = None
    batch_size: int | None = None

    def __post_init__(self):
        check_count("num_episodes", self.num_episodes, 1)
        check_number("bonus_scale", self.bonus_scale, least=0)
        if self.batch_size is not None:
            check_count("batch_size", self.batch_size, 1)
        if self.reward_range is not None:
            check_range("reward_range", self.reward_range)


class QTables(eqx.Module):
    """Run state of the learner, [H,S,A], in scaled rewards.

    `optimistic` carries the bonus and chooses what to try; `values` has none and is what was
    learned; `visits` n.
    """

    optimistic: Float[Array, "H S A"]
    values: Float[Array, "H S A"]
    visits: Int[Array, "H S A"]

    @classmethod
    def start(
        cls,
        horizon: int,
        num_states: int,
        num_actions: int,
        legal: Bool[Array, "H S A"] | None = None,
    ) -> "QTables":
        """Nothing visited: the highest and the lowest total reward still to come.

        Illegal actions are worth -inf: they are never tried and never recommended.
        """
        shape = (horizon, num_states, num_actions)
        low = jnp.zeros(shape, jnp.float32)
        high = low + _left(horizon)[:, None, None]
        if legal is not None:
            low, high = (jnp.where(legal, x, -jnp.inf) for x in (low, high))
        return cls(high, low, jnp.zeros(shape, jnp.int32))


class Episode(NamedTuple):
    """One agent's own data: `states`, `actions`, `rewards`, each [H] or, for a round, [B,H]."""

    states: Int[Array, "*B H"]
    actions: Int[Array, "*B H"]
    rewards: Float[Array, "*B H"]


def learning_rate(scale: float | int, visits: Int[Array, "*shape"]) -> Float[Array, "*shape"]:
    """(c+1)/(c+n) for the n-th visit, n >= 1; Jin et al. 2018 (section 3) take c = H."""
    return (scale + 1.0) / (scale + visits.astype(jnp.float32))


def bonus_factor(
    bonus_scale: float, horizon: int, num_states: int, num_actions: int, num_episodes: int
) -> float:
    """c sqrt(H^3 log(SAHK/p)), p = 0.05: the bonus of the n-th visit is this over sqrt(n)."""
    entries = num_states * num_actions * horizon * num_episodes
    return bonus_scale * math.sqrt(horizon**3 * math.log(entries / _FAILURE_PROBABILITY))


def greedy_actions(values: Float[Array, "H S A"]) -> Int[Array, "H S"]:
    """argmax_a Q_h(s,a), the first of equals."""
    return jnp.argmax(values, axis=-1).astype(jnp.int32)


def actions_to_try(tables: QTables) -> Int[Array, "H S"]:
    """argmax_a min(H-h, Q_h(s,a)) of the optimistic table, the least visited of equals."""
    capped = jnp.minimum(_left(tables.visits.shape[0])[:, None, None], tables.optimistic)
    best = capped >= capped.max(-1, keepdims=True)
    most = jnp.iinfo(jnp.int32).max
    return jnp.argmin(jnp.where(best, tables.visits, most), axis=-1).astype(jnp.int32)


def _left(horizon: int) -> Float[Array, " H"]:
    """H-h: the largest total reward that is still to come."""
    return jnp.arange(horizon, 0, -1, dtype=jnp.float32)


def q_update(tables: QTables, episode: Episode, factor: Array) -> QTables:
    """Learn from one episode, rewards scaled to [0,1]; `factor` is `bonus_factor`.

    All h at once: step h touches Q_h and reads V_{h+1}, which the episode has not changed yet
    when it is walked through in time.
    """
    horizon = tables.visits.shape[0]
    steps = jnp.arange(horizon)
    entry = (steps, episode.states, episode.actions)
    count = tables.visits[entry] + 1
    bonus = factor / jnp.sqrt(count.astype(jnp.float32))
    capped = jnp.minimum(_left(horizon)[:, None], tables.optimistic.max(-1))
    hope = episode.rewards + bonus + _ahead(capped, episode.states)
    plain = episode.rewards + _ahead(tables.values.max(-1), episode.states)
    hope_step = learning_rate(horizon, count) * (hope - tables.optimistic[entry])
    plain_step = learning_rate(_RECOMMENDING_RATE, count) * (plain - tables.values[entry])
    return QTables(
        tables.optimistic.at[entry].add(hope_step),
        tables.values.at[entry].add(plain_step),
        tables.visits.at[entry].add(1),
    )


def _ahead(values: Float[Array, "H S"], states: Int[Array, " H"]) -> Float[Array, " H"]:
    """V_{h+1}(s_{h+1}) for every h, 0 at the last."""
    reached = values[jnp.arange(1, states.shape[0]), states[1:]]
    return jnp.concatenate([reached, jnp.zeros(1, jnp.float32)])
