"""Whether laws depend on the aggregate, and on the step, as a `PopulationGame` declares.

What a declaration decides (which results are exact) is too much to take an author's word for. A
law's program is read first: where only sums, multiples, selections and the like lead from the
aggregate to the outcome, the law is affine, and it is free where nothing leads there. A program
that does more is evaluated at a few aggregates instead.

Axes: P populations, n agents and h steps that are looked at, S states, A actions, K components of
the aggregate.
"""

from collections.abc import Callable
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn
from jax.extend.core import Literal as JaxprLiteral
from jaxtyping import Array, Float, PRNGKeyArray

from crowdnash.games.base import PopulationGame
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
    spread_over,
)
from crowdnash.games.double_precision import as_double
from crowdnash.games.vectorised import Law

FLOAT32_TOLERANCE = 2e-5
"""Largest difference, relative to 1 + |value|, between numbers that are equal but for float32."""

_FREE, _AFFINE, _ANY = 0, 1, 2
_PROBED = 12

_LINEAR = frozenset(
    (
        *("add", "add_any", "sub", "neg", "reduce_sum", "cumsum", "copy", "pad"),
        *("broadcast_in_dim", "concatenate", "stack", "expand_dims", "reshape", "squeeze"),
        *("rev", "slice", "split", "transpose"),
    )
)
"""Primitives that are linear in all their operands together."""

_MULTILINEAR = frozenset(("mul", "dot_general"))
"""Primitives that are linear in each of their operands."""

_LINEAR_IN_FIRST = frozenset(("div", "dynamic_slice", "gather"))
"""Primitives that are linear in the first operand if the others do not depend on the aggregate."""

_CALLS = frozenset(("jit", "pjit", "closed_call", "core_call", "remat", "checkpoint"))


def check_declarations(game: PopulationGame) -> None:
    """Check `transition_in_aggregate` and `reward_in_aggregate` against the game's laws.

    To be called before a result relies on them. It costs a trace of each law that is declared
    "free" or "affine", and an evaluation at three populations where the trace does not settle it.

    Args:
        game: the game; its first agent's law is traced, laws of many agents are evaluated.

    Raises:
        GameError: a declaration is not true; the message names the game, the declaration and the
            agent, step, state and action at which it fails.
    """
    if not all(_is_proven(game, law) for law in get_args(Law)):
        _probe(game)


def reads_step(game: PopulationGame, law: Law) -> bool:
    """Whether a law's outcome may depend on the step, read off its program; nothing is run."""
    return _degree(game, law, argument=4) > _FREE


def reads(function: Callable[..., Array], arguments: tuple, position: int) -> bool:
    """Whether a function's outcome may depend on one of its arguments, read off its program."""
    return _degree_in(function, arguments, position) > _FREE


def _is_proven(game: PopulationGame, law: Law) -> bool:
    """Whether a law's program alone shows what is declared of it."""
    dependence = getattr(game, f"{law}_in_aggregate")
    if dependence == "nonlinear":
        return True
    return _degree(game, law, argument=3) <= (_FREE if dependence == "free" else _AFFINE)


def _degree(game: PopulationGame, law: Law, argument: int) -> int:
    """How the law of agent 0 depends on its argument of that number: free, affine, or any."""
    # Shapes are enough: nothing is computed, and nothing compiled.
    agent = jax.tree_util.tree_map(
        lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), game.agents
    )
    index = jax.ShapeDtypeStruct((), jnp.int32)
    width = jax.eval_shape(game.contribution, agent, index, index).shape[-1]
    aggregate = jax.ShapeDtypeStruct((width,), jnp.float32)
    arguments = (agent, index, index, aggregate, index)
    return _degree_in(getattr(game, law), arguments, argument)


def _degree_in(function: Callable[..., Array], arguments: tuple, position: int) -> int:
    """How a function depends on its argument at `position`: free, affine, or any."""
    program = jax.make_jaxpr(function)(*arguments).jaxpr
    ends = [len(jax.tree_util.tree_leaves(arguments[: position + k])) for k in range(2)]
    degrees = [_AFFINE if ends[0] <= k < ends[1] else _FREE for k in range(len(program.invars))]
    return max(_degrees_of(program, degrees), default=_FREE)


def _degrees_of(program: Jaxpr, inputs: list[int]) -> list[int]:
    """Degrees of a program's outputs, given those of its inputs."""
    degrees: dict[Any, int] = dict(zip(program.invars, inputs, strict=True))

    def degree(variable: Any) -> int:
        return _FREE if isinstance(variable, JaxprLiteral) else degrees.get(variable, _FREE)

    for equation in program.eqns:
        operands = [degree(variable) for variable in equation.invars]
        degrees.update(zip(equation.outvars, _degrees_after(equation, operands), strict=True))
    return [degree(variable) for variable in program.outvars]


def _degrees_after(equation: JaxprEqn, operands: list[int]) -> list[int]:
    """Degrees of what one equation computes; `_ANY` for primitives that are not listed here."""
    name, count = equation.primitive.name, len(equation.outvars)
    highest = max(operands, default=_FREE)
    if highest == _FREE or (name in _LINEAR and highest == _AFFINE):
        return [highest] * count
    if name in _MULTILINEAR:
        return [min(sum(operands), _ANY)] * count
    if name in _LINEAR_IN_FIRST or name == "select_n":
        others = operands[:1] if name == "select_n" else operands[1:]
        return [highest if max(others, default=_FREE) == _FREE else _ANY] * count
    if name == "convert_element_type" and _keeps_fractions(equation):
        return [highest] * count
    if name in _CALLS:
        inner = equation.params.get("jaxpr") or equation.params.get("call_jaxpr")
        inner = inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner
        if isinstance(inner, Jaxpr) and len(inner.invars) == len(operands):
            return _degrees_of(inner, operands)
    return [_ANY] * count


def _keeps_fractions(equation: JaxprEqn) -> bool:
    """Whether a conversion rounds nothing to integers."""
    return bool(jnp.issubdtype(equation.params["new_dtype"], jnp.floating))


def _probe(game: PopulationGame) -> None:
    """Evaluate the laws, in float64, at populations that the agents can form and between them."""
    key = jax.random.key(0)
    everything = draw_profiles(game, key)
    few = spread_over(len(everything.states), _PROBED)
    profiles = Profiles(everything.states[few], everything.actions[few])
    sample = choose_sample(game, len(few))
    with jax.enable_x64(True):
        double = as_double(game)
        populations = aggregates(double, profiles, sample.agents).astype(np.float64)
        laws = evaluate_laws(double, populations, sample)
        check_dependence(double, populations, laws, sample, key)


def check_dependence(
    game: PopulationGame,
    populations: Float[np.ndarray, "P n K"],
    laws: Laws,
    sample: Sample,
    key: PRNGKeyArray,
) -> None:
    """Compare laws at two populations and at one between them with what the game declares.

    Args:
        game: the game.
        populations: the aggregates that the agents meet.
        laws: the game's laws there.
        sample: the agents and steps of `laws`.
        key: decides which populations are paired, and the points between them.

    Raises:
        GameError: a declaration is not true.
    """
    declared = (game.transition_in_aggregate, game.reward_in_aggregate)
    if declared == ("nonlinear", "nonlinear"):
        return
    generator = numpy_generator(key)
    # A cycle through the profiles in random order: nobody is its own partner.
    order = generator.permutation(len(populations))
    partner = np.empty_like(order)
    partner[order] = np.roll(order, 1)
    weights = generator.uniform(0.2, 0.8, (len(populations), 1, 1)).astype(populations.dtype)
    between = weights * populations + (1 - weights) * populations[partner]
    mixed = evaluate_laws(game, between, sample)
    for law, dependence, here, between in zip(get_args(Law), declared, laws, mixed, strict=True):
        if dependence != "nonlinear":
            there, weight = here[partner], weights.reshape(-1, *(1,) * (here.ndim - 1))
            _check_one(game, law, sample, here, there, between, weight)


def _check_one(
    game: PopulationGame,
    law: Law,
    sample: Sample,
    here: np.ndarray,
    there: np.ndarray,
    between: np.ndarray,
    weight: np.ndarray,
) -> None:
    """Values f(x), f(y), f(w x + (1-w) y) against what is declared of f."""
    dependence = getattr(game, f"{law}_in_aggregate")
    if dependence == "free":
        gap = np.maximum(np.abs(here - there), np.abs(here - between))
        rule = f"{law} must be the same at all aggregates"
    else:
        gap = np.abs(between - weight * here - (1 - weight) * there)
        rule = f"{law} at w*x + (1-w)*y must be w * ({law} at x) + (1-w) * ({law} at y)"
    wrong = ~(gap <= FLOAT32_TOLERANCE * (1 + np.maximum(np.abs(here), np.abs(there))))
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0])
        fail(
            game,
            f"{law}_in_aggregate is declared {dependence!r}, so {rule}: it is {gap[at]:g} off",
            sample.place(at),
        )
