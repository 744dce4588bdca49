"""Exact exploitability of tiny games by enumerating the joint chain (Defs. 1 and 2).

Nothing is approximated and nothing assumed: all S^N joint states and A^N joint actions, and all
deterministic policies of the deviating agent. (It sees its own state only, so its problem is no
Markov decision process; but J^i is multilinear in its action distributions, so a deterministic
best response exists.)

Axes: N agents, H steps, Z = S^N joint states, U = A^N joint actions.
"""

import itertools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from crowdnash.games.base import PopulationGame, TabularGame, is_distribution
from crowdnash.games.checks import check_joint_law, law_error
from crowdnash.games.legal import LegalActions

MAX_JOINT_ENTRIES = 20_000_000
MAX_POLICY_ENTRIES = 50_000_000


class ExactValues(NamedTuple):
    """Per agent, [N]: J^i(pi) and max over its policies of J^i(., pi^-i)."""

    value: Float[np.ndarray, " N"]
    best_response_value: Float[np.ndarray, " N"]


def enumeration_size(game: TabularGame) -> tuple[int, int]:
    """(entries of the joint transition table, entries of the table of deviating policies)."""
    joint_states = game.num_states**game.num_agents
    joint_actions = game.num_actions**game.num_agents
    policies = (game.num_actions**game.num_states) ** game.horizon
    return joint_states**2 * joint_actions, policies * joint_states


def can_enumerate(game: TabularGame) -> bool:
    """Whether the game is small enough for `enumerate_values`."""
    joint, policies = enumeration_size(game)
    return joint <= MAX_JOINT_ENTRIES and policies <= MAX_POLICY_ENTRIES


def enumerate_values(game: TabularGame, tables: Float[np.ndarray, "N H S A"]) -> ExactValues:
    """J^i of the policy profile `tables` and of every agent's best response, in float64.

    Raises:
        ValueError: The game is too large.
        GameError: It pays a NaN or a transition is not a distribution.
    """
    if not can_enumerate(game):
        joint, policies = enumeration_size(game)
        population = isinstance(game, PopulationGame)
        raise ValueError(
            f"method='enumerate' needs at most {MAX_JOINT_ENTRIES:,} joint transitions and "
            f"{MAX_POLICY_ENTRIES:,} policy entries; this game has {joint:.3g} and "
            f"{policies:.3g}: use method='{'paths' if population else 'learned'}'"
        )
    n = game.num_agents
    tables = np.asarray(tables, np.float64)
    tables = tables / tables.sum(-1, keepdims=True)  # float32 rounding, at most 1e-5
    states = np.array(list(itertools.product(range(game.num_states), repeat=n)))
    actions = np.array(list(itertools.product(range(game.num_actions), repeat=n)))
    initial = np.asarray(game.initial_distribution, np.float64)
    initial = np.broadcast_to(initial / initial.sum(-1, keepdims=True), (n, game.num_states))
    start = np.prod(initial[np.arange(n), states], axis=1)
    models = [_step_model(game, states, actions, h) for h in range(game.horizon)]
    # [H,N,Z,U]: probability of agent j's own part of a joint action
    acts = np.array(
        [
            [tables[j, h][states[:, j]][:, actions[:, j]] for j in range(n)]
            for h in range(game.horizon)
        ]
    )
    value = _profile_values(start, models, acts)
    legal = LegalActions.of(game)
    may = None if legal is None else np.asarray(legal.tables)[np.asarray(legal.kinds)]
    best = [
        _best_value(game, i, start, states, actions, models, acts, None if may is None else may[i])
        for i in range(n)
    ]
    return ExactValues(value, np.array(best))


def _step_model(
    game: TabularGame, states: np.ndarray, actions: np.ndarray, step: int
) -> tuple[np.ndarray, np.ndarray]:
    """Joint transition [Z,U,Z] and rewards [N,Z,U] at one step."""
    probs, rewards = jax.device_get(
        _all_laws(game, jnp.asarray(states), jnp.asarray(actions), jnp.asarray(step))
    )
    check_joint_law(game, probs.shape[2:], rewards.shape[2:])
    wrong = ~(is_distribution(probs) & np.isfinite(rewards))
    if wrong.any():
        z, u, i = (int(k) for k in np.argwhere(wrong)[0])
        place = int(states[z, i]), int(actions[u, i])
        raise law_error(game, i, step, *place, probs[z, u, i], float(rewards[z, u, i]))
    joint = np.ones((len(states), len(actions), len(states)))
    for j in range(game.num_agents):
        joint *= probs[:, :, j][:, :, states[:, j]]
    return joint, np.moveaxis(np.asarray(rewards, np.float64), -1, 0)


@eqx.filter_jit
def _all_laws(game: TabularGame, states: Array, actions: Array, step: Array) -> tuple[Array, Array]:
    """P [Z,U,N,S] and R [Z,U,N] for all joint states and actions."""
    over_actions = jax.vmap(game.joint_law, in_axes=(None, 0, None))
    return jax.vmap(over_actions, in_axes=(0, None, None))(states, actions, step)


def _profile_values(start: np.ndarray, models: list, acts: np.ndarray) -> np.ndarray:
    now, value = start, np.zeros(acts.shape[1])
    for (joint, rewards), act in zip(models, acts, strict=True):
        together = now[:, None] * act.prod(0)
        value += np.einsum("zu,nzu->n", together, rewards)
        now = np.einsum("zu,zuy->y", together, joint)
    return value


def _best_value(
    game: TabularGame,
    agent: int,
    start: np.ndarray,
    states: np.ndarray,
    actions: np.ndarray,
    models: list,
    acts: np.ndarray,
    legal: np.ndarray | None,
) -> float:
    """Largest J^i over all deterministic policies, grown step by step from their prefixes.

    Those that are legal [H,S,A], if it is not None.
    """
    all_rules = np.array(
        list(itertools.product(range(game.num_actions), repeat=game.num_states))
    )  # [A^S, S]
    reached, value = start[None], np.zeros(1)
    for step, ((joint, rewards), act) in enumerate(zip(models, acts, strict=True)):
        rules = all_rules
        if legal is not None:
            rules = rules[legal[step][np.arange(game.num_states), rules].all(1)]
        others = np.prod(np.delete(act, agent, axis=0), axis=0)  # [Z,U]
        plays = actions[None, :, agent] == rules[:, states[:, agent]][:, :, None]  # [rules,Z,U]
        weight = others[None] * plays
        paid = np.einsum("rzu,zu->rz", weight, rewards[agent])
        moves = np.einsum("rzu,zuy->rzy", weight, joint)
        value = (value[:, None] + reached @ paid.T).reshape(-1)
        reached = np.einsum("mz,rzy->mry", reached, moves).reshape(-1, len(states))
    return float(value.max())
