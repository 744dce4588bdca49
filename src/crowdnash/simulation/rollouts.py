"""Simulation of N-player games: batched trajectories in chunks that fit the cache.

A fixed policy makes trajectories independent, so B of them advance together. Work goes in chunks
of about `tuning().lanes` agents x trajectories; memory grows neither with the number of
trajectories nor (beyond a few words per agent and step) with N. All randomness is a function of
(key, trajectory, step, agent): see `random_draws`.

Axes: M trajectories, B trajectories of one chunk, H steps, N agents, [L,T] the places of the
agents (see `layout`), S states, A actions, K components of the aggregate.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, UInt32

from crowdnash.games.base import (
    PROBABILITY_TOLERANCE,
    DynamicGame,
    PopulationGame,
    TabularGame,
)
from crowdnash.games.checks import check_joint_law, check_shape
from crowdnash.games.random_draws import in_one_kernel, step_words, threefry2x32, uniform
from crowdnash.games.vectorised import (
    aggregates_of_others,
    contributions,
    rewards,
    sum_over_agents,
    transitions,
)
from crowdnash.policies.base import Policy
from crowdnash.policies.tabular import TabularPolicy
from crowdnash.simulation.devices import ALONE, Devices
from crowdnash.simulation.layout import AgentLayout, agent_layout
from crowdnash.simulation.samplers import ActionSampler, draw_index
from crowdnash.simulation.trajectories import Chunk, pair_dtype
from crowdnash.tuning import tuning


def policy_layout(policy: Policy, num_agents: int) -> AgentLayout:
    """The layout for a policy's own groups; agents in their own order if it has none."""
    if isinstance(policy, TabularPolicy):
        return agent_layout(np.asarray(policy.groups), policy.num_groups)
    return agent_layout(np.arange(num_agents), num_agents)


def chunk_size(num_agents: int, num_trajectories: int, devices: Devices = ALONE) -> int:
    """B: as many trajectories at once as keep the working set small, dealt out evenly."""
    num_agents = -(-num_agents // devices.size("agents"))
    num_trajectories = -(-num_trajectories // devices.size("trajectories"))
    lanes = tuning().shared_lanes if devices.size("agents") > 1 else tuning().lanes
    at_once = max(1, lanes // num_agents)
    chunks = -(-num_trajectories // at_once)
    return -(-num_trajectories // chunks)


def fold_trajectories(
    game: DynamicGame,
    sampler: ActionSampler,
    layout: AgentLayout,
    key: PRNGKeyArray,
    num_trajectories: Int[Array, ""],
    observed: Bool[Array, "L T"],
    size: int,
    num_pairs: int,
    add: Callable[[Any, Chunk, Array], Any],
    start: Any,
    devices: Devices = ALONE,
) -> tuple[Any, Float[Array, ""]]:
    """Simulate trajectories 0..num_trajectories-1 in chunks and take them in; inside `jit`.

    Args:
        game: The game.
        sampler: Draws actions.
        layout: Where agents lie.
        key: Of all draws.
        num_trajectories: How many.
        observed: Places that are looked at; pairs elsewhere are X, "nobody".
        size: Trajectories of a chunk.
        num_pairs: X.
        add: From what was gathered so far, a chunk and which of its trajectories count, [B], to
            what is gathered with it.
        start: Gathered before the first chunk.
        devices: Who plays; inside `devices.map`. In a round each device plays a chunk.

    Returns:
        What was gathered, by each device for itself, and the mean return (over all trajectories
        and agents).
    """
    nobody = jnp.asarray(num_pairs)

    def chunk_added(index: Array, carry: tuple) -> tuple[Any, Array]:
        gathered, total = carry
        numbers = devices.numbers(index, size)
        active = numbers < num_trajectories.astype(jnp.uint32)
        chunk = simulate_chunk(game, sampler, layout, key, numbers, devices=devices)
        returns = chunk.rewards.sum((0, 2, 3)) / game.num_agents
        total = total + jnp.where(active, returns, 0.0).sum()
        pairs = jnp.where(observed, chunk.pairs, nobody.astype(chunk.pairs.dtype))
        return add(gathered, Chunk(pairs, chunk.rewards, chunk.totals), active), total

    in_a_round = size * devices.size("trajectories")
    rounds = (num_trajectories + in_a_round - 1) // in_a_round
    gathered, total = jax.lax.fori_loop(0, rounds, chunk_added, (start, jnp.float32(0)))
    total = devices.sum_over_agents(devices.sum_over_trajectories(total))
    return gathered, total / num_trajectories


def simulate_chunk(
    game: DynamicGame,
    sampler: ActionSampler,
    layout: AgentLayout,
    key: PRNGKeyArray,
    trajectories: UInt32[Array, " B"],
    numbers_of: UInt32[Array, "B L T"] | None = None,
    devices: Devices = ALONE,
) -> Chunk:
    """Simulate the trajectories numbered `trajectories`; to be called inside `jit`.

    Agents draw by their indices, or by `numbers_of` (of a `TabularGame`): an agent with a number
    of its own, N or larger, draws anew while all others draw the same. Where `devices` share the
    agents, `layout` has those of this device, and the totals are of all.

    A transition that is not a distribution turns the reward of its agent and step into NaN: the
    caller sees it in any sum of rewards, and `explain_fault` says what it was.
    """
    if not isinstance(game, TabularGame):
        return _simulate_black_box(game, sampler, layout, key, trajectories)
    words = step_words(key, game.horizon + 1)
    if numbers_of is None:
        numbers_of = layout.agent.astype(jnp.uint32)
    numbers = draws(words[game.horizon :], numbers_of, trajectories)[0][0]
    initial = game.initial_distribution.astype(jnp.float32)
    shape = (game.num_states, *numbers.shape)
    if initial.ndim == 1:
        initial = initial.reshape(-1, *(1,) * numbers.ndim)
    else:
        initial = initial.T[:, None, layout.agent]
    start = draw_index(jnp.broadcast_to(initial, shape), numbers)
    dtype = pair_dtype(game.num_states * game.num_actions)

    def advance(states: Array, now: tuple) -> tuple[Array, tuple[Array, Array, Array]]:
        (act, move), table, step = now
        actions = sampler.draw(table, states, step, act)
        probs, reward, total = _joint_law(game, layout, states, actions, step, devices)
        pairs = (states * game.num_actions + actions).astype(dtype)
        reward = jnp.where(are_distributions(probs), reward, jnp.nan)
        if layout.padded:
            reward = jnp.where(layout.valid, reward, 0.0)
        return draw_index(probs, move), (pairs, reward, total)

    def block(states: Array, now: tuple) -> tuple[Array, tuple[Array, Array, Array]]:
        # A block's numbers are drawn before its scan: inside it they would spoil vectorisation.
        words, tables, steps = now
        numbers = draws(words, numbers_of, trajectories)
        return jax.lax.scan(advance, states, (numbers, tables, steps))

    steps = jnp.arange(game.horizon, dtype=jnp.int32)
    over = (words[: game.horizon], sampler.tables, steps)
    blocks, size = _blocks_of_steps(game.horizon, trajectories.shape[0] * layout.agent.size)
    if blocks == 1:
        _, played = block(start, over)
        return Chunk(*played)
    # The last step is played again until the last block is full; nobody sees it.
    rows = jnp.minimum(jnp.arange(blocks * size), game.horizon - 1).reshape(blocks, size)
    _, played = jax.lax.scan(block, start, jax.tree.map(lambda x: x[rows], over))
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[: game.horizon], played)
    return Chunk(*flat)


def _blocks_of_steps(horizon: int, lanes: int) -> tuple[int, int]:
    """How many blocks, of how many steps, so that a block's random numbers fit `tuning().draws`."""
    blocks = -(-horizon // max(1, tuning().draws // lanes))
    return blocks, -(-horizon // blocks)


def draws(
    words: Array, numbers_of: UInt32[Array, "*B L T"], trajectories: Array
) -> tuple[Array, Array]:
    """Two uniform numbers, each [steps,B,L,T]: one for the action, one for the move."""
    first, second = (words[:, k, None, None, None] for k in range(2))
    bits = threefry2x32((first, second), (trajectories[:, None, None], numbers_of))
    act, move = in_one_kernel(*bits)
    return uniform(act), uniform(move)


def _joint_law(
    game: TabularGame,
    layout: AgentLayout,
    states: Array,
    actions: Array,
    step: Array,
    devices: Devices,
) -> tuple[Array, Array, Array]:
    """P [S,B,L,T], R [B,L,T] and the total contribution [K,B]."""
    if isinstance(game, PopulationGame):
        agents = jax.tree_util.tree_map(lambda x: x[layout.agent], game.agents)
        own = contributions(game, agents, states, actions)
        if layout.padded:
            own = jnp.where(layout.valid, own, jnp.zeros((), own.dtype))
        total = devices.sum_over_agents(sum_over_agents(own))
        aggregate = aggregates_of_others(total, own, game.num_agents)
        probs = transitions(game, agents, states, actions, aggregate, step)
        reward = rewards(game, agents, states, actions, aggregate, step).astype(jnp.float32)
        return probs, reward, total
    batch = states.shape[0]
    own_states, own_actions = (layout.in_order(x) for x in (states, actions))
    over_batch = jax.vmap(game.joint_law, in_axes=(0, 0, None))
    probs, reward = over_batch(own_states, own_actions, step)
    check_joint_law(game, probs.shape[1:], reward.shape[1:])
    probs = jnp.moveaxis(probs, -1, 0)[..., layout.agent]
    return probs, reward[..., layout.agent].astype(jnp.float32), jnp.zeros((0, batch))


def are_distributions(probs: Float[Array, "S ..."]) -> Bool[Array, "..."]:
    """Whether what lies along the leading axis is not negative and sums to 1."""
    total, least = probs[0], probs[0]
    for k in range(1, probs.shape[0]):
        total = total + probs[k]
        least = jnp.minimum(least, probs[k])
    return (jnp.abs(total - 1) <= PROBABILITY_TOLERANCE) & (least >= 0)


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
    seen, actions, reward = play_black_box(game, sampler, layout, key, trajectories)
    seen = seen[..., layout.agent]
    num_states = game.num_states
    if num_states is not None:
        reward = jnp.where((seen >= 0) & (seen < num_states), reward, jnp.nan)
    reward = jnp.where(layout.valid, reward, 0.0)
    pairs = seen * game.num_actions + actions
    return Chunk(pairs, reward, jnp.zeros((game.horizon, 0, trajectories.shape[0])))


def play_black_box(
    game: DynamicGame,
    sampler: ActionSampler,
    layout: AgentLayout,
    key: PRNGKeyArray,
    trajectories: Array,
) -> tuple[PyTree, Array, Array]:
    """What agents observed, [H,B,N,...], their actions and rewards, [H,B,L,T]."""
    words = step_words(key, game.horizon)
    numbers, _ = draws(words, layout.agent.astype(jnp.uint32), trajectories)
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
