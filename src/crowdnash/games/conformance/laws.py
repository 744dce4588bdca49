"""Checks of a game's laws: probabilities, ranges, declarations, agreement, relabelling.

Axes as in `conformance_populations`.
"""

from typing import Any, NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from crowdnash.games.base import (
    PROBABILITY_TOLERANCE,
    DynamicGame,
    GameError,
    PopulationGame,
    TabularGame,
    is_distribution,
)
from crowdnash.games.checks import named
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

FLOAT32_TOLERANCE = 2e-5
"""Largest difference, relative to 1 + |value|, between numbers that are equal but for float32."""

_FEW = 4


def check_laws(game: TabularGame, key: PRNGKeyArray) -> None:
    """Raise `GameError` unless the laws of `game` keep the contract of its class."""
    profile_key, mixture_key, order_key = jax.random.split(key, 3)
    profiles = draw_profiles(game, profile_key)
    sample = choose_sample(game, len(profiles.states))
    if isinstance(game, PopulationGame):
        met = aggregates(game, profiles, sample.agents)
        if not np.isfinite(met).all():
            fail(game, "contribution must be finite numbers")
        laws = evaluate_laws(game, met, sample)
        _check_values(game, laws, sample)
        _check_declarations(game, met, laws, sample, mixture_key)
        _check_relabelling(game, profiles, order_key)
    else:
        laws = evaluate_laws(game, others(game, profiles, sample.agents), sample)
        _check_values(game, laws, sample)
    _check_agreement(game, profiles, laws, sample)


def fail(game: DynamicGame, rule: str, where: str = "") -> NoReturn:
    """Raise the error that names the game, the place and the rule."""
    place = f": {where}" if where else ""
    raise GameError(f"{named(game)}{place}: {rule}")


def _where(sample: Sample, index: Any) -> str:
    """The place [p,n,h,s,a] in words."""
    _, agent, step, state, action = (int(k) for k in index[:5])
    return (
        f"agent {sample.agents[agent]} at step {sample.steps[step]} "
        f"in state {state} with action {action}"
    )


def _check_values(game: TabularGame, laws: Laws, sample: Sample) -> None:
    wrong = ~is_distribution(laws.transitions.astype(np.float64))
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0])
        fail(
            game,
            "transition must be probabilities that sum to 1 within "
            f"{PROBABILITY_TOLERANCE}, not {laws.transitions[at].tolist()}",
            _where(sample, at),
        )
    wrong = ~np.isfinite(laws.rewards)
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0])
        fail(game, f"reward must be a finite number, not {laws.rewards[at]}", _where(sample, at))
    if game.reward_range is not None:
        low, high = game.reward_range
        slack = FLOAT32_TOLERANCE * (1 + max(abs(low), abs(high)))
        wrong = (laws.rewards < low - slack) | (laws.rewards > high + slack)
        if wrong.any():
            at = tuple(np.argwhere(wrong)[0])
            fail(
                game,
                f"reward must be within reward_range [{low:g}, {high:g}], not {laws.rewards[at]}",
                _where(sample, at),
            )


def _check_declarations(
    game: PopulationGame, met: np.ndarray, laws: Laws, sample: Sample, key: PRNGKeyArray
) -> None:
    """Compare laws at two populations and at one between them with what the game declares."""
    declared = (game.transition_in_aggregate, game.reward_in_aggregate)
    if declared == ("nonlinear", "nonlinear"):
        return
    generator = numpy_generator(key)
    # A cycle through the profiles in random order: nobody is its own partner.
    order = generator.permutation(len(met))
    partner = np.empty_like(order)
    partner[order] = np.roll(order, 1)
    weights = generator.uniform(0.2, 0.8, (len(met), 1, 1)).astype(np.float32)
    mixed = evaluate_laws(game, weights * met + (1 - weights) * met[partner], sample)
    for name, dependence, here, between in zip(
        ("transition", "reward"), declared, laws, mixed, strict=True
    ):
        if dependence != "nonlinear":
            there, weight = here[partner], weights.reshape(-1, *(1,) * (here.ndim - 1))
            _check_declaration(game, name, sample, here, there, between, weight)


def _check_declaration(
    game: PopulationGame,
    name: str,
    sample: Sample,
    here: np.ndarray,
    there: np.ndarray,
    between: np.ndarray,
    weight: np.ndarray,
) -> None:
    """Values f(x), f(y), f(w x + (1-w) y) against what is declared of f."""
    dependence = getattr(game, f"{name}_in_aggregate")
    if dependence == "free":
        gap, rule = np.abs(here - there), f"{name} must be the same at all aggregates"
    else:
        gap = np.abs(between - weight * here - (1 - weight) * there)
        rule = f"{name} at w*x + (1-w)*y must be w * ({name} at x) + (1-w) * ({name} at y)"
    wrong = ~(gap <= FLOAT32_TOLERANCE * (1 + np.maximum(np.abs(here), np.abs(there))))
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0])
        fail(
            game,
            f"{name}_in_aggregate is declared {dependence!r}, so {rule}: it is {gap[at]:g} off",
            _where(sample, at),
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
def _single_laws(game: TabularGame, given: tuple[Array, ...], step: Array) -> tuple[Array, Array]:
    return jax.vmap(lambda i, s, a, rest, acts: game.law(i, s, a, rest, acts, step))(*given)


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
            given = (chosen, states[chosen], actions[chosen], *rest)
            single = _single_laws(game, tuple(map(jnp.asarray, given)), step)
            mine = (few, k, *(x[few] for x in pairs))
            rule = f"law must agree with {source}"
            _check_equal(game, rule, single, take(expected, few), mine, sample)


def _check_equal(
    game: TabularGame, rule: str, got: Any, want: Any, own: tuple, sample: Sample
) -> None:
    wrong = _differs(got, want)
    if wrong.any():
        i = int(np.argwhere(wrong)[0][0])
        agents, step, states, actions = own
        fail(game, rule, _where(sample, (0, agents[i], step, states[i], actions[i])))


def _differs(got: Any, want: Any) -> np.ndarray:
    """[n] bool: whether (probabilities [n,S], rewards [n]) are not the same two."""
    different = np.zeros(len(want[1]), bool)
    for a, b in zip(got, want, strict=True):
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
        want = take(_joint_law(game, states, actions, step), order)
        states, actions = states[order], actions[order]
        got = _joint_law(relabelled, states, actions, step)
        rule = "permuting the agents must permute the laws and change nothing"
        own = (np.arange(len(order)), 0, states, actions)
        _check_equal(game, rule, got, want, own, everyone)


def _relabelled(game: PopulationGame, order: np.ndarray) -> PopulationGame | None:
    """`game` with its agents in another order; None if their arrays are not fields of it."""
    own = {id(leaf) for leaf in jax.tree_util.tree_leaves(game.agents)}
    fields = {id(leaf) for leaf in jax.tree_util.tree_leaves(game)}
    if not own <= fields:
        return None
    return jax.tree_util.tree_map(lambda x: x[order] if id(x) in own else x, game)
