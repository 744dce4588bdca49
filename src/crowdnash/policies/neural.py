"""Policies that are neural networks, for games too large for tables.

Axes: N agents, F observation features, d identity features, A actions, H steps, S states.
"""

import itertools
import json
import os
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from crowdnash.checks import check_instance, check_path
from crowdnash.files import write_arrays
from crowdnash.games.base import DynamicGame
from crowdnash.games.legal import LegalActions, legal_arrays, legal_from, legal_logits
from crowdnash.policies.base import Policy, check_asked
from crowdnash.policies.identity import Identity
from crowdnash.policies.network import NeuralNetwork
from crowdnash.policies.observations import ObservationFeatures
from crowdnash.policies.plain import NETWORK, Arrays, policy_file
from crowdnash.policies.tabular import TabularPolicy


class NeuralPolicy(Policy):
    """A network that maps what an agent sees, the step and the agent's identity to actions.

    `actor` has one network for all agents, or, if `identity.independent`, a leading axis N on all
    its arrays. `game_name` and the sizes say which games the policy fits.
    `legal` are the actions that agents have (None: all): of the others, none is played.
    """

    actor: NeuralNetwork
    identity: Identity
    features: ObservationFeatures
    game_name: str = eqx.field(static=True)
    num_actions: int = eqx.field(static=True)
    legal: LegalActions | None = None

    @property
    def num_agents(self) -> int:
        """N."""
        return self.identity.num_agents

    def probabilities(
        self, observation: PyTree, agent_index: Int[Array, ""], step: Int[Array, ""]
    ) -> Float[Array, " A"]:
        """See `Policy.probabilities`; `observation` is that of one agent."""
        actor = self.actor
        if self.identity.independent:
            actor = jax.tree.map(lambda x: x[agent_index], actor)
        seen = self.features(observation, jnp.asarray(step))
        inputs = jnp.concatenate([seen, self.identity.features[agent_index]])
        row = self.identity.row[agent_index]
        logits = actor(inputs[None], row[None])[0]
        may = None if self.legal is None else self.legal(agent_index, observation, step)
        return jax.nn.softmax(legal_logits(logits, may))

    @eqx.filter_jit
    def all_probabilities(self, observations: PyTree, step: Int[Array, ""]) -> Float[Array, "N A"]:
        """Action probabilities of all agents for `game.observe(state)` at step h."""
        agents = jnp.arange(self.num_agents, dtype=jnp.int32)
        return jax.vmap(self.probabilities, in_axes=(0, 0, None))(observations, agents, step)

    def act(
        self,
        observations: PyTree,
        step: int | Int[Array, ""],
        key: PRNGKeyArray | np.random.Generator,
        agents: Any = None,
    ) -> Int[Array, " n"] | Int[np.ndarray, " n"]:
        """See `Policy.act`; `check_fits` says whether a game is the one it was made for.

        Raises:
            ValueError: as there.
        """
        seen, index, step = check_asked(
            observations,
            step,
            agents,
            num_agents=self.num_agents,
            horizon=self.features.horizon,
            num_states=self.features.num_states,
        )
        return super().act(seen, step, key, index)

    def tabulate(self) -> TabularPolicy:
        """The same policy as a table, for games whose agents see one of S states.

        One group if the agents are alike to the network, groups if it knows groups, else N; more
        where agents alike to it have different legal actions.

        Raises:
            ValueError: the policy was made for another kind of observation.
        """
        if self.features.num_states is None:
            raise ValueError("tabulate needs a policy over integer states; this one sees features")
        groups = self.identity.groups
        if self.legal is not None:
            both = np.stack([groups, np.asarray(self.legal.kinds)])
            groups = np.unique(both, axis=1, return_inverse=True)[1].reshape(-1).astype(np.int32)
        members = np.array([np.flatnonzero(groups == g)[0] for g in range(groups.max() + 1)])
        return TabularPolicy.grouped(_tables(self, jnp.asarray(members, jnp.int32)), groups)

    def check_fits(self, game: DynamicGame) -> None:
        """Raise `ValueError` if this policy was made for another game, N, H, A or observation."""
        check_instance("game", game, DynamicGame)
        features = ObservationFeatures.of(game)
        pairs = {
            "name": (self.game_name, game.name),
            "N": (self.num_agents, game.num_agents),
            "A": (self.num_actions, game.num_actions),
            "H": (self.features.horizon, features.horizon),
            "S": (self.features.num_states, features.num_states),
            "observation features": (self.features.num_features, features.num_features),
        }
        for what, (has, needs) in pairs.items():
            if has != needs:
                raise ValueError(
                    f"policy must fit the game: the game has {what}={needs}, "
                    f"the policy {what}={has}"
                )

    def check_probabilities(self, game: DynamicGame) -> None:
        """Raise `ValueError` unless all weights are finite: then rows are distributions.

        Also if an illegal action could be played.
        """
        _check_finite(self.actor, self.identity)
        legal = LegalActions.of(game)
        if legal is not None and not (self.legal and self.legal.allows_no_more_than(legal)):
            raise ValueError(
                "policy must play legal actions alone: this network's legal actions are not those "
                "of the game"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the policy to `path` (NumPy .npz), replacing the file in one step.

        Raises:
            OSError: it cannot be written; an older file is then still there.
        """
        check_path("path", path)
        write_arrays(Path(path), self._file_arrays())

    def _file_arrays(self) -> Arrays:
        """See `Policy._file_arrays`."""
        about = {
            "format": NETWORK,
            "game": self.game_name,
            "num_actions": self.num_actions,
            "horizon": self.features.horizon,
            "num_states": self.features.num_states,
            "num_features": self.features.num_features,
            "identity": self.identity.name,
            "num_rows": self.identity.num_rows,
            "num_layers": len(self.actor.weights),
        }
        arrays = {
            "about": np.asarray(json.dumps(about)),
            "identity_features": self.identity.features,
            "identity_row": self.identity.row,
        }
        for k, (weight, bias) in enumerate(zip(self.actor.weights, self.actor.biases, strict=True)):
            arrays |= {f"weight_{k}": weight, f"bias_{k}": bias}
        if self.actor.rows is not None:
            arrays["rows"] = self.actor.rows
        arrays |= legal_arrays(self.legal)
        return {name: np.asarray(array) for name, array in arrays.items()}

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        game: DynamicGame | None = None,
        *,
        identity: str | None = None,
    ) -> "NeuralPolicy":
        """Read a policy that `save` wrote; `game` and `identity` say what it must be for.

        Raises:
            ValueError: the file is damaged, is not a neural policy, or is one for another game or
                identity.
            OSError: it cannot be read.
        """
        with policy_file(path, "neural") as data:
            if "probs" in data:
                raise ValueError("it may be a TabularPolicy")
            policy = _from_arrays(data)
        try:
            if game is not None:
                policy.check_fits(game)
            if identity is not None and identity != policy.identity.name:
                raise ValueError(
                    f"policy must have identity={identity!r}, not {policy.identity.name!r}"
                )
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from None
        return policy


@eqx.filter_jit
def _tables(policy: NeuralPolicy, agents: Int[Array, " G"]) -> Float[Array, "G H S A"]:
    """What the agents do in every state at every step, of integer states."""
    states = jnp.arange(policy.features.num_states, dtype=jnp.int32)
    steps = jnp.arange(policy.features.horizon, dtype=jnp.int32)
    over_states = jax.vmap(policy.probabilities, in_axes=(0, None, None))
    over_steps = jax.vmap(over_states, in_axes=(None, None, 0))
    return jax.lax.map(lambda agent: over_steps(states, agent, steps), agents)


def _from_arrays(data: dict[str, Any]) -> NeuralPolicy:
    about = json.loads(str(data["about"]))
    if about["format"] != NETWORK:
        raise ValueError("it has another format")
    layers = range(about["num_layers"])
    actor = NeuralNetwork(
        tuple(jnp.asarray(data[f"weight_{k}"]) for k in layers),
        tuple(jnp.asarray(data[f"bias_{k}"]) for k in layers),
        jnp.asarray(data["rows"]) if "rows" in data else None,
    )
    identity = Identity(
        features=jnp.asarray(data["identity_features"]),
        row=jnp.asarray(data["identity_row"]),
        num_rows=about["num_rows"],
        independent=about["identity"] == "independent",
        name=about["identity"],
    )
    features = ObservationFeatures(about["num_features"], about["num_states"], about["horizon"])
    _check_shapes(actor, identity, features.num_features, about["num_actions"])
    _check_finite(actor, identity)
    legal = legal_from(data)
    return NeuralPolicy(actor, identity, features, about["game"], about["num_actions"], legal)


def _check_finite(actor: NeuralNetwork, identity: Identity) -> None:
    leaves = jax.tree.leaves((actor, identity.features))
    if not all(bool(np.isfinite(np.asarray(x)).all()) for x in leaves if not isinstance(x, Tracer)):
        raise ValueError("policy: a weight is not a finite number")


def _check_shapes(
    actor: NeuralNetwork, identity: Identity, num_features: int, num_actions: int
) -> None:
    """Raise `ValueError` unless the network's arrays fit each other and the identities."""
    lead = (identity.num_agents,) if identity.independent else ()
    widths = [bias.shape[-1] for bias in actor.biases]
    inner = (num_features + identity.num_features, *widths)
    layers = [((*lead, a, b), (*lead, b)) for a, b in itertools.pairwise(inner)]
    shapes = [(w.shape, b.shape) for w, b in zip(actor.weights, actor.biases, strict=True)]
    rows = None if actor.rows is None else actor.rows.shape
    expected_rows = (*lead, identity.num_rows, widths[0]) if identity.num_rows else None
    row = np.asarray(identity.row)
    if (
        shapes != layers
        or widths[-1] != num_actions
        or rows != expected_rows
        or identity.features.shape != (*row.shape, identity.num_features)
        or (identity.num_rows and not (row.min() >= 0 and row.max() < identity.num_rows))
    ):
        raise ValueError("its network has other sizes than it says")
