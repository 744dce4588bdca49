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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from crowdnash.checks import check_choice, check_count, check_flag, check_number
from crowdnash.games.base import DynamicGame
from crowdnash.games.legal import LegalActions
from crowdnash.learners.base import Metrics, SharedLearner, game_fingerprint
from crowdnash.learners.ppo.play import PPOState, collect, refuse_faults
from crowdnash.learners.ppo.update import (
    UpdateSettings,
    UpdateShape,
    improve_all,
    initial_moments,
)
from crowdnash.policies.agent_networks import ActorCritic
from crowdnash.policies.identity import Identity, IdentityName
from crowdnash.policies.network import NeuralNetwork
from crowdnash.policies.neural import NeuralPolicy
from crowdnash.policies.observations import ObservationFeatures
from crowdnash.simulation.device_choice import Work, devices_for
from crowdnash.simulation.devices import ALONE, Devices
from crowdnash.simulation.neural import Learners
from crowdnash.tuning import tuning

_SUMMARIES = {
    "none": "one policy, agents alike (Symm-NN)",
    "one-hot": "one policy, told who it acts for (OH-NN)",
    "number": "one policy, told the agent's number (ID-NN)",
    "independent": "a network of its own for every agent (Ind-NN)",
    "group": "one policy, told the agent's group",
    "parameters": "one policy, told the agent's parameters (Type-NN)",
}


@dataclass(frozen=True, kw_only=True)
class PPOMetrics(Metrics):
    """What one epoch of PPO did, in Python numbers; losses are means over all minibatches.

    Attributes:
        mean_reward: as `mean_return`, for one step.
        policy_loss: what PPO lowers to improve the policy.
        value_loss: the critic's.
        entropy: of the policy, nats.
        approximate_kl: old to new policy, nats.
        clip_fraction: share of probability ratios that were clipped.
        explained_variance: share of the variance of the value targets that the critic knew before.
        learning_rate: of the epoch.
        play_seconds: part of `seconds`.
        statistics: the game's own, means over the steps.
    """

    mean_reward: float
    policy_loss: float
    value_loss: float
    entropy: float
    approximate_kl: float
    clip_fraction: float
    explained_variance: float
    learning_rate: float
    play_seconds: float
    statistics: dict[str, float]


class PPO(SharedLearner[PPOState, PPOMetrics, NeuralPolicy]):
    """PPO for N agents at once; the defaults are the paper's (Table 2).

    Several devices (`solve(mesh=...)`) play equally many of the trajectories each, with the draws
    of one device, and average their gradients. A minibatch has equally many samples of every
    device, which shuffles its own: where one minibatch holds all samples, an epoch is that of one
    device up to the rounding of sums, else its minibatches are other ones.

    Args:
        num_epochs: epochs of play and improvement, at least 0.
        num_trajectories: plays of all agents in every epoch, at least 1.
        identity: what the policy is told of the agent it acts for, see `Identity.encode`.
        groups: number of groups of similar agents, or a map [N], for identity "group".
        num_passes: passes over an epoch's samples, at least 1.
        minibatch_size: samples of one network in a minibatch, at least 1: all of them if it has no
            more.
        learning_rate: of Adam, at the start, > 0.
        annealing_epochs: epochs over which the learning rate falls linearly to 0; 0: it stays as
            it is; without a number: `num_epochs`.
        discount: of rewards, per step, in [0, 1].
        gae_lambda: of generalised advantage estimation, in [0, 1].
        entropy_weight: of the entropy bonus, at least 0; 0 is the paper's Symm-NN-NR.
        value_weight: of the value loss, at least 0.
        max_gradient_norm: gradients longer than this are shortened to it, > 0.
        clip: range of the probability ratio, > 0.
        clip_values: whether the value loss is clipped likewise.
        normalise_advantages: within each minibatch.
        magnet_weight: of the KL divergence, in nats, of the policy from its magnet, a moving
            average of its own parameters, which damps swings of the whole fleet (magnetic mirror
            descent, Sokota et al. 2023); at least 0, 0 for no magnet.
        magnet_rate: share of the way to the policy that the magnet goes after an epoch, in [0, 1].
        magnet_start: epochs without the magnet, at least 0: while much is still to be learned, it
            holds back.
        hidden_sizes: widths of the hidden layers of the policy and of the value network.
        horizon_is_end: whether nothing comes after the last step; else play is merely cut off
            there and the critic, asked about step H, stands for the rest (for games whose values
            hardly depend on the step: it never trains on that one).
        matrix_dtype: type of the factors of matrix products; sums and parameters stay float32.
            "bfloat16" is faster on accelerators.

    Raises:
        ValueError: naming the argument, the rule and the value.
    """

    metrics_class: ClassVar[type[Metrics]] = PPOMetrics

    num_epochs: int = 300
    num_trajectories: int = 1
    identity: IdentityName | str = "none"
    groups: int | Any | None = None
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
    magnet_weight: float = 0.0
    magnet_rate: float = 0.05
    magnet_start: int = 0
    hidden_sizes: tuple[int, ...] = (128, 128)
    horizon_is_end: bool = True
    matrix_dtype: Literal["float32", "bfloat16"] | str = "float32"

    def __check_init__(self):
        for name, least in (
            ("num_epochs", 0),
            ("num_trajectories", 1),
            ("num_passes", 1),
            ("minibatch_size", 1),
            ("magnet_start", 0),
        ):
            check_count(name, getattr(self, name), least)
        for name in ("learning_rate", "max_gradient_norm", "clip"):
            check_number(name, getattr(self, name), above=0.0)
        for name in ("entropy_weight", "value_weight", "magnet_weight"):
            check_number(name, getattr(self, name), least=0.0)
        for name in ("discount", "gae_lambda", "magnet_rate"):
            check_number(name, getattr(self, name), least=0.0, most=1.0)
        for name in ("clip_values", "normalise_advantages", "horizon_is_end"):
            check_flag(name, getattr(self, name))
        check_choice("identity", self.identity, get_args(IdentityName))
        check_choice("matrix_dtype", self.matrix_dtype, ("float32", "bfloat16"))
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

    @classmethod
    def presets(cls) -> Mapping[str, Callable[..., "PPO"]]:
        """See `Learner.presets`: the paper's settings."""
        return {"paper": cls}

    def check_suits(self, game: DynamicGame) -> None:
        """Make sure that the policy can be told what it should be of this game's agents.

        Raises:
            ValueError: `identity` or `groups` does not suit the game.
        """
        Identity.encode(game, self.identity, self.groups)
        ObservationFeatures.of(game)

    def init(self, game: DynamicGame, *, key: PRNGKeyArray) -> PPOState:
        """The state before epoch 0, with fresh networks.

        Raises:
            ValueError: `identity` or `groups` does not suit the game.
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
        return self.start_from(game, Learners(networks, identity, features), key=key)

    def start_from(self, game: DynamicGame, learners: Learners, *, key: PRNGKeyArray) -> PPOState:
        """The state before epoch 0 with networks that are there already; raises nothing."""
        return PPOState(
            epoch=jnp.asarray(0, jnp.int32),
            networks=learners.networks,
            moments=initial_moments(learners.networks, learners.identity),
            identity=learners.identity,
            features=learners.features,
            fingerprint=game_fingerprint(game),
            key=jax.random.key_data(key),
            key_impl=str(jax.random.key_impl(key)),
            agents=learners.agents,
            others=learners.others,
            magnet=learners.networks.actor if self.magnet_weight else None,
        )

    def shared(
        self, game: DynamicGame, state: PPOState, mesh: Any
    ) -> tuple[Devices, DynamicGame, PPOState]:
        """See `SharedLearner.shared`: trajectories can be shared, equally many a device.

        Raises:
            ValueError: the mesh has another axis, or `num_trajectories` is no multiple of it.
        """
        work = Work.of(
            game,
            self.num_trajectories,
            table_bytes=sum(leaf.nbytes for leaf in jax.tree.leaves(state)),
            agents_unfit="PPO shares trajectories alone",
            even=True,
        )
        devices = devices_for(mesh, work)
        return devices, devices.place(game), devices.place(state)

    def step(
        self, game: DynamicGame, state: PPOState, devices: Devices = ALONE
    ) -> tuple[PPOState, PPOMetrics]:
        """One epoch: play M trajectories, then improve the networks on them.

        Raises:
            GameError: the game pays or shows something that is not a finite number, or shows a
                state that it does not have.
            FloatingPointError: the losses stop being finite.
        """
        begun = time.perf_counter()
        epoch = int(state.epoch)
        key = jax.random.wrap_key_data(state.key, impl=state.key_impl)
        play_key, order_key = jax.random.split(jax.random.fold_in(key, epoch + 1))
        inputs, samples, figures = collect(
            game,
            state,
            play_key,
            self.num_trajectories,
            jnp.asarray([self.discount, self.gae_lambda], jnp.float32),
            self.horizon_is_end,
            self.matrix_dtype,
            devices,
        )
        figures = jax.device_get(figures)
        refuse_faults(game, state, figures)
        played = time.perf_counter()
        learning_rate = self._learning_rate(epoch)
        settings = (
            learning_rate,
            self.entropy_weight,
            self.value_weight,
            self.max_gradient_norm,
            self.clip,
            self.magnet_weight if epoch >= self.magnet_start else 0.0,
        )
        networks, moments, means = improve_all(
            state.networks,
            state.moments,
            state.identity,
            inputs,
            samples,
            order_key,
            UpdateSettings(*(jnp.float32(x) for x in settings)),
            self._update_shape(),
            devices,
            state.magnet,
        )
        losses = {name: float(x) for name, x in jax.device_get(means)._asdict().items()}
        if not all(map(math.isfinite, losses.values())):
            raise FloatingPointError(
                f"the losses of epoch {epoch} are not finite numbers: a smaller learning_rate "
                f"(now {learning_rate:g}) or rewards of smaller scale may help"
            )
        after = dataclasses.replace(
            state,
            epoch=state.epoch + 1,
            networks=networks,
            moments=moments,
            magnet=self._drawn_along(epoch, state.magnet, networks.actor),
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

    def policies(self, game: DynamicGame, state: PPOState) -> dict[str, NeuralPolicy]:
        """The current policy, "last", without the critic and the optimiser's memory."""
        last = NeuralPolicy(
            actor=state.networks.actor,
            identity=state.identity,
            features=state.features,
            game_name=game.name,
            num_actions=game.num_actions,
            legal=LegalActions.of(game),
        )
        return {"last": last}

    def pinned(self) -> "PPO":
        """See `Learner.pinned`: the learning rate falls over the epochs of the first plan."""
        if self.annealing_epochs is not None:
            return self
        return dataclasses.replace(self, annealing_epochs=self.num_epochs)

    def summary(self) -> str:
        """What the policy is told of the agent, and what the paper calls that."""
        return _SUMMARIES[self.identity]

    def _drawn_along(
        self, epoch: int, magnet: NeuralNetwork | None, actor: NeuralNetwork
    ) -> NeuralNetwork | None:
        """The magnet after the epoch; before its first it is the policy itself."""
        if magnet is None:
            return None
        if epoch < self.magnet_start:
            return actor
        return jax.tree.map(lambda old, new: old + self.magnet_rate * (new - old), magnet, actor)

    def _learning_rate(self, epoch: int) -> float:
        over = self.num_epochs if self.annealing_epochs is None else self.annealing_epochs
        if 0 < over <= epoch:
            raise ValueError(
                f"annealing_epochs must be above the epoch, whose learning rate would be 0: epoch "
                f"{epoch} of {over}"
            )
        return self.learning_rate * (1 - epoch / over if over else 1.0)

    def _update_shape(self) -> UpdateShape:
        return UpdateShape(
            num_passes=self.num_passes,
            minibatch_size=self.minibatch_size,
            chunk_rows=tuning().ppo_rows or self.minibatch_size,
            normalise_advantages=self.normalise_advantages,
            clip_values=self.clip_values,
            dtype=self.matrix_dtype,
        )
