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

Axes: K groups or features, H steps, S states, A actions.
"""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

MEASURED_EPOCHS = 50
"""After these the step stays what it is."""

_DECAY = 0.9
"""Of the measurement, an epoch."""

_FIRST = 0.05
_LARGEST = 0.2
"""Steps, in 1 / (root mean square advantage under the uniform policy): larger ones only add noise
(A-SIS at 4 times this step is worse than at 1 / 4)."""

_SHARE = 0.8
"""Of the measured step: a longer one costs more than a shorter one."""

_SAFE_CHANGE = 0.15
"""A step that changes values by this share of themselves is safe, whatever the direction."""

_MOST_GROWTH = 2.0
_MOST_DECAY = 0.9
"""Of temperature * step: how much of log pi one step may forget at most."""

_TINY = 1e-20


class AutomaticStep(eqx.Module):
    """The step of the next epoch, and the measurement behind it.

    Attributes:
        size: xi.
        largest: it grows no further.
        products: sums over epochs of <s,y>, <y,y> and <s,s>.
        first: Q of the first epoch, under the uniform policy.
        move: s, how log pi has changed since.
    """

    size: Float[Array, ""]
    largest: Float[Array, ""]
    products: Float[Array, "3"]
    first: Float[Array, "K H S A"]
    move: Float[Array, "K H S A"]

    @classmethod
    def start(cls, modes: int, horizon: int, states: int, actions: int) -> "AutomaticStep":
        """Nothing measured yet, for K `modes`."""
        zero, tables = jnp.float32(0), jnp.zeros((modes, horizon, states, actions), jnp.float32)
        return cls(zero, zero, jnp.zeros(3, jnp.float32), tables, tables)

    def measured(
        self,
        epoch: Int[Array, ""],
        values: Float[Array, "K H S A"],
        weight: Float[Array, "#K H S A"],
        temperature: Float[Array, ""],
    ) -> "AutomaticStep":
        """With this epoch's values: the step to take now.

        Args:
            epoch: t.
            values: Q of the policy before the step.
            weight: how often it visits pairs, summing to H over all K, or for each of them.
            temperature: tau.
        """
        first = jnp.where(epoch == 0, values, self.first)
        spread = jnp.sqrt((weight * _centred(values, weight) ** 2).sum() / values.shape[1])
        largest = jnp.where(epoch == 0, _LARGEST / jnp.maximum(spread, _TINY), self.largest)
        largest = jnp.minimum(largest, _MOST_DECAY / jnp.maximum(temperature, _TINY))
        move, answer = _centred(self.move, weight), _centred(first - values, weight)
        pairs = ((move, answer), (answer, answer), (move, move))
        products = _DECAY * self.products + jnp.stack([(weight * a * b).sum() for a, b in pairs])
        both, answers, moves = jnp.maximum(products, _TINY)
        step = _SHARE * jnp.maximum(both / answers, _SAFE_CHANGE * jnp.sqrt(moves / answers))
        step = jnp.minimum(step, _MOST_GROWTH * self.size)
        step = jnp.where(epoch == 0, largest * (_FIRST / _LARGEST), step)
        step = jnp.where(epoch <= MEASURED_EPOCHS, jnp.minimum(step, largest), self.size)
        return AutomaticStep(step, largest, products, first, self.move)

    def moved(self, move: Float[Array, "K H S A"]) -> "AutomaticStep":
        """After the step, which changed log pi by `move`."""
        return dataclasses.replace(self, move=self.move + move)


def _centred(x: Float[Array, "K H S A"], weight: Float[Array, "#K H S A"]) -> Array:
    """Without its mean over actions."""
    total = jnp.maximum(weight.sum(-1, keepdims=True), _TINY)
    return x - (weight * x).sum(-1, keepdims=True) / total
