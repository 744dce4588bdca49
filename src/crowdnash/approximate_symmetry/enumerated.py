"""Def. 7 for any `TabularGame`, by querying its law: every joint state-action, or random ones.

Nothing is assumed of how the law depends on the others. P(s,a,mu) is the mean over the agents of
a group and over all ways to give mu to the others (Defs. 3 and 6); with several groups, mu says
what the others of *each* group do.

Axes: N agents, O = X^(N-1) joint pairs of the others, X = S*A pairs, V populations, D = S + 1
numbers of one law (transition, then reward).
"""

import itertools
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from crowdnash.approximate_symmetry.deviation import Deviation
from crowdnash.approximate_symmetry.moduli import LipschitzModuli, Sparsity, own_variation
from crowdnash.approximate_symmetry.monotonicity import (
    Monotonicity,
    PopulationPair,
    Verdict,
    moving_population,
)
from crowdnash.games.base import TabularGame
from crowdnash.games.double_precision import as_double
from crowdnash.mean_field.queries import query_laws

_MAX_ENTRIES = 5_000_000
_SAME = 1e-9
_TINY = 1e-6


class QueryStudy(NamedTuple):
    """What queries tell: lower ends of alpha and beta [G] (exact if all was queried), and more."""

    alpha: Float[np.ndarray, " G"]
    beta: Float[np.ndarray, " G"]
    attained: tuple[Deviation | None, Deviation | None]
    reward_range: tuple[float, float]
    lipschitz: LipschitzModuli | None = None
    sparsity: Sparsity | None = None
    monotone: Monotonicity | None = None
    standard_errors: tuple[float, float] = (0.0, 0.0)


def can_enumerate_laws(game: TabularGame) -> bool:
    """Whether the laws at all joint state-actions and steps are few enough to list."""
    pairs = game.num_states * game.num_actions
    entries = game.horizon * game.num_agents * (game.num_states + 1.0) * pairs**game.num_agents
    return entries <= _MAX_ENTRIES


def deviation_at(
    game: TabularGame, value: float, place: tuple[Any, ...], others: np.ndarray
) -> Deviation:
    """The record of a deviation at `place` = (agent, pair, step)."""
    agent, pair, step = (int(k) for k in place)
    counts = np.bincount(others, minlength=game.num_states * game.num_actions)
    mu = (counts / len(others)).reshape(game.num_states, game.num_actions)
    state, action = divmod(pair, game.num_actions)
    return Deviation(float(value), agent, state, action, step, mu, np.asarray(others))


def _distances(values: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """L1 distance of transitions, and of rewards."""
    apart = np.abs(values - mean)
    return apart[..., :-1].sum(-1), apart[..., -1]


def enumerate_laws(game: TabularGame, groups: Int[np.ndarray, " N"]) -> QueryStudy:
    """Def. 7 in full. Moduli: of the data on the grid, K_mu and L_mu of its Kirszbraun extension.

    (The extension keeps the L2 modulus, so L1 moduli are at most sqrt(S) times it for P.)
    """
    game = as_double(game)
    n, pairs = game.num_agents, game.num_states * game.num_actions
    others = np.array(list(itertools.product(range(pairs), repeat=n - 1)))
    num_groups = int(groups.max()) + 1
    largest = np.full((2, num_groups), -1.0)
    attained: list[Deviation | None] = [None, None]
    apart = np.zeros((2, pairs, pairs, pairs))
    low, high = np.inf, -np.inf
    tables: list[np.ndarray] = []
    grid = np.zeros((0, pairs))
    for step in range(game.horizon):
        values = np.stack([query_laws(game, i, step, others) for i in range(n)])  # [N,O,X,D]
        low, high = min(low, values[..., -1].min()), max(high, values[..., -1].max())
        apart = np.maximum(apart, _entry_differences(values, n, pairs))
        for g in range(num_groups):
            members = np.flatnonzero(groups == g)
            mean, which, grid = _symmetrized(values[members], others, members, groups, pairs)
            tables.append(mean)
            for law, distance in enumerate(_distances(values[members], mean[which])):
                k, o, x = np.unravel_index(int(distance.argmax()), distance.shape)
                value = float(distance[k, o, x])
                if value > largest[law].max():
                    attained[law] = deviation_at(game, value, (members[k], x, step), others[o])
                largest[law, g] = max(largest[law, g], value)
    alpha, beta = largest
    study = QueryStudy(
        alpha,
        beta,
        (attained[0], attained[1]),
        (float(low), float(high)),
        sparsity=_sparse(apart, game),
    )
    if num_groups > 1:
        return study
    table = np.array(tables).reshape(
        len(tables), len(grid), 1, game.num_states, game.num_actions, -1
    )
    return study._replace(
        lipschitz=_grid_moduli(table, grid, game.num_states), monotone=_grid_monotone(table, grid)
    )


def _symmetrized(
    values: np.ndarray, others: np.ndarray, members: np.ndarray, groups: np.ndarray, pairs: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Group mean of Sym at every population [V,X,D], each row's population [n,O], and all of them.

    A population counts, for every group, the others in every pair; for one group it is mu [V,X].
    """
    num_groups = int(groups.max()) + 1
    codes = []
    for agent in members:
        label = np.delete(groups, agent) * pairs + others  # [O,N-1]
        codes.append((label[:, :, None] == np.arange(num_groups * pairs)).sum(1))
    grid, which = np.unique(np.concatenate(codes), axis=0, return_inverse=True)
    which = which.reshape(len(members), -1)
    sums = np.zeros((len(grid), *values.shape[2:]))
    np.add.at(sums, which, values)
    counts = np.bincount(which.reshape(-1), minlength=len(grid))
    return sums / counts[:, None, None], which, grid / others.shape[1]


def _entry_differences(values: np.ndarray, n: int, pairs: int) -> np.ndarray:
    """How much moving one other agent from pair x to x' changes P, R: [2,X,X,X] by own pair."""
    largest = np.zeros((2, pairs, pairs, pairs))
    shaped = values.reshape(n, *(pairs,) * (n - 1), pairs, values.shape[-1])
    for axis in range(1, n):
        moved = np.moveaxis(shaped, axis, 0).reshape(pairs, -1, pairs, values.shape[-1])
        for x in range(pairs):
            for law, distance in enumerate(_distances(moved, moved[x])):
                largest[law, :, x] = np.maximum(largest[law, :, x], distance.max(1).T)
    return largest


def _sparse(apart: np.ndarray, game: TabularGame) -> Sparsity:
    """Def. 8: all entries but the largest set among which moving another changes nothing."""
    same = apart <= _SAME
    largest = same.sum(-1).argmax(-1)  # [2,X]
    depends = ~np.take_along_axis(same, largest[..., None, None], 2)[:, :, 0]
    entries = (depends[0] | depends[1]).reshape(game.num_states, game.num_actions, -1)
    moves, pays = (int(d.sum(-1).max()) for d in depends)
    return Sparsity(transition=moves, reward=pays, entries=entries, exact=True)


def _grid_moduli(table: np.ndarray, grid: np.ndarray, num_states: int) -> LipschitzModuli:
    moves, pays = own_variation(table[..., :-1]), own_variation(table[..., -1:])
    steep = np.zeros(2)
    for v in range(len(grid)):
        between = np.linalg.norm(grid - grid[v], axis=1)
        between[v] = np.inf
        change = table - table[:, v : v + 1]
        for law, part in enumerate((change[..., :-1], change[..., -1:])):
            moved = np.linalg.norm(part, axis=-1).max((0, 2, 3, 4))
            steep[law] = max(steep[law], float((moved / between).max()))
    return LipschitzModuli(
        K_s=moves.state,
        K_a=moves.action,
        K_mu=float(num_states**0.5 * steep[0]),
        L_s=pays.state,
        L_a=pays.action,
        L_mu=float(steep[1]),
        transition_spread=moves.half_both,
        reward_spread=pays.half_both,
        exact=False,
    )


def _grid_monotone(table: np.ndarray, grid: np.ndarray) -> Monotonicity:
    """A counterexample on the grid settles it; without one the extension decides."""
    shape = table.shape[3:5]
    rewards = table[:, :, 0, :, :, -1].reshape(*table.shape[:2], -1)  # [T,V,X]
    for v in range(len(grid)):
        apart = np.abs(table[..., :-1] - table[:, v : v + 1, ..., :-1]).sum(-1).max((2, 3, 4))
        if apart.max() > _TINY:
            step, other = np.unravel_index(int(apart.argmax()), apart.shape)
            pair = (grid[v].reshape(shape), grid[other].reshape(shape))
            return moving_population((*pair, int(step), float(apart.max())))
    unknown = Verdict("unknown", "flows leave the grid on which the laws are known")
    for v in range(len(grid)):
        terms = ((rewards - rewards[:, v : v + 1]) * (grid - grid[v])).sum(-1)
        if terms.max() > _TINY:
            step, other = np.unravel_index(int(terms.argmax()), terms.shape)
            pair = (grid[v].reshape(shape), grid[other].reshape(shape))
            violation = PopulationPair(*pair, int(step), float(terms.max()))
            return Monotonicity(Verdict("not monotone", "on the grid", None, violation), unknown)
    return Monotonicity(Verdict("unknown", "no counterexample on the grid"), unknown)
