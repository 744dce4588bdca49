"""All agents' laws at given populations, in float64: what `symmetry` works on.

At the population mu (a distribution over the X = S*A pairs, pair s*A + a) agent i meets the
aggregate sum_x mu(x) c_i(x), where c_i(x) is the mean contribution of the others if all of them
are in pair x. If contributions do not differ between agents, that is the aggregate of every joint
action of the others whose empirical distribution is mu; if they do, it is the mean over all
assignments of mu to the others (Def. 3), for laws that are affine in the aggregate exactly so.

Axes: N agents, T steps, V populations, X pairs, K components of the aggregate, G groups;
D = S for transitions, D = 1 for rewards.
"""

from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from crowdnash.games.base import GameError, PopulationGame, is_distribution
from crowdnash.games.checks import named
from crowdnash.games.double_precision import as_double

Law = Literal["transition", "reward"]

NUM_PROJECTIONS = 3
_NUMBERS_AT_ONCE = 2**22


class LawTable(NamedTuple):
    """What is kept of one law at every step and population.

    `mean` is the law averaged over each group; `deviation` the L1 distance of every agent's law
    from that mean, maximised over its pair (s,a), which is `pair`; `low` and `high` its range;
    `projection` random combinations of all agents' laws, which tell whether *any* law differs.
    """

    mean: Float[np.ndarray, "T V G S A D"]
    deviation: Float[np.ndarray, "T V N"]
    pair: Int[np.ndarray, "T V N"]
    low: float
    high: float
    projection: Float[np.ndarray, "T V S A R"]


class Reader(eqx.Module):
    """A game in float64 with its agents' groups and contributions. Use under `jax.enable_x64`.

    `given` [N,X,K] are the agents' contributions ([1,X,K] if all agents' are the same), `met`
    [N,X,K] or [1,X,K] the mean contributions of the others.
    """

    game: PopulationGame
    groups: Int[Array, " N"]
    first: Int[Array, " G"]
    given: Float[Array, "n X K"]
    met: Float[Array, "m X K"]
    num_groups: int = eqx.field(static=True)

    @property
    def num_pairs(self) -> int:
        """X = S * A."""
        return self.game.num_states * self.game.num_actions

    @property
    def same_contributions(self) -> bool:
        """Whether all agents contribute alike, so that laws see sigma(rho^-i) only."""
        return self.given.shape[0] == 1

    def dependence(self, law: Law) -> str:
        """What the game declares of the law: "free", "affine" or "nonlinear"."""
        return getattr(self.game, f"{law}_in_aggregate")

    def width(self, law: Law) -> int:
        """D, the number of numbers in one value of the law."""
        return self.game.num_states if law == "transition" else 1

    def at(self, law: Law, aggregates: Array, step: Array) -> Float[Array, "N S A D"]:
        """Every agent's law at the aggregates it meets, [N,K] or [1,K]."""
        aggregates = jnp.broadcast_to(aggregates, (self.game.num_agents, aggregates.shape[-1]))
        return _over_pairs(self.game, law, self.game.agents, aggregates, step)

    def at_population(self, law: Law, mu: Float[Array, " X"], step: Array) -> Array:
        """Every agent's law at the population mu, [N,S,A,D]."""
        return self.at(law, jnp.einsum("x,nxk->nk", mu, self.met), step)

    def group_mean(self, values: Float[Array, "N ..."]) -> Float[Array, "G ..."]:
        """Mean over each group; exactly the common value where a group's agents agree."""
        reference = values[self.first]
        excess = values - reference[self.groups]
        sums = jax.ops.segment_sum(excess, self.groups, self.num_groups)
        sizes = jax.ops.segment_sum(jnp.ones_like(self.groups), self.groups, self.num_groups)
        return reference + sums / sizes.reshape(-1, *(1,) * (values.ndim - 1))


def open_reader(game: PopulationGame, groups: Int[np.ndarray, " N"]) -> Reader:
    """Read the game's contributions; call it, and use the result, under `jax.enable_x64`."""
    double = as_double(game)
    given = _contributions(double)
    if not bool(jnp.isfinite(given).all()):
        raise GameError(f"{named(game)}: contribution must be finite")
    n = game.num_agents
    if bool((given == given[:1]).all()):
        given = given[:1]
        met = given
    else:
        met = (given.sum(0) - given) / (n - 1)
    first = np.unique(groups, return_index=True)[1]
    index = jnp.asarray(groups, jnp.int32)
    return Reader(double, index, jnp.asarray(first), given, met, int(groups.max()) + 1)


def steps_that_matter(game: PopulationGame, law: Law) -> Int[np.ndarray, " T"]:
    """All steps, or step 0 alone if the law does not read the step."""
    agent = jax.tree_util.tree_map(lambda x: x[0], game.agents)
    zero = jnp.asarray(0, jnp.int32)
    width = jax.eval_shape(game.contribution, agent, zero, zero).shape[-1]
    traced = jax.make_jaxpr(
        lambda step: getattr(game, law)(agent, zero, zero, jnp.zeros(width, jnp.float32), step)
    )(zero).jaxpr
    step = traced.invars[0]
    used = step in traced.outvars or any(step in e.invars for e in traced.eqns)
    return np.arange(game.horizon if used else 1)


def tabulate_law(
    reader: Reader,
    law: Law,
    populations: Float[np.ndarray, "V X"],
    steps: Int[np.ndarray, " T"],
    mixed: Float[np.ndarray, "X K"] | None = None,
) -> LawTable:
    """The law at every population and step; `mixed` replaces the contributions met.

    **Raises:** `GameError` naming agent and step of a reward that is not finite or a transition
    that is not a distribution (with `mixed`, which nobody need ever meet, that is not finite).
    """
    game = reader.game
    if mixed is not None:
        same = jnp.broadcast_to(jnp.asarray(mixed), reader.met.shape)  # nothing new to compile
        reader = eqx.tree_at(lambda r: r.met, reader, same)
    size = game.num_agents * reader.num_pairs * reader.width(law)
    distributions = law == "transition" and mixed is None
    found = _tabulate(
        reader,
        law,
        jnp.asarray(populations),
        jnp.asarray(steps, jnp.int32),
        _projection_weights(reader, law),
        max(1, _NUMBERS_AT_ONCE // size),
        distributions,
    )
    mean, deviation, pair, low, high, projection, right = jax.device_get(found)
    if not right.all():
        step, _, agent = np.argwhere(~right)[0]
        rule = "be probabilities that sum to 1" if distributions else "be finite"
        raise GameError(
            f"{named(game)}: agent {agent} at step {steps[step]}: "
            f"{law} must {rule} at every population"
        )
    return LawTable(mean, deviation, pair, float(low.min()), float(high.max()), projection)


@eqx.filter_jit
def _tabulate(
    reader: Reader,
    law: Law,
    populations: Array,
    steps: Array,
    weights: Array,
    at_once: int,
    distributions: bool,
) -> tuple[Array, ...]:
    count = (steps.shape[0], populations.shape[0])

    def one(place: tuple[Array, Array]) -> tuple[Array, ...]:
        values = reader.at_population(law, populations[place[1]], steps[place[0]])
        mean = reader.group_mean(values)
        apart = jnp.abs(values - mean[reader.groups]).sum(-1)
        apart = apart.reshape(apart.shape[0], -1)
        projection = jnp.einsum("nsad,ndr->sar", values, weights)
        pair = apart.argmax(1).astype(jnp.int32)
        right = is_distribution(values) if distributions else jnp.isfinite(values)
        right = right.reshape(values.shape[0], -1).all(1)
        return mean, apart.max(1), pair, values.min(), values.max(), projection, right

    t, v = jnp.divmod(jnp.arange(count[0] * count[1], dtype=jnp.int32), count[1])
    found = jax.lax.map(one, (t, v), batch_size=min(at_once, count[0] * count[1]))
    return tuple(x.reshape(*count, *x.shape[1:]) for x in found)


def one_law(
    game: PopulationGame, law: Law, agent: Any, pair: Array, aggregate: Array, step: Array
) -> Float[Array, " D"]:
    """One agent's law at its pair s*A + a, as a vector."""
    state, action = jnp.divmod(pair, game.num_actions)
    function = game.transition if law == "transition" else game.reward
    return jnp.atleast_1d(function(agent, state, action, aggregate, step)).astype(jnp.float64)


def _over_pairs(
    game: PopulationGame, law: Law, agents: Any, aggregates: Array, step: Array
) -> Float[Array, "N S A D"]:
    pairs = jnp.arange(game.num_states * game.num_actions, dtype=jnp.int32)

    def one(agent: Any, aggregate: Array) -> Array:
        return jax.vmap(lambda pair: one_law(game, law, agent, pair, aggregate, step))(pairs)

    values = jax.vmap(one)(agents, aggregates)
    return values.reshape(-1, game.num_states, game.num_actions, values.shape[-1])


class Slopes(NamedTuple):
    """Partial derivatives in mu(x) of the mean law, and of random combinations of all laws."""

    mean: Float[np.ndarray, "T Z G S A D X"]
    projection: Float[np.ndarray, "T Z S A R X"]


def tabulate_slopes(
    reader: Reader, law: Law, points: Float[np.ndarray, "Z X"], steps: Int[np.ndarray, " T"]
) -> Slopes:
    """Slopes of a law at some populations, for laws that are not affine."""
    weights = _projection_weights(reader, law)
    found = _slopes(reader, law, jnp.asarray(points), jnp.asarray(steps, jnp.int32), weights)
    return Slopes(*(np.asarray(x) for x in found))


@eqx.filter_jit
def _slopes(
    reader: Reader, law: Law, points: Array, steps: Array, weights: Array
) -> tuple[Array, Array]:
    def summary(mu: Array, step: Array) -> tuple[Array, Array]:
        values = reader.at_population(law, mu, step)
        return reader.group_mean(values), jnp.einsum("nsad,ndr->sar", values, weights)

    def one(place: tuple[Array, Array]) -> tuple[Array, Array]:
        step, mu = steps[place[0]], points[place[1]]

        def along(entry: Array) -> tuple[Array, Array]:
            return jax.jvp(lambda m: summary(m, step), (mu,), (entry,))[1]

        columns = jax.lax.map(along, jnp.eye(mu.shape[0]))
        return jnp.moveaxis(columns[0], 0, -1), jnp.moveaxis(columns[1], 0, -1)

    count = (steps.shape[0], points.shape[0])
    t, z = jnp.divmod(jnp.arange(count[0] * count[1], dtype=jnp.int32), count[1])
    found = jax.lax.map(one, (t, z))
    mean, projection = (x.reshape(*count, *x.shape[1:]) for x in found)
    return mean, projection


def _projection_weights(reader: Reader, law: Law) -> Array:
    shape = (reader.game.num_agents, reader.width(law), NUM_PROJECTIONS)
    return jnp.asarray(np.random.default_rng(0).normal(size=shape))


@eqx.filter_jit
def _contributions(game: PopulationGame) -> Float[Array, "N X K"]:
    pairs = jnp.arange(game.num_states * game.num_actions, dtype=jnp.int32)
    state, action = jnp.divmod(pairs, game.num_actions)
    over_pairs = jax.vmap(game.contribution, in_axes=(None, 0, 0))
    given = jax.vmap(over_pairs, in_axes=(0, None, None))(game.agents, state, action)
    return given.astype(jnp.float64)
