"""Counter-based random draws: a number is a function of (run, step, trajectory, agent) alone.

The draws of a simulation therefore do not depend on how trajectories are batched, how agents are
laid out or grouped, or how many devices share the work. The generator is Threefry-2x32 with 20
rounds (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011),
the one behind `jax.random`, written out so that a whole block of counters is one vectorised loop:
`jax.random.fold_in` for every agent would cost ten times the rest of a simulation step.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, UInt32

from crowdnash.tuning import tuning

_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
_PARITY = 0x1BD11BDA


def threefry2x32(
    key: tuple[Array, Array], counter: tuple[Array, Array]
) -> tuple[UInt32[Array, "..."], UInt32[Array, "..."]]:
    """Encrypt the 64-bit counters under the 64-bit keys; all words uint32, shapes broadcast."""
    words = (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(_PARITY))
    x, y = counter[0] + words[0], counter[1] + words[1]
    for group in range(5):
        for rotation in _ROTATIONS[4 * (group % 2) : 4 * (group % 2) + 4]:
            x = x + y
            y = ((y << jnp.uint32(rotation)) | (y >> jnp.uint32(32 - rotation))) ^ x
        x = x + words[(group + 1) % 3]
        y = y + words[(group + 2) % 3] + jnp.uint32(group + 1)
    return x, y


def in_one_kernel(
    x: UInt32[Array, "..."], y: UInt32[Array, "..."]
) -> tuple[UInt32[Array, "..."], UInt32[Array, "..."]]:
    """Both arguments, unchanged, from one pass over their common inputs.

    XLA's CPU backend compiles two outputs into two loops, each of which would run the whole
    cipher; only a reduction of several operands is one loop. So reduce over an axis of length 2
    whose second half is zero (measured: 1.2 ns for both words instead of 2.2).
    """
    if not tuning().words_in_one_kernel:
        return x, y
    first = (jnp.arange(2) == 0).reshape(2, *(1,) * x.ndim)
    zero = jnp.uint32(0)
    padded = tuple(jnp.where(first, word[None], zero) for word in (x, y))
    return jax.lax.reduce(padded, (zero, zero), lambda a, b: (a[0] | b[0], a[1] | b[1]), (0,))


def uniform(bits: UInt32[Array, "..."]) -> Float[Array, "..."]:
    """Map 32 random bits to a multiple of 2^-24 in [0, 1), float32."""
    return (bits >> jnp.uint32(8)).astype(jnp.float32) * jnp.float32(2.0**-24)


def step_words(key: PRNGKeyArray, num_steps: int) -> UInt32[Array, "steps 2"]:
    """A 64-bit Threefry key for every step; works for any `jax.random` key implementation."""
    steps = jnp.arange(num_steps, dtype=jnp.uint32)
    return jax.vmap(lambda h: jax.random.bits(jax.random.fold_in(key, h), (2,), jnp.uint32))(steps)
