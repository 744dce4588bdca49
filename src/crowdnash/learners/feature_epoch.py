"""An epoch of a log-linear policy in which nothing of H S A numbers is made for each agent.

The policy is its weights, and so is Q. Agents come block by block (`block_play`): they play, then
for every step from the last to the first the block's pairs become the sums that the regression
needs, and are worth what the weights of the step ahead say. What is kept of an agent are its
features and M H bytes of play, so that one machine holds a hundred million of them.

Axes: M trajectories, H steps, N agents, b agents of a block, S states, A actions, X = S*A pairs, d
features.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from crowdnash.games.base import PopulationGame
from crowdnash.games.legal import legal_logits
from crowdnash.games.vectorised import rewards
from crowdnash.learners.fitted import Moments, Visited, moments
from crowdnash.learners.mirror_state import EpochNumbers, MirrorDescentState, epoch_key
from crowdnash.simulation.block_play import Block, Blocks, met, play_by_blocks
from crowdnash.simulation.devices import ALONE, Devices
from crowdnash.simulation.samplers import select_rows
from crowdnash.tuning import tuning


class _Policy(NamedTuple):
    """A log-linear policy, read block by block.

    Attributes:
        weights: W.
        features: phi of this device's agents.
        legal: the actions they have; None for all.
    """

    weights: Float[Array, "H S A d"]
    features: Float[Array, "*H N d"]
    legal: Bool[Array, "N H S A"] | None

    def phi(self, block: Block, step: Array) -> Float[Array, "b d"]:
        """Features of a block's agents."""
        features = self.features if self.features.ndim == 2 else self.features[step]
        return block.read(features)

    def __call__(self, block: Block, step: Array) -> Float[Array, "S A b"]:
        """Probabilities of a block's agents at a step."""
        scores = _linear(self.weights[step], self.phi(block, step))
        legal = None
        if self.legal is not None:
            legal = jnp.moveaxis(block.read(self.legal)[:, step], 0, -1)
        return jax.nn.softmax(legal_logits(scores, legal), axis=1)


def _linear(weights: Float[Array, "... d"], features: Float[Array, "b d"]) -> Float[Array, "... b"]:
    """phi . W."""
    return jnp.matmul(weights, features.T, precision=jax.lax.Precision.HIGHEST)


class BlockValues(NamedTuple):
    """What `evaluate_by_blocks` gives.

    Attributes:
        weights: of Q.
        visits: of this device's agents to pairs, as tables of one group.
        mean_return: of all agents; NaN after a transition that is not a distribution.
    """

    weights: Float[Array, "H S A d"]
    visits: Float[Array, "1 H S A"]
    mean_return: Float[Array, ""]


def evaluate_by_blocks(
    game: PopulationGame,
    state: MirrorDescentState,
    agent: Int[Array, " N"],
    numbers: EpochNumbers,
    size: int,
    devices: Devices = ALONE,
) -> BlockValues:
    """Fitted evaluation, as `mirror_epoch.fit_statistics` up to rounding; inside `jit`.

    Args:
        game: the game.
        state: before the epoch.
        agent: numbers of this device's agents, in the order of their features.
        numbers: of the epoch.
        size: trajectories of a device.
        devices: who shares the epoch; inside `devices.map`.
    """
    policy = _policy_of(state)
    trajectories = devices.numbers(jnp.uint32(0), size)
    counted = trajectories < numbers.td_epochs.astype(jnp.uint32)
    blocks = Blocks.of(agent, size)
    play = play_by_blocks(game, policy, blocks, epoch_key(state), trajectories, devices)
    horizon, num_states, num_actions, num_features = policy.weights.shape
    num_pairs = num_states * num_actions

    def targets(block: Block, step: Array, following: Array) -> tuple[Array, Array, Array]:
        """Pairs of a block at a step, r + V(s') and r, each [M,b]; X where nothing counts."""
        here = met(game, block, play.pairs[step], play.totals[step], step)
        _, states, actions, _, _ = here
        counts = counted[:, None] & block.counts
        reward = jnp.where(counts, rewards(game, *here).astype(jnp.float32), 0.0)
        after = jnp.minimum(step + 1, horizon - 1)
        values = _state_values(policy, block, after, following, numbers.temperature)
        values = jnp.where(step == horizon - 1, 0.0, values)
        came_to = block.read(play.pairs[after], 1) // num_actions
        pairs = jnp.where(counts, states * num_actions + actions, num_pairs)
        return pairs, reward + select_rows(values, came_to.astype(jnp.int32)), reward

    def step_back(ahead: tuple[Array, Array], step: Array) -> tuple[tuple, tuple[Array, Array]]:
        following, total = ahead

        def add(gathered: tuple[Moments, Array], block: Block) -> tuple[Moments, Array]:
            pairs, worth, reward = targets(block, step, following)
            seen = moments(_visited(pairs, worth, num_pairs), policy.phi(block, step))
            return jax.tree.map(jnp.add, gathered, (seen, reward.sum()))

        gram = jnp.zeros((num_pairs, num_features, num_features), jnp.float32)
        sums, total = blocks.fold(add, (Moments(gram, gram[:, 0]), total))
        visits = sums.gram[:, 0, 0].reshape(num_states, num_actions)
        sums = devices.sum_over_agents(devices.sum_over_trajectories(sums))
        weights = sums.weights(num_actions).reshape(following.shape)
        return (weights, total), (weights, visits)

    start = (jnp.zeros(policy.weights.shape[1:], jnp.float32), jnp.float32(0))
    steps = jnp.arange(horizon, dtype=jnp.int32)
    (_, total), (weights, visits) = jax.lax.scan(step_back, start, steps, reverse=True)
    total = jnp.where(play.is_sound, total, jnp.nan)
    total, visits = devices.sum_over_trajectories((total, visits))
    mean_return = devices.sum_over_agents(total) / (numbers.td_epochs * game.num_agents)
    return BlockValues(weights, visits[None], mean_return)


def largest_change(
    before: MirrorDescentState, after: MirrorDescentState, devices: Devices = ALONE
) -> Float[Array, ""]:
    """The largest total-variation distance of the policies, over agents, steps and states."""
    old, new = _policy_of(before), _policy_of(after)
    blocks = Blocks.of(jnp.arange(old.features.shape[-2], dtype=jnp.int32), 1)

    def at_step(largest: Array, step: Array) -> tuple[Array, None]:
        def add(largest: Array, block: Block) -> Array:
            distance = jnp.abs(new(block, step) - old(block, step)).sum(1)
            return jnp.maximum(largest, 0.5 * distance.max())

        return blocks.fold(add, largest), None

    steps = jnp.arange(len(old.weights), dtype=jnp.int32)
    return devices.max_over_tables(jax.lax.scan(at_step, jnp.float32(0), steps)[0])


def _policy_of(state: MirrorDescentState) -> _Policy:
    assert state.weights is not None
    assert state.features is not None
    return _Policy(state.weights, state.features, state.legal)


def _state_values(
    policy: _Policy,
    block: Block,
    step: Array,
    weights: Float[Array, "S A d"],
    temperature: Float[Array, ""],
) -> Float[Array, "S b"]:
    """V = sum_a pi Q + tau H(pi), of a block's agents."""
    probs, values = policy(block, step), _linear(weights, policy.phi(block, step))
    return (probs * values - temperature * jax.scipy.special.xlogy(probs, probs)).sum(1)


def _visited(pairs: Int[Array, "M b"], worth: Float[Array, "M b"], num_pairs: int) -> Visited:
    """Visits and targets summed over trajectories, [X,b]."""
    if num_pairs <= tuning().masked_pairs:
        masks = [pairs == pair for pair in range(num_pairs)]
        visits = [mask.sum(0, dtype=jnp.int32) for mask in masks]
        targets = [jnp.where(mask, worth, 0.0).sum(0) for mask in masks]
        return Visited(jnp.stack(visits).astype(jnp.float32), jnp.stack(targets))
    agent = jnp.arange(pairs.shape[1], dtype=jnp.int32)
    zeros = jnp.zeros((num_pairs, pairs.shape[1]), jnp.float32)
    there = (pairs, agent)  # of a pair X, out of bounds, nothing is added
    return Visited(zeros.at[there].add(1.0, mode="drop"), zeros.at[there].add(worth, mode="drop"))
