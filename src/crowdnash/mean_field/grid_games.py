"""Mean-field games whose laws are known on a grid of populations and extended to all others.

Two extensions (Lemma 1 and its cheap alternative), both convex combinations of the data, so that
probabilities stay probabilities and rewards stay in their range:

- `KirszbraunMeanFieldGame` never exceeds the data's Lipschitz modulus, agent by agent; every call
  solves small quadratic programs on the host (about 0.3 ms each), and has no gradient;
- `GridMeanFieldGame` interpolates linearly, in plain JAX; its modulus may be X-1 times larger.

Axes: N agents, H steps, S states, A actions, X = S A pairs, n grid points.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from crowdnash.mean_field.game import MeanFieldGame, Numbers, checked_distribution
from crowdnash.mean_field.kirszbraun import KirszbraunExtension, kirszbraun_extension
from crowdnash.mean_field.simplex_grid import interpolate_on_grid

_ROUNDING = 1e-12


@final
class GridMeanFieldGame(MeanFieldGame):
    """Laws interpolated linearly between grid points (`interpolate_on_grid`).

    `transition` [H or 1,n,S,A,S], `reward` [H or 1,n,S,A] at the grid points in the order of
    `grid_counts(S*A, others)`; 1 where the laws are the same at every step.
    """

    transition: Float[Numbers, "T n S A S"]
    reward: Float[Numbers, "T n S A"]
    initial_distribution: Float[Numbers, " S"]
    horizon: int = eqx.field(static=True)
    others: int = eqx.field(static=True)
    num_states: int = eqx.field(static=True)
    num_actions: int = eqx.field(static=True)

    def laws(self, mu: Any, step: Any) -> tuple[Array, Array]:
        """P [S,A,S] and R [S,A] at mu [S,A]; see `MeanFieldGame.laws`.

        Raises:
            ValueError: mu has another shape or (unless traced) is no distribution.
        """
        mu = jnp.asarray(_checked(self, mu))
        tables = (jnp.asarray(x) for x in (self.transition, self.reward))
        now = (x[step] if x.shape[0] > 1 else x[0] for x in tables)
        moves, pays = (interpolate_on_grid(x, mu.reshape(-1), self.others) for x in now)
        return moves.astype(mu.dtype), pays.astype(mu.dtype)


@final
class KirszbraunMeanFieldGame(MeanFieldGame):
    """The mean over agents of Kirszbraun extensions of their laws (Def. 6, Lemma 1).

    Works under `jit`, `scan` and `vmap` by calling back to the host, in float64 there; it cannot
    be differentiated, and every game compiles anew. For solvers that run thousands of iterations
    take `GridMeanFieldGame`.
    """

    initial_distribution: Float[Numbers, " S"]
    extended: "ExtendedLaws" = eqx.field(static=True)
    horizon: int = eqx.field(static=True)
    num_states: int = eqx.field(static=True)
    num_actions: int = eqx.field(static=True)

    def laws(self, mu: Any, step: Any) -> tuple[Array, Array]:
        """P [S,A,S] and R [S,A] at mu [S,A]; see `MeanFieldGame.laws`.

        Raises:
            ValueError: mu has another shape or (unless traced) is no distribution.
        """
        mu = jnp.asarray(_checked(self, mu))
        cell = (self.num_states, self.num_actions)
        words = np.dtype(mu.dtype).itemsize // 4
        shapes = (
            jax.ShapeDtypeStruct((*cell, self.num_states, words), jnp.uint32),
            jax.ShapeDtypeStruct((*cell, words), jnp.uint32),
        )
        # A callback may run in a thread where `enable_x64` is off, and there JAX makes float32 of
        # all it hands over or takes back: the bits of the numbers come through unharmed.
        host = partial(_by_bits, self.extended, np.dtype(mu.dtype))
        bits = jax.lax.bitcast_convert_type(mu, jnp.uint32).reshape(*cell, words)
        step = jnp.asarray(step, jnp.int32)
        results = jax.pure_callback(host, shapes, bits, step, vmap_method="broadcast_all")
        moves, pays = (
            jax.lax.bitcast_convert_type(x if words > 1 else x[..., 0], mu.dtype) for x in results
        )
        return moves, pays


def _by_bits(
    extended: "ExtendedLaws", dtype: np.dtype, bits: Any, step: Any
) -> tuple[np.ndarray, ...]:
    """`ExtendedLaws` that takes and returns numbers as 32-bit words, [..., words]."""
    mu = np.ascontiguousarray(bits).view(dtype)[..., 0]
    results = (np.ascontiguousarray(x, dtype) for x in extended(mu, np.asarray(step)))
    return tuple(x[..., None].view(np.uint32) for x in results)


class _Share(NamedTuple):
    """An extension and the share of the agents whose law it is."""

    extension: KirszbraunExtension
    weight: float


@final
@dataclass(frozen=True, eq=False)
class ExtendedLaws:
    """P and R of an induced game as means of Kirszbraun extensions, called on the host.

    `transition` and `reward` [H or 1][X]: for every pair, the distinct laws among the agents.
    """

    transition: tuple[tuple[tuple[_Share, ...], ...], ...]
    reward: tuple[tuple[tuple[_Share, ...], ...], ...]

    def __call__(
        self, mu: Float[Any, "*B S A"], step: Int[Any, "*B"]
    ) -> tuple[Float[np.ndarray, "*B S A S"], Float[np.ndarray, "*B S A"]]:
        """P and R at a batch of populations and steps, in float64."""
        population = np.asarray(mu, np.float64)
        shape = population.shape
        flat = population.reshape(-1, shape[-2] * shape[-1])
        steps = np.broadcast_to(np.asarray(step), shape[:-2]).reshape(-1)
        moves, pays = (_at(law, flat, steps) for law in (self.transition, self.reward))
        return moves.reshape(*shape, -1), pays.reshape(shape)


def kirszbraun_laws(
    grid: Float[np.ndarray, "n X"],
    transition: Float[np.ndarray, "H N S A n S"],
    reward: Float[np.ndarray, "H N S A n"],
) -> ExtendedLaws:
    """Extend every agent's law at every pair, each with the modulus of its own data."""
    parts = []
    for table in (transition, reward[..., None]):
        steps, n = once_if_constant(table), table.shape[1]
        pairs = np.moveaxis(steps, 1, 3).reshape(len(steps), -1, n, *table.shape[4:])
        parts.append(tuple(tuple(_shares(grid, pair) for pair in now) for now in pairs))
    return ExtendedLaws(*parts)


def once_if_constant(table: np.ndarray) -> np.ndarray:
    """The first step alone, [1,...], if all steps of the table [H,...] are the same."""
    return table[:1] if (table == table[:1]).all() else table


def _shares(grid: np.ndarray, tables: Float[np.ndarray, "N n D"]) -> tuple[_Share, ...]:
    distinct, counts = np.unique(tables, axis=0, return_counts=True)
    return tuple(
        _Share(kirszbraun_extension(grid, _flattened(table)), float(count) / len(tables))
        for table, count in zip(distinct, counts, strict=True)
    )


def _flattened(table: np.ndarray) -> np.ndarray:
    """A table that is constant up to rounding made constant: it needs no quadratic program."""
    size = max(1.0, float(np.abs(table).max()))
    constant = np.ptp(table, 0).max() < _ROUNDING * size
    return np.tile(table[:1], (len(table), 1)) if constant else table


def _at(
    law: tuple[tuple[tuple[_Share, ...], ...], ...], flat: np.ndarray, steps: np.ndarray
) -> np.ndarray:
    """Values [B,X,D] of a law at populations [B,X] and steps [B]."""
    pairs = law[0]
    size = pairs[0][0].extension.values.shape[1]
    result = np.zeros((len(flat), len(pairs), size))
    for step in np.unique(steps):
        rows = np.flatnonzero(steps == step)
        now = law[min(int(step), len(law) - 1)]
        for pair, shares in enumerate(now):
            for share in shares:
                result[rows, pair] += share.weight * share.extension(flat[rows])
    return result


def _checked(mfg: MeanFieldGame, mu: Any) -> Any:
    return checked_distribution("mu", mu, (mfg.num_states, mfg.num_actions), axes=2)
