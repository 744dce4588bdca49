"""All agents' laws at populations, in float64: what `symmetry` works on.

At the population mu (a distribution over the X = S*A pairs, pair s*A + a) agent i meets the
aggregate sum_x mu(x) c_i(x), where c_i(x) is the mean contribution of the others if all of them
are in pair x. If contributions do not differ between agents, that is the aggregate of every joint
action of the others whose empirical distribution is mu. If they do, it is the mean over all
assignments of mu to the others (Def. 3), which is exact for laws affine in the aggregate.

Axes: N agents, T steps, V populations, X pairs, K components of the aggregate, G groups;
D = S for transitions, D = 1 for rewards.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from crowdnash.games.base import GameError, PopulationGame, is_distribution
from crowdnash.games.checks import named
from crowdnash.games.declarations import reads_step
from crowdnash.games.double_precision import as_double
from crowdnash.games.vectorised import (
    Law,
    contribution_table,
    laws_of_agents,
    rewards,
    transitions,
)

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

    `contributions` [N,X,K] are the agents' own ([1,X,K] if all agents' are the same), and
    `of_others` [N,X,K] or [1,X,K] the means over the other agents.
    """

    game: PopulationGame
    groups: Int[Array, " N"]
    first: Int[Array, " G"]
    contributions: Float[Array, "n X K"]
    of_others: Float[Array, "n X K"]
    num_groups: int = eqx.field(static=True)

    @property
    def num_pairs(self) -> int:
        """X = S * A."""
        return self.game.num_states * self.game.num_actions

    @property
    def same_contributions(self) -> bool:
        """Whether all agents contribute alike, so that laws see sigma(rho^-i) only."""
        return self.contributions.shape[0] == 1

    def dependence(self, law: Law) -> str:
        """What the game declares of the law: "free", "affine" or "nonlinear"."""
        return getattr(self.game, f"{law}_in_aggregate")

    def width(self, law: Law) -> int:
        """D, the number of numbers in one value of the law."""
        return self.game.num_states if law == "transition" else 1

    def steps(self, law: Law) -> Int[np.ndarray, " T"]:
        """All steps, or step 0 alone if the law does not read the step."""
        return np.arange(self.game.horizon if reads_step(self.game, law) else 1)

    def at(self, law: Law, aggregates: Array, step: Array) -> Float[Array, "N S A D"]:
        """Every agent's law at the aggregates it meets, [N,K] or [1,K]."""
        game = self.game
        return _vectors(law, laws_of_agents(game, law, game.agents, self._each(aggregates), step))

    def at_population(self, law: Law, mu: Float[Array, " X"], step: Array) -> Array:
        """Every agent's law at the population mu, [N,S,A,D]."""
        return self.at(law, jnp.einsum("x,nxk->nk", mu, self.of_others), step)

    def at_pair(self, law: Law, pair: Array, mu: Array, step: Array) -> Float[Array, "N D"]:
        """Every agent's law in one pair at the population mu."""
        game = self.game
        aggregates = self._each(jnp.einsum("x,nxk->nk", mu, self.of_others)).T[:, None]
        function = transitions if law == "transition" else rewards
        state, action = (
            jnp.full((1, game.num_agents), k) for k in jnp.divmod(pair, game.num_actions)
        )
        values = function(game, game.agents, state, action, aggregates, step)[..., 0, :]
        return _vectors(law, jnp.moveaxis(values, -1, 0))

    def _each(self, aggregates: Array) -> Array:
        return jnp.broadcast_to(aggregates, (self.game.num_agents, aggregates.shape[-1]))

    def group_mean(self, values: Float[Array, "N ..."]) -> Float[Array, "G ..."]:
        """Mean over each group; exactly the common value where a group's agents agree."""
        reference = values[self.first]
        excess = values - reference[self.groups]
        sums = jax.ops.segment_sum(excess, self.groups, self.num_groups)
        sizes = jax.ops.segment_sum(jnp.ones_like(self.groups), self.groups, self.num_groups)
        return reference + sums / sizes.reshape(-1, *(1,) * (values.ndim - 1))


def _vectors(law: Law, values: Array) -> Array:
    """Values of a law with the axis D, which rewards lack."""
    return (values if law == "transition" else values[..., None]).astype(jnp.float64)


def open_reader(game: PopulationGame, groups: Int[np.ndarray, " N"]) -> Reader:
    """Read the game's contributions; call it, and use the result, under `jax.enable_x64`."""
    double = as_double(game)
    own = _contribution_table(double)
    if not bool(jnp.isfinite(own).all()):
        raise GameError(f"{named(game)}: contribution must be finite")
    if bool((own == own[:1]).all()):
        own = own[:1]
        of_others = own
    else:
        of_others = (own.sum(0) - own) / (game.num_agents - 1)
    first = np.unique(groups, return_index=True)[1]
    index = jnp.asarray(groups, jnp.int32)
    return Reader(double, index, jnp.asarray(first), own, of_others, int(groups.max()) + 1)


def tabulate_law(
    reader: Reader,
    law: Law,
    populations: Float[np.ndarray, "V X"],
    steps: Int[np.ndarray, " T"],
    mixed: Float[np.ndarray, "X K"] | None = None,
) -> LawTable:
    """The law at every population and step; `mixed` replaces the others' contributions.

    Raises:
        GameError: A reward is not finite or a transition is not a distribution (with `mixed`,
            which nobody need ever meet: is not finite); names agent and step.
    """
    game = reader.game
    if mixed is not None:
        same = jnp.broadcast_to(jnp.asarray(mixed), reader.of_others.shape)  # compiles nothing
        reader = eqx.tree_at(lambda r: r.of_others, reader, same)
    size = game.num_agents * reader.num_pairs * reader.width(law)
    distributions = law == "transition" and mixed is None
    table = _tabulate(
        reader,
        law,
        jnp.asarray(populations),
        jnp.asarray(steps, jnp.int32),
        _projection_weights(reader, law),
        max(1, _NUMBERS_AT_ONCE // size),
        distributions,
    )
    mean, deviation, pair, low, high, projection, right = jax.device_get(table)
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
    values = jax.lax.map(one, (t, v), batch_size=min(at_once, count[0] * count[1]))
    return tuple(x.reshape(*count, *x.shape[1:]) for x in values)


class Slopes(NamedTuple):
    """Partial derivatives in mu(x) of the mean law, and of random combinations of all laws."""

    mean: Float[np.ndarray, "T Z G S A D X"]
    projection: Float[np.ndarray, "T Z S A R X"]


def tabulate_slopes(
    reader: Reader, law: Law, points: Float[np.ndarray, "Z X"], steps: Int[np.ndarray, " T"]
) -> Slopes:
    """Slopes of a law at some populations, for laws that are not affine."""
    weights = _projection_weights(reader, law)
    slopes = _slopes(reader, law, jnp.asarray(points), jnp.asarray(steps, jnp.int32), weights)
    return Slopes(*(np.asarray(x) for x in slopes))


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
    values = jax.lax.map(one, (t, z))
    mean, projection = (x.reshape(*count, *x.shape[1:]) for x in values)
    return mean, projection


def _projection_weights(reader: Reader, law: Law) -> Array:
    shape = (reader.game.num_agents, reader.width(law), NUM_PROJECTIONS)
    return jnp.asarray(np.random.default_rng(0).normal(size=shape))


@eqx.filter_jit
def _contribution_table(game: PopulationGame) -> Float[Array, "N X K"]:
    return contribution_table(game, game.agents).astype(jnp.float64)
