"""Policies: what an agent does, given what it sees, who it is, and the step.

Axes: N agents, n agents asked, H steps, S states, A actions.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from crowdnash.checks import (
    as_array,
    check_below,
    check_count,
    check_instance,
    check_key,
    shown,
)
from crowdnash.games.base import PROBABILITY_TOLERANCE, DynamicGame, is_distribution
from crowdnash.games.checks import observes_integers
from crowdnash.games.legal import LegalActions
from crowdnash.policies.drawing import draw_actions
from crowdnash.policies.plain import TABLES, Arrays, NumpyPolicy, numpy_policy

_AT_ONCE = 2**22
_MOST_ASKED = 2**28


class Policy(eqx.Module):
    """Time-dependent memoryless policy of N agents (Def. 1); all agents' policies at once."""

    @abc.abstractmethod
    def probabilities(
        self, observation: Any, agent_index: Int[Array, ""], step: Int[Array, ""]
    ) -> Float[Array, " A"]:
        """Action probabilities [A] of one agent for what it observes at step h."""

    def check_fits(self, game: DynamicGame) -> None:
        """Raise `ValueError` if this policy was made for another game; by default it suits any."""

    def check_probabilities(self, game: DynamicGame) -> None:
        """Raise `ValueError` unless agents of `game` play distributions; see `check_policy`."""
        _check_shape(game, self)
        if observes_integers(game) and game.num_states is not None:
            _check_tables(game, self, game.num_states)
        elif game._in_jax:  # a simulator outside JAX has the rows checked that it asks for
            _check_one_play(game, self)

    def act(
        self,
        observations: PyTree,
        step: int | Int[Array, ""],
        key: PRNGKeyArray | np.random.Generator,
        agents: Any = None,
    ) -> Int[Array, " n"] | Int[np.ndarray, " n"]:
        """Draw the actions of some agents at one step of a plain Python loop.

        Args:
            observations: what they see, as `game.observe(state)`: arrays with leading axis n.
            step: h in 0..H-1.
            key: a random key of JAX, or a generator of NumPy, which is advanced.
            agents: the indices [n] of those who act, default 0..n-1.

        Returns:
            Their actions [n], of the kind of `key`: JAX's or NumPy's.

        Raises:
            ValueError: an argument breaks its rule, or the policy gives no distribution; the
                message names agent, step and row.
        """
        observations, agents, step = check_asked(observations, step, agents)
        seen = jax.tree_util.tree_map(jnp.asarray, observations)
        index, number = jnp.asarray(agents, jnp.int32), jnp.asarray(step, jnp.int32)
        if isinstance(key, np.random.Generator):
            probs = rows_of(self, seen, index, number)
            actions = draw_actions(np.asarray(probs), key)
        else:
            check_key("key", key)
            probs, actions = _draw(self, seen, index, number, key)
        if not isinstance(probs, Tracer):
            right = is_distribution(np.asarray(probs))
            if not right.all():
                k = int(np.argmin(right))
                raise row_error(probs[k], int(agents[k]), int(step))
        return actions

    def numpy(self, game: DynamicGame | None = None) -> NumpyPolicy:
        """The same policy in plain NumPy, for a loop that has no JAX.

        Args:
            game: the game that it is for, needed only for a policy of one's own over integer
                states, which becomes a table for each agent.

        Raises:
            ValueError: it is a policy of one's own, and there is no game whose states it could be
                asked for; or it gives no distributions there.
        """
        arrays = self._file_arrays()
        if arrays is None:
            arrays = _as_file_of_tables(self, game)
        return numpy_policy(arrays)

    def _file_arrays(self) -> Arrays | None:
        """What `save` writes; None for a policy that has no file."""
        return None


def _as_file_of_tables(policy: Policy, game: Any) -> Arrays:
    """Tables of all agents, of a policy over integer states."""
    if game is None or not observes_integers(game) or game.num_states is None:
        raise ValueError(
            f"game must be one whose agents observe integers below its num_states: a "
            f"{type(policy).__name__} has to be asked for what it does there"
        )
    check_policy(game, policy)
    states, steps, agents = (
        jnp.arange(size, dtype=jnp.int32)
        for size in (game.num_states, game.horizon, game.num_agents)
    )
    probs = np.asarray(_tables_of(policy, agents, states, steps))
    return {"format": np.asarray(TABLES), "probs": probs, "groups": np.asarray(agents)}


@eqx.filter_jit
def _tables_of(policy: Policy, agents: Array, states: Array, steps: Array) -> Array:
    """All rows, [n,H,S,A]."""
    over_states = jax.vmap(policy.probabilities, in_axes=(0, None, None))
    over_steps = jax.vmap(over_states, in_axes=(None, None, 0))
    return jax.vmap(over_steps, in_axes=(None, 0, None))(states, agents, steps)


def check_sizes(
    game: DynamicGame, num_agents: int, horizon: int, num_states: int, num_actions: int
) -> None:
    """Raise `ValueError` unless a policy of this N, H, S and A fits `game`.

    A simulator need not tell its `num_states`; then S is not compared.
    """
    sizes = {
        "N": (game.num_agents, num_agents),
        "H": (game.horizon, horizon),
        "S": (game.num_states or num_states, num_states),
        "A": (game.num_actions, num_actions),
    }
    for axis, (of_game, of_policy) in sizes.items():
        if of_game != of_policy:
            raise ValueError(
                f"policy must fit the game: the game has {axis}={of_game}, "
                f"the policy {axis}={of_policy}"
            )


def check_policy(game: DynamicGame, policy: Any) -> None:
    """Check whatever is handed in as a policy, wherever it enters.

    Tables were checked when they were made. Networks must have finite weights. Any other policy
    over integer states is asked for every agent, state and step (for agents evenly spread where
    that were more than 2^28 numbers); one over other observations is asked along one play. Where
    the game says which actions are legal, a policy must give the others no probability.

    Args:
        game: the game that it is for.
        policy: what was passed.

    Raises:
        ValueError: it is no `Policy`, not one for this game, or its probabilities have a wrong
            shape, are negative or NaN, do not sum to 1, or let an illegal action be played; the
            message names agent, state, step and the row.
    """
    check_instance("policy", policy, Policy)
    policy.check_fits(game)
    policy.check_probabilities(game)


def check_asked(
    observations: PyTree,
    step: Any,
    agents: Any,
    *,
    num_agents: int | None = None,
    horizon: int | None = None,
    num_states: int | None = None,
) -> tuple[PyTree, Any, Any]:
    """Observations, agents and step of `Policy.act`, checked as far as the sizes are known."""
    leaves, tree = jax.tree_util.tree_flatten(observations)
    leaves = [as_array("observations", leaf) for leaf in leaves]
    if not leaves or any(x.ndim == 0 or x.shape[0] != leaves[0].shape[0] for x in leaves):
        shapes = [list(leaf.shape) for leaf in leaves]
        raise ValueError(f"observations must be arrays with one leading axis n, not {shapes}")
    count = leaves[0].shape[0]
    index = np.arange(count) if agents is None else as_array("agents", agents, integers=True)
    if index.shape != (count,) or (agents is None and num_agents not in (None, count)):
        shape = [num_agents if agents is None else size for size in index.shape]
        raise ValueError(f"observations must have one entry an agent, {shape}, not [{count}]")
    if num_agents is not None:
        _check_below("agents", index, num_agents)
    if num_states is not None:
        _check_below("observations", as_array("observations", leaves[0], integers=True), num_states)
    number = step
    if getattr(step, "shape", None) == () and not isinstance(step, Tracer):
        number = np.asarray(step)[()]
    if not isinstance(step, Tracer):
        check_count("step", number, 0, None if horizon is None else horizon - 1)
        number = int(number)
    return jax.tree_util.tree_unflatten(tree, leaves), index, number


def _check_below(argument: str, numbers: Any, size: int) -> None:
    """Raise `ValueError` unless all numbers are in 0..size-1, if they are known."""
    if not isinstance(numbers, Tracer):
        check_below(argument, np.asarray(numbers), size)


@eqx.filter_jit
def rows_of(policy: Policy, observations: PyTree, agents: Array, step: Array) -> Array:
    """Action probabilities [n,A] of `agents` [n] for what they observe, arrays [n,...]."""
    return jax.vmap(policy.probabilities, in_axes=(0, 0, None))(observations, agents, step)


@eqx.filter_jit
def _draw(
    policy: Policy, observations: PyTree, agents: Array, step: Array, key: Array
) -> tuple[Array, Array]:
    probs = rows_of(policy, observations, agents, step)
    return probs, jax.random.categorical(key, jnp.log(probs), axis=-1).astype(jnp.int32)


def row_error(row: Any, agent: int, step: int, state: int | None = None) -> ValueError:
    """What is wrong with a policy that gives an agent no distribution at a step."""
    place = f"agent {agent}" + ("" if state is None else f" in state {state}") + f" at step {step}"
    return ValueError(
        f"policy: {place} must have probabilities that sum to 1 within {PROBABILITY_TOLERANCE}, "
        f"not {shown(np.asarray(row).tolist())}"
    )


def illegal_error(row: Any, legal: Any, agent: int, step: int, state: int) -> ValueError:
    """What is wrong with a policy by which an agent may play what it may not."""
    action = int(np.argmax((np.asarray(row) > 0) & ~np.asarray(legal)))
    return ValueError(
        f"policy: agent {agent} in state {state} at step {step} must not play action {action}, "
        f"which is illegal there, with probability {float(row[action]):g}"
    )


def _check_shape(game: DynamicGame, policy: Policy) -> None:
    """Shape and type of what agent 0 gives at step 0; nothing is run."""
    zero = jnp.asarray(0, jnp.int32)

    def first(key: Array) -> Any:
        seen = game.observe(game.reset(key))
        return policy.probabilities(jax.tree_util.tree_map(lambda x: x[0], seen), zero, zero)

    row = jax.eval_shape(first, jax.random.key(0))
    if not isinstance(row, jax.ShapeDtypeStruct):
        raise ValueError(f"policy: probabilities must return one array [A], not {shown(row)}")
    if row.shape != (game.num_actions,) or not jnp.issubdtype(row.dtype, jnp.floating):
        raise ValueError(
            f"policy: probabilities must be float of shape [A] = [{game.num_actions}], not "
            f"{row.dtype} of shape {list(row.shape)} (agent 0 at step 0 in every state)"
        )


def _check_tables(game: DynamicGame, policy: Policy, num_states: int) -> None:
    """All rows of a policy over integer states, in blocks of agents."""
    each = game.horizon * num_states * game.num_actions
    count = min(game.num_agents, max(1, _MOST_ASKED // each))
    agents = np.linspace(0, game.num_agents - 1, count).round().astype(np.int32)
    size = min(count, max(1, _AT_ONCE // each))
    legal = LegalActions.of(game)
    for start in range(0, count, size):
        block = agents[np.minimum(np.arange(start, start + size), count - 1)]
        right, place, row = jax.device_get(
            _first_wrong(policy, jnp.asarray(block), num_states, game.horizon, legal)
        )
        if not right:
            k, step, state = np.unravel_index(place, (size, game.horizon, num_states))
            where = int(block[k]), int(step), int(state)
            if legal is None or not is_distribution(row):
                raise row_error(row, *where)
            raise illegal_error(row, legal(where[0], where[2], where[1]), *where)


@eqx.filter_jit
def _first_wrong(
    policy: Policy, agents: Array, num_states: int, horizon: int, legal: LegalActions | None
) -> tuple[Array, Array, Array]:
    """Whether all rows are (legal) distributions, the flat place [n,H,S] of one that is not, it."""
    states, steps = (jnp.arange(k, dtype=jnp.int32) for k in (num_states, horizon))
    table = _tables_of(policy, agents, states, steps)
    right = is_distribution(table)
    if legal is not None:
        right = right & ~((table > 0) & ~legal.tables[legal.kinds[agents]]).any(-1)
    place = jnp.argmin(right)
    return right.all(), place, table.reshape(-1, table.shape[-1])[place]


def _check_one_play(game: DynamicGame, policy: Policy) -> None:
    """The rows that one play of all agents asks for, under uniform play."""
    right, places, rows = jax.device_get(_rows_of_one_play(game, policy, jax.random.key(0)))
    if not right.all():
        step = int(np.argmin(right))
        raise row_error(rows[step], int(places[step]), step)


@eqx.filter_jit
def _rows_of_one_play(game: DynamicGame, policy: Policy, key: Array) -> tuple[Array, Array, Array]:
    """By step: whether all rows are distributions, the first agent whose is not, its row."""
    agents = jnp.arange(game.num_agents, dtype=jnp.int32)
    reset_key, play_key = jax.random.split(key)

    def advance(state: PyTree, step: Array) -> tuple[PyTree, tuple[Array, Array, Array]]:
        act_key, move_key = jax.random.split(jax.random.fold_in(play_key, step))
        probs = rows_of(policy, game.observe(state), agents, step)
        right = is_distribution(probs)
        place = jnp.argmin(right)
        actions = jax.random.randint(act_key, agents.shape, 0, game.num_actions, jnp.int32)
        state, _ = game.step(state, actions, move_key)
        return state, (right.all(), place, probs[place])

    steps = jnp.arange(game.horizon, dtype=jnp.int32)
    return jax.lax.scan(advance, game.reset(reset_key), steps)[1]


def check_played(policy: Policy, observations: PyTree) -> None:
    """Check the rows that plays asked for, where `check_policy` could not ask for all.

    Args:
        policy: the policy that was played.
        observations: what agents saw, arrays [M,H,N,...].

    Raises:
        ValueError: a row is no distribution; the message names agent, step and the row.
    """
    shape = jax.tree_util.tree_leaves(observations)[0].shape[:3]
    right, place, row = jax.device_get(_first_wrong_played(policy, observations))
    if not right:
        _, step, agent = np.unravel_index(place, shape)
        raise row_error(row, int(agent), int(step))


@eqx.filter_jit
def _first_wrong_played(policy: Policy, observations: PyTree) -> tuple[Array, Array, Array]:
    _, horizon, count = jax.tree_util.tree_leaves(observations)[0].shape[:3]
    agents, steps = (jnp.arange(k, dtype=jnp.int32) for k in (count, horizon))
    over_agents = jax.vmap(policy.probabilities, in_axes=(0, 0, None))
    over_steps = jax.vmap(over_agents, in_axes=(0, None, 0))
    table = jax.lax.map(lambda seen: over_steps(seen, agents, steps), observations)
    right = is_distribution(table)
    place = jnp.argmin(right)
    return right.all(), place, table.reshape(-1, table.shape[-1])[place]
