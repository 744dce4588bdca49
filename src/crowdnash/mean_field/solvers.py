"""Exact solvers of mean-field games, run to a tolerance on exploitability in one compiled loop.

- Mirror descent (Algorithm 2 with exact values): pi ~ pi^(1 - tau xi) exp(xi q), q = q^tau of
  Def. 9 under Lambda(pi), optionally mixed with uniform at weight 1/(t+1).
- Online mirror descent: the softmax of the cumulated q, Y <- (1 - tau xi) Y + xi q: the same
  policies as above without mixing, but for rounding, and a little faster.
- Fictitious play: the average of the occupancies of best responses, weight w at each, and the
  policy it induces. A best response's occupancy is taken in the frozen population; where P is
  free of mu (where fictitious play has its theory) that is the average of flows. The classic
  weight is 1/(t+2). With many small populations most best responses are soon right for good, and
  a constant weight then converges geometrically, where 1/(t+2) still averages over the first
  ones; the adaptive weight is constant as long as the exploitability falls.

Axes: G populations, H steps, S states, A actions; step axis first inside the loop.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from crowdnash.checks import check_choice, check_count, check_flag, check_number
from crowdnash.games.legal import uniform_over
from crowdnash.mean_field.game import (
    MeanFieldGame,
    Numbers,
    by_step,
    check_is_mean_field,
    check_laws,
    in_double,
    is_traced,
    legal_by_step,
)
from crowdnash.mean_field.recursions import (
    entropy,
    greedy,
    largest_gain,
    occupancy,
    optimal_q_values,
    own_q_values,
    population_under,
)
from crowdnash.policies.mirror_update import mirror_step

Method = Literal["mirror_descent", "online_mirror_descent", "fictitious_play"]
Output = Literal["last", "average"]
Schedule = float | str | Array | Callable[[Array], Any]
"""A constant, "theorem" (1/sqrt(t+1)), "classic" (1/(t+2)), "adaptive", or a function of the
iteration t in plain JAX."""

_DEFAULT_STEPS: dict[str, Schedule] = {
    "mirror_descent": 0.3,
    "online_mirror_descent": 0.1,
    "fictitious_play": "adaptive",
}
_FIRST_WEIGHT = 0.3
_ENOUGH_FALL = 0.9
"""The adaptive weight is halved where the exploitability is above this share of its last look."""


class History(NamedTuple):
    """Exploitability at the iterations where it was computed, both [C]."""

    iteration: Int[Numbers, " C"]
    exploitability: Float[Numbers, " C"]


class MeanFieldSolution(NamedTuple):
    """What `solve` returns.

    `policy` [H,S,A], or [G,H,S,A] for several populations; its `exploitability` (Def. 5, the
    largest over populations); `history`, from iteration 0 on; `num_iterations` done; `converged`
    whether the exploitability is at most the tolerance.
    """

    policy: Float[Numbers, "..."]
    exploitability: Any
    history: History
    num_iterations: Any
    converged: Any


class _Recipe(eqx.Module):
    """What one iteration does; a pytree, so that new numbers compile nothing."""

    temperature: Any
    step_size: Any
    method: str = eqx.field(static=True)
    mixing: bool = eqx.field(static=True)
    regularised: bool = eqx.field(static=True)
    average: bool = eqx.field(static=True)
    adaptive: bool = eqx.field(static=True)


class _State(NamedTuple):
    """`table` [H,G,S,A] is log pi (mirror descent), Y (online) or pi (fictitious play).

    `average` is that of pi_0..pi_t, or None; `weight` the adaptive weight, or None.
    """

    table: Array
    average: Array | None
    weight: Array | None


class _Run(NamedTuple):
    iteration: Int[Array, ""]
    state: _State
    policy: Float[Array, "H G S A"]
    exploitability: Float[Array, ""]
    checks: Int[Array, ""]
    history: Float[Array, "2 C"]


def solve(
    mfg: MeanFieldGame,
    method: str = "mirror_descent",
    *,
    num_iterations: int = 2000,
    tolerance: float = 1e-6,
    temperature: Schedule = 0.0,
    step_size: Schedule | None = None,
    mixing: bool = False,
    output: str = "last",
    check_every: int = 20,
    initial: Any = None,
) -> MeanFieldSolution:
    """An approximate equilibrium of a mean-field game (MFG-NE, Def. 5).

    Not every game converges: `converged` tells. Where iterates circle in a monotone game (A-RPS),
    smaller steps help. In A-SIS, which is not monotone, large steps with a little entropy do
    (step_size=3, temperature=0.003), and fictitious play. With one population an agent
    (`induced_game(game, groups="independent")`) take fictitious play.

    Args:
        mfg: The mean-field game.
        method: "mirror_descent", "online_mirror_descent" or "fictitious_play" (see the module).
        num_iterations: At most so many.
        tolerance: >= 0 on the exploitability, in the game's units.
        temperature: tau >= 0 of the entropy, a constant or a function of t (mirror descents). With
            a constant tau > 0 the limit is the regularised equilibrium, tau H log A from a true
            one.
        step_size: xi_t > 0 of the mirror descents (default 0.3 and 0.1, in 1 / reward; "theorem"
            is 1/sqrt(t+1)), tau xi < 1; or fictitious play's weight w in (0, 1]: "classic" is
            1/(t+2); "adaptive", the default, begins with 0.3 and is halved whenever a look finds
            more than 0.9 of the exploitability of the look before, but is never below 1/(t+2).
        mixing: Algorithm 2's weight 1/(t+1) on uniform (mirror descent only).
        output: The "last" iterate, or the "average" of pi_0..pi_t (mirror descents).
        check_every: Iterations from one look at the exploitability to the next.
        initial: The first policy (default uniform over what is legal), [H,S,A] or [G,H,S,A].

    Raises:
        ValueError: Names the argument, the rule and the value.
        GameError: The game's laws break along the flow of the first or the last policy.
    """
    check_is_mean_field(mfg)
    check_count("num_iterations", num_iterations, 0)
    recipe = _recipe(method, temperature, step_size, mixing, output, num_iterations)
    check_count("check_every", check_every, 1)
    check_number("tolerance", tolerance, least=0)
    shape = (mfg.horizon, mfg.num_states, mfg.num_actions)
    if initial is None:
        shape = shape if mfg.num_groups == 1 else (mfg.num_groups, *shape)
        initial = np.full(shape, 1 / mfg.num_actions)
        if mfg.legal_actions is not None:
            initial = np.asarray(uniform_over(mfg.legal_actions, float)).reshape(shape)
    policy, single = by_step(mfg, "initial", initial, axes=1)
    legal = legal_by_step(mfg)
    positive = policy > 0 if legal is None else (policy > 0) | ~np.asarray(legal)
    if method != "fictitious_play" and not isinstance(policy, Tracer) and not positive.all():
        raise ValueError("initial must be positive everywhere: mirror descent never leaves a 0")
    check_laws(mfg, *in_double(population_under, mfg, policy)[1:])
    capacity = _capacity(num_iterations, check_every)
    limits = (np.int32(num_iterations), np.int32(check_every), _number(tolerance))
    run = in_double(_solve, mfg, recipe, policy, *limits, capacity)
    return _solution(mfg, run, tolerance, single)


def _solution(mfg: MeanFieldGame, run: _Run, tolerance: Any, single: bool) -> MeanFieldSolution:
    policy = run.policy[:, 0] if single else run.policy.swapaxes(0, 1)
    iterations, gains = run.history
    if is_traced(run):  # lengths must not depend on values: NaN behind the last entry
        converged = run.exploitability <= tolerance
        history = History(iterations.astype(int), gains)
        return MeanFieldSolution(policy, run.exploitability, history, run.iteration, converged)
    check_laws(mfg, *in_double(population_under, mfg, run.policy)[1:])
    count, last = int(run.checks), float(run.exploitability)
    history = History(iterations[:count].astype(int), gains[:count])
    return MeanFieldSolution(policy, last, history, int(run.iteration), last <= tolerance)


def _capacity(num_iterations: int, check_every: int) -> int:
    """Room for the history: a power of two, so that few lengths are ever compiled."""
    return max(1024, 2 ** math.ceil(math.log2(num_iterations // check_every + 2)))


def _solve(
    mfg: MeanFieldGame,
    recipe: _Recipe,
    policy: Float[Array, "H G S A"],
    num_iterations: Int[Array, ""],
    check_every: Int[Array, ""],
    tolerance: Float[Array, ""],
    capacity: int,
) -> _Run:
    """Blocks of `check_every` iterations, each followed by a look at the exploitability.

    The inner loop carries nothing but the state: XLA compiles small loops into one kernel.
    """
    table = policy if recipe.method == "fictitious_play" else jnp.log(policy)
    weight = jnp.asarray(_FIRST_WEIGHT, policy.dtype) if recipe.adaptive else None
    start = _State(table, policy if recipe.average else None, weight)

    def look(iteration: Array, state: _State, checks: Array, history: Array) -> _Run:
        now = state.average if state.average is not None else _policy(recipe, state.table)
        gain = largest_gain(mfg, now)
        entry = jnp.stack([iteration.astype(gain.dtype), gain])
        history = history.at[:, checks].set(entry)
        return _Run(iteration, state, now, gain, checks + 1, history)

    def proceed(run: _Run) -> Array:
        # Written so that a NaN ends the loop.
        return (run.exploitability > tolerance) & (run.iteration < num_iterations)

    def block(run: _Run) -> _Run:
        end = jnp.minimum(run.iteration + check_every, num_iterations)
        state = jax.lax.fori_loop(
            run.iteration, end, lambda t, now: _iterate(mfg, recipe, now, t), run.state
        )
        after = look(end, state, run.checks, run.history)
        if after.state.weight is None:
            return after
        stalls = after.exploitability > _ENOUGH_FALL * run.exploitability
        weight = jnp.where(stalls, after.state.weight / 2, after.state.weight)
        return after._replace(state=after.state._replace(weight=weight))

    empty = jnp.full((2, capacity), jnp.nan, policy.dtype)
    zero = jnp.zeros((), jnp.int32)
    return jax.lax.while_loop(proceed, block, look(zero, start, zero, empty))


def _policy(recipe: _Recipe, table: Array) -> Array:
    if recipe.method == "fictitious_play":
        return table
    return jnp.exp(table) if recipe.method == "mirror_descent" else jax.nn.softmax(table)


def _iterate(mfg: MeanFieldGame, recipe: _Recipe, state: _State, t: Array) -> _State:
    if recipe.method == "fictitious_play":
        weight = _at(recipe.step_size, t)
        if state.weight is not None:
            weight = jnp.maximum(state.weight, weight)
        return state._replace(table=_fictitious_play(mfg, state.table, weight))
    dtype, table = state.table.dtype, state.table
    tau = jnp.asarray(_at(recipe.temperature, t), dtype)
    xi = jnp.asarray(_at(recipe.step_size, t), dtype)
    policy = _policy(recipe, table)
    # Left out where tau is 0, for speed: entropies need logarithms.
    bonus = tau * entropy(policy) if recipe.regularised else None
    q = own_q_values(mfg, policy, bonus)
    if recipe.method == "mirror_descent":
        table = mirror_step(table, q, tau, xi)
    else:
        table = ((1 - tau * xi) * table if recipe.regularised else table) + xi * q
    if recipe.mixing:
        weight = 1 / (t.astype(dtype) + 1)
        uniform = jnp.log(weight / table.shape[-1])
        if (legal := legal_by_step(mfg)) is not None:
            uniform = jnp.log(weight * uniform_over(jnp.asarray(legal), dtype))
        table = jnp.logaddexp(jnp.log1p(-weight) + table, uniform)
    if state.average is None:
        return state._replace(table=table)
    # After step t there are t + 2 policies, pi_0 among them.
    average = state.average + (_policy(recipe, table) - state.average) / (t + 2)
    return state._replace(table=table, average=average)


def _fictitious_play(
    mfg: MeanFieldGame, policy: Float[Array, "H G S A"], weight: Any
) -> Float[Array, "H G S A"]:
    population = population_under(mfg, policy)
    best = greedy(optimal_q_values(mfg, population))
    mean = (1 - weight) * population.flow + weight * occupancy(mfg, population, best)
    there = mean.sum(-1, keepdims=True)
    reached = there > 0
    return jnp.where(reached, mean / jnp.where(reached, there, 1), policy)


def _at(schedule: Any, t: Array) -> Any:
    return schedule(t) if callable(schedule) else schedule


def _inverse_square_root(t: Array) -> Array:
    return 1 / jnp.sqrt(t + 1.0)


def _inverse(t: Array) -> Array:
    return 1 / (t + 2.0)


def _number(value: Any) -> Any:
    return value if callable(value) or isinstance(value, Tracer) else np.asarray(value, np.float64)


def _recipe(
    method: str,
    temperature: Schedule,
    step_size: Schedule | None,
    mixing: bool,
    output: str,
    num_iterations: int,
) -> _Recipe:
    check_choice("method", method, get_args(Method))
    check_choice("output", output, get_args(Output))
    check_flag("mixing", mixing)
    play = method == "fictitious_play"
    if mixing and method != "mirror_descent":
        raise ValueError(f"mixing is for method='mirror_descent', not {method!r}")
    if play and (output != "last" or callable(temperature) or temperature != 0):
        raise ValueError(
            "temperature must be 0 and output 'last' for method='fictitious_play' (its policy is "
            f"the average already), not {temperature!r} and {output!r}"
        )
    step_size = _DEFAULT_STEPS[method] if step_size is None else step_size
    adaptive = isinstance(step_size, str) and step_size == "adaptive"
    if isinstance(step_size, str):
        names = ("classic", "adaptive") if play else ("theorem",)
        if step_size not in names:
            words = " or ".join(repr(name) for name in names)
            raise ValueError(
                f"step_size must be a number, a function of t or, for method={method!r}, {words}, "
                f"not {step_size!r}"
            )
        step_size = _inverse if play else _inverse_square_root
    for name, schedule in (("temperature", temperature), ("step_size", step_size)):
        if not callable(schedule):
            check_number(name, schedule)
    _check_schedules(temperature, step_size, num_iterations, play)
    regularised = callable(temperature) or isinstance(temperature, Tracer) or temperature != 0
    return _Recipe(
        temperature=_number(temperature),
        step_size=_number(step_size),
        method=method,
        mixing=mixing,
        regularised=bool(regularised),
        average=output == "average",
        adaptive=adaptive,
    )


def _check_schedules(temperature: Any, step_size: Any, num_iterations: int, play: bool) -> None:
    """Both schedules at every iteration, unless they are traced."""
    if is_traced(temperature, step_size):
        return
    steps = np.arange(max(num_iterations, 1), dtype=np.int32)
    with jax.ensure_compile_time_eval():  # also where the game is traced
        tau, xi = (
            np.asarray(jax.vmap(f)(steps) if callable(f) else f, np.float64)
            for f in (temperature, step_size)
        )
    highest = 1.0 if play else np.inf
    for name, values, wrong, rule in (
        ("temperature", tau, ~((tau >= 0) & (tau < np.inf)), ">= 0 and finite"),
        ("step_size", xi, ~((xi > 0) & (xi <= highest) & (xi < np.inf)), f"in (0, {highest:g}]"),
        ("temperature * step_size", tau * xi, ~(tau * xi < 1), "less than 1"),
    ):
        if wrong.any():
            raise ValueError(f"{name} must be {rule}, not {values[wrong].flat[0]:g}")
