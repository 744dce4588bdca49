"""One play of all agents by networks that learn, made into the samples that an update needs.

Axes: N agents, M trajectories, H steps, K agents that learn, B samples of one network, F inputs.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt32

from crowdnash.games.base import DynamicGame, GameError
from crowdnash.games.checks import named
from crowdnash.learners.ppo.advantage import generalized_advantages
from crowdnash.learners.ppo.loss import Samples
from crowdnash.learners.ppo.outside import play_learners_outside
from crowdnash.learners.ppo.update import samples_lie
from crowdnash.policies.agent_networks import ActorCritic, by_network
from crowdnash.policies.base import Policy
from crowdnash.policies.identity import Identity
from crowdnash.policies.network import NeuralNetwork
from crowdnash.policies.observations import ObservationFeatures
from crowdnash.simulation.devices import ALONE, Devices
from crowdnash.simulation.neural import Draws, Learners, Play, draw_all, play_drawn
from crowdnash.simulators.game import OutsideGame


class PPOState(eqx.Module):
    """Run state before epoch `epoch`: arrays enough to continue exactly.

    All agents learn, or only `agents` [K], each with its own network, against the `others`.
    `fingerprint` is of the game; `magnet` the moving average of the actor, if one is kept.
    """

    epoch: Int[Array, ""]
    networks: ActorCritic
    moments: optax.OptState
    identity: Identity
    features: ObservationFeatures
    fingerprint: UInt32[Array, " 8"]
    key: UInt32[Array, "..."]
    key_impl: str = eqx.field(static=True)
    agents: Int[Array, " K"] | None = None
    others: Policy | None = None
    magnet: NeuralNetwork | None = None

    @property
    def learners(self) -> Learners:
        """Who learns, and against whom."""
        return Learners(self.networks, self.identity, self.features, self.agents, self.others)


class Figures(eqx.Module):
    """Means of one play, and where the game broke its contract, if it did.

    `fault` is the place in [H,M,K] of the first observation that is none (`blind`), else of the
    first reward that is not a finite number (`bad_reward`), else negative; of several devices, in
    the play of the first that has one.
    """

    mean_return: Float[Array, ""]
    explained_variance: Float[Array, ""]
    statistics: dict[str, Float[Array, ""]]
    fault: Int[Array, " 3"]
    blind: Bool[Array, ""]
    bad_reward: Float[Array, ""]


def collect(
    game: DynamicGame,
    state: PPOState,
    key: PRNGKeyArray,
    num_trajectories: int,
    discounting: Float[Array, " 2"],
    horizon_is_end: bool,
    dtype: str,
    devices: Devices = ALONE,
) -> tuple[Float[Array, "..."], Samples, Figures]:
    """Play, and what the update needs of it: inputs [B,F] or [N,B,F], samples [B] or [N,B].

    `discounting` is the discount and GAE's lambda; for `horizon_is_end` and `dtype` see `PPO`.
    Where `devices` share the trajectories, samples stay where they were played, as `samples_lie`
    says; the draws are those of one device.
    """
    if isinstance(game, OutsideGame):
        played = play_learners_outside(game, state.learners, key, num_trajectories, dtype)
        return _samples_outside(state.learners, played, discounting, horizon_is_end)
    return _collect(game, state, key, num_trajectories, discounting, horizon_is_end, dtype, devices)


@eqx.filter_jit
def _collect(
    game: DynamicGame,
    state: PPOState,
    key: PRNGKeyArray,
    num_trajectories: int,
    discounting: Float[Array, " 2"],
    horizon_is_end: bool,
    dtype: str,
    devices: Devices,
) -> tuple[Float[Array, "..."], Samples, Figures]:
    def here(game: DynamicGame, learners: Learners, draws: Draws, discounting: Array) -> Any:
        played = play_drawn(game, learners, draws, dtype)
        return _samples(learners, played, discounting, horizon_is_end, devices)

    arguments = (game, state.learners, draw_all(game, key, num_trajectories), discounting)
    everywhere, own = PartitionSpec(), samples_lie(state.identity)
    first, second = PartitionSpec("trajectories"), PartitionSpec(None, "trajectories")
    lie = (everywhere, everywhere, Draws._make((second, first, second)), everywhere)
    return devices.spread(here, lie, (own, own, everywhere), *arguments)


def _samples(
    learners: Learners,
    played: Play,
    discounting: Float[Array, " 2"],
    horizon_is_end: bool,
    devices: Devices = ALONE,
) -> tuple[Float[Array, "..."], Samples, Figures]:
    identity, horizon = learners.identity, played.reward.shape[0]
    last = jnp.arange(horizon)[:, None, None] == horizon - 1
    last = jnp.broadcast_to(last, played.reward.shape)
    terminated = last & horizon_is_end
    if played.alive is not None:  # nothing comes after an agent's own end
        stays = jnp.concatenate([played.alive[1:], played.alive[-1:]])
        terminated = terminated | (played.alive & ~stays)
    advantage = generalized_advantages(
        played.reward,
        played.value,
        jnp.concatenate([played.value[1:], played.last_value[None]]),
        terminated,
        last & (not horizon_is_end),
        discount=discounting[0],
        gae_lambda=discounting[1],
    )
    returns = advantage + played.value
    samples = Samples(
        action=played.action,
        log_prob=played.log_prob,
        value=played.value,
        advantage=advantage,
        returns=returns,
        weight=jnp.ones_like(returns) if played.alive is None else played.alive.astype(jnp.float32),
    )
    samples = jax.tree.map(lambda x: by_network(identity, x[..., None])[..., 0], samples)
    if played.legal is not None:
        samples = samples._replace(legal=by_network(identity, played.legal))
    figures = _figures(learners.features, played, returns, devices)
    return by_network(identity, played.inputs), samples, figures


_samples_outside = eqx.filter_jit(_samples)


def _figures(
    features: ObservationFeatures, played: Play, returns: Array, devices: Devices
) -> Figures:
    def mean(x: Array) -> Array:
        return devices.mean_over_trajectories(x.mean(where=played.alive))

    def variance(x: Array) -> Array:
        return mean(jnp.square(x - mean(x)))

    fault, blind, bad_reward = _first_fault(features, played, devices)
    return Figures(
        mean_return=devices.mean_over_trajectories(played.reward.sum(0).mean()),
        explained_variance=1 - variance(returns - played.value) / variance(returns),
        statistics=jax.tree.map(
            lambda x: devices.mean_over_trajectories(x.mean()), played.statistics
        ),
        fault=fault,
        blind=blind,
        bad_reward=bad_reward,
    )


def _first_fault(
    features: ObservationFeatures, played: Play, devices: Devices
) -> tuple[Int[Array, " 3"], Bool[Array, ""], Float[Array, ""]]:
    """Of the first device that has one, with its own number of the trajectory; see `Figures`."""
    blind = ~features.valid(played.inputs[..., : features.num_features])
    if played.alive is not None:
        blind = blind & played.alive
    blinded = devices.sum_over_trajectories(blind.any().astype(jnp.int32)) > 0
    wrong = jnp.where(blinded, blind, ~jnp.isfinite(played.reward))
    place = jnp.argmax(wrong)
    where = jnp.where(wrong.any(), jnp.stack(jnp.unravel_index(place, wrong.shape)), -1)
    own = (wrong.any(), where.astype(jnp.int32), played.reward.reshape(-1)[place])
    faulty, where, reward = devices.gather_trajectories(
        jax.tree.map(lambda x: x[None], own), axis=0
    )
    first = jnp.argmax(faulty)
    return where[first], blinded, reward[first]


def refuse_faults(game: DynamicGame, state: PPOState, figures: Figures) -> None:
    """Raise `GameError` if a reward or an observation of the play was none."""
    step, _, learner = (int(k) for k in np.asarray(figures.fault))
    if learner < 0:
        return
    agent = learner if state.agents is None else int(state.agents[learner])
    rule = f"reward must be a finite number, not {float(figures.bad_reward)}"
    if figures.blind:
        num_states = state.features.num_states
        rule = "observation must be " + (
            "finite numbers" if num_states is None else f"a state in 0..{num_states - 1}"
        )
    raise GameError(f"{named(game)}: agent {agent} at step {step}: {rule}")
