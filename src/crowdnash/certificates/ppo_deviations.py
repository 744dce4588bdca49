"""Exploitability of any policy in any simulator, from below: best responses learned by PPO.

Some agents learn, each with a network of its own, while all others go on as they did; then each
one's deviation is played alone, against the undisturbed play with the same random draws. Its gain
is a lower bound on E^i (Def. 2), with a standard error. Samples alone give no upper bound.

Axes: N agents, K agents examined, M trajectories.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from crowdnash.certificates.outside import (
    LearnedDeviations,
    network_deviator,
    total_rewards_outside,
)
from crowdnash.games.base import DynamicGame, GameError
from crowdnash.games.checks import named
from crowdnash.games.legal import legal_logits, legal_now, limits_actions
from crowdnash.learners.ppo.learner import PPO
from crowdnash.policies.agent_networks import ActorCritic, network_of_agent
from crowdnash.policies.base import Policy
from crowdnash.policies.identity import Identity
from crowdnash.policies.network import NeuralNetwork
from crowdnash.policies.neural import NeuralPolicy
from crowdnash.policies.observations import ObservationFeatures
from crowdnash.simulation.neural import Learners, actions_of_all
from crowdnash.simulation.samplers import draw_index
from crowdnash.simulators.game import OutsideGame

FEW = 50
"""At most one agent in this many deviates at once while learning."""

_TRAJECTORIES_AT_ONCE = 16

_SAMPLES = 4096
_LEAST_TRAJECTORIES = 32
_MOST = 2**18
"""Agents x trajectories that play at once, unless that is less than the least trajectories."""


class LearningProgress(NamedTuple):
    """Steps of the game played so far, and in all, where deviations are learned (Def. 2)."""

    steps: int
    total_steps: int


OnPlays = Callable[[int], Any]
"""Is told how many more episodes were played."""


def _untold(num_plays: int) -> None:
    """Nobody wants to know."""


class DeviationGains(NamedTuple):
    """Total reward of K agents on M trajectories each, [K,M]: as before, and deviating alone."""

    value: Float[np.ndarray, "K M"]
    gain: Float[np.ndarray, "K M"]


def best_response_learner(game: DynamicGame, **changes: Any) -> PPO:
    """The settings that find best responses well: a fast rate that falls to 0, little entropy.

    A learner sees about `_SAMPLES` of its own steps an epoch: with a tenth of them it missed half
    of what A-SIS has to gain.
    """
    trajectories = max(_LEAST_TRAJECTORIES, min(_SAMPLES // game.horizon, _MOST // game.num_agents))
    settings: dict[str, Any] = {
        "num_epochs": 150,
        "num_trajectories": trajectories,
        "learning_rate": 3e-3,
        "minibatch_size": 2048,
        "entropy_weight": 1e-3,
    }
    return PPO(**(settings | changes))


def evenly_spread(num_agents: int, count: int) -> Int[np.ndarray, " K"]:
    """K = `count` agents at equal distances, all N if there are fewer."""
    count = min(count, num_agents)
    return np.arange(count) * num_agents // count


def agent_steps_to_learn(
    game: DynamicGame, policy: Policy, count: int, learner: PPO, num_trajectories: int
) -> int:
    """Steps that agents take while `count` of them learn to deviate and are then judged."""
    at_once = max(1, game.num_agents // FEW)
    starts = 2 if isinstance(policy, NeuralPolicy) else 1
    blocks = -(-count // at_once)
    learning = blocks * starts * learner.num_epochs * learner.num_trajectories
    choosing = blocks + count * starts * 2
    plays = learning + (choosing + 1 + count) * num_trajectories
    return plays * game.horizon * game.num_agents


def learn_deviations(
    game: DynamicGame,
    policy: Policy,
    agents: Int[np.ndarray, " K"],
    *,
    key: PRNGKeyArray,
    learner: PPO,
    num_trajectories: int,
    on_plays: OnPlays = _untold,
) -> LearnedDeviations:
    """Let the agents learn to do better than `policy`, which all others play.

    As many learn at once as are few among N (one in 50), and feel each other's deviations that
    little; what they learned is then judged alone. They begin with new networks and, if `policy` is
    neural, another time with its own: from a policy that hardly explores small gains are not found,
    and in a large game a new network learns too slowly. `num_trajectories` plays of each decide
    which is kept, and whether it is drawn from or greedy. `learner.num_trajectories` is M of every
    epoch; its `identity` is not used, nor its `hidden_sizes` if the policy has some. `on_plays` is
    told of every epoch and every play that judges.
    """
    at_once = max(1, game.num_agents // FEW)
    parts = []
    for block, first in enumerate(range(0, len(agents), at_once)):
        block_key = jax.random.fold_in(key, block)
        some = agents[first : first + at_once]
        parts.append(
            _learn_at_once(game, policy, some, block_key, learner, num_trajectories, on_plays)
        )
    return LearnedDeviations(
        networks=jax.tree.map(lambda *x: jnp.concatenate(x), *(p.networks for p in parts)),
        features=parts[0].features,
        agents=agents,
        greedy=np.concatenate([p.greedy for p in parts]),
        promise=np.concatenate([p.promise for p in parts]),
    )


def _learn_at_once(
    game: DynamicGame,
    policy: Policy,
    agents: np.ndarray,
    key: PRNGKeyArray,
    learner: PPO,
    num_trajectories: int,
    on_plays: OnPlays,
) -> LearnedDeviations:
    start_key, learn_key, choose_key = jax.random.split(key, 3)
    count = len(agents)
    features, widths = ObservationFeatures.of(game), learner.hidden_sizes
    if isinstance(policy, NeuralPolicy):
        widths = policy.actor.hidden_sizes
    each = Identity(
        features=jnp.zeros((count, 0), jnp.float32),
        row=jnp.zeros(count, jnp.int32),
        num_rows=0,
        independent=True,
        name="independent",
    )
    anew = ActorCritic.create(
        start_key,
        each,
        num_inputs=features.num_features,
        num_actions=game.num_actions,
        hidden_sizes=widths,
    )
    starts = [anew]
    if isinstance(policy, NeuralPolicy):
        own = [network_of_agent(policy.actor, policy.identity, int(i)) for i in agents]
        starts.append(ActorCritic(jax.tree.map(lambda *x: jnp.stack(x), *own), anew.critic))
    candidates, value = [], None
    for networks in starts:
        learners = Learners(networks, each, features, jnp.asarray(agents, jnp.int32), policy)
        state = learner.start_from(game, learners, key=learn_key)
        while int(state.epoch) < learner.num_epochs:
            state, _ = learner.step(game, state)
            on_plays(learner.num_trajectories)
        for greedy in (False, True):
            deviations = LearnedDeviations(
                networks=state.networks.actor,
                features=features,
                agents=agents,
                greedy=np.full(count, greedy),
                promise=np.zeros(count),
            )
            played = measure_deviations(
                game,
                policy,
                deviations,
                key=choose_key,
                num_trajectories=num_trajectories,
                value=value,
                on_plays=on_plays,
            )
            value = played.value
            candidates.append(deviations._replace(promise=played.gain.mean(1)))
    return _best_of(candidates)


def _best_of(candidates: Sequence[LearnedDeviations]) -> LearnedDeviations:
    """For each agent the one of these deviations that promises most."""
    best = np.argmax([one.promise for one in candidates], axis=0)
    agent = np.arange(len(best))
    return candidates[0]._replace(
        networks=jax.tree.map(
            lambda *x: jnp.stack(x)[best, agent], *(one.networks for one in candidates)
        ),
        greedy=np.stack([one.greedy for one in candidates])[best, agent],
        promise=np.stack([one.promise for one in candidates])[best, agent],
    )


def measure_deviations(
    game: DynamicGame,
    policy: Policy,
    deviations: LearnedDeviations,
    *,
    key: PRNGKeyArray,
    num_trajectories: int,
    value: Float[np.ndarray, "K M"] | None = None,
    on_plays: OnPlays = _untold,
) -> DeviationGains:
    """Play each deviation alone on M trajectories, and nobody's with the same random draws.

    Args:
        game: The game.
        policy: What all others play.
        deviations: What the agents play instead, one at a time.
        key: Decides the draws of all plays alike.
        num_trajectories: M.
        value: Returns when nobody deviates, where they are known for this key.
        on_plays: Is told of every M plays.

    Raises:
        GameError: The game pays something that is not a finite number.
    """

    def totals(deviator: int) -> Float[np.ndarray, "K M"]:
        rewards = _totals_in_blocks(game, policy, deviations, deviator, key, num_trajectories)
        on_plays(num_trajectories)
        return rewards

    return gains_alone(game, deviations.agents, totals, value)


def gains_alone(
    game: DynamicGame,
    agents: Int[np.ndarray, " K"],
    totals: Callable[[int], Float[np.ndarray, "K M"]],
    value: Float[np.ndarray, "K M"] | None,
) -> DeviationGains:
    """What each of K agents gains where it deviates alone.

    Args:
        game: The game.
        agents: Who deviates.
        totals: Plays with the k-th of them deviating, -1 for nobody: total rewards of all K.
        value: Returns when nobody deviates, where they are known.

    Raises:
        GameError: The game pays something that is not a finite number.
    """
    if value is None:
        value = totals(-1)
    alone = np.stack([totals(k)[k] for k in range(len(agents))])
    paid = np.isfinite(value).all(1) & np.isfinite(alone).all(1)
    if not paid.all():
        raise GameError(
            f"{named(game)}: agent {agents[np.argmin(paid)]}: "
            "reward must be a finite number at every step"
        )
    return DeviationGains(value, alone - value)


def _totals_in_blocks(
    game: DynamicGame,
    policy: Policy,
    deviations: LearnedDeviations,
    deviator: int,
    key: PRNGKeyArray,
    num_trajectories: int,
) -> Float[np.ndarray, "K M"]:
    """`_total_rewards` on M trajectories, a few at a time."""
    if isinstance(game, OutsideGame):
        one = None if deviator < 0 else network_deviator(deviations, deviator)
        agents = deviations.agents
        return total_rewards_outside(game, policy, agents, key, num_trajectories, one)
    size = min(num_trajectories, _TRAJECTORIES_AT_ONCE)
    parts = [
        np.asarray(
            _total_rewards(
                game,
                policy,
                deviations.networks,
                deviations.features,
                jnp.asarray(deviations.agents, jnp.int32),
                jnp.asarray(deviations.greedy),
                jnp.asarray(deviator, jnp.int32),
                jax.random.split(jax.random.fold_in(key, first), size),
            )
        )
        for first in range(0, num_trajectories, size)
    ]
    together = np.concatenate(parts, axis=1)[:, :num_trajectories]
    return together.astype(np.float64)


@eqx.filter_jit
def _total_rewards(
    game: DynamicGame,
    policy: Policy,
    networks: NeuralNetwork,
    features: ObservationFeatures,
    agents: Int[Array, " K"],
    greedy: Array,
    deviator: Int[Array, ""],
    keys: Array,
) -> Float[Array, "K M"]:
    """Total rewards of the K agents where the k-th deviates (-1: nobody) on M trajectories."""
    own = jax.tree.map(lambda x: x[deviator], networks)
    agent = agents[deviator]
    draws, starts, steps = (
        jax.vmap(lambda k, n=n: jax.random.fold_in(k, n))(keys) for n in range(3)
    )
    shape = (game.horizon, game.num_agents)
    numbers = jax.vmap(lambda k: jax.random.uniform(k, shape, jnp.float32), out_axes=1)(draws)
    step_keys = jax.vmap(lambda k: jax.random.split(k, game.horizon), out_axes=1)(steps)

    def advance(carry: tuple, now: tuple) -> tuple[tuple, None]:
        state, total = carry
        step, number, keys = now
        observations = jax.vmap(game.observe)(state)
        joint = actions_of_all(policy, observations, step, number)
        mine = jax.tree.map(lambda x: x[:, agent], observations)
        logits = own(jax.vmap(features, (0, None))(mine, step))
        if limits_actions(game):
            may = legal_now(game, agent[None], mine[:, None], step)
            logits = legal_logits(logits, None if may is None else may[:, 0])
        drawn = draw_index(jax.nn.softmax(logits).T, number[:, agent])
        action = jnp.where(greedy[deviator], jnp.argmax(logits, axis=-1), drawn)
        action = jnp.where(deviator >= 0, action, joint[:, agent])
        joint = joint.at[:, agent].set(action.astype(joint.dtype))
        state, reward = jax.vmap(game.step)(state, joint, keys)
        return (state, total + reward[:, agents].astype(jnp.float32)), None

    start = (jax.vmap(game.reset)(starts), jnp.zeros((keys.shape[0], agents.shape[0]), jnp.float32))
    over = (jnp.arange(game.horizon, dtype=jnp.int32), numbers, step_keys)
    (_, total), _ = jax.lax.scan(advance, start, over)
    return total.T
