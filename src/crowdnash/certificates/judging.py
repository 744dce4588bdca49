"""Frozen gains and upper ends of a block of agents on evaluation paths (Def. 2).

Axes: n agents of a block, K population paths, B of them in one chunk.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from crowdnash.certificates.limits import limits
from crowdnash.certificates.planning import SECOND_ORDER, Prepared, Setting
from crowdnash.certificates.shared_paths import gains_on
from crowdnash.games.starts import double_start, mean_at_start


class UpperEnds(NamedTuple):
    """How each agent's upper end is made, [n]: its kind, and a constant that goes into it."""

    kind: np.ndarray
    constant: Float[np.ndarray, " n"]

    @classmethod
    def of(cls, setting: Setting, agents: Prepared) -> "UpperEnds":
        """First order where it holds, else the better of the rigorous ends, by planning."""
        own = agents.base_influence
        constant = SECOND_ORDER * agents.share * np.abs(own) - own
        kind = np.full(len(own), "first order" if setting.felt else "frozen", "<U11")
        rest = np.flatnonzero(~agents.first_order)
        if len(rest):
            ends = limits(setting.game, setting.policy, agents.agents[rest])
            base = np.asarray(agents.players.base.values[0], np.float64)[:, rest]
            start = double_start(setting.game, agents.agents[rest])
            planned = mean_at_start(start, base) + agents.planned_gain[rest] + ends.influence
            coupled = planned < ends.any_crowd
            constant[rest] = np.where(coupled, ends.influence, ends.any_crowd)
            kind[rest] = np.where(coupled, "coupling", "any crowd")
            kind[rest[np.isinf(constant[rest])]] = "none"
        return cls(kind, constant)

    def along(self, gains: "Along", *, priced: bool) -> Float[np.ndarray, "B n"]:
        """The upper ends on every path, foresight priced or not."""
        coupled, free = self.kind == "coupling", np.isin(self.kind, ["any crowd", "none"])
        clairvoyant = gains.priced if priced else gains.clairvoyant
        reach = gains.priced_reach if priced else gains.reach
        end = np.where(coupled, clairvoyant - gains.real, reach)
        return np.where(free, -(gains.value + gains.real), end) + self.constant


class Along(NamedTuple):
    """As `path_values.Gains`, in NumPy."""

    value: Float[np.ndarray, "B n"]
    planned: Float[np.ndarray, "B n"]
    clairvoyant: Float[np.ndarray, "B n"]
    deviation: Float[np.ndarray, "B n"]
    reach: Float[np.ndarray, "B n"]
    real: Float[np.ndarray, "B n"]
    priced: Float[np.ndarray, "B n"]
    priced_reach: Float[np.ndarray, "B n"]


class Judged(NamedTuple):
    """Measured along evaluation paths: means and variances of one path [8,n], path sums [8,K].

    The rows are the policy's value along frozen paths, what its frozen best response gains, what
    the clairvoyant does, what the deviation that counts own influence gains, the upper end of Def.
    2 and the policy's own return (its mean and variance; sums hold the predicted lower end
    instead: gain of the deviation and its influence, 0 where first order does not hold). Then the
    clairvoyant's gain and the upper end again, where foresight has its price.
    """

    mean: Float[np.ndarray, "8 n"]
    variance: Float[np.ndarray, "8 n"]
    sums: Float[np.ndarray, "8 K"]


VALUE, PLANNED, CLAIRVOYANT, DEVIATION, UPPER, RETURN, PRICED, PRICED_UPPER = range(8)


def gains_along(setting: Setting, agents: Prepared) -> Iterator[Along]:
    """What a block of agents gains along the evaluation paths, chunk by chunk."""
    index = jnp.asarray(agents.agents, jnp.int32)
    players = agents.players._replace(promised=setting.promised())
    for numbers, active in setting.chunks():
        paths = setting.simulate(setting.evaluation_key, numbers)
        known = (setting.game, setting.layout, index, players)
        gains = gains_on(setting.devices, *known, paths)
        yield Along(*(np.asarray(x)[active] for x in gains))


def judge(
    along: Iterable[Along],
    agents: Prepared,
    uppers: UpperEnds,
    counted: Bool[np.ndarray, " n"] | None,
) -> Judged:
    """Judge a block of agents on all evaluation paths; sums are over those counted, or all."""
    some = slice(None) if counted is None else counted
    moments = _Moments(8, len(agents.agents))
    sums: list[np.ndarray] = []
    for gains in along:
        upper, tighter = (uppers.along(gains, priced=priced) for priced in (False, True))
        earned = gains.value + np.where(agents.first_order, agents.base_influence, gains.real)
        rows = (gains.value, gains.planned, gains.clairvoyant, gains.deviation, upper, earned)
        rows = (*rows, gains.priced, tighter)
        moments.add(*rows)
        predicted = np.where(agents.first_order, gains.deviation + agents.influence, 0.0)
        sums.append(
            np.stack(
                [x[:, some].sum(1, dtype=np.float64) for x in (*rows[:5], predicted, *rows[6:])]
            )
        )
    return Judged(moments.mean, moments.variance, np.concatenate(sums, axis=1))


class _Moments:
    """Running means and variances of per-agent quantities, in float64."""

    def __init__(self, num_quantities: int, num_agents: int):
        self.count = 0
        self.mean = np.zeros((num_quantities, num_agents))
        self._squares = np.zeros((num_quantities, num_agents))

    def add(self, *samples: np.ndarray) -> None:
        """Take in [B,n] samples of each quantity (Chan, Golub and LeVeque's update)."""
        batch = len(samples[0])
        total = self.count + batch
        for k, sample in enumerate(samples):
            mean = sample.mean(0, dtype=np.float64)
            # An upper end may be infinite, and its spread then means nothing.
            with np.errstate(invalid="ignore"):
                shift = mean - self.mean[k]
                self._squares[k] += ((sample - mean) ** 2).sum(0)
                self._squares[k] += shift**2 * self.count * batch / total
                self.mean[k] = np.where(np.isinf(mean), mean, self.mean[k] + shift * batch / total)
        self.count = total

    @property
    def variance(self) -> np.ndarray:
        """Unbiased variance of one path, [q,n]; 0 where the mean is infinite."""
        return np.where(np.isinf(self.mean), 0.0, self._squares) / (self.count - 1)
