"""Proximal policy optimisation of one symmetric, or identity-conditioned, fleet of agents.

An epoch plays M trajectories with all N agents under the current policy and then improves the
networks on everything that was seen. What the policy is told of an agent's identity is a
parameter (`Identity`): none of it makes a symmetrized policy (Symm-NN), a network for each agent
is independent learning (Ind-NN). The algorithm is that of Schulman et al. (2017) as CleanRL
implements it, with the hyperparameters of the paper (E.2, Table 2).

Axes: N agents, M trajectories, H steps, C networks (1 or N), B samples of one network.
"""

import dataclasses
import math
import time
from dataclasses import dataclass
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt32

from crowdnash.checks import check_count
from crowdnash.games.base import DynamicGame, GameError
from crowdnash.games.checks import named
from crowdnash.learners.ppo.advantage import generalized_advantages
from crowdnash.learners.ppo.loss import PPOSums, Samples
from crowdnash.learners.ppo.update import UpdateSettings, UpdateShape, improve, initial_moments
from crowdnash.policies.agent_networks import ActorCritic, by_network
from crowdnash.policies.identity import Identity, IdentityName
from crowdnash.policies.neural import NeuralPolicy
from crowdnash.policies.observations import ObservationFeatures
from crowdnash.policies.tabular import Policy
from crowdnash.simulation.neural import Learners, Play, play

_CHUNK_ROWS_CPU = 2048
_NETWORKS_AT_ONCE_CPU = 16


class PPOState(eqx.Module):
    """Run state before epoch `epoch`: arrays enough to continue exactly.

    All agents learn, or only `agents` [K], each with its own network, against the `others`.
    """

    epoch: Int[Array, ""]
    networks: ActorCritic
    moments: optax.OptState
    identity: Identity
    features: ObservationFeatures
    key: UInt32[Array, "..."]
    key_impl: str = eqx.field(static=True)
    agents: Int[Array, " K"] | None = None
    others: Policy | None = None

    @property
    def learners(self) -> Learners:
        """Who learns, and against whom."""
        return Learners(self.networks, self.identity, self.features, self.agents, self.others)


@dataclass(frozen=True)
class PPOMetrics:
    """What one epoch did, in Python numbers.

    `mean_return` is the mean over agents and trajectories of the total reward, `mean_reward` the
    same for one step. The losses, `entropy` (nats), `approximate_kl` (nats, old to new policy) and
    `clip_fraction` are means over all minibatches; `explained_variance` says how much of the
    variance of the value targets the critic knew before. `play_seconds` is part of `seconds`.
    `statistics` are the game's own, means over the steps.
    """

    epoch: int
    mean_return: float
    mean_reward: float
    policy_loss: float
    value_loss: float
    entropy: float
    approximate_kl: float
    clip_fraction: float
    explained_variance: float
    learning_rate: float
    agent_steps: int
    play_seconds: float
    seconds: float
    statistics: dict[str, float]


class PPO(eqx.Module):
    """PPO for N agents at once; the defaults are the paper's (Table 2).

    **Arguments:**

    - `num_epochs` >= 0; `num_trajectories` M >= 1 plays of all agents for each;
    - `identity` what the policy is told of the agent, see `Identity.encode`; `groups` for "group";
    - `num_passes` >= 1 over the samples in minibatches of `minibatch_size` >= 1 samples of one
      network (all of them, if it has no more: so has an agent that learns by itself);
    - `learning_rate` > 0 of Adam, annealed linearly to 0 over `annealing_epochs` (default
      `num_epochs`; 0: constant);
    - `discount`, `gae_lambda` in [0,1]; `entropy_weight`, `value_weight` >= 0;
      `max_gradient_norm` > 0; `clip` > 0 of the probability ratio; `clip_values` whether the
      value loss is clipped likewise; `normalise_advantages` within each minibatch;
    - `hidden_sizes` widths of the hidden layers of both networks;
    - `horizon_is_end` whether nothing comes after step H-1 (True: the game's own horizon), or
      play is merely cut off there and the critic, asked about step H, stands for the rest (for
      games whose values hardly depend on the step: it never trains on that one);
    - `matrix_dtype` "float32", or "bfloat16" for the factors of matrix products (sums and
      parameters stay float32): faster on accelerators.

    **Raises:** `ValueError` naming the argument, the rule and the value.
    """

    num_epochs: int = 300
    num_trajectories: int = 1
    identity: IdentityName | str = "none"
    groups: Any = None
    num_passes: int = 4
    minibatch_size: int = 16384
    learning_rate: float = 2.5e-4
    annealing_epochs: int | None = None
    discount: float = 0.999
    gae_lambda: float = 0.95
    entropy_weight: float = 6e-3
    value_weight: float = 0.9
    max_gradient_norm: float = 0.5
    clip: float = 0.2
    clip_values: bool = True
    normalise_advantages: bool = True
    hidden_sizes: tuple[int, ...] = (128, 128)
    horizon_is_end: bool = True
    matrix_dtype: Literal["float32", "bfloat16"] | str = "float32"

    def __check_init__(self):
        for name, least in (
            ("num_epochs", 0),
            ("num_trajectories", 1),
            ("num_passes", 1),
            ("minibatch_size", 1),
        ):
            check_count(name, getattr(self, name), least)
        for name in ("learning_rate", "max_gradient_norm", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be > 0 and finite, not {getattr(self, name)}")
        for name in ("entropy_weight", "value_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be >= 0 and finite, not {getattr(self, name)}")
        for name in ("discount", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], not {getattr(self, name)}")
        if self.annealing_epochs is not None:
            check_count("annealing_epochs", self.annealing_epochs, 0)
        if 0 < (self.annealing_epochs or 0) < self.num_epochs:
            raise ValueError(
                "annealing_epochs must be at least num_epochs, after which the learning rate would "
                f"be 0 (or 0 itself, for a constant one): {self.annealing_epochs} < "
                f"{self.num_epochs}"
            )
        if not isinstance(self.hidden_sizes, tuple | list) or not self.hidden_sizes:
            raise ValueError(
                f"hidden_sizes must be a tuple of at least one width, not {self.hidden_sizes!r}"
            )
        for width in self.hidden_sizes:
            check_count("every width in hidden_sizes", width, 1)
        if self.matrix_dtype not in ("float32", "bfloat16"):
            raise ValueError(
                f"matrix_dtype must be 'float32' or 'bfloat16', not {self.matrix_dtype!r}"
            )

    def init(self, game: DynamicGame, *, key: PRNGKeyArray) -> PPOState:
        """The state before epoch 0, with fresh networks.

        **Raises:** `ValueError` if `identity` or `groups` does not suit the game.
        """
        identity = Identity.encode(game, self.identity, self.groups)
        features = ObservationFeatures.of(game)
        networks = ActorCritic.create(
            jax.random.fold_in(key, 0),
            identity,
            num_inputs=features.num_features + identity.num_features,
            num_actions=game.num_actions,
            hidden_sizes=self.hidden_sizes,
        )
        return self.start_from(Learners(networks, identity, features), key=key)

    def start_from(self, learners: Learners, *, key: PRNGKeyArray) -> PPOState:
        """The state before epoch 0 with networks that are there already; raises nothing."""
        typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        return PPOState(
            epoch=jnp.asarray(0, jnp.int32),
            networks=learners.networks,
            moments=initial_moments(learners.networks, learners.identity),
            identity=learners.identity,
            features=learners.features,
            key=jax.random.key_data(key) if typed else jnp.asarray(key),
            key_impl=str(jax.random.key_impl(key)),
            agents=learners.agents,
            others=learners.others,
        )

    def step(self, game: DynamicGame, state: PPOState) -> tuple[PPOState, PPOMetrics]:
        """One epoch: play M trajectories, then improve the networks on them.

        **Raises:** `GameError` if the game pays or shows something that is not a finite number, or
        shows a state that it does not have; `FloatingPointError` if the losses stop being finite.
        """
        begun = time.perf_counter()
        epoch = int(state.epoch)
        key = jax.random.wrap_key_data(state.key, impl=state.key_impl)
        play_key, order_key = jax.random.split(jax.random.fold_in(key, epoch + 1))
        inputs, samples, figures = _collect(
            game,
            state,
            play_key,
            self.num_trajectories,
            jnp.asarray([self.discount, self.gae_lambda], jnp.float32),
            self.horizon_is_end,
            self.matrix_dtype,
        )
        figures = jax.device_get(figures)
        _refuse_faults(game, state, figures)
        played = time.perf_counter()
        learning_rate = self._learning_rate(epoch)
        settings = (
            learning_rate,
            self.entropy_weight,
            self.value_weight,
            self.max_gradient_norm,
            self.clip,
        )
        networks, moments, means = _improve(
            state.networks,
            state.moments,
            state.identity,
            inputs,
            samples,
            order_key,
            UpdateSettings(*(jnp.float32(x) for x in settings)),
            self._update_shape(),
        )
        losses = {name: float(x) for name, x in jax.device_get(means)._asdict().items()}
        if not all(map(math.isfinite, losses.values())):
            raise FloatingPointError(
                f"the losses of epoch {epoch} are not finite numbers: a smaller learning_rate "
                f"(now {learning_rate:g}) or rewards of smaller scale may help"
            )
        after = dataclasses.replace(
            state, epoch=state.epoch + 1, networks=networks, moments=moments
        )
        mean_return = float(figures.mean_return)
        metrics = PPOMetrics(
            epoch=epoch,
            mean_return=mean_return,
            mean_reward=mean_return / game.horizon,
            policy_loss=losses["policy_loss"],
            value_loss=losses["value_loss"],
            entropy=losses["entropy"],
            approximate_kl=losses["approximate_kl"],
            clip_fraction=losses["clipped"],
            explained_variance=float(figures.explained_variance),
            learning_rate=learning_rate,
            agent_steps=self.num_trajectories * game.horizon * game.num_agents,
            play_seconds=played - begun,
            seconds=time.perf_counter() - begun,
            statistics={name: float(x) for name, x in figures.statistics.items()},
        )
        return after, metrics

    def policy(self, game: DynamicGame, state: PPOState) -> NeuralPolicy:
        """The current policy, without the critic and the optimiser's memory."""
        return NeuralPolicy(
            actor=state.networks.actor,
            identity=state.identity,
            features=state.features,
            game_name=game.name,
            num_actions=game.num_actions,
        )

    def _learning_rate(self, epoch: int) -> float:
        over = self.num_epochs if self.annealing_epochs is None else self.annealing_epochs
        if 0 < over <= epoch:
            raise ValueError(
                f"annealing_epochs must be above the epoch, whose learning rate would be 0: epoch "
                f"{epoch} of {over}"
            )
        return self.learning_rate * (1 - epoch / over if over else 1.0)

    def _update_shape(self) -> UpdateShape:
        on_cpu = jax.default_backend() == "cpu"
        return UpdateShape(
            num_passes=self.num_passes,
            minibatch_size=self.minibatch_size,
            chunk_rows=_CHUNK_ROWS_CPU if on_cpu else self.minibatch_size,
            normalise_advantages=self.normalise_advantages,
            clip_values=self.clip_values,
            dtype=self.matrix_dtype,
        )


class _Figures(eqx.Module):
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


@eqx.filter_jit
def _collect(
    game: DynamicGame,
    state: PPOState,
    key: PRNGKeyArray,
    num_trajectories: int,
    discounting: Float[Array, " 2"],
    horizon_is_end: bool,
    dtype: str,
) -> tuple[Float[Array, "..."], Samples, _Figures]:
    """Play, and what the update needs of it: inputs [B,F] or [N,B,F], samples [B] or [N,B]."""
    identity = state.identity
    played = play(game, state.learners, key, num_trajectories, dtype)
    last = jnp.arange(game.horizon)[:, None, None] == game.horizon - 1
    last = jnp.broadcast_to(last, played.reward.shape)
    advantage = generalized_advantages(
        played.reward,
        played.value,
        jnp.concatenate([played.value[1:], played.last_value[None]]),
        last & horizon_is_end,
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
        weight=jnp.ones_like(returns),
    )
    samples = jax.tree.map(lambda x: by_network(identity, x[..., None])[..., 0], samples)
    return by_network(identity, played.inputs), samples, _figures(state.features, played, returns)


def _figures(features: ObservationFeatures, played: Play, returns: Array) -> _Figures:
    blind = ~features.valid(played.inputs[..., : features.num_features])
    wrong = jnp.where(blind.any(), blind, ~jnp.isfinite(played.reward))
    place = jnp.argmax(wrong)
    where = jnp.where(wrong.any(), jnp.stack(jnp.unravel_index(place, wrong.shape)), -1)
    return _Figures(
        mean_return=played.reward.sum(0).mean(),
        explained_variance=1 - (returns - played.value).var() / returns.var(),
        statistics=jax.tree.map(lambda x: x.mean(), played.statistics),
        fault=where.astype(jnp.int32),
        blind=blind.any(),
        bad_reward=played.reward.reshape(-1)[place],
    )


def _refuse_faults(game: DynamicGame, state: PPOState, figures: _Figures) -> None:
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


@eqx.filter_jit
def _improve(
    networks: ActorCritic,
    moments: optax.OptState,
    identity: Identity,
    inputs: Float[Array, "..."],
    samples: Samples,
    key: PRNGKeyArray,
    settings: UpdateSettings,
    shape: UpdateShape,
) -> tuple[ActorCritic, optax.OptState, PPOSums]:
    if not identity.independent:
        row = None
        if identity.num_rows:
            row = jnp.tile(identity.row, inputs.shape[0] // identity.num_agents)
        return improve(networks, moments, inputs, row, samples, key, settings, shape)

    def one(own: tuple) -> tuple:
        networks, moments, inputs, samples = own
        return improve(networks, moments, inputs, None, samples, key, settings, shape)

    # A few networks at a time go through all their minibatches: together they fit the cache.
    size = _NETWORKS_AT_ONCE_CPU if jax.default_backend() == "cpu" else identity.num_agents
    everyone = (networks, moments, inputs, samples)
    networks, moments, means = jax.lax.map(one, everyone, batch_size=size)
    return networks, moments, jax.tree.map(jnp.mean, means)
