"""What a neural policy is told about who it acts for: nothing, a name, or what it is like.

Axes: N agents, d identity features, R embedding rows.
"""

from typing import Any, Literal, get_args

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from crowdnash.checks import check_choice
from crowdnash.games.base import DynamicGame
from crowdnash.games.grouping import assign_groups, standardised_features

IdentityName = Literal["none", "one-hot", "number", "independent", "group", "parameters"]
"""The encodings of `Identity.encode`."""


class Identity(eqx.Module):
    """How agents differ for their policy: `features` [N,d], `row` [N] in 0..R-1, own networks.

    One record serves all encodings, so that networks, rollouts and losses have one code path:
    d = 0 if there are no features, R = 0 if there are no embedding rows, and `independent` says
    that every agent has a network of its own.
    """

    features: Float[Array, "N d"]
    row: Int[Array, " N"]
    num_rows: int = eqx.field(static=True)
    independent: bool = eqx.field(static=True)
    name: str = eqx.field(static=True)

    @classmethod
    def encode(cls, game: DynamicGame, name: str, groups: Any = None) -> "Identity":
        """The encoding called `name`, of the agents of `game`.

        - "none" (Symm-NN): all agents share one network and are alike to it;
        - "one-hot" (OH-NN): a one-hot code of the agent, as an embedding row;
        - "number" (ID-NN): the agent's index, scaled to [0,1];
        - "independent" (Ind-NN): one network an agent;
        - "group": a one-hot code of the agent's group; `groups` as in `assign_groups`;
        - "parameters" (Type-NN): the agent's own `agent_features`, standardised over the agents.

        Raises:
            ValueError: the name is unknown, `groups` is missing for "group" or passed for another
                encoding, or the game has no `agent_features` for "parameters".
        """
        check_choice("identity", name, get_args(IdentityName))
        if (name == "group") != (groups is not None):
            rule = "needs" if name == "group" else "takes no"
            raise ValueError(f"identity={name!r} {rule} groups, not groups={groups!r}")
        n = game.num_agents
        features, row, num_rows = np.zeros((n, 0)), np.zeros(n, np.int32), 0
        match name:
            case "one-hot":
                row, num_rows = np.arange(n, dtype=np.int32), n
            case "number":
                features = np.linspace(0.0, 1.0, n)[:, None]
            case "group":
                row = assign_groups(game, groups)
                num_rows = int(row.max()) + 1
            case "parameters":
                points = standardised_features(game)
                if points is None:
                    raise ValueError(
                        f"identity='parameters' needs game.agent_features; "
                        f"{type(game).__name__} has none"
                    )
                features = points
        return cls(
            features=jnp.asarray(features, jnp.float32),
            row=jnp.asarray(row, jnp.int32),
            num_rows=num_rows,
            independent=name == "independent",
            name=name,
        )

    @property
    def num_agents(self) -> int:
        """N."""
        return self.row.shape[0]

    @property
    def num_features(self) -> int:
        """d."""
        return self.features.shape[1]

    @property
    def groups(self) -> Int[np.ndarray, " N"]:
        """Which agents are the same to the policy, [N] -> 0..G-1."""
        if self.independent:
            return np.arange(self.num_agents, dtype=np.int32)
        told = np.concatenate([np.asarray(self.row)[:, None], np.asarray(self.features)], axis=1)
        _, groups = np.unique(told, axis=0, return_inverse=True)
        return groups.reshape(-1).astype(np.int32)
