"""alpha and beta (Def. 7) where agents contribute differently to the aggregate.

It then matters who is in which pair, so vertices of Delta_X settle nothing (weights (2,0), two
others: no deviation at any vertex). For a law that is affine in the aggregate the deviation of
agent i from its group's mean law (Def. 6, with Sym over the others) is a sum over the others,

    D(rho) = D_0 + 1/(N-1) sum_{j != i} d_j(rho_j),   |D|_1 = max over signs e of e.D,

so for each sign vector every other agent maximises by itself: exact, at the cost of N^2. Where
that is too much, some agents and signs give the lower end, and a triangle inequality the upper.
Laws that are nonlinear are compared with the formula read at the mean contributions.

Axes: N agents, X = S*A pairs, K components, D values of a law, E sign vectors, G groups.
"""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from crowdnash.approximate_symmetry.agent_laws import Reader, tabulate_law
from crowdnash.approximate_symmetry.deviation import (
    Deviation,
    LawStudy,
    SearchEffort,
    best_deviations,
    search_populations,
)
from crowdnash.games.vectorised import Law

_MAX_WORK = 4_000_000_000
_MAX_SIGNED = 8
_MAX_PROFILES = 5_000


def study_weighted_law(reader: Reader, law: Law, effort: SearchEffort, trivial: float) -> LawStudy:
    """alpha or beta of every group where contributions differ between agents."""
    steps = reader.steps(law)
    dependence = reader.dependence(law)
    others, num_pairs = reader.game.num_agents - 1, reader.num_pairs
    vertices = np.eye(num_pairs)
    if dependence == "nonlinear":
        count = effort.num_populations
        populations = search_populations(num_pairs, others, count, effort.seed, vertices)
    else:
        populations = vertices if dependence == "affine" else vertices[:1]
    table = tabulate_law(reader, law, populations, steps)
    if dependence == "free":
        attained = best_deviations(reader, table, populations, steps)
        values = np.array([d.value for d in attained])
        return LawStudy(values, values, attained, table, populations, steps, True)
    if dependence == "affine":
        lower, attained, settled = _signed_search(reader, law, steps, table.deviation)
        upper = lower if settled else _spread_bound(reader, law, steps, table.deviation, trivial)
        upper = np.maximum(upper, lower)
        return LawStudy(lower, upper, attained, table, populations, steps, settled)
    lower, attained, all_met = _profile_search(reader, law, steps, effort)
    upper = lower if all_met else np.maximum(np.full(reader.num_groups, trivial), lower)
    return LawStudy(lower, upper, attained, table, populations, steps, all_met)


def _signs(width: int) -> tuple[Float[np.ndarray, "E D"], bool]:
    """Sign vectors that can matter, and whether these are all of them.

    Differences of distributions sum to zero, so the two constant vectors are left out.
    """
    if width == 1:
        return np.array([[1.0], [-1.0]]), True
    if width <= _MAX_SIGNED:
        every = np.array(list(itertools.product((1.0, -1.0), repeat=width)))
        return every[1:-1], True
    one = 2 * np.eye(width) - 1
    return np.concatenate([one, -one]), False


class _AffineParts(eqx.Module):
    """P^i = base_i + slope_i . aggregate, and the group's mean law in the same terms."""

    base: Float[Array, "N S A D"]
    slope: Float[Array, "N S A D K"]
    mean_base: Float[Array, "G S A D"]
    mean_slope: Float[Array, "G S A D K"]
    own: Float[Array, "G S A D X"]
    centre: Float[Array, "G X K"]


@eqx.filter_jit
def _affine_parts(reader: Reader, law: Law, step: Array) -> _AffineParts:
    size = reader.contributions.shape[-1]
    base = reader.at(law, jnp.zeros((1, size)), step)
    columns = jax.lax.map(lambda g: reader.at(law, g[None], step) - base, jnp.eye(size))
    slope = jnp.moveaxis(columns, 0, -1)
    count = jax.ops.segment_sum(jnp.ones(reader.groups.shape[0]), reader.groups, reader.num_groups)
    total = jax.ops.segment_sum(reader.contributions, reader.groups, reader.num_groups)
    # What the others of an agent's own group contribute on average; nobody, if it is alone.
    rest = total[reader.groups] - reader.contributions
    rest = rest / jnp.maximum(count - 1, 1)[reader.groups][:, None, None]
    own = jax.ops.segment_sum(
        jnp.einsum("nsadk,nxk->nsadx", slope, rest), reader.groups, reader.num_groups
    )
    return _AffineParts(
        base,
        slope,
        reader.group_mean(base),
        reader.group_mean(slope),
        own / count[:, None, None, None, None],
        total / count[:, None, None],
    )


@eqx.filter_jit
def _best_assignments(
    reader: Reader, parts: _AffineParts, agents: Array, signs: Array
) -> tuple[Array, Array, Array]:
    """Of each agent: the largest e.D, the index (s,a,e) where, and the others' pairs [N]."""
    n = reader.game.num_agents

    def gains(agent: Array, place: tuple[Array, Array, Array]) -> Array:
        """e.d_j(x) of every agent j and pair x, [N,X], at one (s,a,e)."""
        state, action, sign = place
        group = reader.groups[agent]
        slope = jnp.einsum("d,dk->k", sign, parts.slope[agent, state, action])
        mean = jnp.einsum("d,dk->k", sign, parts.mean_slope[group, state, action])
        theirs = jnp.einsum("gxk,k->gx", parts.centre, mean)
        theirs = theirs.at[group].set(sign @ parts.own[group, state, action])
        return jnp.einsum("jxk,k->jx", reader.contributions, slope) - theirs[reader.groups]

    def one(agent: Array) -> tuple[Array, Array, Array]:
        group = reader.groups[agent]
        shape = (reader.game.num_states, reader.game.num_actions, signs.shape[0])
        counted = jnp.arange(n) != agent

        def value(index: Array) -> Array:
            s, a, e = jnp.unravel_index(index, shape)
            start = signs[e] @ (parts.base[agent, s, a] - parts.mean_base[group, s, a])
            best = gains(agent, (s, a, signs[e])).max(1)
            return start + jnp.where(counted, best, 0.0).sum() / (n - 1)

        values = jax.lax.map(value, jnp.arange(shape[0] * shape[1] * shape[2]))
        top = values.argmax()
        s, a, e = jnp.unravel_index(top, shape)
        return values[top], top, gains(agent, (s, a, signs[e])).argmax(1)

    return jax.lax.map(one, agents)


def _signed_search(
    reader: Reader, law: Law, steps: np.ndarray, at_vertices: np.ndarray
) -> tuple[np.ndarray, tuple[Deviation | None, ...], bool]:
    signs, all_signs = _signs(reader.width(law))
    n, num_pairs, size = reader.contributions.shape
    groups = np.asarray(reader.groups)
    affordable = int(_MAX_WORK // (n * num_pairs**2 * size * len(signs) * len(steps)))
    agents = np.arange(n)
    if affordable < n:  # those that deviate most at the vertices
        agents = np.sort(np.argsort(-at_vertices.max((0, 1)), kind="stable")[: max(1, affordable)])
    lower = np.zeros(reader.num_groups)
    attained: list[Deviation | None] = [None] * reader.num_groups
    for step in steps:
        parts = _affine_parts(reader, law, jnp.asarray(step, jnp.int32))
        best = _best_assignments(reader, parts, jnp.asarray(agents), jnp.asarray(signs))
        values, places, pairs = (np.asarray(x) for x in best)
        for g in range(reader.num_groups):
            members = np.flatnonzero(groups[agents] == g)
            if not len(members):
                continue
            k = members[int(values[members].argmax())]
            if values[k] > lower[g] or attained[g] is None:
                lower[g] = max(float(values[k]), 0.0)
                pair = int(places[k]) // len(signs)
                attained[g] = _assigned(reader, lower[g], agents[k], pair, step, pairs[k])
    return lower, tuple(attained), all_signs and affordable >= n


def _assigned(reader, value, agent, pair, step, pairs) -> Deviation:
    game = reader.game
    others = np.delete(pairs, agent)
    counts = np.bincount(others, minlength=reader.num_pairs)
    mu = (counts / len(others)).reshape(game.num_states, game.num_actions)
    state, action = divmod(int(pair), game.num_actions)
    return Deviation(float(value), int(agent), state, action, int(step), mu, others)


def _spread_bound(
    reader: Reader, law: Law, steps: np.ndarray, at_vertices: np.ndarray, trivial: float
) -> Float[np.ndarray, " G"]:
    """|D| <= deviation at mean contributions (convex in mu) + slope times their spread."""
    if reader.num_groups > 1:
        return np.full(reader.num_groups, trivial)
    spread = jnp.abs(reader.contributions[None] - reader.contributions.mean(0)).max(2)[0]  # [N,K]
    n = reader.game.num_agents
    # c_i-bar leaves agent i out: its distance from the mean of all is at most 2 max|c| / (N-1).
    shift = jnp.abs(reader.of_others - reader.contributions.mean(0)).max((0, 1))
    apart = spread.sum(0) / (n - 1) + shift
    bound = 0.0
    for k, step in enumerate(steps):
        parts = _affine_parts(reader, law, jnp.asarray(step, jnp.int32))
        between = jnp.einsum("nsadk,k->nsa", jnp.abs(parts.slope), apart).max((1, 2))
        bound = max(bound, float((at_vertices[k].max(0) + np.asarray(between)).max()))
    return np.array([min(bound, trivial)])


def _profile_search(
    reader: Reader, law: Law, steps: np.ndarray, effort: SearchEffort
) -> tuple[np.ndarray, tuple[Deviation | None, ...], bool]:
    """Try joint pairs of all agents: every one if there are few, else random and sorted ones."""
    if reader.num_groups > 1:
        return np.zeros(reader.num_groups), (None,) * reader.num_groups, False
    n, num_pairs = reader.game.num_agents, reader.num_pairs
    all_of_them = float(num_pairs) ** n <= _MAX_PROFILES
    if all_of_them:
        profiles = np.array(list(itertools.product(range(num_pairs), repeat=n)))
    else:
        profiles = _draw_profiles(np.asarray(reader.contributions), effort)
    best: Deviation | None = None
    for step in steps:
        largest = _profile_deviations(
            reader, law, jnp.asarray(profiles), jnp.asarray(step, jnp.int32)
        )
        values, places = (np.asarray(x) for x in largest)
        row, agent = np.unravel_index(int(values.argmax()), values.shape)
        if best is None or values[row, agent] > best.value:
            pair, pairs = int(places[row, agent]), profiles[row]
            best = _assigned(reader, values[row, agent], agent, pair, step, pairs)
    assert best is not None
    return np.array([best.value]), (best,), all_of_them


def _draw_profiles(contributions: np.ndarray, effort: SearchEffort) -> Int[np.ndarray, "V N"]:
    """Random numbers in each pair, dealt to agents at random or in order of contribution."""
    rng = np.random.default_rng(effort.seed)
    n, num_pairs, size = contributions.shape
    vertices = np.eye(num_pairs)
    drawn = search_populations(num_pairs, n, effort.num_populations, effort.seed, vertices)
    counts = np.rint(drawn * n).astype(int)
    profiles = np.empty((len(counts), n), int)
    for row, count in enumerate(counts):
        score = rng.normal(size=n)
        if row % 2:
            score = np.abs(contributions[:, rng.integers(num_pairs)]) @ rng.uniform(size=size)
        order = rng.permutation(num_pairs)
        profiles[row, np.argsort(-score)] = np.repeat(order, count[order])
    return profiles


@eqx.filter_jit
def _profile_deviations(
    reader: Reader, law: Law, profiles: Array, step: Array
) -> tuple[Array, Array]:
    """Of every profile and agent: the largest deviation over its own pair, and that pair."""
    n, num_pairs = reader.game.num_agents, reader.num_pairs

    def one(pairs: Array) -> tuple[Array, Array]:
        own = reader.contributions[jnp.arange(n), pairs]
        values = reader.at(law, (own.sum(0) - own) / (n - 1), step)
        counts = jnp.bincount(pairs, length=num_pairs)
        without = jnp.maximum(counts - jnp.eye(num_pairs), 0.0) / (n - 1)
        means = jax.lax.map(
            lambda mu: reader.group_mean(reader.at_population(law, mu, step))[0], without
        )
        # The others' distribution depends on an agent only through its own pair.
        apart = jnp.abs(values - means[pairs]).sum(-1).reshape(n, -1)
        return apart.max(1), apart.argmax(1)

    return jax.lax.map(one, profiles)
