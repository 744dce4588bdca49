"""A mirror-descent step that is measured: how strongly values answer to a change of policy.

Values change because everybody's policy moved. Let s be the change of log pi since the first epoch,
and y what that did to Q, y = Q_0 - Q_t, both centred over actions and weighted by how often pairs
are visited. To first order y = L s, and a mirror step xi multiplies the distance from equilibrium
by I - xi L. Crowding gives L a positive part, which a step of about 1 / L uses best; what agents
win from one another (rock-paper-scissors) turns it into a rotation, which only a smaller step
damps. The step

    xi = <s, y> / <y, y>

(the shorter one of Barzilai and Borwein, 1988) is right for both: for an eigenvalue a + ib of L it
is a / (a^2 + b^2), in the middle of the steps at which |1 - xi (a + ib)| < 1. Like any step it is
in 1 / reward: rewards in cents are learned as rewards in euros are.

Sampling noise in y makes it too small. Against it, s and y are taken over groups, or over features
of the agents, because the crowd answers to what it does together; and from the first epoch on
instead of from one epoch to the next, because then y grows and its noise does not.

Two things are measured beside it. Where advantages have shrunk tenfold, as on roads that the first
policy jams, values of the first epoch say little about those of now: the measurement begins anew.
And noise of single tables, sigma a Q-value, moves log pi at random by xi sigma an epoch, which
leaves a gain of the order of xi sigma^2 where the bias that is left falls as 1 / (xi t): the step
is at most `_NOISE` / sigma. Noise is seen in what values change by from one epoch to the next.

Axes: K groups or features, G groups or agents, H steps, S states, A actions.
"""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

MEASURED_EPOCHS = 50
"""After these, since the measurement began, the step stays what it is."""

_DECAY = 0.9
_NOISE_DECAY = 0.8
"""Of the measurements, an epoch."""

_FIRST = 0.05
_LARGEST = 0.2
"""Steps, in 1 / (root mean square advantage when the measurement began): larger ones only add noise
(A-SIS at 4 times this step is worse than at 1 / 4)."""

_SHRUNK = 10.0
"""The measurement begins anew where advantages are this many times smaller than when it began. At
2, sampling noise sets it off: on A-RPS the step then falls to a half."""

_ABOVE_NOISE = 3.0
"""And where they are this many times their noise: on noise alone, nothing can be measured."""

_HELD_EPOCHS = 3
"""So long a measurement that began anew does not count: it is noise at first."""

_NOISE = 0.03
"""Of the step, times the noise of Q. Half of it is too slow on A-SIS with a table an agent."""

_SHARE = 0.8
"""Of the measured step: a longer one costs more than a shorter one."""

_SAFE_CHANGE = 0.15
"""A step that changes values by this share of themselves is safe, whatever the direction."""

_MOST_GROWTH = 2.0
_MOST_DECAY = 0.9
"""Of temperature * step: how much of log pi one step may forget at most."""

_ROUNDING = 1e-12
"""Of a squared move of log pi: smaller ones say nothing in float32."""

_TINY = 1e-20


class AutomaticStep(eqx.Module):
    """The step of the next epoch, and the measurement behind it.

    Attributes:
        size: xi.
        begun: the epoch in which the measurement began.
        spread: the root mean square advantage then.
        products: sums over epochs of <s,y>, <y,y> and <s,s>.
        noise: sums over epochs of the squared noise of Q, by table and over K, and of epochs.
        first: Q when the measurement began.
        move: s, how log pi has changed since.
    """

    size: Float[Array, ""]
    begun: Int[Array, ""]
    spread: Float[Array, ""]
    products: Float[Array, "3"]
    noise: Float[Array, "3"]
    first: Float[Array, "K H S A"]
    move: Float[Array, "K H S A"]

    @classmethod
    def start(cls, modes: int, horizon: int, states: int, actions: int) -> "AutomaticStep":
        """Nothing measured yet, for K `modes`."""
        zero, tables = jnp.float32(0), jnp.zeros((modes, horizon, states, actions), jnp.float32)
        sums = jnp.zeros(3, jnp.float32)
        return cls(zero, jnp.int32(0), zero, sums, sums, tables, tables)

    def measured(
        self,
        epoch: Int[Array, ""],
        values: Float[Array, "K H S A"],
        weight: Float[Array, "#K H S A"],
        temperature: Float[Array, ""],
        variation: Float[Array, "2"],
    ) -> "AutomaticStep":
        """With this epoch's values: the step to take now.

        Args:
            epoch: t.
            values: Q of the policy before the step.
            weight: how often it visits pairs, summing to H over all K, or for each of them.
            temperature: tau.
            variation: `variation_of` the values of all tables since the epoch before, and of
                these.
        """
        spread = jnp.sqrt((weight * centred(values, weight) ** 2).sum() / values.shape[1])
        noise = _NOISE_DECAY * self.noise + jnp.append(variation, 1.0)
        seen = spread > _ABOVE_NOISE * jnp.sqrt(noise[1] / noise[2])
        begins = (epoch == 0) | (seen & (_SHRUNK * spread < self.spread))
        now = dataclasses.replace(
            self,
            begun=jnp.where(begins, epoch, self.begun).astype(jnp.int32),
            spread=jnp.where(begins, spread, self.spread),
            products=jnp.where(begins, 0.0, self.products),
            noise=jnp.where(epoch == 0, 0.0, noise),  # there is no epoch before
            first=jnp.where(begins, values, self.first),
            move=jnp.where(begins, 0.0, self.move),
        )
        now = now._with_products(values, weight)
        age = epoch - now.begun
        counts = (age <= MEASURED_EPOCHS) & ((age >= _HELD_EPOCHS) | (now.begun == 0))
        size = jnp.where(counts, now._measured_size(epoch, temperature), self.size)
        return dataclasses.replace(now, size=size)

    def _with_products(
        self, values: Float[Array, "K H S A"], weight: Float[Array, "#K H S A"]
    ) -> "AutomaticStep":
        move, answer = centred(self.move, weight), centred(self.first - values, weight)
        pairs = ((move, answer), (answer, answer), (move, move))
        products = _DECAY * self.products + jnp.stack([(weight * a * b).sum() for a, b in pairs])
        return dataclasses.replace(self, products=products)

    def _measured_size(
        self, epoch: Int[Array, ""], temperature: Float[Array, ""]
    ) -> Float[Array, ""]:
        """The step that the measurements up to now ask for."""
        spread = jnp.maximum(self.spread, _TINY)
        both, answers, moves = jnp.maximum(self.products, 0.0)
        answers = jnp.maximum(answers, _TINY)
        step = _SHARE * jnp.maximum(both / answers, _SAFE_CHANGE * jnp.sqrt(moves / answers))
        step = jnp.minimum(step, _MOST_GROWTH * self.size)
        step = jnp.where(moves > _ROUNDING, step, self.size)
        step = jnp.where(epoch == 0, _FIRST / spread, step)
        deviation = jnp.sqrt(self.noise[0] / jnp.maximum(self.noise[2], _TINY))
        quiet = jnp.where(epoch > 1, _NOISE / jnp.maximum(deviation, _TINY), jnp.inf)
        largest = jnp.minimum(_LARGEST / spread, _MOST_DECAY / jnp.maximum(temperature, _TINY))
        return jnp.minimum(step, jnp.minimum(largest, quiet))

    def moved(self, move: Float[Array, "K H S A"]) -> "AutomaticStep":
        """After the step, which changed log pi by `move`."""
        return dataclasses.replace(self, move=self.move + move)


def variation_of(
    values: Float[Array, "G H S A"],
    before: Float[Array, "G H S A"],
    weight: Float[Array, "#G H S A"],
) -> Float[Array, ""]:
    """Half the mean square of what advantages changed by: of sampling noise, its variance.

    Args:
        values: Q.
        before: Q of the epoch before.
        weight: shares of visits, summing to 1 over what is seen alike at every step.
    """
    change = centred(values - before, weight)
    return (weight * change**2).sum() / (2 * values.shape[1])


def centred(x: Float[Array, "K H S A"], weight: Float[Array, "#K H S A"]) -> Array:
    """Without its mean over actions."""
    total = jnp.maximum(weight.sum(-1, keepdims=True), _TINY)
    return x - (weight * x).sum(-1, keepdims=True) / total
