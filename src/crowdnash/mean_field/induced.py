"""The induced mean-field game of a `PopulationGame`, in closed form (Defs. 3 and 6).

Where agents meet only through an aggregate, symmetrization needs no permutations: a law that is
affine in the aggregate sees, averaged over which of the others hold which pairs, the mean of
their contributions, and a law of agents that all contribute alike sees the aggregate itself. The
formula read at any mu is then the extension off the grid (spec of Def. 6, special case). For
agents who contribute differently (weights) *and* laws that bend, the law at the mean aggregate
stands in for the mean of the law.

With groups, symmetrization is within each group, and the induced game has one population for
each: an agent of group g meets sum_k meeting[g,k] mu_k, meeting[g,k] = (N_k - 1[k=g]) / (N-1).
For one group that is mu itself.

Axes: N agents, G groups, H steps, S states, A actions, X = S*A pairs, K aggregate components.
"""

import math
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from crowdnash.games.base import InAggregate, PopulationGame, TabularGame
from crowdnash.games.declarations import check_declarations, reads, reads_step
from crowdnash.games.grouping import Groups, assign_groups
from crowdnash.games.legal import legal_of_groups
from crowdnash.games.vectorised import Law, contribution_table, laws_at_pairs
from crowdnash.mean_field.game import (
    Numbers,
    TwoLawGame,
    checked_distribution,
    in_double,
    is_traced,
)
from crowdnash.mean_field.meeting import OthersOfGroups
from crowdnash.mean_field.tables import AffineLaw, check_vertices

_MAX_TABLE = 2**23
_MAX_AT_ONCE = 2**22
_MAX_COMPARED = 64


class GroupedAgents(eqx.Module):
    """A game's agents by group, with what they contribute.

    Agents of a group that are equal in everything are kept once: n different ones.

    Attributes:
        game: of all N agents.
        agents: the records of the n different ones.
        counts: how many agents each of them stands for.
        groups: their groups.
        sizes: how many agents each group has.
        meeting: whom the groups meet.
        shared: what agents contribute, if they all contribute alike, else None; and then
        totals: are the sums of the contributions over each group.
    """

    game: PopulationGame
    agents: PyTree
    counts: Float[Numbers, " n"]
    groups: Int[Numbers, " n"]
    sizes: Float[Numbers, " G"]
    meeting: OthersOfGroups
    shared: Float[Numbers, "X K"] | None
    totals: Float[Numbers, "G X K"] | None

    def aggregates(self, mu: Float[Array, "G S A"]) -> Float[Array, "n K"]:
        """The aggregate that every agent meets at the populations `mu`, its own share left out."""
        pairs = mu.reshape(mu.shape[0], -1)
        if self.shared is not None:
            aggregates = (self.meeting @ pairs) @ jnp.asarray(self.shared)
            return aggregates[jnp.asarray(self.groups)]
        total = jnp.einsum("gx,gxk->k", pairs, jnp.asarray(self.totals))
        table = contribution_table(self.game, self.agents).astype(float)
        own = jnp.einsum("nx,nxk->nk", pairs[jnp.asarray(self.groups)], table)
        return (total - own) / (self.game.num_agents - 1)

    def mean_law(
        self, law: Law, aggregates: Float[Array, "n K"], step: Any, dtype: Any
    ) -> Float[Array, "G S A ..."]:
        """The mean over each group's agents of a law, at all pairs (s,a)."""
        game, groups = self.game, jnp.asarray(self.groups)

        def mean(values: Array) -> Array:  # [S,1,N] or [1,N] -> [G,S] or [G]
            each = jnp.moveaxis(values[..., 0, :], -1, 0).astype(dtype)
            if self.sizes.shape[0] == len(each):  # one a group: nothing to average
                return jnp.zeros_like(each).at[groups].set(each)
            column = (-1, *(1,) * (each.ndim - 1))
            each = each * jnp.asarray(self.counts, dtype).reshape(column)
            sizes = jnp.asarray(self.sizes, dtype).reshape(column)
            if self.sizes.shape[0] == 1:
                return each.sum(0)[None] / sizes
            return jax.ops.segment_sum(each, groups, self.sizes.shape[0]) / sizes

        # Memory must not grow with N times the number of pairs.
        at_once = max(1, _MAX_AT_ONCE // (self.counts.shape[0] * game.num_states))
        lanes, step = aggregates.T[:, None], jnp.asarray(step, jnp.int32)
        values = laws_at_pairs(game, law, self.agents, lanes, step, summary=mean, at_once=at_once)
        values = jnp.moveaxis(values, 0, 1)
        return values.reshape(len(values), game.num_states, game.num_actions, *values.shape[2:])


class AveragedLaw(eqx.Module):
    """A law of the induced game, averaged over the agents anew at every call."""

    agents: GroupedAgents
    law: Law = eqx.field(static=True)

    def at(self, mu: Float[Array, "G S A"], step: Any) -> Array:
        """The law's values [G,S,A,...] at the populations `mu` and step h."""
        return self.agents.mean_law(self.law, self.agents.aggregates(mu), step, mu.dtype)


class InducedMeanFieldGame(TwoLawGame):
    """What `induced_game` returns: Def. 6's P and R, each tables or an average over agents."""

    transition_law: AffineLaw | AveragedLaw
    reward_law: AffineLaw | AveragedLaw
    initial_distribution: Float[Numbers, "*G S"]
    shares: Float[Numbers, " G"]
    legal: Bool[Numbers, "G H S A"] | None
    horizon: int = eqx.field(static=True)
    num_states: int = eqx.field(static=True)
    num_actions: int = eqx.field(static=True)

    @property
    def laws_are_cheap(self) -> bool:
        """See `MeanFieldGame.laws_are_cheap`."""
        return isinstance(self.transition_law, AffineLaw) and isinstance(self.reward_law, AffineLaw)

    @property
    def legal_actions(self) -> Bool[Numbers, "G H S A"] | None:
        """See `MeanFieldGame.legal_actions`."""
        return self.legal


def induced_game(game: TabularGame, groups: Groups | None = None) -> InducedMeanFieldGame:
    """The mean-field game that an N-player game induces (Def. 6), one population a group.

        P(s,a,mu) = (1/N) sum_i P^i(s, a, aggregate of the others at mu),   R likewise

    Laws that the game declares "free" of the aggregate or "affine" in it become tables (values at
    the vertices of the simplex); others are averaged over the N agents at every call. Games read
    here keep float32 parameters; all arithmetic on them is float64 (unless traced).

    Agents of a group that start from different distributions start, on average, from their mean;
    their legal actions must be the same.

    Args:
        game: An N-player game.
        groups: As for `PolicyMirrorDescent`; None is one group.

    Raises:
        ValueError: The game is not a `PopulationGame`, or `groups` is wrong, or puts agents
            together whose legal actions differ.
        GameError: The mean transition is not a distribution, or what the game declares of its laws
            is not true.
    """
    if not isinstance(game, PopulationGame):
        raise ValueError(
            "game must be a PopulationGame, whose agents meet only through an aggregate; "
            f"{type(game).__name__} is not: use induced_game_from_queries"
        )
    if not is_traced(game):
        check_declarations(game)
    index = assign_groups(game, "symmetric" if groups is None else groups)
    legal, initial = legal_of_groups(game, index), mean_initial(game, index)
    sizes = np.bincount(index).astype(np.float64)
    records, counts, index = _different_agents(game, index)
    shared, totals = in_double(_contribution_tables, game, records, counts, index, len(sizes))
    meeting = OthersOfGroups(sizes)
    agents = GroupedAgents(game, records, counts, index, sizes, meeting, shared, totals)
    transition = _law(agents, "transition", game.transition_in_aggregate)
    if isinstance(transition, AffineLaw):
        check_vertices(transition.vertices, game.num_actions, type(game).__name__)
    return InducedMeanFieldGame(
        transition_law=transition,
        reward_law=_law(agents, "reward", game.reward_in_aggregate),
        initial_distribution=initial,
        legal=None if legal is None else np.asarray(legal),
        shares=sizes / game.num_agents,
        horizon=game.horizon,
        num_states=game.num_states,
        num_actions=game.num_actions,
    )


def mean_initial(
    game: TabularGame, groups: Int[np.ndarray, " N"] | None = None
) -> Float[Numbers, "*G S"]:
    """Where the agents of each group start on average; [S] for one group, or where all are alike.

    Args:
        game: an N-player game.
        groups: None for one.

    Raises:
        ValueError: the game's agents start from no distributions.
    """
    initial = game.initial_distribution
    own = checked_distribution("initial_distribution", initial, initial.shape, axes=1)
    if own.ndim == 1:
        return own
    if groups is None or not groups.any():
        return own.mean(0)
    return np.stack([own[groups == g].mean(0) for g in range(int(groups.max()) + 1)])


def _law(agents: GroupedAgents, law: Law, declared: InAggregate) -> AffineLaw | AveragedLaw:
    """The law as a table if it is declared affine, agents meet one mean, and the table is small."""
    game, num_groups = agents.game, agents.sizes.shape[0]
    one_mean = agents.shared is not None or num_groups == 1
    if declared == "nonlinear" or (declared == "affine" and not one_mean):
        return AveragedLaw(agents, law)
    num_pairs = game.num_states * game.num_actions
    num_vertices = 1 if declared == "free" else num_pairs
    num_steps = game.horizon if reads_step(game, law) else 1
    cell = num_pairs * (game.num_states if law == "transition" else 1)
    if num_steps * num_vertices * num_groups * cell > _MAX_TABLE:
        return AveragedLaw(agents, law)
    table = in_double(_vertex_table, agents, law, num_vertices, num_steps)
    return AffineLaw.from_vertices(table, agents.meeting)


def _vertex_table(
    agents: GroupedAgents, law: Law, num_vertices: int, num_steps: int
) -> Float[Array, "..."]:
    """The mean law where all hold one pair, for every pair, [steps, vertices, G, S, A, ...]."""
    game, num_groups = agents.game, agents.sizes.shape[0]
    shape = (num_groups, game.num_states, game.num_actions)
    corners = jnp.eye(game.num_states * game.num_actions)
    if num_vertices == 1:  # free of the population: any will do
        corners = corners.mean(0, keepdims=True)

    def at(step: Array) -> Array:
        def corner(pairs: Array) -> Array:
            mu = jnp.broadcast_to(pairs, (num_groups, pairs.shape[0])).reshape(shape)
            return agents.mean_law(law, agents.aggregates(mu), step, mu.dtype)

        return jax.lax.map(corner, corners)

    return jax.lax.map(at, jnp.arange(num_steps, dtype=jnp.int32))


def _different_agents(
    game: PopulationGame, groups: Int[np.ndarray, " N"]
) -> tuple[PyTree, Float[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Records, numbers and groups of agents that differ; all agents if that spares little."""
    everybody = game.agents, np.ones(game.num_agents), groups
    leaves = [np.shape(x) for x in jax.tree_util.tree_leaves(game.agents)]
    if is_traced(game) or sum(math.prod(x[1:]) for x in leaves) > _MAX_COMPARED:
        return everybody
    columns = [np.asarray(x) for x in jax.tree_util.tree_leaves(game.agents)]
    rows = [x.reshape(len(groups), -1).astype(np.float64) for x in (*columns, groups)]
    _, first, counts = np.unique(
        np.concatenate(rows, axis=1), axis=0, return_index=True, return_counts=True
    )
    if 2 * len(first) > len(groups):
        return everybody
    few = jax.tree_util.tree_map(lambda x: x[first], game.agents)
    return few, counts.astype(np.float64), groups[first]


def _contribution_tables(
    game: PopulationGame, agents: PyTree, counts: Any, groups: Any, num_groups: int
) -> tuple[Array | None, Array | None]:
    """(what every agent contributes [X,K], None), or (None, sums over each group [G,X,K])."""
    first = jax.tree_util.tree_map(lambda x: x[:1], game.agents)
    if not reads(partial(contribution_table, game), (first,), 0):
        return contribution_table(game, first)[0].astype(float), None
    each = contribution_table(game, agents).astype(float) * jnp.asarray(counts)[:, None, None]
    return None, jax.ops.segment_sum(each, jnp.asarray(groups), num_groups)
