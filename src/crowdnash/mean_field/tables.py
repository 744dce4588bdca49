"""Mean-field games in tables, whose laws are constant or affine in the population.

Axes: G populations (groups), H steps, S states, A actions, X = S*A pairs (s,a).
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from crowdnash.checks import as_array, check_count
from crowdnash.games.base import PROBABILITY_TOLERANCE, GameError
from crowdnash.mean_field.game import (
    Numbers,
    TwoLawGame,
    checked_distribution,
)
from crowdnash.mean_field.meeting import Meeting, OthersOfGroups
from crowdnash.tuning import tuning


class AffineLaw(eqx.Module):
    """A law that is affine in the population, or free of it.

        f_g(mu) = constant[., g] + sum_x sigma_g(x) slope[., x, g]
        sigma_g = sum_k meeting[g,k] mu_k

    Axes: `constant` [H or 1, G, S, A, ...], `slope` [H or 1, X, G, S, A, ...] or None (free of
    the population), where 1 is the same for all steps, and `meeting` (see `meeting.py`): how
    often an agent of g meets one of k. The constant is the mean over the simplex's vertices.
    """

    constant: Float[Numbers, "..."]
    slope: Float[Numbers, "..."] | None
    meeting: Meeting

    @classmethod
    def from_vertices(cls, table: Float[Numbers, "T X ..."], meeting: Meeting) -> "AffineLaw":
        """The law with these values [H or 1, X or 1, G, S, A, ...] where all hold one pair x.

        Not kept as values at vertices: sum_x sigma(x) P_x would multiply an error in the total of
        sigma by the total of each P, and the total of a flow would be off by twice as much at
        every step. Deviations from the mean of the P_x sum to 0, and errors stay what they are.
        """
        if table.shape[1] == 1:
            return cls(table[:, 0], None, meeting)
        constant = table.mean(1)
        return cls(constant, table - constant[:, None], meeting)

    @property
    def vertices(self) -> Float[Numbers, "..."]:
        """The values where all hold one pair x, [H or 1, X or 1, G, S, A, ...]."""
        return self.constant[:, None] + (0.0 if self.slope is None else self.slope)

    def at(self, mu: Float[Array, "G S A"], step: Any) -> Array:
        """The law's values [G,S,A,...] at the populations `mu` and step h."""
        constant = _of_step(self.constant, step)
        if self.slope is None:
            return constant.astype(mu.dtype)
        pairs = mu.reshape(mu.shape[0], -1)
        sigma = pairs if mu.shape[0] == 1 else self.meeting @ pairs
        slope = _of_step(self.slope, step)
        if slope.size > tuning().fused_entries:
            bend = jnp.einsum("gx,xg...->g...", sigma, slope)
        else:
            bend = (sigma.T.reshape(*sigma.T.shape, *(1,) * (slope.ndim - 2)) * slope).sum(0)
        return (constant + bend).astype(mu.dtype)


def _of_step(table: Numbers, step: Any) -> Array:
    return jnp.asarray(table)[step if table.shape[0] > 1 else 0]


class TabularMeanFieldGame(TwoLawGame):
    """A mean-field game (Def. 4) in tables, constant or affine in the population.

        P(s'|s,a,mu) = transition[s,a,s'] + sum_{u,b} transition_slope[s,a,s',u,b] mu(u,b)
        R(s,a,mu)    = reward[s,a]        + sum_{u,b} reward_slope[s,a,u,b] mu(u,b)

    All tables may have a leading axis H. With `group_weights` each has the axis G in front (behind
    H), and mu above is sum_k meeting[g,k] mu_k. Kept in float64.

    Args:
        transition: [S,A,S].
        reward: [S,A].
        initial_distribution: [S].
        horizon: H >= 1.
        transition_slope: [S,A,S,S,A]; default: free of the population.
        reward_slope: [S,A,S,A]; default: free of the population.
        group_weights: [G], G >= 2 shares that sum to 1; default: one population.
        meeting: [G,G], or `OthersOfGroups`; default: the shares in every row.

    Raises:
        ValueError: A shape differs, a value is not finite, or P is not a distribution at some mu:
            P is affine, so the vertices of the simplex decide.
    """

    transition_law: AffineLaw
    reward_law: AffineLaw
    initial_distribution: Float[Numbers, " S"]
    shares: Float[Numbers, " G"]
    horizon: int = eqx.field(static=True)
    num_states: int = eqx.field(static=True)
    num_actions: int = eqx.field(static=True)

    def __init__(
        self,
        transition: Any,
        reward: Any,
        initial_distribution: Any,
        horizon: int,
        *,
        transition_slope: Any = None,
        reward_slope: Any = None,
        group_weights: Any = None,
        meeting: Any = None,
    ):
        check_count("horizon", horizon, 1)
        reward = as_array("reward", reward)
        shape = reward.shape[-2:]
        if len(shape) != 2 or 0 in shape:
            raise ValueError(f"reward must have shape [S,A], not {list(reward.shape)}")
        self.horizon = horizon
        self.num_states, self.num_actions = shape
        self.initial_distribution = checked_distribution(
            "initial_distribution", initial_distribution, (shape[0],), axes=1
        )
        self.shares = np.ones(1)
        if group_weights is not None:
            count = as_array("group_weights", group_weights).size
            self.shares = checked_distribution("group_weights", group_weights, (count,), axes=1)
        g = self.shares.shape[0]
        if not isinstance(meeting, OthersOfGroups):
            if meeting is None:
                meeting = jnp.broadcast_to(self.shares, (g, g))
            meeting = checked_distribution("meeting", meeting, (g, g), axes=1)
        cell = (*shape, shape[0])
        moves = _vertices("transition", transition, transition_slope, cell, shape, horizon, g)
        pays = _vertices("reward", reward, reward_slope, shape, shape, horizon, g)
        check_vertices(moves, shape[1], "TabularMeanFieldGame")
        self.transition_law = AffineLaw.from_vertices(moves, meeting)
        self.reward_law = AffineLaw.from_vertices(pays, meeting)

    @property
    def laws_are_cheap(self) -> bool:
        """See `MeanFieldGame.laws_are_cheap`: a table is read as fast as a copy of it."""
        return True


def _vertices(
    name: str,
    constant: Any,
    slope: Any,
    cell: tuple[int, ...],
    pair: tuple[int, ...],
    horizon: int,
    num_groups: int,
) -> Float[Numbers, "..."]:
    """Values at the vertices, [H or 1, X or 1, G, *cell], of constant + slope . mu."""
    constant = _with_leading(name, constant, cell, horizon, num_groups)
    if slope is None:
        return constant[:, None]
    slope = _with_leading(f"{name}_slope", slope, (*cell, *pair), horizon, num_groups)
    slope = slope.reshape(*slope.shape[: -len(pair)], -1)
    if isinstance(slope, Tracer) or isinstance(constant, Tracer):
        return constant[:, None] + jnp.moveaxis(slope, -1, 1)
    return constant[:, None] + np.moveaxis(slope, -1, 1)


def _with_leading(
    name: str, value: Any, cell: tuple[int, ...], horizon: int, num_groups: int
) -> Any:
    """`value` as [H or 1, G, *cell]; it may lack H, and lacks G if there is one group."""
    inner = (num_groups, *cell) if num_groups > 1 else cell
    value = as_array(name, value)
    shape = value.shape
    if shape not in (inner, (horizon, *inner)):
        raise ValueError(
            f"{name} must have shape {list(inner)} or {[horizon, *inner]}, not {list(shape)}"
        )
    array = value if isinstance(value, Tracer) else np.asarray(value, np.float64)
    if not isinstance(array, Tracer) and not np.isfinite(array).all():
        where = [int(k) for k in np.argwhere(~np.isfinite(array))[0]]
        raise ValueError(f"{name} must be finite: at {where} it is {array[tuple(where)]}")
    return array.reshape(-1, num_groups, *cell)


def check_vertices(table: Float[Numbers, "T X G S A S"], num_actions: int, game: str) -> None:
    """P at every vertex is a distribution, and so, being affine, at every mu.

    Raises:
        GameError: Names game, vertex, step, group, state and action.
    """
    if isinstance(table, Tracer):
        return
    table = np.asarray(table)
    error = np.abs(table.sum(-1) - 1)
    wrong = ~((error <= PROBABILITY_TOLERANCE) & (table.min(-1) >= -PROBABILITY_TOLERANCE))
    if wrong.any():
        h, x, g, s, a = (int(k) for k in np.argwhere(wrong)[0])
        crowd = f" where all are in pair {divmod(x, num_actions)}" if table.shape[1] > 1 else ""
        raise GameError(
            f"{game}: transition must be a distribution over next states (within "
            f"{PROBABILITY_TOLERANCE}){crowd}: at step {h}, group {g}, state {s}, action {a} it is "
            f"{table[h, x, g, s, a].tolist()}"
        )
