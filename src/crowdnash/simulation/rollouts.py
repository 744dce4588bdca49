"""Simulation of N-player games: batched trajectories in chunks that fit the cache.

A fixed policy makes trajectories independent, so B of them advance together. Work goes in chunks
of about `MAX_LANES` agents x trajectories; memory grows neither with the number of trajectories
nor (beyond a few words per agent and step) with N. All randomness is a function of
(key, trajectory, step, agent): see `random_draws`.

Axes: M trajectories, B trajectories of one chunk, H steps, N agents, [L,T] the places of the
agents (see `layout`), S states, A actions, K components of the aggregate.
"""

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer, PRNGKeyArray, PyTree, UInt32

from crowdnash.games.base import (
    PROBABILITY_TOLERANCE,
    DynamicGame,
    GameError,
    PopulationGame,
    TabularGame,
)
from crowdnash.games.checks import check_joint_law, check_shape, law_error, named, observes_integers
from crowdnash.games.random_draws import in_one_kernel, step_words, threefry2x32, uniform
from crowdnash.games.vectorised import (
    aggregates_of_others,
    contributions,
    rewards,
    sum_over_agents,
    transitions,
)
from crowdnash.policies.tabular import Policy, TabularPolicy, check_policy
from crowdnash.simulation.layout import AgentLayout, agent_layout

MAX_LANES = 20_480
_MAX_DRAWS = 2**20
_MAX_SELECTS = 64


class Trajectories(NamedTuple):
    """Simulated play: `states`, `actions` (int32) and `rewards` (float32), each [M,H,N].

    For a game that is only a simulator, `states` holds what the agents observed: int32 [M,H,N] if
    that is one integer each, else what `observe` gives, every array [M,H,N,...].
    """

    states: Any
    actions: Int[np.ndarray, "M H N"]
    rewards: Float[np.ndarray, "M H N"]


class Chunk(eqx.Module):
    """B simulated trajectories as the learners read them.

    `pairs` s*A + a and `rewards` (0 in empty places), [H,B,L,T]; `totals` [H,K,B], the sum of all
    agents' contributions (K = 0 unless the game is a `PopulationGame`).
    """

    pairs: Integer[Array, "H B L T"]
    rewards: Float[Array, "H B L T"]
    totals: Array


class ActionSampler(eqx.Module):
    """Draws actions for whole blocks of agents; `tables` has leading axis H."""

    tables: eqx.AbstractVar[PyTree]

    @abc.abstractmethod
    def draw(self, table: PyTree, states: Array, step: Array, numbers: Array) -> Array:
        """Actions [B,L,T] for `states`, from uniform `numbers`; `table` is one step's."""


class TableSampler(ActionSampler):
    """Inverse-CDF sampling from a small table, by comparisons instead of look-ups.

    `tables[s][a]`, [H,T] or [H] for one agent: the largest number that still draws an action <= a
    in state s. One array each, because slices of one large array would keep XLA from vectorising.
    """

    tables: tuple[tuple[Float[Array, "H *T"], ...], ...]

    def draw(self, table: PyTree, states: Array, step: Array, numbers: Array) -> Array:
        """See `ActionSampler.draw`."""
        thresholds = [_select(states, column) for column in zip(*table, strict=True)]
        return _inverse_cdf(thresholds, numbers)


class FunctionSampler(ActionSampler):
    """Calls `policy.probabilities` for every agent: any policy, at the price of its look-ups."""

    policy: Policy
    agent: Int[Array, "L T"]
    tables: None

    def __init__(self, policy: Policy, agent: Int[Array, "L T"]):
        self.policy, self.agent, self.tables = policy, agent, None

    def draw(self, table: PyTree, states: Array, step: Array, numbers: Array) -> Array:
        """See `ActionSampler.draw`."""
        one = self.policy.probabilities
        row = jax.vmap(one, in_axes=(0, 0, None), out_axes=-1)
        block = jax.vmap(row, in_axes=(0, 0, None), out_axes=-2)
        probs = jax.vmap(block, in_axes=(0, None, None), out_axes=-3)(states, self.agent, step)
        return draw_index(probs, numbers)


class DeviatingSampler(ActionSampler):
    """`base` for all agents but the one at flat place `place`, who follows its own table."""

    base: ActionSampler
    deviation: TableSampler
    place: Int[Array, ""]
    tables: PyTree

    def __init__(self, base: ActionSampler, deviation: TableSampler, place: Int[Array, ""]):
        self.base, self.deviation, self.place = base, deviation, place
        self.tables = (base.tables, deviation.tables)

    def draw(self, table: PyTree, states: Array, step: Array, numbers: Array) -> Array:
        """See `ActionSampler.draw`."""
        places = jnp.arange(states.shape[-2] * states.shape[-1], dtype=jnp.int32)
        deviates = places.reshape(states.shape[-2:]) == self.place
        others = self.base.draw(table[0], states, step, numbers)
        own = self.deviation.draw(table[1], states, step, numbers)
        return jnp.where(deviates, own, others)


def table_sampler(probs: Float[Array, "G H S A"], layout: AgentLayout | None) -> TableSampler:
    """Sampler for group tables; without a layout, for one table [1,H,S,A] and any agent."""
    num_states, num_actions = probs.shape[-2:]
    # A draw must never reach an action of probability 0, whatever the sums' last bits are.
    later = jnp.cumsum(probs[..., ::-1], axis=-1)[..., ::-1][..., 1:]
    below = jnp.cumsum(probs, axis=-1) / probs.sum(-1, keepdims=True)
    limits = jnp.where(later > 0, below[..., :-1], 2.0)
    by_step = jnp.moveaxis(limits, 0, -1)  # [H,S,A-1,G]
    spread = layout.spread if layout is not None else lambda x: x[..., 0]
    return TableSampler(
        tuple(
            tuple(spread(by_step[:, s, a]) for a in range(num_actions - 1))
            for s in range(num_states)
        )
    )


def action_sampler(policy: Policy, layout: AgentLayout) -> ActionSampler:
    """The fastest sampler for `policy`; its groups must be those of `layout` if it is tabular."""
    if isinstance(policy, TabularPolicy):
        _, _, num_states, num_actions = policy.probs.shape
        if num_states * num_actions <= _MAX_SELECTS and num_actions > 1:
            return table_sampler(policy.probs, layout)
    return FunctionSampler(policy, layout.agent)


def draw_index(probabilities: Float[Array, "C ..."], numbers: Array) -> Int[Array, "..."]:
    """Draw 0..C-1 with the given probabilities, leading axis C, from uniform numbers."""
    below = [probabilities[0]]
    for k in range(1, probabilities.shape[0]):
        below.append(below[-1] + probabilities[k])
    # Against the sum itself, not 1: a last entry of probability 0 must never be drawn.
    return _inverse_cdf(below[:-1], numbers * below[-1])


def _inverse_cdf(limits: list[Array], numbers: Array) -> Array:
    index = jnp.zeros(numbers.shape, jnp.int32)
    for limit in limits:
        index = index + (numbers >= limit)
    return index


def _select(index: Array, options: tuple[Array, ...]) -> Array:
    chosen = options[0]
    for k in range(1, len(options)):
        chosen = jnp.where(index == k, options[k], chosen)
    return chosen


def policy_layout(policy: Policy, num_agents: int) -> AgentLayout:
    """The layout for a policy's own groups; agents in their own order if it has none."""
    if isinstance(policy, TabularPolicy):
        return agent_layout(np.asarray(policy.groups), policy.num_groups)
    return agent_layout(np.arange(num_agents), num_agents)


def chunk_size(num_agents: int, num_trajectories: int) -> int:
    """B: as many trajectories at once as keep the working set small, dealt out evenly."""
    at_once = max(1, MAX_LANES // num_agents)
    chunks = -(-num_trajectories // at_once)
    return -(-num_trajectories // chunks)


def pair_dtype(num_pairs: int) -> np.dtype:
    """The smallest unsigned type that holds 0..num_pairs, the last meaning "nobody"."""
    return np.min_scalar_type(num_pairs)


def simulate_chunk(
    game: DynamicGame,
    sampler: ActionSampler,
    layout: AgentLayout,
    key: PRNGKeyArray,
    trajectories: UInt32[Array, " B"],
) -> Chunk:
    """Simulate the trajectories with the given numbers; to be called inside `jit`.

    A transition that is not a distribution turns the reward of its agent and step into NaN: the
    caller sees it in any sum of rewards, and `explain_fault` says what it was.
    """
    if not isinstance(game, TabularGame):
        return _simulate_black_box(game, sampler, layout, key, trajectories)
    words = step_words(key, game.horizon + 1)
    numbers = _draws(words[game.horizon :], layout, trajectories)[0][0]
    initial = game.initial_distribution.astype(jnp.float32)
    shape = (game.num_states, *numbers.shape)
    start = draw_index(jnp.broadcast_to(initial.reshape(-1, *(1,) * numbers.ndim), shape), numbers)
    dtype = pair_dtype(game.num_states * game.num_actions)

    def advance(states: Array, now: tuple) -> tuple[Array, tuple[Array, Array, Array]]:
        (act, move), table, step = now
        actions = sampler.draw(table, states, step, act)
        probs, reward, total = _joint_law(game, layout, states, actions, step)
        pairs = (states * game.num_actions + actions).astype(dtype)
        reward = _poisoned_where_wrong(probs, reward)
        if layout.padded:
            reward = jnp.where(layout.valid, reward, 0.0)
        return draw_index(probs, move), (pairs, reward, total)

    def block(states: Array, now: tuple) -> tuple[Array, tuple[Array, Array, Array]]:
        # A block's numbers are drawn before its scan: inside it they would spoil vectorisation.
        words, tables, steps = now
        numbers = _draws(words, layout, trajectories)
        return jax.lax.scan(advance, states, (numbers, tables, steps))

    steps = jnp.arange(game.horizon, dtype=jnp.int32)
    over = (words[: game.horizon], sampler.tables, steps)
    size = _steps_at_once(game.horizon, trajectories.shape[0] * layout.agent.size)
    if size == game.horizon:
        _, played = block(start, over)
    else:
        folded = jax.tree_util.tree_map(lambda x: x.reshape(-1, size, *x.shape[1:]), over)
        _, played = jax.lax.scan(block, start, folded)
        played = jax.tree_util.tree_map(lambda x: x.reshape(-1, *x.shape[2:]), played)
    return Chunk(*played)


def _steps_at_once(horizon: int, lanes: int) -> int:
    """The most steps, a divisor of H, whose random numbers stay within `_MAX_DRAWS`."""
    fits = [d for d in range(1, horizon + 1) if horizon % d == 0 and d * lanes <= _MAX_DRAWS]
    return max(fits, default=1)


def _draws(words: Array, layout: AgentLayout, trajectories: Array) -> tuple[Array, Array]:
    """Two uniform numbers, each [steps,B,L,T]: one for the action, one for the move."""
    first, second = (words[:, k, None, None, None] for k in range(2))
    agent = layout.agent.astype(jnp.uint32)
    bits = threefry2x32((first, second), (trajectories[:, None, None], agent))
    act, move = in_one_kernel(*bits)
    return uniform(act), uniform(move)


def _joint_law(
    game: TabularGame, layout: AgentLayout, states: Array, actions: Array, step: Array
) -> tuple[Array, Array, Array]:
    """P [S,B,L,T], R [B,L,T] and the total contribution [K,B]."""
    if isinstance(game, PopulationGame):
        agents = jax.tree_util.tree_map(lambda x: x[layout.agent], game.agents)
        given = contributions(game, agents, states, actions)
        if layout.padded:
            given = jnp.where(layout.valid, given, jnp.zeros((), given.dtype))
        total = sum_over_agents(given)
        met = aggregates_of_others(total, given, game.num_agents)
        probs = transitions(game, agents, states, actions, met, step)
        reward = rewards(game, agents, states, actions, met, step).astype(jnp.float32)
        return probs, reward, total
    batch = states.shape[0]
    own_states, own_actions = (layout.in_order(x) for x in (states, actions))
    over_batch = jax.vmap(game.joint_law, in_axes=(0, 0, None))
    probs, reward = over_batch(own_states, own_actions, step)
    check_joint_law(game, probs.shape[1:], reward.shape[1:])
    probs = jnp.moveaxis(probs, -1, 0)[..., layout.agent]
    return probs, reward[..., layout.agent].astype(jnp.float32), jnp.zeros((0, batch))


def _poisoned_where_wrong(probs: Array, reward: Array) -> Array:
    total, least = probs[0], probs[0]
    for k in range(1, probs.shape[0]):
        total = total + probs[k]
        least = jnp.minimum(least, probs[k])
    right = (jnp.abs(total - 1) <= PROBABILITY_TOLERANCE) & (least >= 0)
    return jnp.where(right, reward, jnp.nan)


def _simulate_black_box(
    game: DynamicGame,
    sampler: ActionSampler,
    layout: AgentLayout,
    key: PRNGKeyArray,
    trajectories: Array,
) -> Chunk:
    """The same for a bare simulator whose agents observe one integer each.

    Where one is no state, the reward is NaN.
    """
    seen, actions, reward = _play_black_box(game, sampler, layout, key, trajectories)
    seen = seen[..., layout.agent]
    num_states = getattr(game, "num_states", None)
    if num_states is not None:
        reward = jnp.where((seen >= 0) & (seen < num_states), reward, jnp.nan)
    reward = jnp.where(layout.valid, reward, 0.0)
    pairs = seen * game.num_actions + actions
    return Chunk(pairs, reward, jnp.zeros((game.horizon, 0, trajectories.shape[0])))


def _play_black_box(
    game: DynamicGame,
    sampler: ActionSampler,
    layout: AgentLayout,
    key: PRNGKeyArray,
    trajectories: Array,
) -> tuple[PyTree, Array, Array]:
    """What agents observed, [H,B,N,...], their actions and rewards, [H,B,L,T]."""
    words = step_words(key, game.horizon)
    numbers, _ = _draws(words, layout, trajectories)
    keys = jax.vmap(lambda m: jax.random.fold_in(jax.random.fold_in(key, game.horizon), m))(
        trajectories
    )
    start = jax.vmap(lambda k: game.reset(jax.random.fold_in(k, game.horizon)))(keys)

    def advance(state: PyTree, now: tuple) -> tuple[PyTree, tuple[PyTree, Array, Array]]:
        act, table, step = now
        seen = jax.vmap(game.observe)(state)
        by_place = jax.tree.map(lambda x: x[:, layout.agent], seen)
        actions = sampler.draw(table, by_place, step, act)
        natural = layout.in_order(actions)
        step_keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, step)
        state, reward = jax.vmap(game.step)(state, natural, step_keys)
        check_shape(game, "all agents' rewards", reward.shape[1:], (game.num_agents,))
        return state, (seen, actions, reward[:, layout.agent].astype(jnp.float32))

    steps = jnp.arange(game.horizon, dtype=jnp.int32)
    _, played = jax.lax.scan(advance, start, (numbers, sampler.tables, steps))
    return played


@eqx.filter_jit
def _simulate_in_order(
    game: DynamicGame,
    sampler: ActionSampler,
    layout: AgentLayout,
    key: PRNGKeyArray,
    trajectories: Array,
) -> tuple[Array, Array, Array]:
    """States, actions and rewards of one chunk, [B,H,N], agents in their own order."""
    return in_order(game, layout, simulate_chunk(game, sampler, layout, key, trajectories))


def in_order(game: DynamicGame, layout: AgentLayout, chunk: Chunk) -> tuple[Array, Array, Array]:
    """States, actions and rewards of a chunk, [B,H,N], agents in their own order."""
    pairs = layout.in_order(chunk.pairs).swapaxes(0, 1).astype(jnp.int32)
    reward = layout.in_order(chunk.rewards).swapaxes(0, 1)
    return pairs // game.num_actions, pairs % game.num_actions, reward


@eqx.filter_jit
def _simulate_observations(
    game: DynamicGame,
    sampler: ActionSampler,
    layout: AgentLayout,
    key: PRNGKeyArray,
    trajectories: Array,
) -> tuple[PyTree, Array, Array]:
    """The same for a bare simulator that may show anything: observations [B,H,N,...]."""
    seen, actions, reward = _play_black_box(game, sampler, layout, key, trajectories)
    played = (seen, layout.in_order(actions), layout.in_order(reward))
    return jax.tree.map(lambda x: x.swapaxes(0, 1), played)


def simulate(
    game: DynamicGame, policy: Policy, *, key: PRNGKeyArray, num_trajectories: int
) -> Trajectories:
    """Simulate `num_trajectories` independent plays of all N agents under `policy`.

    **Arguments:** `game` any game; `policy` one policy for each agent (`TabularPolicy` or any
    `Policy`); `key` decides every draw: trajectory m is the same whatever `num_trajectories` is.

    **Returns:** `Trajectories` with states, actions, rewards, each [M,H,N], M = num_trajectories.

    **Raises:** `ValueError` if the policy does not fit the game or `num_trajectories` < 1;
    `GameError` naming agent, state and action if the game pays a NaN, a transition is not a
    distribution, or an observation is none of its states.
    """
    if num_trajectories < 1:
        raise ValueError(f"num_trajectories must be at least 1, not {num_trajectories}")
    check_policy(game, policy)
    integers = observes_integers(game)
    layout = policy_layout(policy, game.num_agents)
    sampler = action_sampler(policy, layout)
    size = chunk_size(game.num_agents, num_trajectories)
    parts = []
    for first in range(0, num_trajectories, size):
        numbers = jnp.arange(first, first + size, dtype=jnp.uint32)
        play = _simulate_in_order if integers else _simulate_observations
        parts.append(jax.device_get(play(game, sampler, layout, key, numbers)))
    states, actions, reward = jax.tree_util.tree_map(
        lambda *x: np.concatenate(x)[:num_trajectories], *parts
    )
    played = Trajectories(states, actions, reward)
    explain_fault(game, played)
    return played


def explain_fault(game: DynamicGame, played: Trajectories) -> None:
    """Raise `GameError` naming the first agent whose reward, transition or state is not allowed."""
    low, high = _declared_range(game)
    faults = np.argwhere(~((played.rewards >= low) & (played.rewards <= high)))
    if not len(faults):
        return
    m, h, i = (int(k) for k in faults[0])
    where = f"{named(game)}: agent {i} at step {h}"
    if not isinstance(game, TabularGame):
        num_states = getattr(game, "num_states", None)
        state = int(played.states[m, h, i]) if observes_integers(game) else 0
        if num_states is not None and not 0 <= state < num_states:
            raise GameError(f"{where} observes {state}: must lie in 0..{num_states - 1}")
        raise GameError(f"{where}: reward must be a finite number, not {played.rewards[m, h, i]}")
    if np.isfinite(played.rewards[m, h, i]):
        raise GameError(
            f"{where} in state {played.states[m, h, i]} with action {played.actions[m, h, i]}: "
            f"reward must lie in reward_range {game.reward_range}, not {played.rewards[m, h, i]}"
        )
    states, actions = (jnp.asarray(x[m, h], jnp.int32) for x in played[:2])
    probs, reward = game.joint_law(states, actions, jnp.asarray(h, jnp.int32))
    raise law_error(game, i, h, int(states[i]), int(actions[i]), probs[i], float(reward[i]))


def _declared_range(game: DynamicGame) -> tuple[float, float]:
    """The rewards that a game may pay: what it declares, rounding allowed for, or any number."""
    declared = game.reward_range if isinstance(game, TabularGame) else None
    if declared is None:
        return float(-np.finfo(np.float32).max), float(np.finfo(np.float32).max)
    slack = 1e-5 * max(abs(declared[0]), abs(declared[1]), declared[1] - declared[0])
    return declared[0] - slack, declared[1] + slack
