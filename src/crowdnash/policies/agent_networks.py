"""The networks of all agents: one that they share, or one each.

Everything that knows of the difference in the arrays' layout is here. With independent identities
all arrays of a network have a leading axis N.

Axes: N agents, M trajectories, B samples of one network, F inputs.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from crowdnash.policies.identity import Identity
from crowdnash.policies.network import NeuralNetwork


class ActorCritic(eqx.Module):
    """A policy network, and a separate one for the value of what it sees."""

    actor: NeuralNetwork
    critic: NeuralNetwork

    @classmethod
    def create(
        cls,
        key: PRNGKeyArray,
        identity: Identity,
        *,
        num_inputs: int,
        num_actions: int,
        hidden_sizes: tuple[int, ...],
    ) -> "ActorCritic":
        """Orthogonal initial networks: last layers of gain 0.01 (actor) and 1 (critic)."""
        inner = (num_inputs, *hidden_sizes)
        return _create(key, identity, (*inner, num_actions), (*inner, 1))


@eqx.filter_jit
def _create(
    key: PRNGKeyArray, identity: Identity, actor: tuple[int, ...], critic: tuple[int, ...]
) -> ActorCritic:
    def one(key: PRNGKeyArray) -> ActorCritic:
        keys, rows = jax.random.split(key), identity.num_rows
        return ActorCritic(
            NeuralNetwork.create(keys[0], actor, last_gain=0.01, num_rows=rows),
            NeuralNetwork.create(keys[1], critic, last_gain=1.0, num_rows=rows),
        )

    if not identity.independent:
        return one(key)
    # One after the other: QR decompositions of a thousand networks at once are no faster.
    return jax.lax.map(one, jax.random.split(key, identity.num_agents))


def by_network(identity: Identity, x: Shaped[Array, "*lead N F"]) -> Shaped[Array, "..."]:
    """Samples [...,N,F] as [B,F] for one shared network, as [N,B,F] for a network each."""
    if identity.independent:
        x = jnp.moveaxis(x, -2, 0)
        return x.reshape(x.shape[0], -1, x.shape[-1])
    return x.reshape(-1, x.shape[-1])


def evaluate(
    network: NeuralNetwork,
    identity: Identity,
    inputs: Float[Array, "M N F"],
    dtype: str = "float32",
) -> Float[Array, "M N out"]:
    """Outputs of every agent's network for its own inputs."""
    num_trajectories, n, _ = inputs.shape
    if identity.independent:
        over_agents = jax.vmap(lambda net, x: net(x, dtype=dtype))
        return jnp.moveaxis(over_agents(network, by_network(identity, inputs)), 0, 1)
    row = jnp.tile(identity.row, num_trajectories)
    outputs = network(by_network(identity, inputs), row, dtype=dtype)
    return outputs.reshape(num_trajectories, n, -1)


def evaluate_steps(
    network: NeuralNetwork,
    identity: Identity,
    inputs: Float[Array, "H M N F"],
    dtype: str = "float32",
) -> Float[Array, "H M N out"]:
    """`evaluate` at every step.

    A network of one's own is read once for all steps (reading a thousand of them costs more than
    the arithmetic); a shared one takes step after step, so that memory does not grow with H.
    """
    if not identity.independent:
        return jax.lax.map(lambda x: evaluate(network, identity, x, dtype), inputs)
    together = evaluate(network, identity, inputs.reshape(-1, *inputs.shape[2:]), dtype)
    return together.reshape(*inputs.shape[:3], -1)


def network_of_agent(network: NeuralNetwork, identity: Identity, agent: int) -> NeuralNetwork:
    """A network on observations alone that does what `network` does for this agent.

    Whatever it is told of the agent's identity never changes, and so becomes part of its bias.
    """
    if identity.independent:
        network = jax.tree.map(lambda x: x[agent], network)
    told = identity.num_features
    seen = network.weights[0].shape[0] - told
    bias = network.biases[0] + identity.features[agent] @ network.weights[0][seen:]
    if network.rows is not None:
        bias = bias + network.rows[identity.row[agent]]
    weights = (network.weights[0][:seen], *network.weights[1:])
    return NeuralNetwork(weights, (bias, *network.biases[1:]), None)
