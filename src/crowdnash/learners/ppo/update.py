"""The update of proximal policy optimisation: passes over shuffled minibatches of one play.

Axes: B samples of one network, F inputs, m samples of a minibatch, c samples of a chunk.
"""

from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, PRNGKeyArray

from crowdnash.games.legal import legal_logits
from crowdnash.learners.ppo.loss import PPOSums, Samples, normalised, ppo_sums
from crowdnash.policies.agent_networks import ActorCritic
from crowdnash.policies.identity import Identity
from crowdnash.policies.network import NeuralNetwork
from crowdnash.simulation.devices import ALONE, Devices
from crowdnash.tuning import tuning

_ADAM_EPSILON = 1e-5


class UpdateSettings(NamedTuple):
    """The numbers of an update that may change without compiling again, each a scalar."""

    learning_rate: Float[Array, ""]
    entropy_weight: Float[Array, ""]
    value_weight: Float[Array, ""]
    max_gradient_norm: Float[Array, ""]
    clip: Float[Array, ""]
    magnet_weight: Float[Array, ""] | float = 0.0


class UpdateShape(NamedTuple):
    """What decides the compiled program of an update.

    `num_passes` over all samples in minibatches of `minibatch_size`, worked off `chunk_rows` at a
    time; both are samples of one network.
    """

    num_passes: int
    minibatch_size: int
    chunk_rows: int
    normalise_advantages: bool
    clip_values: bool
    dtype: str


# Without its learning rate, which changes from epoch to epoch.
_adam = optax.scale_by_adam(eps=_ADAM_EPSILON)


def initial_moments(networks: Any, identity: Identity) -> optax.OptState:
    """What Adam remembers of gradients before the first: zeros, for every network by itself."""
    return jax.vmap(_adam.init)(networks) if identity.independent else _adam.init(networks)


def improve(
    networks: ActorCritic,
    moments: optax.OptState,
    inputs: Float[Array, "B F"],
    row: Array | None,
    samples: Samples,
    key: PRNGKeyArray,
    settings: UpdateSettings,
    shape: UpdateShape,
    devices: Devices = ALONE,
    magnet: NeuralNetwork | None = None,
) -> tuple[ActorCritic, optax.OptState, PPOSums]:
    """All passes for one network pair; returns mean losses over all minibatches too.

    `row` [B] are the samples' embedding rows, None if the networks have none. Every pass shuffles
    anew; where the minibatch size does not divide B, the last minibatch of a pass is padded with
    samples of weight 0, so that its means are over what is left.

    Where `devices` share the trajectories, samples are this device's: it shuffles them by itself,
    and a minibatch has equally many of each device. `magnet` is the policy that the new one is
    drawn towards, if it is.
    """
    if magnet is not None:
        samples = samples._replace(magnet=_log_probs(magnet, inputs, row, samples.legal, shape))
    count = inputs.shape[0]
    size = min(-(-shape.minibatch_size // devices.size("trajectories")), count)
    key = devices.own_key(key)
    num_minibatches = -(-count // size)
    orders = jax.vmap(lambda k: jax.random.permutation(k, count))(
        jax.random.split(key, shape.num_passes)
    ).astype(jnp.int32)
    padding = ((0, 0), (0, num_minibatches * size - count))
    index = jnp.pad(orders, padding).reshape(-1, size)
    weight = jnp.pad(jnp.ones_like(orders, jnp.float32), padding).reshape(-1, size)

    def minibatch(carry: tuple, now: tuple[Array, Array]) -> tuple[tuple, PPOSums]:
        networks, moments = carry
        chosen, weight = now
        mine = jax.tree.map(lambda x: x[chosen], samples)
        weight = weight * mine.weight  # neither padding nor agents that were out
        mine = mine._replace(weight=weight)
        if shape.normalise_advantages:
            mine = mine._replace(advantage=normalised(mine.advantage, weight, devices))
        gradient, sums = _gradient(networks, inputs, row, chosen, mine, settings, shape, devices)
        norm = optax.global_norm(gradient)
        scale = jnp.where(norm > settings.max_gradient_norm, settings.max_gradient_norm / norm, 1.0)
        gradient = jax.tree.map(lambda g: g * scale, gradient)
        update, moments = _adam.update(gradient, moments)
        networks = jax.tree.map(lambda p, u: p - settings.learning_rate * u, networks, update)
        return (networks, moments), sums

    (networks, moments), sums = jax.lax.scan(minibatch, (networks, moments), (index, weight))
    total = jax.tree.map(lambda x: x.sum(), sums)
    return networks, moments, jax.tree.map(lambda x: x / total.weight, total)


def _log_probs(
    network: NeuralNetwork,
    inputs: Array,
    row: Array | None,
    legal: Array | None,
    shape: UpdateShape,
) -> Float[Array, "B A"]:
    """Of all actions in all samples, under a policy that stays the same during the update."""

    def one(sample: tuple[Array, Array | None, Array | None]) -> Array:
        x, r, may = sample
        logits = network(x[None], None if r is None else r[None], dtype=shape.dtype)[0]
        return jax.nn.log_softmax(legal_logits(logits, may))

    return jax.lax.map(one, (inputs, row, legal), batch_size=min(shape.chunk_rows, len(inputs)))


def _gradient(
    networks: ActorCritic,
    inputs: Array,
    row: Array | None,
    chosen: Array,
    mine: Samples,
    settings: UpdateSettings,
    shape: UpdateShape,
    devices: Devices,
) -> tuple[ActorCritic, PPOSums]:
    """Gradient of the mean total loss of one minibatch, added up over chunks that fit the cache."""
    count = jnp.maximum(devices.sum_over_trajectories(mine.weight.sum()), 1)

    def loss(networks: ActorCritic, chosen: Array, mine: Samples) -> tuple[Array, PPOSums]:
        x = inputs[chosen]
        r = None if row is None else row[chosen]
        sums = ppo_sums(
            networks.actor(x, r, dtype=shape.dtype),
            networks.critic(x, r, dtype=shape.dtype)[..., 0],
            mine,
            clip=settings.clip,
            clip_values=shape.clip_values,
        )
        total = (
            sums.policy_loss
            - settings.entropy_weight * sums.entropy
            + settings.value_weight * sums.value_loss
        )
        if mine.magnet is not None:
            total = total + settings.magnet_weight * sums.magnet
        return total / count, sums

    differentiate = eqx.filter_grad(loss, has_aux=True)
    size = chosen.shape[0]
    rows = min(shape.chunk_rows, size)
    if rows == size:
        return devices.sum_over_trajectories(differentiate(networks, chosen, mine))
    fill = -size % rows

    def cut(x: Array) -> Array:
        padded = jnp.pad(x, ((0, fill), *((0, 0),) * (x.ndim - 1)))
        return padded.reshape(-1, rows, *x.shape[1:])

    chunks = jax.tree.map(cut, (chosen, mine))

    def add(total: tuple, chunk: tuple[Array, Samples]) -> tuple[tuple, None]:
        gradients = differentiate(networks, *chunk)
        return jax.tree.map(jnp.add, total, gradients), None

    start = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype),
        jax.eval_shape(differentiate, networks, *jax.tree.map(lambda x: x[0], chunks)),
    )
    return devices.sum_over_trajectories(jax.lax.scan(add, start, chunks)[0])


@eqx.filter_jit
def improve_all(
    networks: ActorCritic,
    moments: optax.OptState,
    identity: Identity,
    inputs: Float[Array, "..."],
    samples: Samples,
    key: PRNGKeyArray,
    settings: UpdateSettings,
    shape: UpdateShape,
    devices: Devices = ALONE,
    magnet: NeuralNetwork | None = None,
) -> tuple[ActorCritic, optax.OptState, PPOSums]:
    """`improve` for the one network, or for every agent's own; the last is a mean over all.

    Where `devices` share the trajectories, samples lie as `samples_lie` says, all else everywhere.
    """
    here = partial(_improve_all, shape=shape, devices=devices)
    arguments = (networks, moments, identity, inputs, samples, key, settings, magnet)
    own, everywhere = samples_lie(identity), PartitionSpec()
    lie = (everywhere, everywhere, everywhere, own, own, everywhere, everywhere, everywhere)
    return devices.spread(here, lie, everywhere, *arguments)


def samples_lie(identity: Identity) -> PartitionSpec:
    """Where samples lie that `by_network` made of each device's trajectories."""
    return PartitionSpec(*(None,) * identity.independent, "trajectories")


def _improve_all(
    networks: ActorCritic,
    moments: optax.OptState,
    identity: Identity,
    inputs: Float[Array, "..."],
    samples: Samples,
    key: PRNGKeyArray,
    settings: UpdateSettings,
    magnet: NeuralNetwork | None,
    *,
    shape: UpdateShape,
    devices: Devices,
) -> tuple[ActorCritic, optax.OptState, PPOSums]:
    if not identity.independent:
        row = None
        if identity.num_rows:
            row = jnp.tile(identity.row, inputs.shape[0] // identity.num_agents)
        return improve(
            networks, moments, inputs, row, samples, key, settings, shape, devices, magnet
        )

    def one(own: tuple) -> tuple:
        networks, moments, inputs, samples, magnet = own
        return improve(
            networks, moments, inputs, None, samples, key, settings, shape, devices, magnet
        )

    # These go through all their minibatches before the next ones begin.
    size = tuning().ppo_networks or identity.num_agents
    everyone = (networks, moments, inputs, samples, magnet)
    networks, moments, means = jax.lax.map(one, everyone, batch_size=size)
    return networks, moments, jax.tree.map(jnp.mean, means)
