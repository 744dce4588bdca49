"""A multilayer perceptron as a record of arrays, with optional embedding rows at its input.

Axes: B samples, F inputs, W width of a hidden layer, R embedding rows.
"""

import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from crowdnash.policies.plain import NEGATIVE_SLOPE

HIDDEN_GAIN = math.sqrt(2.0)
"""Scale of the orthogonal initial weights of hidden layers."""


class NeuralNetwork(eqx.Module):
    """Dense layers with leaky ReLUs between them: `weights` [in,out] and `biases` [out].

    Where every agent has a network of its own, all arrays have a leading axis N.

    `rows` [R,W], if there are any, are the weights that a one-hot code of R entries would have in
    the first layer: adding row r to its sum is the same as giving it that code, without ever
    building one.
    """

    # No names for the axes: they would have to be the same size in all layers.
    weights: tuple[Float[Array, "... _ _"], ...]
    biases: tuple[Float[Array, "... _"], ...]
    rows: Float[Array, "R W"] | None

    @classmethod
    def create(
        cls,
        key: PRNGKeyArray,
        sizes: Sequence[int],
        *,
        last_gain: float,
        num_rows: int = 0,
    ) -> "NeuralNetwork":
        """Orthogonal weights and zero biases for layers of `sizes` (F, hidden widths..., outputs).

        Hidden layers have gain sqrt(2), the last one `last_gain`. The embedding rows are part of
        the first layer's one orthogonal matrix, as they would be for a one-hot input.
        """
        keys = jax.random.split(key, len(sizes) - 1)
        gains = [HIDDEN_GAIN] * (len(sizes) - 2) + [last_gain]
        fan_in = [sizes[0] + num_rows, *sizes[1:-1]]
        weights = [
            jax.nn.initializers.orthogonal(gain)(k, (n, m), jnp.float32)
            for k, gain, n, m in zip(keys, gains, fan_in, sizes[1:], strict=True)
        ]
        rows = weights[0][sizes[0] :] if num_rows else None
        weights[0] = weights[0][: sizes[0]]
        return cls(tuple(weights), tuple(jnp.zeros(m, jnp.float32) for m in sizes[1:]), rows)

    @property
    def hidden_sizes(self) -> tuple[int, ...]:
        """Widths of the layers but the last."""
        return tuple(bias.shape[-1] for bias in self.biases[:-1])

    def __call__(
        self,
        inputs: Float[Array, "B F"],
        row: Int[Array, " B"] | None = None,
        *,
        dtype: str = "float32",
    ) -> Float[Array, "B out"]:
        """Outputs [B,out] in float32; `row` [B] says whose embedding row each sample adds.

        With `dtype` bfloat16 the products take bfloat16 factors and add up in float32.
        """
        hidden = inputs
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if layer:
                hidden = jnp.where(hidden >= 0, hidden, NEGATIVE_SLOPE * hidden)
            hidden = bias + jnp.matmul(
                hidden.astype(dtype), weight.astype(dtype), preferred_element_type=jnp.float32
            )
            if layer == 0 and self.rows is not None:
                hidden = hidden + self.rows[row]
        return hidden
