"""What every game must satisfy, as one check that authors of new games can run.

Axes: P profiles, n agents and h steps that are looked at (see `conformance.laws`), N agents,
S states, A actions.
"""

import random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from crowdnash.checks import check_instance, check_key
from crowdnash.games.base import (
    DynamicGame,
    PopulationGame,
    TabularGame,
    wrong_start,
)
from crowdnash.games.checks import fail
from crowdnash.games.conformance.laws import check_laws
from crowdnash.games.conformance.populations import take
from crowdnash.games.legal import LegalActions, legal_now


def check_game(game: DynamicGame, *, key: PRNGKeyArray | None = None) -> None:
    """`crowdnash.check_game` for a game in JAX, where it says what is checked.

    Args:
        game: the game to check.
        key: decides the populations and the play (default `jax.random.key(0)`).

    Raises:
        GameError: in one line that names the game, the rule and, where they matter, agent, step,
            state and action.
    """
    check_instance("game", game, DynamicGame)
    if key is not None:
        check_key("key", key)
    law_key, play_key = jax.random.split(jax.random.key(0) if key is None else key)
    _check_sizes(game)
    if isinstance(game, TabularGame):
        _check_descriptions(game)
        _check_shapes(game)
        check_laws(game, law_key)
    _check_play(game, play_key)


def _check_sizes(game: DynamicGame) -> None:
    sizes = {"num_agents": 2, "num_actions": 1, "horizon": 1}
    if isinstance(game, TabularGame):
        sizes["num_states"] = 1
    for name, least in sizes.items():
        value = getattr(game, name)
        if not isinstance(value, int | np.integer) or isinstance(value, bool):
            fail(game, f"{name} must be an int, not {type(value).__name__}")
        if value < least:
            fail(game, f"{name} must be at least {least}, not {value}")
    for leaf in jax.tree.leaves(game.agents) if isinstance(game, PopulationGame) else ():
        if jnp.shape(leaf)[:1] != (game.num_agents,):
            fail(
                game,
                f"every array of agents must have leading axis [{game.num_agents}], "
                f"one has shape {list(jnp.shape(leaf))}",
            )


def _check_descriptions(game: TabularGame) -> None:
    """The facts a game states about itself beside its laws."""
    initial = np.asarray(game.initial_distribution)
    shapes = ((game.num_states,), (game.num_agents, game.num_states))
    if initial.shape not in shapes or not np.issubdtype(initial.dtype, np.floating):
        fail(
            game,
            f"initial_distribution must be float of shape [{game.num_states}] or "
            f"{list(shapes[1])}, not {initial.dtype} of shape {list(initial.shape)}",
        )
    if (wrong := wrong_start(initial)) is not None:
        fail(game, *wrong)
    LegalActions.of(game)
    for name, size in (("state_names", game.num_states), ("action_names", game.num_actions)):
        if len(getattr(game, name)) != size:
            fail(game, f"{name} must have {size} entries, not {len(getattr(game, name))}")
    features = game.agent_features
    if features is not None:
        if features.ndim != 2 or features.shape[0] != game.num_agents:
            fail(
                game,
                f"agent_features must have shape [{game.num_agents},d], not {list(features.shape)}",
            )
        if not np.isfinite(features).all():
            fail(game, "agent_features must be finite numbers")
    bounds = game.reward_range
    if bounds is not None and not -np.inf < bounds[0] <= bounds[1] < np.inf:
        fail(game, f"reward_range must be (lowest, highest), both finite, not {bounds}")


def _check_shapes(game: TabularGame) -> None:
    """What one call of the author's functions gives, without computing it."""
    i32 = jax.ShapeDtypeStruct((), jnp.int32)
    if isinstance(game, PopulationGame):
        own = take(game.agents, 0)
        contributed = jax.eval_shape(game.contribution, own, i32, i32)
        if len(contributed.shape) != 1:
            fail(game, f"contribution must have shape [K], not {list(contributed.shape)}")
        aggregate = jax.ShapeDtypeStruct(contributed.shape, jnp.float32)
        probs = jax.eval_shape(game.transition, own, i32, i32, aggregate, i32)
        reward = jax.eval_shape(game.reward, own, i32, i32, aggregate, i32)
        names = ("transition", "reward")
    else:
        others = jax.ShapeDtypeStruct((game.num_agents - 1,), jnp.int32)
        probs, reward = jax.eval_shape(game.law, i32, i32, i32, others, others, i32)
        names = ("the first part of law", "the second part of law")
    rules = ((names[0], probs, (game.num_states,)), (names[1], reward, ()))
    for name, value, shape in rules:
        if value.shape != shape or not jnp.issubdtype(value.dtype, jnp.floating):
            fail(
                game,
                f"{name} must be float of shape {list(shape)}, "
                f"not {value.dtype} of shape {list(value.shape)}",
            )


def _check_play(game: DynamicGame, key: PRNGKeyArray) -> None:
    """Play all H steps, twice."""
    _check_play_shapes(game, key)
    before = _global_generators()
    rewards, end = _play(game, key)
    if not np.isfinite(rewards).all():
        h, agent = (int(k) for k in np.argwhere(~np.isfinite(rewards))[0])
        where = f"agent {agent} at step {h}"
        fail(game, f"reward must be a finite number, not {rewards[h, agent]}", where)
    again, end_again = _play(game, key)
    leaves, leaves_again = (jax.tree_util.tree_leaves(x) for x in (end, end_again))
    if not all(map(_equal, [rewards, *leaves], [again, *leaves_again])):
        drawn = [
            name for name, state in _global_generators().items() if not _same(state, before[name])
        ]
        cause = f": they draw from the global generator of {' and '.join(drawn)}" if drawn else ""
        fail(game, f"reset and step must give the same outcome for the same key{cause}")


def _global_generators() -> dict[str, Any]:
    """The states of generators that no key decides."""
    return {"random": random.getstate(), "NumPy": np.random.get_state()}  # noqa: NPY002


def _same(one: Any, other: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def _check_play_shapes(game: DynamicGame, key: PRNGKeyArray) -> None:
    """Types of reset, observe and step, by tracing alone."""
    n = game.num_agents
    start = jax.eval_shape(game.reset, key)
    for leaf in jax.tree_util.tree_leaves(jax.eval_shape(game.observe, start)):
        if leaf.shape[:1] != (n,):
            fail(
                game,
                f"every array of observe must have leading axis [{n}], "
                f"one has shape {list(leaf.shape)}",
            )
    actions = jax.ShapeDtypeStruct((n,), jnp.int32)
    after, rewards = jax.eval_shape(game.step, start, actions, key)
    if _outline(after) != _outline(start):
        fail(
            game,
            "step must return a state of the same structure, shapes and types as reset: "
            f"{_outline(after)} and {_outline(start)}",
        )
    if rewards.shape != (n,) or not jnp.issubdtype(rewards.dtype, jnp.floating):
        fail(
            game,
            f"the rewards of step must be float of shape [{n}], "
            f"not {rewards.dtype} of shape {list(rewards.shape)}",
        )


def _outline(tree: PyTree) -> str:
    return str(jax.tree_util.tree_map(lambda x: f"{x.dtype}{list(x.shape)}", tree))


def _play(game: DynamicGame, key: PRNGKeyArray) -> tuple[np.ndarray, PyTree]:
    """Rewards [H,N] and the final state under uniform play of what is legal.

    Every call traces the game anew: a draw that does not come from the key shows.
    """
    reset_key, step_key = jax.random.split(key)
    shape = (game.num_agents,)

    def advance(state: PyTree, step: Array) -> tuple[PyTree, Array]:
        act, move = jax.random.split(jax.random.fold_in(step_key, step))
        actions = jax.random.randint(act, shape, 0, game.num_actions, jnp.int32)
        legal = legal_now(game, jnp.arange(game.num_agents), game.observe(state), step)
        if legal is not None:
            actions = jax.random.categorical(act, jnp.log(legal.astype(jnp.float32)))
        return game.step(state, actions.astype(jnp.int32), move)

    end, rewards = jax.jit(
        lambda: jax.lax.scan(advance, game.reset(reset_key), jnp.arange(game.horizon))
    )()
    return np.asarray(rewards), end


def _equal(one: Any, other: Any) -> bool:
    if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
        one, other = jax.random.key_data(one), jax.random.key_data(other)
    return np.array_equal(one, other, equal_nan=bool(jnp.issubdtype(one.dtype, jnp.inexact)))
