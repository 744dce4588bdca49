"""One play of all agents by networks that learn, made into the samples that an update needs.

Axes: N agents, M trajectories, H steps, K agents that learn, B samples of one network, F inputs.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt32

from crowdnash.games.base import DynamicGame, GameError
from crowdnash.games.checks import named
from crowdnash.learners.ppo.advantage import generalized_advantages
from crowdnash.learners.ppo.loss import Samples
from crowdnash.learners.ppo.outside import play_learners_outside
from crowdnash.policies.agent_networks import ActorCritic, by_network
from crowdnash.policies.base import Policy
from crowdnash.policies.identity import Identity
from crowdnash.policies.observations import ObservationFeatures
from crowdnash.simulation.neural import Learners, Play, play
from crowdnash.simulators.game import OutsideGame


class PPOState(eqx.Module):
    """Run state before epoch `epoch`: arrays enough to continue exactly.

    All agents learn, or only `agents` [K], each with its own network, against the `others`.
    `fingerprint` is of the game.
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

    @property
    def learners(self) -> Learners:
        """Who learns, and against whom."""
        return Learners(self.networks, self.identity, self.features, self.agents, self.others)


class Figures(eqx.Module):
    """Means of one play, and where the game broke its contract, if it did.

    `fault` is the place in [H,M,K] of the first observation that is none (`blind`), else of the
    first reward that is not a finite number (`bad_reward`), else negative.
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
) -> tuple[Float[Array, "..."], Samples, Figures]:
    """Play, and what the update needs of it: inputs [B,F] or [N,B,F], samples [B] or [N,B].

    `discounting` is the discount and GAE's lambda; for `horizon_is_end` and `dtype` see `PPO`.
    """
    if isinstance(game, OutsideGame):
        played = play_learners_outside(game, state.learners, key, num_trajectories, dtype)
        return _samples_outside(state.learners, played, discounting, horizon_is_end)
    return _collect(game, state, key, num_trajectories, discounting, horizon_is_end, dtype)


@eqx.filter_jit
def _collect(
    game: DynamicGame,
    state: PPOState,
    key: PRNGKeyArray,
    num_trajectories: int,
    discounting: Float[Array, " 2"],
    horizon_is_end: bool,
    dtype: str,
) -> tuple[Float[Array, "..."], Samples, Figures]:
    played = play(game, state.learners, key, num_trajectories, dtype)
    return _samples(state.learners, played, discounting, horizon_is_end)


def _samples(
    learners: Learners, played: Play, discounting: Float[Array, " 2"], horizon_is_end: bool
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
    figures = _figures(learners.features, played, returns)
    return by_network(identity, played.inputs), samples, figures


_samples_outside = eqx.filter_jit(_samples)


def _figures(features: ObservationFeatures, played: Play, returns: Array) -> Figures:
    blind = ~features.valid(played.inputs[..., : features.num_features])
    if played.alive is not None:
        blind = blind & played.alive
    wrong = jnp.where(blind.any(), blind, ~jnp.isfinite(played.reward))
    place = jnp.argmax(wrong)
    where = jnp.where(wrong.any(), jnp.stack(jnp.unravel_index(place, wrong.shape)), -1)
    return Figures(
        mean_return=played.reward.sum(0).mean(),
        explained_variance=1
        - (returns - played.value).var(where=played.alive) / returns.var(where=played.alive),
        statistics=jax.tree.map(lambda x: x.mean(), played.statistics),
        fault=where.astype(jnp.int32),
        blind=blind.any(),
        bad_reward=played.reward.reshape(-1)[place],
    )


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
