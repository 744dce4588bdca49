"""Lipschitz moduli of an induced mean-field game in L1 (Lemma 9) and its sparsity (Def. 8).

Axes: T steps, V populations, Z points at which slopes are known, G groups, X = S*A pairs;
D = S for transitions, D = 1 for rewards.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

_SAME = 1e-9


@dataclass(frozen=True)
class LipschitzModuli:
    """How fast the induced P and R vary, in L1, over all of Delta_X and all steps (Lemma 9).

    `K_s` = sup |P(.|s,a,mu) - P(.|s',a,mu)|_1, `K_a` likewise in the action, both in [0,2];
    `K_mu` the modulus of P in mu; `L_s`, `L_a`, `L_mu` the same for R, in reward per step.
    Sharper: `transition_spread` = half the sup over all pairs (s,a), (s',a'), in [0,1], can stand
    for (K_s + K_a)/2, and `reward_spread`, half the sup of R's range over (s,a), for
    (L_s + L_a)/2. `exact` if every number is the supremum; otherwise they are the largest values
    that a search found.
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
    of others in pair x, given the numbers in the other entries (the numbers sum to N-1, so the
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
    """Largest L1 distances over own states and actions at the given populations.

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
