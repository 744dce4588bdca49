"""Checks of a game's laws: probabilities, ranges, declarations, agreement, relabelling.

Axes as in `conformance.populations`.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from crowdnash.games.base import (
    PROBABILITY_TOLERANCE,
    PopulationGame,
    TabularGame,
    is_distribution,
)
from crowdnash.games.checks import fail
from crowdnash.games.conformance.populations import (
    Laws,
    Profiles,
    Sample,
    aggregates,
    choose_sample,
    draw_profiles,
    evaluate_laws,
    numpy_generator,
    others,
    spread_over,
    take,
)
from crowdnash.games.declarations import FLOAT32_TOLERANCE, check_dependence

_FEW = 4


def check_laws(game: TabularGame, key: PRNGKeyArray) -> None:
    """Raise `GameError` unless the laws of `game` keep the contract of its class."""
    profile_key, mixture_key, order_key = jax.random.split(key, 3)
    profiles = draw_profiles(game, profile_key)
    sample = choose_sample(game, len(profiles.states))
    if isinstance(game, PopulationGame):
        populations = aggregates(game, profiles, sample.agents)
        if not np.isfinite(populations).all():
            fail(game, "contribution must be finite numbers")
        laws = evaluate_laws(game, populations, sample)
        _check_values(game, laws, sample)
        check_dependence(game, populations, laws, sample, mixture_key)
        _check_relabelling(game, profiles, order_key)
    else:
        laws = evaluate_laws(game, others(game, profiles, sample.agents), sample)
        _check_values(game, laws, sample)
    _check_agreement(game, profiles, laws, sample)


def _check_values(game: TabularGame, laws: Laws, sample: Sample) -> None:
    wrong = ~is_distribution(laws.transitions.astype(np.float64))
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0])
        fail(
            game,
            "transition must be probabilities that sum to 1 within "
            f"{PROBABILITY_TOLERANCE}, not {laws.transitions[at].tolist()}",
            sample.place(at),
        )
    wrong = ~np.isfinite(laws.rewards)
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0])
        fail(game, f"reward must be a finite number, not {laws.rewards[at]}", sample.place(at))
    if game.reward_range is not None:
        low, high = game.reward_range
        slack = FLOAT32_TOLERANCE * (1 + max(abs(low), abs(high)))
        wrong = (laws.rewards < low - slack) | (laws.rewards > high + slack)
        if wrong.any():
            at = tuple(np.argwhere(wrong)[0])
            fail(
                game,
                f"reward must be within reward_range [{low:g}, {high:g}], not {laws.rewards[at]}",
                sample.place(at),
            )


@eqx.filter_jit
def _traced_joint_law(
    game: TabularGame, states: Array, actions: Array, step: Array
) -> tuple[Array, Array]:
    return game.joint_law(states, actions, step)


def _joint_law(
    game: TabularGame, states: np.ndarray, actions: np.ndarray, step: Array
) -> tuple[np.ndarray, np.ndarray]:
    probs, rewards = _traced_joint_law(game, jnp.asarray(states), jnp.asarray(actions), step)
    return np.asarray(probs), np.asarray(rewards)


@eqx.filter_jit
def _single_laws(game: TabularGame, places: tuple[Array, ...], step: Array) -> tuple[Array, Array]:
    return jax.vmap(lambda i, s, a, rest, acts: game.law(i, s, a, rest, acts, step))(*places)


def _check_agreement(game: TabularGame, profiles: Profiles, laws: Laws, sample: Sample) -> None:
    """`joint_law`, and a population game's `law`, at each profile's own pairs."""
    source = "transition and reward" if isinstance(game, PopulationGame) else "law"
    few = spread_over(len(sample.agents), _FEW)
    chosen = sample.agents[few]
    for p in spread_over(len(profiles.states), 2 * _FEW):
        k = int(p) % len(sample.steps)
        states, actions = profiles.states[p], profiles.actions[p]
        step = jnp.asarray(sample.steps[k])
        pairs = states[sample.agents], actions[sample.agents]
        own = (np.arange(len(sample.agents)), k, *pairs)
        expected = (laws.transitions[p][own], laws.rewards[p][own])
        joint = take(_joint_law(game, states, actions, step), sample.agents)
        _check_equal(game, f"joint_law must agree with {source}", joint, expected, own, sample)
        if isinstance(game, PopulationGame):
            rest = take(others(game, take(profiles, slice(p, p + 1)), chosen), 0)
            places = (chosen, states[chosen], actions[chosen], *rest)
            single = _single_laws(game, tuple(map(jnp.asarray, places)), step)
            mine = (few, k, *(x[few] for x in pairs))
            rule = f"law must agree with {source}"
            _check_equal(game, rule, single, take(expected, few), mine, sample)


def _check_equal(
    game: TabularGame, rule: str, actual: Any, expected: Any, own: tuple, sample: Sample
) -> None:
    wrong = _differs(actual, expected)
    if wrong.any():
        i = int(np.argwhere(wrong)[0][0])
        agents, step, states, actions = own
        fail(game, rule, sample.place((0, agents[i], step, states[i], actions[i])))


def _differs(actual: Any, expected: Any) -> np.ndarray:
    """[n] bool: whether (probabilities [n,S], rewards [n]) are not the same two."""
    different = np.zeros(len(expected[1]), bool)
    for a, b in zip(actual, expected, strict=True):
        a, b = (np.asarray(x).reshape(len(different), -1) for x in (a, b))
        different |= ~(np.abs(a - b) <= FLOAT32_TOLERANCE * (1 + np.abs(b))).all(-1)
    return different


def _check_relabelling(game: PopulationGame, profiles: Profiles, key: PRNGKeyArray) -> None:
    """Agents have no names: agents in another order have the same laws in that order."""
    order = numpy_generator(key).permutation(game.num_agents)
    relabelled = _relabelled(game, order)
    if relabelled is None:
        return
    everyone = Sample(order, np.asarray([game.horizon - 1], np.int32))
    step = jnp.asarray(game.horizon - 1, jnp.int32)
    for states, actions in zip(*(x[-_FEW:] for x in profiles), strict=True):
        expected = take(_joint_law(game, states, actions, step), order)
        states, actions = states[order], actions[order]
        actual = _joint_law(relabelled, states, actions, step)
        rule = "permuting the agents must permute the laws and change nothing"
        own = (np.arange(len(order)), 0, states, actions)
        _check_equal(game, rule, actual, expected, own, everyone)


def _relabelled(game: PopulationGame, order: np.ndarray) -> PopulationGame | None:
    """`game` with its agents in another order; None if their arrays are not fields of it."""
    own = {id(leaf) for leaf in jax.tree_util.tree_leaves(game.agents)}
    fields = {id(leaf) for leaf in jax.tree_util.tree_leaves(game)}
    if not own <= fields:
        return None
    return jax.tree_util.tree_map(lambda x: x[order] if id(x) in own else x, game)
