"""Generalised advantage estimation (Schulman et al. 2016), with both kinds of ends told apart.

    delta_t = r_t + discount V(s_{t+1}) (1 - terminated_t) - V(s_t),
    A_t     = delta_t + discount lambda (1 - ended_t) A_{t+1},    ended = terminated or truncated.

After a true end (terminated) there is nothing to come; where play was merely cut off (truncated)
the value of the state reached stands for what would have come, but no later advantage does.

Axes: T steps.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def generalized_advantages(
    rewards: Float[Array, "T *batch"],
    values: Float[Array, "T *batch"],
    next_values: Float[Array, "T *batch"],
    terminated: Bool[Array, "T *batch"],
    truncated: Bool[Array, "T *batch"],
    *,
    discount: float | Float[Array, ""],
    gae_lambda: float | Float[Array, ""],
) -> Float[Array, "T *batch"]:
    """Advantages [T,...] of the actions taken.

    Args:
        rewards: of every step.
        values: V(s_t).
        next_values: V of the state that step t led to, before any reset; not used where
            `terminated`.
        terminated: where nothing comes after the step.
        truncated: where play is merely cut off.
        discount: in [0, 1].
        gae_lambda: in [0, 1].
    """
    to_come = jnp.where(terminated, 0.0, next_values)
    errors = rewards + discount * to_come - values
    carries_on = jnp.where(terminated | truncated, 0.0, discount * gae_lambda)

    def back(later: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        error, carry = now
        advantage = error + carry * later
        return advantage, advantage

    _, advantages = jax.lax.scan(
        back, jnp.zeros_like(values[0]), (errors, carries_on), reverse=True
    )
    return advantages
