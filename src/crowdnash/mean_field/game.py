"""Mean-field games (Def. 4), for one population or several, and the checking of arguments.

Axes: G populations (groups), H steps, S states, A actions. Functions here
carry the axis G always; `MeanFieldGame.laws` itself drops it when there is one population.
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from crowdnash.checks import as_array
from crowdnash.games.base import PROBABILITY_TOLERANCE, GameError

Numbers = Array | np.ndarray


class MeanFieldGame(eqx.Module):
    """A finite-horizon mean-field game (Def. 4): laws of one agent against a population mu.

    A concrete game supplies `num_states`, `num_actions`, `horizon` (integers),
    `initial_distribution` [S] and `laws`. With several populations it also supplies
    `group_weights` [G], their shares of the whole; they start from the same distribution, or each
    from its own, [G,S]. It may say which actions there are, `legal_actions`.
    """

    num_states: eqx.AbstractVar[int]
    num_actions: eqx.AbstractVar[int]
    horizon: eqx.AbstractVar[int]
    initial_distribution: eqx.AbstractVar[Float[Numbers, "*G S"]]

    @abc.abstractmethod
    def laws(self, mu: Any, step: Any) -> tuple[Array, Array]:
        """P(.|s,a,mu) [S,A,S] and R(s,a,mu) [S,A] at step h, for mu [S,A] that sums to 1.

        With several populations mu is [G,S,A], each summing to 1, and the results are [G,S,A,S]
        and [G,S,A]. Plain JAX arithmetic in the precision of `mu`; `step` is an integer scalar.
        """

    @property
    def laws_are_cheap(self) -> bool:
        """Whether a solver had better ask for the laws twice than keep them along a flow."""
        return False

    @property
    def group_weights(self) -> Numbers:
        """Share of each population in the whole, [G]; they sum to 1."""
        return np.ones(1)

    @property
    def legal_actions(self) -> Bool[Numbers, "G H S A"] | None:
        """The actions that each population has; None for all. No policy plays another one."""
        return None

    @property
    def num_groups(self) -> int:
        """G, the number of populations."""
        return self.group_weights.shape[0]


def legal_by_step(mfg: MeanFieldGame) -> Bool[Numbers, "H G S A"] | None:
    """`legal_actions` with the step axis first, as the recursions have it."""
    legal = mfg.legal_actions
    return None if legal is None else legal.swapaxes(0, 1)


class TwoLawGame(MeanFieldGame):
    """A mean-field game whose laws are two records with a method `at(mu [G,S,A], step)`.

    A concrete game supplies them, and `shares` [G] of its populations.
    """

    transition_law: eqx.AbstractVar[Any]
    reward_law: eqx.AbstractVar[Any]
    shares: eqx.AbstractVar[Float[Numbers, " G"]]

    @property
    def group_weights(self) -> Numbers:
        """See `MeanFieldGame.group_weights`."""
        return self.shares

    def laws(self, mu: Any, step: Any) -> tuple[Array, Array]:
        """See `MeanFieldGame.laws`; mu may lack the G if there is one population.

        Raises:
            ValueError: mu has another shape or, unless it is traced, does not consist of
                distributions over S x A.
        """
        g, shape = self.num_groups, (self.num_states, self.num_actions)
        single = g == 1 and np.ndim(mu) != 3
        mu = checked_distribution("mu", mu, shape if single else (g, *shape), axes=2)
        grouped = jnp.asarray(mu)[None] if single else jnp.asarray(mu)
        moves, pays = self.transition_law.at(grouped, step), self.reward_law.at(grouped, step)
        return (moves[0], pays[0]) if single else (moves, pays)


def grouped_laws(
    mfg: MeanFieldGame, mu: Float[Array, "G S A"], step: Any
) -> tuple[Float[Array, "G S A S"], Float[Array, "G S A"]]:
    """`mfg.laws` with the axis G also for one population; checks the shapes of what it returns."""
    single = mfg.num_groups == 1
    moves, pays = mfg.laws(mu[0] if single else mu, step)
    shape = mu.shape[1:] if single else mu.shape
    for what, has, want in (
        ("P", np.shape(moves), (*shape, mfg.num_states)),
        ("R", np.shape(pays), shape),
    ):
        if has != want:
            raise GameError(
                f"{type(mfg).__name__}.laws must return {what} of shape {list(want)}, "
                f"not {list(has)}"
            )
    moves, pays = jnp.asarray(moves, mu.dtype), jnp.asarray(pays, mu.dtype)
    return (moves[None], pays[None]) if single else (moves, pays)


def is_traced(*trees: Any) -> bool:
    """Whether any leaf is being traced by `jit`, `vmap` or `grad`."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree_util.tree_leaves(trees))


def in_double(function: Callable, *arguments: Any) -> Any:
    """`function(*arguments)`: traced as it is, else jitted in float64 with NumPy results.

    `function` must be a lasting object (defined in a module): it is compiled once for each.
    """
    if is_traced(arguments):
        # float64 arrays meet traced float32 ones: in the precision that is switched on.
        to_jax = jax.tree_util.tree_map(
            lambda x: jnp.asarray(x) if isinstance(x, np.ndarray | np.generic) else x, arguments
        )
        return function(*to_jax)
    with jax.enable_x64(True):
        result = _jitted(function, *_on_host(arguments))
        return jax.tree_util.tree_map(np.asarray, jax.device_get(result))


def _on_host(tree: Any) -> Any:
    """As `as_double`, left in NumPy: the compiled call moves them faster than one at a time."""

    def cast(leaf: Any) -> Any:
        if not isinstance(leaf, np.ndarray | np.generic | jax.Array):
            return leaf
        array = np.asarray(leaf)
        return array.astype(np.float64) if jnp.issubdtype(array.dtype, jnp.floating) else array

    return jax.tree_util.tree_map(cast, tree)


@eqx.filter_jit
def _jitted(function: Callable, *arguments: Any) -> Any:
    return function(*arguments)


def checked_distribution(
    name: str, value: Any, shape: tuple[int, ...], *, axes: int
) -> Float[Numbers, "..."]:
    """`value` as probabilities: non-negative, summing to 1 over the last `axes` axes.

    In float64, with the last bits of float32 inputs (at most 1e-5) divided out of the sums;
    traced values pass unchecked in their own precision.

    Raises:
        ValueError: Names the argument, the rule and the first place that breaks it.
    """
    value = as_array(name, value)
    if value.shape != tuple(shape):
        raise ValueError(f"{name} must have shape {list(shape)}, not {list(value.shape)}")
    if isinstance(value, Tracer):
        return value
    array = np.asarray(value, np.float64)
    over = tuple(range(-axes, 0))
    total = array.sum(over, keepdims=True)
    lowest = array.min(over, keepdims=True)
    # Written so that a NaN is wrong too.
    wrong = ~((np.abs(total - 1) <= PROBABILITY_TOLERANCE) & (lowest >= 0))
    if wrong.any():
        where = tuple(int(k) for k in np.argwhere(wrong)[0][: array.ndim - axes])
        at = f" at {list(where)}" if where else ""
        raise ValueError(
            f"{name} must be non-negative and sum to 1 over the last {axes} axes (within "
            f"{PROBABILITY_TOLERANCE}): its sum{at} is {total[where].item():g}, its smallest "
            f"entry {lowest[where].item():g}"
        )
    return array / total


def check_is_mean_field(mfg: Any) -> None:
    """Raise `ValueError` unless it is a mean-field game, and not an N-player one for example."""
    if not isinstance(mfg, MeanFieldGame):
        raise ValueError(
            f"mfg must be a MeanFieldGame, such as induced_game makes of an N-player game, not a "
            f"{type(mfg).__name__}"
        )


def by_step(mfg: MeanFieldGame, name: str, value: Any, *, axes: int) -> tuple[Any, bool]:
    """A policy (`axes` 1) or flow (2) as [H,G,S,A], and whether it came without the axis G."""
    check_is_mean_field(mfg)
    shape = (mfg.horizon, mfg.num_states, mfg.num_actions)
    value = as_array(name, value)
    single = mfg.num_groups == 1 and value.ndim != 4
    want = shape if single else (mfg.num_groups, *shape)
    array = checked_distribution(name, value, want, axes=axes)
    array = array[:, None] if single else array.swapaxes(0, 1)
    legal = legal_by_step(mfg)
    if legal is not None and not isinstance(array, Tracer):
        wrong = (array > 0) & ~np.asarray(legal)
        if wrong.any():
            h, g, s, a = (int(k) for k in np.argwhere(wrong)[0])
            raise ValueError(
                f"{name} must not have action {a} in state {s} at step {h} (group {g}), which is "
                f"illegal there, with probability {array[h, g, s, a]:g}"
            )
    return array, single


def check_laws(mfg: MeanFieldGame, moves: Any, pays: Any, *, first_step: int = 0) -> None:
    """P [H,G,S,A,S] are distributions and R [H,G,S,A] finite; traced ones pass.

    Raises:
        GameError: Names game, step, group, state, action and the value.
    """
    if is_traced(moves, pays):
        return
    error = np.abs(moves.sum(-1) - 1)
    good = (error <= PROBABILITY_TOLERANCE) & (moves.min(-1) >= -PROBABILITY_TOLERANCE)
    for wrong, law, rule in (
        (~good, moves, "P must be a distribution over next states"),
        (~np.isfinite(pays), pays, "R must be finite"),
    ):
        if wrong.any():
            h, g, s, a = (int(k) for k in np.argwhere(wrong)[0])
            raise GameError(
                f"{type(mfg).__name__}: {rule}: at step {first_step + h}, group {g}, state {s}, "
                f"action {a} it is {law[h, g, s, a].tolist()}"
            )
