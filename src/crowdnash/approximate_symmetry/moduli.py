"""How the induced game's laws vary with the own pair and with the population, at all steps.

Read off the tables that alpha and beta were found with where those suffice (laws free of the
aggregate or affine in it: vertices of Delta_X); otherwise searched on all of Delta_X.

Axes: N agents, T steps, V populations, Z points with slopes, G groups, X = S*A pairs; D = S for
transitions, D = 1 for rewards.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from crowdnash.approximate_symmetry.agent_laws import Law, Reader, tabulate_law, tabulate_slopes
from crowdnash.approximate_symmetry.deviation import LawStudy, distinct_vertices, search_populations
from crowdnash.approximate_symmetry.lipschitz import (
    LipschitzModuli,
    own_variation,
    population_modulus,
)
from crowdnash.approximate_symmetry.monotonicity import (
    Monotonicity,
    RewardModel,
    check_monotone,
    moving_population,
)

_MAX_SLOPE_WORK = 100_000_000
_MAX_SLOPE_POINTS = 64
_FINE_GRID = 10**6


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
                seen = study.table.projection[:, vertex]
            else:
                rng = np.random.default_rng(2)
                mixed = np.einsum("n,nxk->xk", rng.normal(size=len(reader.given)), reader.given)
                corners = np.eye(num_pairs)
                seen = tabulate_law(reader, law, corners, study.steps, mixed).projection
            projection = _by_entry(np.moveaxis(seen, 1, -1)[:, None])
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


def _by_entry(seen: Float[np.ndarray, "T Z S A R X"]) -> Float[np.ndarray, "F S A X"]:
    moved = np.moveaxis(seen, 4, 2)
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

    def rewards(met: np.ndarray, step: int) -> np.ndarray:
        if pays.exact:
            here = slopes[0, step if slopes.shape[1] > 1 else 0]
            return np.einsum("gxy,gy->gx", here, met)
        found = tabulate_law(reader, "reward", met, np.array([step])).mean[0]  # [V,G,S,A,1]
        return found.reshape(groups, groups, size)[np.arange(groups), np.arange(groups)]

    sizes = np.bincount(np.asarray(reader.groups)).astype(float)
    meeting = (sizes - np.eye(groups)) / (sizes.sum() - 1)
    model = RewardModel(rewards, slopes, points, sizes / sizes.sum(), meeting, pays.exact)
    initial = np.asarray(game.initial_distribution)
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
