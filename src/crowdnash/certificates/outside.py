"""Deviations by networks, and what any deviation earns in a simulator outside JAX.

Axes: N agents, K agents examined, M trajectories, B lanes, A actions.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from crowdnash.policies.base import Policy
from crowdnash.policies.drawing import draw_legal, legal_share
from crowdnash.policies.network import NeuralNetwork
from crowdnash.policies.observations import ObservationFeatures
from crowdnash.simulation.outside import (
    Episode,
    Situation,
    play_outside,
    policy_rows,
)
from crowdnash.simulators.game import OutsideGame


class LearnedDeviations(NamedTuple):
    """What K agents learned to do instead of `policy`, each by itself; see `measure_deviations`.

    `networks` are K policies of what an agent observes; `agents` [K] whose they are; `greedy` [K]
    whether the most likely action is played instead of a draw; `promise` [K] the gain on the
    trajectories that decided about `greedy`, not to be reported: it is biased upwards.
    """

    networks: NeuralNetwork
    features: ObservationFeatures
    agents: Int[np.ndarray, " K"]
    greedy: np.ndarray
    promise: Float[np.ndarray, " K"]


Deviator = Callable[[Situation, Int[np.ndarray, " B"]], Int[np.ndarray, " B"]]
"""What an agent does in B episodes instead of the actions that its policy drew."""


def total_rewards_outside(
    game: OutsideGame,
    policy: Policy,
    agents: Int[np.ndarray, " K"],
    key: PRNGKeyArray,
    num_trajectories: int,
    deviator: tuple[int, Deviator] | None = None,
) -> Float[np.ndarray, "K M"]:
    """Total rewards of K agents on M trajectories, where one agent (its index) deviates or nobody.

    Raises:
        SimulatorError: the simulator breaks its contract.
    """
    rows = policy_rows(policy)
    totals = np.zeros((len(agents), num_trajectories))

    def choose(situation: Situation) -> np.ndarray:
        actions = draw_legal(rows(situation), situation.numbers, situation.legal)
        if deviator is not None:
            agent, act = deviator
            actions[:, agent] = act(situation, actions[:, agent])
        return actions

    def on_step(episode: Episode) -> None:
        totals[:, episode.rows] += episode.rewards[:, agents].T

    play_outside(game, choose, key, num_trajectories, on_step)
    return totals


def network_deviator(deviations: LearnedDeviations, k: int) -> tuple[int, Deviator]:
    """The k-th of the agents, and what its network does."""
    agent, greedy = int(deviations.agents[k]), bool(deviations.greedy[k])
    own = jax.tree.map(lambda x: x[k], deviations.networks)

    def act(situation: Situation, drawn: np.ndarray) -> np.ndarray:
        seen = jax.tree.map(lambda x: x[:, agent], situation.observations)
        step = jnp.asarray(situation.step, jnp.int32)
        probs = np.asarray(_probabilities(own, deviations.features, seen, step))
        legal = None if situation.legal is None else situation.legal[:, agent]
        if greedy:
            return legal_share(probs, legal).argmax(-1)
        return draw_legal(probs, situation.numbers[:, agent], legal)

    return agent, act


@eqx.filter_jit
def _probabilities(
    network: NeuralNetwork, features: ObservationFeatures, seen: PyTree, step: Array
) -> Float[Array, "B A"]:
    return jax.nn.softmax(network(jax.vmap(features, (0, None))(seen, step)))
