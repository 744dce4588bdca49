"""Playing a game with networks that learn: all agents, or a few against the others' fixed policy.

Axes: M trajectories, H steps, N agents of the game, K of them that learn (all N by default),
F inputs of a network, A actions.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from crowdnash.games.base import DynamicGame
from crowdnash.games.checks import check_shape
from crowdnash.games.legal import legal_logits, legal_now
from crowdnash.policies.agent_networks import ActorCritic, evaluate, evaluate_steps
from crowdnash.policies.base import Policy
from crowdnash.policies.identity import Identity
from crowdnash.policies.neural import NeuralPolicy
from crowdnash.policies.observations import ObservationFeatures
from crowdnash.simulation.samplers import draw_index


class Learners(NamedTuple):
    """Who learns: K networks with their identities, and the K agents [K] that they play for.

    Without `agents` they are all N agents, in order, and nobody else plays.
    """

    networks: ActorCritic
    identity: Identity
    features: ObservationFeatures
    agents: Int[Array, " K"] | None = None
    others: Policy | None = None


class Draws(NamedTuple):
    """All chance in M trajectories.

    `numbers` draw the actions, `reset` are keys [M] of the first states, `steps` [H,M] of the
    game's own draws.
    """

    numbers: Float[Array, "H M N"]
    reset: Array
    steps: Array


class Play(NamedTuple):
    """What the learners saw and did in M trajectories.

    `inputs` of the networks, `action`, its `log_prob`, `value` of the state and `reward`;
    `last_value` of the state after the last step; the game's `statistics`, by name, means over M;
    `alive`, who acted, and `legal`, the actions there were (None: everybody, and all).
    """

    inputs: Float[Array, "H M K F"]
    action: Int[Array, "H M K"]
    log_prob: Float[Array, "H M K"]
    value: Float[Array, "H M K"]
    reward: Float[Array, "H M K"]
    last_value: Float[Array, "M K"]
    statistics: dict[str, Float[Array, " H"]]
    alive: Bool[Array, "H M K"] | None = None
    legal: Bool[Array, "H M K A"] | None = None


def probabilities_of_all(
    policy: Policy, observations: PyTree, step: Int[Array, ""]
) -> Float[Array, "M N A"]:
    """Action probabilities of all agents in M joint states; observations [M,N,...]."""
    if isinstance(policy, NeuralPolicy):
        seen = policy.features.of_all(observations, step)
        inputs = with_identity(seen, policy.identity)
        logits = evaluate(policy.actor, policy.identity, inputs)
        legal = policy.legal
        may = None if legal is None else legal.tables[legal.kinds, step, observations]
        return jax.nn.softmax(legal_logits(logits, may))
    num_agents = jax.tree.leaves(observations)[0].shape[1]
    over_agents = jax.vmap(policy.probabilities, in_axes=(0, 0, None))
    over_states = jax.vmap(over_agents, in_axes=(0, None, None))
    return over_states(observations, jnp.arange(num_agents, dtype=jnp.int32), step)


def actions_of_all(
    policy: Policy,
    observations: PyTree,
    step: Int[Array, ""],
    numbers: Float[Array, "M N"],
) -> Int[Array, "M N"]:
    """Actions of all agents in M joint states, drawn by uniform `numbers`."""
    probs = probabilities_of_all(policy, observations, step)
    return draw_index(jnp.moveaxis(probs, -1, 0), numbers)


def with_identity(seen: Float[Array, "M K F"], identity: Identity) -> Float[Array, "M K D"]:
    """What networks see of M joint states, followed by what they are told of the agents."""
    if not identity.num_features:
        return seen
    told = jnp.broadcast_to(identity.features, (seen.shape[0], *identity.features.shape))
    return jnp.concatenate([seen, told], axis=-1)


def play(
    game: DynamicGame,
    learners: Learners,
    key: PRNGKeyArray,
    num_trajectories: int,
    dtype: str = "float32",
) -> Play:
    """Play M independent trajectories; to be called inside `jit`.

    The key decides every draw, of all agents, the same whoever learns.
    """
    return play_drawn(game, learners, draw_all(game, key, num_trajectories), dtype)


def draw_all(game: DynamicGame, key: PRNGKeyArray, num_trajectories: int) -> Draws:
    """All chance of a play; every number is by itself a function of the key and its place."""
    draws_key, reset_key, game_key = jax.random.split(key, 3)
    shape = (game.horizon, num_trajectories, game.num_agents)
    return Draws(
        jax.random.uniform(draws_key, shape, jnp.float32),
        jax.random.split(reset_key, num_trajectories),
        jax.random.split(game_key, shape[:2]),
    )


def play_drawn(game: DynamicGame, learners: Learners, draws: Draws, dtype: str = "float32") -> Play:
    """`play` of trajectories whose chance is drawn, all of them or one device's."""
    networks, identity, features, agents, others = learners
    numbers, reset_keys, step_keys = draws
    start = jax.vmap(game.reset)(reset_keys)

    def mine(x: PyTree) -> PyTree:
        return x if agents is None else jax.tree.map(lambda leaf: leaf[:, agents], x)

    def look(state: PyTree, step: Array) -> tuple[PyTree, Array]:
        seen = jax.vmap(game.observe)(state)
        return seen, with_identity(features.of_all(mine(seen), step), identity)

    everyone = jnp.arange(game.num_agents, dtype=jnp.int32)

    def advance(state: PyTree, now: tuple) -> tuple[PyTree, tuple]:
        step, number, keys = now
        seen, inputs = look(state, step)
        legal = legal_now(game, everyone if agents is None else agents, mine(seen), step)
        logits = evaluate(networks.actor, identity, inputs, dtype)
        log_probs = jax.nn.log_softmax(legal_logits(logits, legal))
        by_action = jnp.moveaxis(log_probs, -1, 0)
        action = draw_index(jnp.exp(by_action), mine(number))
        log_prob = jnp.take_along_axis(by_action, action[None], axis=0)[0]
        joint = action
        if agents is not None and others is not None:
            joint = actions_of_all(others, seen, step, number).at[:, agents].set(action)
        statistics = jax.tree.map(lambda x: x.mean(), jax.vmap(game.statistics)(state))
        state, reward = jax.vmap(game.step)(state, joint, keys)
        check_shape(game, "all agents' rewards", reward.shape[1:], (game.num_agents,))
        reward = mine(reward.astype(jnp.float32))
        return state, (inputs, action, log_prob, reward, statistics, legal)

    steps = jnp.arange(game.horizon, dtype=jnp.int32)
    end, played = jax.lax.scan(advance, start, (steps, numbers, step_keys))
    inputs, action, log_prob, reward, statistics, legal = played
    value = evaluate_steps(networks.critic, identity, inputs, dtype)[..., 0]
    _, last_inputs = look(end, jnp.asarray(game.horizon, jnp.int32))
    last_value = evaluate(networks.critic, identity, last_inputs, dtype)[..., 0]
    return Play(inputs, action, log_prob, value, reward, last_value, statistics, None, legal)
