"""Known control tasks as games, to tell whether a learner reaches their known scores."""

import math
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

import crowdnash as cn

GRAVITY, CART_MASS, POLE_MASS, HALF_LENGTH, FORCE, TAU = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
TOTAL_MASS = CART_MASS + POLE_MASS
FARTHEST, STEEPEST = 2.4, math.radians(12)


class CartPoleState(NamedTuple):
    motion: Any  # [N,4]: position (m), velocity (m/s), angle (rad), angular velocity (rad/s)
    fallen: Any  # [N]
    step: Any


class CartPole(cn.DynamicGame):
    """N carts that balance a pole each and never meet (Barto, Sutton and Anderson 1983).

    Constants and limits are those of Gym's CartPole-v1, whose episodes have at most 500 steps.
    Actions push to the left (0) or the right (1). Each step that begins upright pays 1 and a
    fallen cart stays where it is, so that the total reward is the length of the episode.
    """

    name: ClassVar[str] = "cart-pole"
    num_agents: int = eqx.field(static=True, default=32)
    horizon: int = eqx.field(static=True, default=500)
    num_actions: ClassVar[int] = 2

    def reset(self, key):
        motion = jax.random.uniform(key, (self.num_agents, 4), jnp.float32, -0.05, 0.05)
        return CartPoleState(
            motion, jnp.zeros(self.num_agents, jnp.bool_), jnp.asarray(0, jnp.int32)
        )

    def step(self, state, actions, key):
        moved = pushed(state.motion, jnp.where(actions == 1, FORCE, -FORCE))
        motion = jnp.where(state.fallen[:, None], state.motion, moved)
        out = (jnp.abs(motion[:, 0]) > FARTHEST) | (jnp.abs(motion[:, 2]) > STEEPEST)
        reward = jnp.where(state.fallen, 0.0, 1.0)
        return CartPoleState(motion, state.fallen | out, state.step + 1), reward

    def observe(self, state):
        upright = ~state.fallen
        return {"motion": state.motion * upright[:, None], "upright": upright}


def pushed(motion: jax.Array, force: jax.Array) -> jax.Array:
    """One Euler step of TAU seconds of all carts, [N,4], under forces [N]."""
    _, speed, angle, turning = motion.T
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    shared = (force + POLE_MASS * HALF_LENGTH * turning**2 * sin) / TOTAL_MASS
    swing = (GRAVITY * sin - cos * shared) / (
        HALF_LENGTH * (4 / 3 - POLE_MASS * cos**2 / TOTAL_MASS)
    )
    slide = shared - POLE_MASS * HALF_LENGTH * swing * cos / TOTAL_MASS
    return motion + TAU * jnp.stack([speed, slide, turning, swing], axis=1)


class Dazzled(CartPole):
    """A cart-pole that agent 1 cannot see at step 3."""

    def observe(self, state):
        seen = super().observe(state)
        blind = (state.step == 3) & (jnp.arange(self.num_agents) == 1)
        return seen | {"motion": jnp.where(blind[:, None], jnp.nan, seen["motion"])}
