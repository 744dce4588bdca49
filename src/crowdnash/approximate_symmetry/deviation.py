"""alpha and beta of a `PopulationGame` (Def. 7): how far agents' laws are from their group's mean.

Where all agents contribute alike, P^i(s,a,rho) = P^i(s,a,mu) with mu = sigma(rho), and the distance
of that from the mean over agents is a function of mu on the grid of multiples of 1/(N-1):

- law free of the aggregate: one population; affine: convex in mu, so the vertices (exact);
- few agents and pairs: the whole grid (exact);
- otherwise a search: vertices, random populations and ascent give the lower end; the upper end is
  the grid plus a declared Lipschitz modulus, or the trivial 2 (the reward range).

Where contributions differ, see `weighted_deviation`.

Axes: N agents, G groups, X = S*A pairs, V populations, T steps.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from crowdnash.approximate_symmetry.agent_laws import (
    LawTable,
    Reader,
    tabulate_law,
)
from crowdnash.games.vectorised import Law
from crowdnash.mean_field.simplex_grid import grid_counts, grid_size

_MAX_WORK = 200_000_000
_MAX_GRID = 5_000
_NUM_CLIMBS = 8
_CLIMB_STEPS = 60


class Deviation(NamedTuple):
    """Where a law is farthest from its group's mean: P^i or R^i at (s,a) and mu, in L1.

    `mu` [S,A] is the others' empirical distribution (multiples of 1/(N-1)); `others` [N-1] their
    pairs s*A + a in ascending order of agents, where it matters who is in which pair.
    """

    value: float
    agent: int
    state: int
    action: int
    step: int
    mu: Float[np.ndarray, "S A"]
    others: Int[np.ndarray, " others"] | None = None


class LawStudy(NamedTuple):
    """alpha (or beta) of each group, and the table of the mean law behind it.

    `low` and `high` bound the values in the table; `exact` says whether lower = upper.
    """

    lower: Float[np.ndarray, " G"]
    upper: Float[np.ndarray, " G"]
    attained: tuple[Deviation | None, ...]
    table: LawTable
    populations: Float[np.ndarray, "V X"]
    steps: Int[np.ndarray, " T"]
    exact: bool


class SearchEffort(NamedTuple):
    """How hard to search where nothing is exact: populations to try, seed, declared modulus."""

    num_populations: int
    seed: int
    modulus: float | None


def study_law(reader: Reader, law: Law, effort: SearchEffort, trivial: float) -> LawStudy:
    """alpha or beta of every group where all agents contribute alike."""
    steps = reader.steps(law)
    populations, exact = _populations(reader, law, len(steps), effort)
    table = tabulate_law(reader, law, populations, steps)
    attained = best_deviations(reader, table, populations, steps)
    if identical(reader):
        zero = np.zeros(reader.num_groups)
        return LawStudy(zero, zero, attained, table, populations, steps, True)
    if not exact:
        attained = _climb(reader, law, table, populations, steps, attained)
    lower = np.array([d.value for d in attained])
    upper = lower if exact else _upper_end(reader, law, steps, effort, trivial, lower)
    return LawStudy(lower, upper, attained, table, populations, steps, exact)


def identical(reader: Reader) -> bool:
    """Whether the agents of each group do not differ at all."""
    if not reader.same_contributions:
        return False
    first = np.asarray(reader.first)[np.asarray(reader.groups)]
    leaves = [np.asarray(x) for x in jax.tree_util.tree_leaves(reader.game.agents)]
    return all(bool((x == x[first]).all()) for x in leaves)


def best_deviations(
    reader: Reader,
    table: LawTable,
    populations: Float[np.ndarray, "V X"],
    steps: Int[np.ndarray, " T"],
) -> tuple[Deviation, ...]:
    """The largest entry of the table for each group."""
    groups = np.asarray(reader.groups)
    attained = []
    for g in range(reader.num_groups):
        members = np.flatnonzero(groups == g)
        part = table.deviation[:, :, members]
        t, v, n = np.unravel_index(int(part.argmax()), part.shape)
        agent = int(members[n])
        pair = int(table.pair[t, v, agent])
        attained.append(_deviation(reader, part[t, v, n], agent, pair, steps[t], populations[v]))
    return tuple(attained)


def _deviation(reader, value, agent, pair, step, mu) -> Deviation:
    state, action = divmod(int(pair), reader.game.num_actions)
    shape = (reader.game.num_states, reader.game.num_actions)
    return Deviation(float(value), int(agent), state, action, int(step), mu.reshape(shape))


def distinct_vertices(reader: Reader) -> tuple[Int[np.ndarray, " V"], Int[np.ndarray, " X"]]:
    """Pairs with different contributions, and for every pair which of them it equals."""
    rows = np.moveaxis(np.asarray(reader.contributions), 1, 0).reshape(reader.num_pairs, -1)
    _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return first, inverse.reshape(-1)


def _populations(
    reader: Reader, law: Law, num_steps: int, effort: SearchEffort
) -> tuple[Float[np.ndarray, "V X"], bool]:
    """Populations to tabulate the law at, and whether they settle alpha or beta."""
    vertices = np.eye(reader.num_pairs)[distinct_vertices(reader)[0]]
    if reader.dependence(law) == "free" or len(vertices) == 1:
        return vertices[:1], True
    if reader.dependence(law) == "affine":
        return vertices, True
    others = reader.game.num_agents - 1
    affordable = _affordable(reader, law, num_steps)
    if grid_size(reader.num_pairs, others) <= min(_MAX_GRID, affordable):
        return grid_counts(reader.num_pairs, others) / others, True
    count = int(np.clip(effort.num_populations, 1, max(8, affordable)))
    return search_populations(reader.num_pairs, others, count, effort.seed, vertices), False


def _affordable(reader: Reader, law: Law, num_steps: int) -> int:
    size = reader.num_pairs * reader.width(law) * num_steps
    return _MAX_WORK // max(reader.game.num_agents * size, 1)


def search_populations(
    num_pairs: int, others: int, count: int, seed: int, vertices: np.ndarray
) -> Float[np.ndarray, "V X"]:
    """Vertices (at most half), the uniform and random populations, rounded to the grid."""
    rng = np.random.default_rng(seed)
    corners = vertices[rng.permutation(len(vertices))[: max(1, count // 2)]]
    left = max(1, count - len(corners) - 1)
    spread = rng.choice([0.1, 0.3, 1.0, 5.0], size=left)
    # Dirichlet draws by normalised gammas; tiny shapes may underflow to 0 everywhere.
    drawn = rng.gamma(spread[:, None], size=(left, num_pairs)) + 1e-12
    drawn = np.concatenate([np.full((1, num_pairs), 1.0), drawn])
    drawn /= drawn.sum(1, keepdims=True)
    return np.concatenate([corners, round_to_grid(drawn, others)])


def round_to_grid(mu: Float[np.ndarray, "V X"], count: int) -> Float[np.ndarray, "V X"]:
    """The nearest distributions with entries that are multiples of 1/count (largest remainder)."""
    scaled = mu * count
    whole = np.floor(scaled + 1e-9)
    missing = np.rint(count - whole.sum(1)).astype(int)
    rank = np.argsort(np.argsort(-(scaled - whole), axis=1), axis=1)
    return (whole + (rank < missing[:, None])) / count


def _upper_end(
    reader: Reader, law: Law, steps: np.ndarray, effort: SearchEffort, trivial: float, lower
) -> Float[np.ndarray, " G"]:
    """Largest deviation on a grid of all of Delta_X plus what a declared modulus L allows between.

    Every mu is within |X|/(2n) (L1) of a multiple of 1/n, and P^i - P is 2L-Lipschitz.
    """
    bound = np.full(reader.num_groups, trivial)
    if effort.modulus is None:
        return np.maximum(bound, lower)
    limit = min(_MAX_GRID, max(_affordable(reader, law, len(steps)), reader.num_pairs))
    fineness = 1
    while grid_size(reader.num_pairs, fineness + 1) <= limit and fineness < 1000:
        fineness += 1
    cover = grid_counts(reader.num_pairs, fineness) / fineness
    table = tabulate_law(reader, law, cover, steps)
    largest = np.array([d.value for d in best_deviations(reader, table, cover, steps)])
    between = 2 * effort.modulus * min(reader.num_pairs / (2 * fineness), 2.0)
    return np.maximum(np.minimum(bound, largest + between), lower)


def _climb(
    reader: Reader,
    law: Law,
    table: LawTable,
    populations: np.ndarray,
    steps: np.ndarray,
    attained: tuple[Deviation, ...],
) -> tuple[Deviation, ...]:
    """Improve each group's deviation by ascent in mu from its best populations.

    Every group has a start; where there are too many groups, those that deviate most so far.
    """
    groups = np.asarray(reader.groups)
    affordable = _affordable(reader, law, 1) * reader.num_pairs // _CLIMB_STEPS
    count = max(_NUM_CLIMBS, min(reader.num_groups, affordable))
    climbing = np.argsort([-d.value for d in attained], kind="stable")[:count]
    starts = []
    for g in np.sort(climbing):
        part = np.where(groups == g, table.deviation, -1.0)
        flat = np.argsort(-part.max((0, 2)), kind="stable")[: max(1, count // reader.num_groups)]
        for v in flat:
            t, agent = np.unravel_index(int(part[:, v].argmax()), (len(steps), len(groups)))
            starts.append((int(agent), int(table.pair[t, v, agent]), int(steps[t]), v))
    agents, pairs, times, where = (np.array(x) for x in zip(*starts, strict=True))
    tops = _ascend(
        reader, law, *(jnp.asarray(x) for x in (agents, pairs, times, populations[where]))
    )
    rounded = round_to_grid(np.asarray(tops), reader.game.num_agents - 1)
    values = np.asarray(
        _distances(reader, law, *(jnp.asarray(x) for x in (agents, pairs, times, rounded)))
    )
    best = list(attained)
    for k, value in enumerate(values):
        g = groups[agents[k]]
        if value > best[g].value:
            best[g] = _deviation(reader, value, agents[k], pairs[k], times[k], rounded[k])
    return tuple(best)


def _distance(reader: Reader, law: Law, agent: Array, pair: Array, step: Array, mu: Array) -> Array:
    """L1 distance of one agent's law at one pair from its group's mean, at mu."""
    values = reader.at_pair(law, pair, mu, step)
    mean = reader.group_mean(values)[reader.groups[agent]]
    return jnp.abs(values[agent] - mean).sum()


@eqx.filter_jit
def _distances(reader, law, agents, pairs, steps, mus) -> Array:
    def one(place):
        return _distance(reader, law, *place)

    return jax.lax.map(one, (agents, pairs, steps, mus))


@eqx.filter_jit
def _ascend(reader, law, agents, pairs, steps, mus) -> Array:
    """Exponentiated-gradient ascent; the best population on each path, [starts,X]."""

    def climb(place):
        agent, pair, step, start = place

        def objective(mu):
            return _distance(reader, law, agent, pair, step, mu)

        def move(carry, k):
            mu, best, top = carry
            value, slope = jax.value_and_grad(objective)(mu)
            slope = jnp.where(jnp.isfinite(slope), slope, 0.0)
            better = value > top
            best, top = jnp.where(better, mu, best), jnp.where(better, value, top)
            scale = jnp.maximum(jnp.abs(slope - slope @ mu).max(), 1e-12)
            logits = jnp.log(mu) + 2.0 * 0.95**k * slope / scale
            mu = jnp.maximum(jax.nn.softmax(logits), 1e-9)
            return (mu / mu.sum(), best, top), None

        inside = 0.95 * start + 0.05 / start.shape[0]
        carry = (inside, start, objective(start))
        return jax.lax.scan(move, carry, jnp.arange(_CLIMB_STEPS))[0][1]

    return jax.lax.map(climb, (agents, pairs, steps, mus))
