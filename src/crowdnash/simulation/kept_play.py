"""Play that is kept whole for the caller, by one device or several that share it.

Devices take equally many trajectories a round, or each some of the agents. Nothing that they send
one another is more than a step's aggregate: what they played goes to the host, which puts it in
order. All draws are functions of (key, trajectory, step, agent), so they are those of one device.

Axes: M trajectories, B of a round, H steps, N agents, [L,T] their places (see `layout`).
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, PRNGKeyArray, PyTree

from crowdnash.checks import check_count, check_key
from crowdnash.games.base import DynamicGame
from crowdnash.games.checks import observes_integers
from crowdnash.policies.base import Policy, check_played, check_policy
from crowdnash.policies.tabular import TabularPolicy
from crowdnash.simulation.device_choice import Work, devices_for
from crowdnash.simulation.devices import AXES, Devices, on_host
from crowdnash.simulation.faults import explain_fault
from crowdnash.simulation.layout import AgentLayout
from crowdnash.simulation.outside import simulate_outside
from crowdnash.simulation.rollouts import (
    chunk_size,
    play_black_box,
    policy_layout,
    simulate_chunk,
)
from crowdnash.simulation.samplers import ActionSampler, action_sampler, sampler_specs
from crowdnash.simulation.trajectories import Trajectories, in_order
from crowdnash.simulators.contract import Simulator
from crowdnash.simulators.game import OutsideGame, as_game

_EVERYWHERE = PartitionSpec()


def simulate(
    game: DynamicGame | Simulator,
    policy: Policy,
    *,
    key: PRNGKeyArray,
    num_trajectories: int,
    mesh: Mesh | str | None = None,
) -> Trajectories:
    """Simulate `num_trajectories` independent plays of all N agents under `policy`.

    Args:
        game: any game, or a simulator outside JAX.
        policy: one policy for each agent (`TabularPolicy` or any `Policy`).
        key: decides every draw; trajectory m is the same whatever `num_trajectories` is.
        num_trajectories: M >= 1.
        mesh: devices that share the play of a game in JAX: a mesh of axis "trajectories", "agents"
            (of a `PopulationGame`; one sum a step makes the aggregate) or both, or "auto" for all
            there are; None: the default device. The draws are the same; so is the play, bit for
            bit, where contributions are integers or truth values. Others are added up in another
            order.

    Returns:
        States, actions and rewards, each [M,H,N]; of a simulator `MaskedTrajectories`, which say
        who was alive and which actions were legal. On this host and whole, whoever played.

    Raises:
        ValueError: the policy does not fit the game, `num_trajectories` < 1, or `mesh` has another
            axis, or one that does not suit the game.
        GameError: the game pays a NaN, a transition is not a distribution, or an observation is
            none of its states; names agent, state and action.
        SimulatorError: the simulator breaks its contract; names agent, step and seed.
    """
    game = as_game(game)
    check_key("key", key)
    check_count("num_trajectories", num_trajectories, 1)
    check_policy(game, policy)
    if isinstance(game, OutsideGame) and mesh is None:
        return simulate_outside(game, policy, key, num_trajectories)
    devices = devices_for(mesh, Work.of(game, num_trajectories))
    integers = observes_integers(game)
    play = _by_one if devices.mesh is None else _by_several
    parts = play(devices, game, policy, key, num_trajectories, integers)
    states, actions, reward = jax.tree_util.tree_map(
        lambda *x: np.concatenate(x)[:num_trajectories], *parts
    )
    if not isinstance(policy, TabularPolicy) and (not integers or game.num_states is None):
        check_played(policy, states)  # `check_policy` could not ask for every observation
    played = Trajectories(states, actions, reward)
    explain_fault(game, played)
    return played


def _by_one(
    devices: Devices,
    game: DynamicGame,
    policy: Policy,
    key: PRNGKeyArray,
    num_trajectories: int,
    integers: bool,
) -> list[Any]:
    """Rounds of play, states (or observations), actions and rewards, [B,H,N,...] each."""
    layout = policy_layout(policy, game.num_agents)
    sampler = action_sampler(policy, layout)
    size = chunk_size(game.num_agents, num_trajectories, devices)
    play = _simulate_in_order if integers else _simulate_observations
    parts = []
    for first in range(0, num_trajectories, size):
        numbers = jnp.arange(first, first + size, dtype=jnp.uint32)
        parts.append(jax.device_get(play(game, sampler, layout, key, numbers)))
    return parts


def _by_several(
    devices: Devices,
    game: DynamicGame,
    policy: Policy,
    key: PRNGKeyArray,
    num_trajectories: int,
    integers: bool,
) -> list[Any]:
    """The same of devices that share the play."""
    layout = policy_layout(policy, game.num_agents)
    dealt = layout.dealt(devices.size("agents")) if devices.shares("agents") else layout
    sampler = action_sampler(policy, dealt)
    known, lie = (game, sampler, dealt, key), _where(devices, sampler, dealt)
    known = devices.place(known, lie)
    size = chunk_size(game.num_agents, num_trajectories, devices)
    parts = []
    for k in range(-(-num_trajectories // (size * devices.size("trajectories")))):
        played = on_host(_play_a_share(devices, known, jnp.uint32(k), size, integers))
        parts.append(_in_order_here(game, layout, *played) if integers else played)
    return parts


def _where(devices: Devices, sampler: ActionSampler, layout: AgentLayout) -> tuple[Any, ...]:
    """Where game, sampler, layout and key lie: what is read at agents' places, with its agents."""
    places = layout.specs(devices.shares("agents"))
    return _EVERYWHERE, sampler_specs(sampler, places.agent), places, _EVERYWHERE


@eqx.filter_jit
def _play_a_share(
    devices: Devices, known: tuple[Any, ...], number: Array, size: int, integers: bool
) -> Any:
    """A round: pairs and rewards [H,B,L,T], or what `_simulate_observations` gives."""

    def here(
        game: DynamicGame,
        sampler: ActionSampler,
        layout: AgentLayout,
        key: PRNGKeyArray,
        number: Array,
    ) -> Any:
        numbers = devices.numbers(number, size)
        if not integers:
            return _simulate_observations(game, sampler, layout, key, numbers)
        chunk = simulate_chunk(game, sampler, layout, key, numbers, devices=devices)
        return chunk.pairs, chunk.rewards

    first, last = (axis if devices.shares(axis) else None for axis in AXES)
    out = PartitionSpec(None, first, None, last) if integers else PartitionSpec(first)
    lie = (*_where(devices, known[1], known[2]), _EVERYWHERE)
    return devices.spread(here, lie, out, *known, number)


def _in_order_here(
    game: DynamicGame, layout: AgentLayout, pairs: np.ndarray, rewards: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`trajectories.in_order` in NumPy, of places [H,B,L,T] with empty tiles at the end."""
    place, tiles = np.asarray(layout.place), layout.shape[1]

    def ordered(x: np.ndarray) -> np.ndarray:
        tiled = x[..., :tiles]
        return tiled.reshape(*tiled.shape[:2], -1)[..., place].swapaxes(0, 1)

    states, actions = np.divmod(ordered(pairs).astype(np.int32), np.int32(game.num_actions))
    return states, actions, ordered(rewards)


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


@eqx.filter_jit
def _simulate_observations(
    game: DynamicGame,
    sampler: ActionSampler,
    layout: AgentLayout,
    key: PRNGKeyArray,
    trajectories: Array,
) -> tuple[PyTree, Array, Array]:
    """The same for a bare simulator that may show anything: observations [B,H,N,...]."""
    seen, actions, reward = play_black_box(game, sampler, layout, key, trajectories)
    played = (seen, layout.in_order(actions), layout.in_order(reward))
    return jax.tree.map(lambda x: x.swapaxes(0, 1), played)
