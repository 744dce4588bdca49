"""Which actions the agents of a game have (`TabularGame.legal`).

A game without `legal` lets everybody do everything: then all of this is None, and costs nothing.

Axes: N agents, n agents asked, U different kinds of agents, G groups, H steps, S states, A actions.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, PyTree

from crowdnash.games.base import DynamicGame, GameError, PopulationGame, TabularGame
from crowdnash.games.checks import check_shape, named
from crowdnash.games.grouping import first_unlike

ILLEGAL_REWARD = -1e9
"""What an illegal action pays where best responses are sought, so that none takes it."""

_ILLEGAL_LOGIT = -1e9
"""Not -inf: a loss multiplies logits by probabilities of 0."""

_AT_ONCE = 2**24


class LegalActions(eqx.Module):
    """The actions of all agents, one table for all those that have the same.

    Attributes:
        tables: which actions there are, for each kind of agent.
        kinds: which kind an agent is.
    """

    tables: Bool[Array, "U H S A"]
    kinds: Int[Array, " N"]

    @classmethod
    def of(cls, game: DynamicGame) -> "LegalActions | None":
        """Of a game's agents; None if the game limits nobody.

        Raises:
            GameError: `legal` does not return [A] bools, or leaves an agent without an action.
        """
        if not limits_actions(game):
            return None
        assert isinstance(game, TabularGame)
        each = game.horizon * game.num_states * game.num_actions
        size = min(game.num_agents, max(1, _AT_ONCE // each))
        blocks = []
        for start in range(0, game.num_agents, size):
            # The last block starts earlier than it need: one program serves all.
            first = max(0, min(start, game.num_agents - size))
            agents = jnp.arange(first, first + size, dtype=jnp.int32)
            blocks.append(legal_table(game, agents)[start - first :])
        if isinstance(blocks[0], Tracer):
            tables = jnp.concatenate(blocks)
            return cls(tables, jnp.arange(game.num_agents, dtype=jnp.int32))
        tables = np.concatenate([np.asarray(block) for block in blocks])
        _check_someone_may(game, tables)
        packed = np.packbits(tables.reshape(len(tables), -1), axis=1)
        _, first, kinds = np.unique(packed, axis=0, return_index=True, return_inverse=True)
        return cls(jnp.asarray(tables[first]), jnp.asarray(kinds.reshape(-1), jnp.int32))

    def __call__(self, agent: Any, state: Any, step: Any) -> Bool[Array, " A"]:
        """The actions of one agent in one state at one step, integers all."""
        return self.tables[self.kinds[agent], step, state]

    def of_groups(self, groups: Any) -> Bool[Array, "G H S A"]:
        """What all members of a group have, for groups that share a table.

        Args:
            groups: [N], 0..G-1.

        Raises:
            ValueError: two agents of a group have different actions; the message names them.
        """
        if (unlike := first_unlike(groups, self.kinds)) is not None:
            one, other, group = unlike
            raise ValueError(
                "groups must put agents together that have the same legal actions: agents "
                f"{one} and {other} of group {group} have not"
            )
        _, first = np.unique(groups, return_index=True)
        return self.tables[self.kinds[first]]

    def allows_no_more_than(self, other: "LegalActions") -> bool:
        """Whether every action that these agents have is also one of `other`'s."""
        pairs = np.unique(np.stack([np.asarray(self.kinds), np.asarray(other.kinds)]), axis=1)
        mine, theirs = np.asarray(self.tables)[pairs[0]], np.asarray(other.tables)[pairs[1]]
        return not (mine & ~theirs).any()


def uniform_over(legal: Any, dtype: Any = np.float32) -> Any:
    """Every legal action [...,A] equally likely."""
    return legal.astype(dtype) / legal.sum(-1, keepdims=True).astype(dtype)


def legal_logits(
    logits: Float[Array, "*lead A"], legal: Bool[Array, "#*lead A"] | None
) -> Float[Array, "*lead A"]:
    """Logits of a policy that plays no illegal action; None: all are legal."""
    return logits if legal is None else jnp.where(legal, logits, _ILLEGAL_LOGIT)


def legal_of_groups(game: DynamicGame, groups: Any) -> Bool[Array, "G H S A"] | None:
    """`LegalActions.of_groups`, None where the game limits nobody.

    Raises:
        ValueError: two agents of a group have different actions.
        GameError: `legal` is not what it must be.
    """
    legal = LegalActions.of(game)
    return None if legal is None else legal.of_groups(groups)


def limits_actions(game: DynamicGame) -> bool:
    """Whether the game says which actions its agents have."""
    return isinstance(game, TabularGame) and game.legal is not None


def _check_someone_may(game: TabularGame, tables: np.ndarray) -> None:
    wrong = ~tables.any(-1)
    if wrong.any():
        agent, step, state = (int(k) for k in np.argwhere(wrong)[0])
        raise GameError(
            f"{named(game)}: agent {agent} at step {step} in state {state}: "
            "legal must leave at least one action"
        )


@eqx.filter_jit
def legal_table(game: TabularGame, agents: Int[Array, " n"]) -> Bool[Array, "n H S A"]:
    """The legal actions of some agents, in every state at every step."""
    states, steps = (jnp.arange(k, dtype=jnp.int32) for k in (game.num_states, game.horizon))
    over_states = jax.vmap(_one(game), in_axes=(None, 0, None))
    over_steps = jax.vmap(over_states, in_axes=(None, None, 0))
    return jax.vmap(over_steps, in_axes=(0, None, None))(_asked(game, agents), states, steps)


def legal_now(
    game: DynamicGame, agents: Int[Array, " n"], states: PyTree, step: Int[Array, ""]
) -> Bool[Array, "*B n A"] | None:
    """The legal actions of agents in their states [*B,n] at step h; inside `jit`.

    None where the game limits none.
    """
    if not limits_actions(game):
        return None
    assert isinstance(game, TabularGame)
    over_agents = jax.vmap(_one(game), in_axes=(0, 0, None))
    for _ in range(states.ndim - 1):
        over_agents = jax.vmap(over_agents, in_axes=(None, 0, None))
    return over_agents(_asked(game, agents), states, step)


def legal_pairs(
    game: PopulationGame, records: PyTree, step: Int[Array, ""]
) -> Bool[Array, "X n"] | None:
    """The same for agents' records, at all pairs s*A + a; inside `jit`."""
    if game.legal is None:
        return None
    states = jnp.arange(game.num_states, dtype=jnp.int32)
    over_states = jax.vmap(_one(game), in_axes=(None, 0, None))
    table = jax.vmap(over_states, in_axes=(0, None, None))(records, states, step)
    return table.reshape(table.shape[0], -1).T


def _one(game: TabularGame) -> Any:
    """`legal`, its result's shape and type checked."""

    def legal(agent: Any, state: Array, step: Array) -> Array:
        row = jnp.asarray(game.legal(agent, state, step))
        check_shape(game, "legal", row.shape, (game.num_actions,))
        if row.dtype != bool:
            raise GameError(f"{named(game)}: legal must be bool, not {row.dtype}")
        return row

    return legal


def _asked(game: TabularGame, agents: Int[Array, " n"]) -> PyTree:
    """Agents as `legal` takes them: records, or indices."""
    if isinstance(game, PopulationGame):
        return jax.tree_util.tree_map(lambda x: x[agents], game.agents)
    return agents


def legal_arrays(legal: LegalActions | None) -> dict[str, np.ndarray]:
    """What a policy's file keeps of them, nothing for None; read by `legal_from`."""
    if legal is None:
        return {}
    return {"legal": np.asarray(legal.tables), "legal_kinds": np.asarray(legal.kinds)}


def legal_from(arrays: dict[str, Any]) -> LegalActions | None:
    """The legal actions in a policy's file, None if it has none.

    Raises:
        ValueError: they are no such tables.
    """
    if "legal" not in arrays:
        return None
    tables, kinds = np.asarray(arrays["legal"]), np.asarray(arrays["legal_kinds"])
    right = tables.dtype == bool and tables.ndim == 4 and kinds.ndim == 1
    if not right or not ((kinds >= 0) & (kinds < len(tables))).all() or not tables.any(-1).all():
        raise ValueError("its legal actions are no tables [U,H,S,A] with their kinds [N]")
    return LegalActions(jnp.asarray(tables), jnp.asarray(kinds, jnp.int32))
