"""The mirror step in closed form (Algorithm 2), for learners and exact solvers alike.

Axes: G groups, H steps, S states, A actions.
"""

import jax
from jaxtyping import Array, Float


def mirror_step(
    log_probs: Float[Array, "G H S A"],
    values: Float[Array, "G H S A"],
    temperature: Float[Array, ""],
    step_size: Float[Array, ""],
) -> Float[Array, "G H S A"]:
    """Logarithm of pi^(1 - tau xi) exp(xi Q), normalised over actions (Algorithm 2, closed form).

    The term tau H(pi) by which q differs from Q is the same for every action and drops out.
    """
    return jax.nn.log_softmax((1 - temperature * step_size) * log_probs + step_size * values)
