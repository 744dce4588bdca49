"""Lipschitz moduli of an induced game in L1 (Lemma 9), its sparsity (Def. 8) and monotonicity.

Read off the tables from which alpha and beta come, where those suffice (laws free of the aggregate
or affine in it: vertices of Delta_X); otherwise searched on all of Delta_X.

Axes: N agents, T steps, V populations, Z points at which slopes are known, G groups, X = S*A
pairs; D = S for transitions, D = 1 for rewards.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from crowdnash.approximate_symmetry.agent_laws import Reader, tabulate_law, tabulate_slopes
from crowdnash.approximate_symmetry.deviation import LawStudy, distinct_vertices, search_populations
from crowdnash.approximate_symmetry.monotonicity import (
    Monotonicity,
    RewardModel,
    check_monotone,
    moving_population,
)
from crowdnash.games.vectorised import Law
from crowdnash.mean_field.meeting import OthersOfGroups

_MAX_SLOPE_WORK = 100_000_000
_MAX_SLOPE_POINTS = 64
_FINE_GRID = 10**6
_SAME = 1e-9


@dataclass(frozen=True)
class LipschitzModuli:
    """How fast the induced P and R vary, in L1, over all of Delta_X and all steps (Lemma 9).

    `K_s` = sup |P(.|s,a,mu) - P(.|s',a,mu)|_1, `K_a` likewise in the action, both in [0,2];
    `K_mu` the modulus of P in mu; `L_s`, `L_a`, `L_mu` the same for R, in reward per step.
    Sharper: `transition_spread` = half the sup over all pairs (s,a), (s',a'), in [0,1], can stand
    for (K_s + K_a)/2, and `reward_spread`, half the sup of R's range over (s,a), for
    (L_s + L_a)/2. `exact` if every number is the supremum; otherwise they are the largest values
    of a search.
    """

    K_s: float
    K_a: float
    K_mu: float
    L_s: float
    L_a: float
    L_mu: float
    transition_spread: float
    reward_spread: float
    exact: bool

    @property
    def L_pop(self) -> float:
        """(K_s + K_a)/2 + K_mu, a modulus of the population update in mu (Lemma 9)."""
        return (self.K_s + self.K_a) / 2 + self.K_mu

    @property
    def L_pop_sharper(self) -> float:
        """transition_spread + K_mu, a modulus too."""
        return self.transition_spread + self.K_mu


@dataclass(frozen=True)
class Sparsity:
    """On how many entries of the population the laws depend (Def. 8).

    `entries` [S,A,X]: whether what some agent's P(s,a,.) or R(s,a,.) does depends on the number
    of others in pair x, with the numbers in the other entries fixed (the numbers sum to N-1, so the
    most frequent dependence counts as none). `transition`, `reward`: the largest number of
    entries of one law; `kappa` the larger of the two. `exact` unless laws were probed at points.
    """

    transition: int
    reward: int
    entries: np.ndarray
    exact: bool

    @property
    def kappa(self) -> int:
        """Def. 8's kappa."""
        return max(self.transition, self.reward)


class OwnVariation(NamedTuple):
    """How much a law varies over the own state, the own action, and half of it over both."""

    state: float
    action: float
    half_both: float


def own_variation(mean: Float[np.ndarray, "T V G S A D"]) -> OwnVariation:
    """Largest L1 distances over own states and actions, at all the populations.

    They are convex in mu if the law is affine in it: at the vertices of Delta_X they are exact.
    """
    both = mean.reshape(*mean.shape[:3], -1, mean.shape[-1])
    return OwnVariation(_widest(mean, 3), _widest(mean, 4), _widest(both, 3) / 2)


def population_modulus(slopes: Float[np.ndarray, "T Z G S A D X"]) -> float:
    """L1 modulus in mu of a law with partial derivatives `slopes`.

    Differences of populations sum to zero, so the operator norm is half the largest distance of
    two columns. A column may hold the law's value at a vertex instead, if the law is affine.
    """
    slopes = np.moveaxis(slopes, -1, 3)  # [T,Z,G,X,S,A,D]
    return _widest(slopes, 3) / 2


def _widest(values: np.ndarray, axis: int) -> float:
    """Largest L1 distance, over the last axis, of two entries along `axis`."""
    if values.size == 0:
        return 0.0
    if values.shape[-1] == 1:
        return float((values.max(axis) - values.min(axis)).max())
    if values.shape[-1] == 2 and np.allclose(np.ptp(values.sum(-1)), 0.0, atol=1e-12):
        first = values[..., 0]
        return 2 * float((first.max(axis) - first.min(axis)).max())
    moved = np.moveaxis(values, axis, 0)
    return max(float(np.abs(moved - one).sum(-1).max()) for one in moved)


def dependence_classes(
    columns: Float[np.ndarray, "F S A X"], scale: float
) -> Int[np.ndarray, "S A X"]:
    """Number of the class of each entry: entries with equal columns share one."""
    columns = np.moveaxis(columns, 0, -1)  # [S,A,X,F]
    weights = np.random.default_rng(1).normal(size=columns.shape[-1])
    keys = columns @ weights
    order = np.argsort(keys, axis=-1)
    sorted_keys = np.take_along_axis(keys, order, -1)
    steps = sorted_keys[..., 1:] - sorted_keys[..., :-1] > _SAME * max(scale, 1e-300)
    number = np.concatenate([np.zeros_like(steps[..., :1], int), np.cumsum(steps, -1)], -1)
    classes = np.empty_like(number)
    np.put_along_axis(classes, order, number, -1)
    return classes


def dependent_entries(classes: Int[np.ndarray, "S A X"]) -> np.ndarray:
    """Entries outside the largest class, bool [S,A,X]: the smallest U_{s,a} of Def. 8."""
    num_pairs = classes.shape[-1]
    counts = (classes[..., None] == np.arange(num_pairs)).sum(-2)  # [S,A,classes]
    return classes != counts.argmax(-1)[..., None]


def sparsity(
    transition: Float[np.ndarray, "F S A X"],
    reward: Float[np.ndarray, "E S A X"],
    *,
    exact: bool,
) -> Sparsity:
    """Def. 8 from random projections of all agents' slopes (or vertex values), per entry."""
    masks = []
    for columns in (transition, reward):
        if columns.shape[0] == 0:
            masks.append(np.zeros(columns.shape[1:], bool))
            continue
        scale = float(np.abs(columns).max()) * columns.shape[0] ** 0.5
        masks.append(dependent_entries(dependence_classes(columns, scale)))
    moves, pays = masks
    return Sparsity(
        transition=int(moves.sum(-1).max()),
        reward=int(pays.sum(-1).max()),
        entries=moves | pays,
        exact=exact,
    )


@dataclass(frozen=True)
class LawVariation:
    """Of one law: its mean at `populations` and how it moves with the population.

    `slopes` are derivatives, or values at the vertices if the law is affine; empty if it is free.
    `projection` are the same of random combinations of all agents' laws.
    """

    mean: Float[np.ndarray, "T V G S A D"]
    populations: Float[np.ndarray, "V X"]
    steps: Int[np.ndarray, " T"]
    slopes: Float[np.ndarray, "T Z G S A D X"]
    points: Float[np.ndarray, "Z X"]
    projection: Float[np.ndarray, "F S A X"]
    exact: bool

    @classmethod
    def of(cls, reader: Reader, law: Law, study: LawStudy) -> "LawVariation":
        """Read off the study's table where that suffices; otherwise evaluate the law anew."""
        dependence, num_pairs = reader.dependence(law), reader.num_pairs
        mean = study.table.mean
        if dependence == "free":
            slopes = np.zeros((*mean.shape[:1], 0, *mean.shape[2:], num_pairs))
            projection = np.zeros((0, *mean.shape[3:5], num_pairs))
            points = np.zeros((0, num_pairs))
            return cls(mean, study.populations, study.steps, slopes, points, projection, True)
        if dependence == "affine":
            vertex = np.arange(num_pairs)
            if reader.same_contributions:
                vertex = distinct_vertices(reader)[1]
                projections = study.table.projection[:, vertex]
            else:
                rng = np.random.default_rng(2)
                mixed = np.einsum(
                    "n,nxk->xk", rng.normal(size=len(reader.contributions)), reader.contributions
                )
                corners = np.eye(num_pairs)
                projections = tabulate_law(reader, law, corners, study.steps, mixed).projection
            projection = _by_entry(np.moveaxis(projections, 1, -1)[:, None])
            slopes = np.moveaxis(mean[:, vertex], 1, -1)[:, None]
            middle = np.full((1, num_pairs), 1 / num_pairs)
            return cls(mean, study.populations, study.steps, slopes, middle, projection, True)
        return cls._searched(reader, law, study)

    @classmethod
    def _searched(cls, reader: Reader, law: Law, study: LawStudy) -> "LawVariation":
        """On all of Delta_X, not only on what N-1 others can form: that is where P, R live."""
        num_pairs = reader.num_pairs
        count = len(study.steps) * reader.game.num_agents * num_pairs * reader.width(law)
        points = int(np.clip(_MAX_SLOPE_WORK // (count * num_pairs), 2, _MAX_SLOPE_POINTS))
        many = int(np.clip(_MAX_SLOPE_WORK // count, 2, 4 * _MAX_SLOPE_POINTS))
        corners = np.eye(num_pairs)
        populations = search_populations(num_pairs, _FINE_GRID, many, 1, corners)
        table = tabulate_law(reader, law, populations, study.steps)
        where = populations[np.linspace(0, len(populations) - 1, points).astype(int)]
        slopes = tabulate_slopes(reader, law, where, study.steps)
        # Off its kinks and edges a derivative may still be missing there: look elsewhere.
        mean = np.nan_to_num(slopes.mean, nan=0.0, posinf=np.inf, neginf=-np.inf)
        finite = np.nan_to_num(slopes.projection, nan=0.0, posinf=0.0, neginf=0.0)
        return cls(table.mean, populations, study.steps, mean, where, _by_entry(finite), False)

    def at_all_steps(self, values: np.ndarray, horizon: int) -> np.ndarray:
        """Repeat a law that does not read the step for all steps."""
        return np.broadcast_to(values, (horizon, *values.shape[1:])) if len(values) == 1 else values


def _by_entry(projections: Float[np.ndarray, "T Z S A R X"]) -> Float[np.ndarray, "F S A X"]:
    moved = np.moveaxis(projections, 4, 2)
    return moved.reshape(-1, *moved.shape[3:])


def moduli_of(moves: LawVariation, pays: LawVariation) -> LipschitzModuli:
    """All moduli of the induced laws (Lemma 9)."""
    in_p, in_r = own_variation(moves.mean), own_variation(pays.mean)
    return LipschitzModuli(
        K_s=in_p.state,
        K_a=in_p.action,
        K_mu=population_modulus(moves.slopes),
        L_s=in_r.state,
        L_a=in_r.action,
        L_mu=population_modulus(pays.slopes),
        transition_spread=in_p.half_both,
        reward_spread=in_r.half_both,
        exact=moves.exact and pays.exact,
    )


def monotonicity_of(reader: Reader, moves: LawVariation, pays: LawVariation) -> Monotonicity | None:
    """Def. 10 of the induced game; None if agents of several groups contribute differently.

    (Those meet means that differ from agent to agent, so no group has one population to meet.)
    """
    game, horizon, groups = reader.game, reader.game.horizon, reader.num_groups
    if groups > 1 and not reader.same_contributions:
        return None
    shape = (game.num_states, game.num_actions)
    if population_modulus(moves.slopes) > 1e-12:
        mu, other, step, apart = _farthest(moves, shape)
        if groups > 1:
            mu, other = (np.tile(x, (groups, 1, 1)) for x in (mu, other))
        return moving_population((mu, other, step, apart))
    transition = moves.at_all_steps(moves.mean[:, 0], horizon)
    size = reader.num_pairs
    if pays.slopes.shape[1]:
        slopes = pays.slopes[..., 0, :].reshape(*pays.slopes.shape[:3], size, size)
        points = pays.points
    else:  # rewards free of the population
        slopes, points = np.zeros((1, 1, groups, size, size)), np.full((1, size), 1 / size)
    slopes = np.moveaxis(np.where(np.isfinite(slopes), slopes, 0.0), 1, 0)  # [Z,T,G,X,X]

    def rewards(nu: np.ndarray, step: int) -> np.ndarray:
        if pays.exact:
            here = slopes[0, step if slopes.shape[1] > 1 else 0]
            return np.einsum("gxy,gy->gx", here, nu)
        values = tabulate_law(reader, "reward", nu, np.array([step])).mean[0]  # [V,G,S,A,1]
        return values.reshape(groups, groups, size)[np.arange(groups), np.arange(groups)]

    sizes = np.bincount(np.asarray(reader.groups)).astype(float)
    shares, meeting = sizes / sizes.sum(), OthersOfGroups(sizes).matrix
    model = RewardModel(rewards, slopes, points, shares, meeting, pays.exact)
    initial = np.atleast_2d(game.initial_distribution).mean(0)
    return check_monotone(model, transition, initial / initial.sum())


def _farthest(
    moves: LawVariation, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, int, float]:
    """Two of the tabulated populations where P differs most, the step, and the distance."""
    populations, mean = moves.populations, moves.mean
    apart = np.abs(mean - mean[:, :1]).sum(-1).max((2, 3, 4))
    step, first = np.unravel_index(int(apart.argmax()), apart.shape)
    apart = np.abs(mean[step] - mean[step, first]).sum(-1).max((1, 2, 3))
    other = int(apart.argmax())
    pair = (populations[first].reshape(shape), populations[other].reshape(shape))
    return *pair, int(moves.steps[step]), float(apart[other])
