"""What every game must satisfy, as one check that authors of new games can run.

Laws are evaluated at populations that N agents can really form: joint profiles are drawn, and
each agent meets what the *others* of its profile do. The profiles are all agents in one pair
(the vertices of the simplex over S x A), agents spread evenly over the pairs, and a few skewed
random ones.

Axes: P profiles, n agents that are looked at, N agents, H steps, S states, A actions, K
components of the aggregate.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from crowdnash.game import (
    PROBABILITY_TOLERANCE,
    DynamicGame,
    GameError,
    PopulationGame,
    TabularGame,
    summed_exactly_as,
)

_TOLERANCE = 2e-5
"""Largest difference, relative to 1 + |value|, between numbers that are equal but for float32."""

_MAX_NUMBERS = 2**23
_MAX_STEPS = 32
_MAX_VERTICES = 32
_NUM_RANDOM_PROFILES = 4
_FEW = 4


class _Profiles(NamedTuple):
    """Joint state-actions, each [P,N]."""

    states: Int[Array, "P N"]
    actions: Int[Array, "P N"]


class _Laws(NamedTuple):
    """`transitions` [P,n,H,S,A,S] and `rewards` [P,n,H,S,A]: own pair and population are free."""

    transitions: np.ndarray
    rewards: np.ndarray


class _Sample(NamedTuple):
    """Which agents [n] and which steps [H] are looked at: all of them unless that is too much."""

    agents: Int[np.ndarray, " n"]
    steps: Int[np.ndarray, " h"]


def check_game(game: DynamicGame, *, key: PRNGKeyArray | None = None) -> None:
    """Raise unless `game` keeps the contract of its class.

    A `DynamicGame`: sizes; shapes and types of `reset`, `step` and `observe`, at every step; the
    same key gives the same outcome; rewards are finite. A `TabularGame` as well:
    `initial_distribution` and every transition are probabilities that sum to 1; rewards are
    finite and within `reward_range`; `joint_law` agrees with `law`; `state_names`,
    `action_names` and `agent_features` fit. A `PopulationGame` as well: `law` and `joint_law`
    agree with `transition` and `reward` at the others' mean contribution;
    `transition_in_aggregate` and `reward_in_aggregate` are true; relabelling the agents relabels
    the laws (where the arrays of `game.agents` are fields of the game).

    Laws are evaluated for all agents, states, actions and steps at about a dozen populations; for
    a very large game, for a sample of agents and steps. Passing is strong evidence, not a proof.

    **Arguments:** `key` decides the populations and the play (default `jax.random.key(0)`).

    **Raises:** `GameError`, in one line that names the game, the rule and, where they matter,
    agent, step, state and action.
    """
    profile_key, law_key, play_key = jax.random.split(jax.random.key(0) if key is None else key, 3)
    _check_sizes(game)
    if isinstance(game, TabularGame):
        _check_descriptions(game)
        _check_shapes(game)
        profiles = _draw_profiles(game, profile_key)
        sample = _choose_sample(game, len(profiles.states))
        if isinstance(game, PopulationGame):
            laws = _check_population_laws(game, profiles, sample, law_key)
            _check_relabelling(game, profiles, law_key)
        else:
            laws = _evaluate(_law_of_others(game), _others(game, profiles, sample), game, sample)
            _check_laws(game, laws, sample)
        _check_agreement(game, profiles, laws, sample)
    _check_play(game, play_key)


def _fail(game: DynamicGame, rule: str, where: str = "") -> NoReturn:
    place = f": {where}" if where else ""
    raise GameError(f"game {game.name or type(game).__name__!r}{place}: {rule}")


def _where(sample: _Sample, index: Any) -> str:
    """The place [p,n,h,s,a] in words."""
    _, agent, step, state, action = (int(k) for k in index[:5])
    return (
        f"agent {sample.agents[agent]} at step {sample.steps[step]} "
        f"in state {state} with action {action}"
    )


def _check_sizes(game: DynamicGame) -> None:
    sizes = {"num_agents": 2, "num_actions": 1, "horizon": 1}
    if isinstance(game, TabularGame):
        sizes["num_states"] = 1
    for name, least in sizes.items():
        value = getattr(game, name)
        if not isinstance(value, int | np.integer) or isinstance(value, bool):
            _fail(game, f"{name} must be an int, not {type(value).__name__}")
        if value < least:
            _fail(game, f"{name} must be at least {least}, not {value}")


def _check_descriptions(game: TabularGame) -> None:
    """The facts a game states about itself beside its laws."""
    initial = np.asarray(game.initial_distribution)
    if initial.shape != (game.num_states,) or not np.issubdtype(initial.dtype, np.floating):
        _fail(
            game,
            f"initial_distribution must be float of shape [{game.num_states}], "
            f"not {initial.dtype} of shape {list(initial.shape)}",
        )
    if not _is_distribution(initial):
        _fail(
            game,
            "initial_distribution must be probabilities that sum to 1 within "
            f"{PROBABILITY_TOLERANCE}, not {initial.tolist()}",
        )
    for name, size in (("state_names", game.num_states), ("action_names", game.num_actions)):
        if len(getattr(game, name)) != size:
            _fail(game, f"{name} must have {size} entries, not {len(getattr(game, name))}")
    features = game.agent_features
    if features is not None:
        if features.ndim != 2 or features.shape[0] != game.num_agents:
            _fail(
                game,
                f"agent_features must have shape [{game.num_agents},d], not {list(features.shape)}",
            )
        if not np.isfinite(features).all():
            _fail(game, "agent_features must be finite numbers")
    bounds = game.reward_range
    if bounds is not None and not -np.inf < bounds[0] <= bounds[1] < np.inf:
        _fail(game, f"reward_range must be (lowest, highest), both finite, not {bounds}")


def _check_shapes(game: TabularGame) -> None:
    """What one call of the author's functions gives, without computing it."""
    i32 = jax.ShapeDtypeStruct((), jnp.int32)
    if isinstance(game, PopulationGame):
        for leaf in jax.tree_util.tree_leaves(game.agents):
            if jnp.shape(leaf)[:1] != (game.num_agents,):
                _fail(
                    game,
                    f"every array of agents must have leading axis [{game.num_agents}], "
                    f"one has shape {list(jnp.shape(leaf))}",
                )
        own = _take(game.agents, 0)
        given = jax.eval_shape(game.contribution, own, i32, i32)
        if len(given.shape) != 1:
            _fail(game, f"contribution must have shape [K], not {list(given.shape)}")
        met = jax.ShapeDtypeStruct(given.shape, jnp.float32)
        probs = jax.eval_shape(game.transition, own, i32, i32, met, i32)
        reward = jax.eval_shape(game.reward, own, i32, i32, met, i32)
        names = ("transition", "reward")
    else:
        others = jax.ShapeDtypeStruct((game.num_agents - 1,), jnp.int32)
        probs, reward = jax.eval_shape(game.law, i32, i32, i32, others, others, i32)
        names = ("the first part of law", "the second part of law")
    wanted = ((names[0], probs, (game.num_states,)), (names[1], reward, ()))
    for name, value, shape in wanted:
        if value.shape != shape or not jnp.issubdtype(value.dtype, jnp.floating):
            _fail(
                game,
                f"{name} must be float of shape {list(shape)}, "
                f"not {value.dtype} of shape {list(value.shape)}",
            )


def _draw_profiles(game: TabularGame, key: PRNGKeyArray) -> _Profiles:
    """The joint profiles that laws are evaluated at, pairs counted s*A + a."""
    n, pairs = game.num_agents, game.num_states * game.num_actions
    even_key, skew_key, pick_key = jax.random.split(key, 3)
    corners = np.unique(np.linspace(0, pairs - 1, min(pairs, _MAX_VERTICES)).astype(np.int32))
    vertices = jnp.broadcast_to(jnp.asarray(corners)[:, None], (len(corners), n))
    even = jax.random.permutation(even_key, jnp.arange(n, dtype=jnp.int32) % pairs)[None]
    # Gumbel numbers as log-weights: some pairs are crowded, others almost empty.
    weights = 2 * jax.random.gumbel(skew_key, (_NUM_RANDOM_PROFILES, 1, pairs))
    skewed = jax.random.categorical(pick_key, weights, shape=(_NUM_RANDOM_PROFILES, n))
    drawn = jnp.concatenate([vertices, even, skewed.astype(jnp.int32)])
    return _Profiles(drawn // game.num_actions, drawn % game.num_actions)


def _choose_sample(game: TabularGame, num_profiles: int) -> _Sample:
    steps = _spread_over(game.horizon, _MAX_STEPS)
    width = game.num_states if isinstance(game, PopulationGame) else game.num_agents
    pairs = game.num_states * game.num_actions
    each = num_profiles * len(steps) * pairs * max(width, game.num_states)
    return _Sample(_spread_over(game.num_agents, max(_FEW, _MAX_NUMBERS // each)), steps)


def _spread_over(size: int, most: int) -> Int[np.ndarray, " n"]:
    """At most `most` of 0..size-1, first and last among them."""
    return np.unique(np.linspace(0, size - 1, min(size, most)).round().astype(np.int32))


def _take(tree: PyTree, index: Any) -> PyTree:
    return jax.tree_util.tree_map(lambda x: x[index], tree)


def _others(
    game: TabularGame, profiles: _Profiles, sample: _Sample
) -> tuple[Int[Array, " n"], PyTree]:
    """The agents' indices, and the states and actions of everyone else, [P,n,N-1]."""
    agents = sample.agents[:, None]
    index = np.arange(game.num_agents - 1)[None]
    index = index + (index >= agents)
    return jnp.asarray(sample.agents), tuple(x[:, index] for x in profiles)


def _law_of_others(game: TabularGame) -> Callable[..., tuple[Array, Array]]:
    return lambda i, others, s, a, h: game.law(i, s, a, *others, h)


def _law_of_aggregate(game: PopulationGame) -> Callable[..., tuple[Array, Array]]:
    def law(agent: Any, met: Array, s: Array, a: Array, h: Array) -> tuple[Array, Array]:
        return game.transition(agent, s, a, met, h), game.reward(agent, s, a, met, h)

    return law


def _evaluate(
    law: Callable[..., tuple[Array, Array]],
    given: tuple[PyTree, PyTree],
    game: TabularGame,
    sample: _Sample,
) -> _Laws:
    """`law(agent, population, s, a, h)` for everything; `given` = agents [n], populations [P,n]."""
    axes = [(None, None, None, 0, None), (None, None, 0, None, None), (None, None, None, None, 0)]
    for own_axes in (*axes, (0, 0, None, None, None), (None, 0, None, None, None)):
        law = jax.vmap(law, in_axes=own_axes)
    states, actions = (jnp.arange(k, dtype=jnp.int32) for k in (game.num_states, game.num_actions))
    probs, rewards = jax.jit(law)(*given, states, actions, jnp.asarray(sample.steps))
    return _Laws(np.asarray(probs), np.asarray(rewards))


def _is_distribution(probs: np.ndarray) -> Any:
    total = probs.sum(-1, dtype=np.float64)
    return (np.abs(total - 1) <= PROBABILITY_TOLERANCE) & (probs >= 0).all(-1)


def _check_laws(game: TabularGame, laws: _Laws, sample: _Sample) -> None:
    wrong = ~_is_distribution(laws.transitions)
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0])
        _fail(
            game,
            "transition must be probabilities that sum to 1 within "
            f"{PROBABILITY_TOLERANCE}, not {laws.transitions[at].tolist()}",
            _where(sample, at),
        )
    wrong = ~np.isfinite(laws.rewards)
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0])
        _fail(game, f"reward must be a finite number, not {laws.rewards[at]}", _where(sample, at))
    if game.reward_range is not None:
        low, high = game.reward_range
        slack = _TOLERANCE * (1 + max(abs(low), abs(high)))
        wrong = (laws.rewards < low - slack) | (laws.rewards > high + slack)
        if wrong.any():
            at = tuple(np.argwhere(wrong)[0])
            _fail(
                game,
                f"reward must be within reward_range [{low:g}, {high:g}], not {laws.rewards[at]}",
                _where(sample, at),
            )


def _check_population_laws(
    game: PopulationGame, profiles: _Profiles, sample: _Sample, key: PRNGKeyArray
) -> _Laws:
    """Transitions, rewards, and the declared dependence on the aggregate."""
    met = _aggregates(game, profiles, sample)
    if not np.isfinite(met).all():
        _fail(game, "contribution must be finite numbers")
    law, agents = _law_of_aggregate(game), _take(game.agents, jnp.asarray(sample.agents))
    laws = _evaluate(law, (agents, met), game, sample)
    _check_laws(game, laws, sample)
    declared = (game.transition_in_aggregate, game.reward_in_aggregate)
    if declared == ("nonlinear", "nonlinear"):
        return laws
    order_key, weight_key = jax.random.split(key)
    num = len(met)
    partner = np.roll(np.asarray(jax.random.permutation(order_key, num)), 1)
    weight = np.asarray(jax.random.uniform(weight_key, (num,), minval=0.2, maxval=0.8))
    between = weight[:, None, None] * met + (1 - weight[:, None, None]) * met[partner]
    mixed = _evaluate(law, (agents, between), game, sample)
    for name, dependence, here, mean in zip(
        ("transition", "reward"), declared, laws, mixed, strict=True
    ):
        there, share = here[partner], weight.reshape(-1, *(1,) * (here.ndim - 1))
        if dependence == "nonlinear":
            continue
        if dependence == "free":
            gap, rule = np.abs(here - there), "differ between two aggregates"
        else:
            gap = np.abs(mean - share * here - (1 - share) * there)
            rule = "at l*x + (1-l)*y differ from l times that at x plus (1-l) times that at y"
        wrong = ~(gap <= _TOLERANCE * (1 + np.maximum(np.abs(here), np.abs(there))))
        if wrong.any():
            at = tuple(np.argwhere(wrong)[0])
            _fail(
                game,
                f"{name}_in_aggregate is declared {dependence!r}, but must not {rule}: "
                f"by {gap[at]:g} here",
                _where(sample, at),
            )
    return laws


def _aggregates(
    game: PopulationGame, profiles: _Profiles, sample: _Sample
) -> Float[np.ndarray, "P n K"]:
    """What the agents of the sample meet in every profile."""
    chosen = jnp.asarray(sample.agents)

    def of_one(profile: _Profiles) -> Array:
        given = jax.vmap(game.contribution)(game.agents, *profile)
        given = given.astype(summed_exactly_as(given.dtype))
        return (given.sum(0) - given[chosen]).astype(jnp.float32) / (game.num_agents - 1)

    return np.asarray(jax.jit(lambda p: jax.lax.map(of_one, p))(profiles))


def _check_agreement(
    game: TabularGame, profiles: _Profiles, laws: _Laws, sample: _Sample
) -> None:
    """`law` and `joint_law` against the laws evaluated above, at each profile's own pairs."""
    joint_law, law = jax.jit(game.joint_law), jax.jit(jax.vmap(game.law, (0, 0, 0, 0, 0, None)))
    few = _spread_over(len(sample.agents), _FEW)
    agents = sample.agents
    _, others = _others(game, profiles, _Sample(agents[few], sample.steps))
    for p in _spread_over(len(profiles.states), 2 * _FEW):
        k = int(p) % len(sample.steps)
        states, actions = (np.asarray(x[p]) for x in profiles)
        step = jnp.asarray(sample.steps[k])
        own = (np.arange(len(agents)), k, states[agents], actions[agents])
        expected = (laws.transitions[p][own], laws.rewards[p][own])
        joint = joint_law(jnp.asarray(states), jnp.asarray(actions), step)
        rest = tuple(x[p] for x in others)
        mine = tuple(jnp.asarray(x[agents[few]]) for x in (states, actions))
        single = law(jnp.asarray(agents[few]), *mine, *rest, step)
        found = (("joint_law", _take(joint, agents), agents, expected),)
        if isinstance(game, PopulationGame):
            found += (("law", single, agents[few], _take(expected, few)),)
        for name, got, who, want in found:
            source = "law" if not isinstance(game, PopulationGame) else "transition and reward"
            wrong = _differs(got, want)
            if wrong.any():
                i = int(np.argwhere(wrong)[0][0])
                where = (
                    f"agent {who[i]} at step {int(step)} "
                    f"in state {states[who[i]]} with action {actions[who[i]]}"
                )
                _fail(game, f"{name} must agree with {source}", where)


def _differs(got: Any, want: Any) -> np.ndarray:
    """[n] bool: whether (probabilities [n,S], rewards [n]) are not the same two."""
    different = np.zeros(len(want[1]), bool)
    for a, b in zip(got, want, strict=True):
        a, b = (np.asarray(x).reshape(len(different), -1) for x in (a, b))
        different |= ~(np.abs(a - b) <= _TOLERANCE * (1 + np.abs(b))).all(-1)
    return different


def _check_relabelling(game: PopulationGame, profiles: _Profiles, key: PRNGKeyArray) -> None:
    """Agents have no names: agents in another order have the same laws in that order."""
    order = np.asarray(jax.random.permutation(key, game.num_agents))
    relabelled = _relabelled(game, order)
    if relabelled is None:
        return
    step = jnp.asarray(game.horizon - 1, jnp.int32)
    for states, actions in zip(*(x[-_FEW:] for x in profiles), strict=True):
        want = _take(game.joint_law(states, actions, step), order)
        wrong = _differs(relabelled.joint_law(states[order], actions[order], step), want)
        if wrong.any():
            agent = int(order[np.argwhere(wrong)[0][0]])
            where = (
                f"agent {agent} at step {int(step)} "
                f"in state {int(states[agent])} with action {int(actions[agent])}"
            )
            _fail(game, "permuting the agents must permute the laws and change nothing", where)


def _relabelled(game: PopulationGame, order: np.ndarray) -> PopulationGame | None:
    """`game` with its agents in another order; None if their arrays are not fields of it."""
    own = {id(leaf) for leaf in jax.tree_util.tree_leaves(game.agents)}
    fields = {id(leaf) for leaf in jax.tree_util.tree_leaves(game)}
    if not own <= fields:
        return None
    return jax.tree_util.tree_map(lambda x: x[order] if id(x) in own else x, game)


def _check_play(game: DynamicGame, key: PRNGKeyArray) -> None:
    """Play all H steps once, and the first one twice."""
    reset_key, action_key, step_key = jax.random.split(key, 3)
    n = game.num_agents
    shape = (game.horizon, n)
    actions = jax.random.randint(action_key, shape, 0, game.num_actions, jnp.int32)
    state = game.reset(reset_key)
    if not _same(state, game.reset(reset_key)):
        _fail(game, "reset must give the same state for the same key")
    # Once compiled and once not: a draw that does not come from the key shows.
    step = jax.jit(game.step)
    if not _same(step(state, actions[0], step_key), game.step(state, actions[0], step_key)):
        _fail(game, "step must give the same outcome for the same state, actions and key")
    first = _outline(state)
    for h in range(game.horizon):
        for leaf in jax.tree_util.tree_leaves(game.observe(state)):
            if jnp.shape(leaf)[:1] != (n,):
                _fail(
                    game,
                    f"every array of observe must have leading axis [{n}], "
                    f"one has shape {list(jnp.shape(leaf))} at step {h}",
                )
        state, rewards = step(state, actions[h], jax.random.fold_in(step_key, h))
        if _outline(state) != first:
            _fail(
                game,
                "step must return a state of the same structure, shapes and types as reset: "
                f"{_outline(state)} after step {h}, {first} before",
            )
        if jnp.shape(rewards) != (n,) or not jnp.issubdtype(rewards.dtype, jnp.floating):
            _fail(
                game,
                f"the rewards of step must be float of shape [{n}], "
                f"not {rewards.dtype} of shape {list(jnp.shape(rewards))} at step {h}",
            )
        if not np.isfinite(rewards).all():
            agent = int(np.argwhere(~np.isfinite(rewards))[0][0])
            _fail(
                game,
                f"reward must be a finite number, not {float(rewards[agent])}",
                f"agent {agent} at step {h} with action {int(actions[h, agent])}",
            )


def _outline(tree: PyTree) -> str:
    return str(jax.tree_util.tree_map(lambda x: f"{x.dtype}{list(x.shape)}", tree))


def _same(one: PyTree, other: PyTree) -> bool:
    if _outline(one) != _outline(other):
        return False
    pairs = zip(*(jax.tree_util.tree_leaves(t) for t in (one, other)), strict=True)
    return all(_close(a, b) for a, b in pairs)


def _close(one: Any, other: Any) -> bool:
    """Equal; floats but for the rounding by which compiled code differs."""
    if not jnp.issubdtype(one.dtype, jnp.inexact):
        if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        return bool(np.array_equal(one, other))
    return bool(np.allclose(one, other, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True))
