"""Policies: what an agent does, given what it sees, who it is, and the step.

Axes: G groups, N agents, H steps, S states, A actions.
"""

import abc
import io
import os
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from crowdnash.games.base import PROBABILITY_TOLERANCE, DynamicGame, TabularGame
from crowdnash.games.checks import check_integer_observations

_FORMAT = "crowdnash-tabular-policy-1"


class Policy(eqx.Module):
    """Time-dependent memoryless policy of N agents (Def. 1); all agents' policies at once."""

    @abc.abstractmethod
    def probabilities(
        self, observation: Any, agent_index: Int[Array, ""], step: Int[Array, ""]
    ) -> Float[Array, " A"]:
        """Action probabilities [A] of one agent for what it observes at step h."""

    def check_fits(self, game: DynamicGame) -> None:
        """Raise `ValueError` if this policy was made for another game; by default it suits any."""


def check_policy(game: DynamicGame, policy: Any) -> None:
    """Raise `ValueError` unless `policy` is one, and not one for another game."""
    if not isinstance(policy, Policy):
        raise ValueError(f"policy must be a Policy, not a {type(policy).__name__}")
    policy.check_fits(game)


class TabularPolicy(Policy):
    """One table of action probabilities a group: `probs` [G,H,S,A] and `groups` [N] -> 0..G-1.

    G = 1 is a symmetric policy (Symm-PMD), G = N an independent one (IPMD); Def. 1 has the latter.

    **Raises:** `ValueError` if a shape is wrong, an entry is negative or NaN, the last axis does
    not sum to 1 within 1e-5, or `groups` names a group that `probs` does not have.
    """

    probs: Float[Array, "G H S A"]
    groups: Int[Array, " N"]

    def __init__(self, probs: Any, groups: Any):
        probs = jnp.asarray(probs, jnp.float32)
        groups = jnp.asarray(groups)
        _check_tables(probs, groups)
        self.probs = probs
        self.groups = groups.astype(jnp.int32)

    @classmethod
    def symmetric(cls, probs: Any, num_agents: int) -> "TabularPolicy":
        """All N agents play the one table `probs` [H,S,A].

        **Raises:** `ValueError` if `probs` is not such a table or `num_agents` < 1.
        """
        probs = jnp.asarray(probs)
        if probs.ndim != 3:
            raise ValueError(f"probs must have shape [H,S,A], not {probs.shape}")
        if num_agents < 1:
            raise ValueError(f"num_agents must be at least 1, not {num_agents}")
        return cls(probs[None], jnp.zeros(num_agents, jnp.int32))

    @classmethod
    def grouped(cls, probs: Any, groups: Any) -> "TabularPolicy":
        """Agent i plays the table `probs[groups[i]]`; probs [G,H,S,A], groups [N].

        **Raises:** `ValueError` as the class.
        """
        return cls(probs, groups)

    @classmethod
    def independent(cls, probs: Any) -> "TabularPolicy":
        """Every agent has its own table: probs [N,H,S,A].

        **Raises:** `ValueError` as the class.
        """
        probs = jnp.asarray(probs)
        return cls(probs, jnp.arange(probs.shape[0] if probs.ndim else 0, dtype=jnp.int32))

    @classmethod
    def uniform(cls, game: TabularGame) -> "TabularPolicy":
        """Every action equally likely, for all agents of `game`; raises nothing."""
        shape = (game.horizon, game.num_states, game.num_actions)
        return cls.symmetric(jnp.full(shape, 1.0 / game.num_actions), game.num_agents)

    @property
    def num_groups(self) -> int:
        """G."""
        return self.probs.shape[0]

    @property
    def num_agents(self) -> int:
        """N."""
        return self.groups.shape[0]

    def probabilities(
        self, observation: Int[Array, ""], agent_index: Int[Array, ""], step: Int[Array, ""]
    ) -> Float[Array, " A"]:
        """See `Policy.probabilities`; `observation` is the agent's state."""
        return self.probs[self.groups[agent_index], step, observation]

    def check_fits(self, game: DynamicGame) -> None:
        """Raise `ValueError` if this policy's N, H, S or A is not that of `game`.

        Also if agents observe anything but an integer. A simulator need not tell its `num_states`;
        then S is not compared.
        """
        check_integer_observations(game)
        has = dict(zip("NHSA", (self.num_agents, *self.probs.shape[1:]), strict=True))
        want = {
            "N": game.num_agents,
            "H": game.horizon,
            "S": getattr(game, "num_states", None) or has["S"],
            "A": game.num_actions,
        }
        for axis, size in want.items():
            if has[axis] != size:
                raise ValueError(
                    f"policy must fit the game: the game has {axis}={size}, "
                    f"the policy {axis}={has[axis]}"
                )

    def save(self, path: str | os.PathLike) -> None:
        """Write the policy to `path` (NumPy .npz), replacing the file in one step.

        **Raises:** `OSError` if it cannot be written; an older file is then still there.
        """
        partial = f"{os.fspath(path)}.partial"
        try:
            with open(partial, "wb") as file:
                np.savez(
                    file,
                    format=np.asarray(_FORMAT),
                    probs=np.asarray(self.probs),
                    groups=np.asarray(self.groups),
                )
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            if os.path.exists(partial):
                os.unlink(partial)
            raise

    @classmethod
    def load(cls, path: str | os.PathLike) -> "TabularPolicy":
        """Read a policy that `save` wrote.

        **Raises:** `ValueError` if the file is damaged or is not a policy; `OSError` if it cannot
        be read.
        """
        with open(path, "rb") as file:
            content = io.BytesIO(file.read())
        try:
            with np.load(content, allow_pickle=False) as data:
                if "about" in data:
                    raise ValueError("it may be a NeuralPolicy")
                if str(data["format"]).startswith("crowdnash-feature-policy"):
                    raise ValueError("it may be a FeaturePolicy")
                if str(data["format"]) != _FORMAT:
                    raise ValueError("it has another format")
                return cls(data["probs"], data["groups"])
        except Exception as error:  # NumPy and zipfile raise many kinds for damaged files
            raise ValueError(
                f"{os.fspath(path)} is damaged or is not a crowdnash policy file: {error}"
            ) from None


def _check_tables(probs: Array, groups: Array) -> None:
    if probs.ndim != 4 or 0 in probs.shape:
        raise ValueError(f"probs must have shape [G,H,S,A] with no empty axis, not {probs.shape}")
    if groups.ndim != 1 or groups.shape[0] == 0:
        raise ValueError(f"groups must have shape [N], N >= 1, not {groups.shape}")
    if not jnp.issubdtype(groups.dtype, jnp.integer):
        raise ValueError(f"groups must be integers, not {groups.dtype}")
    if isinstance(probs, Tracer) or isinstance(groups, Tracer):
        return
    table, index = np.asarray(probs), np.asarray(groups)
    if index.min() < 0 or index.max() >= table.shape[0]:
        bad = int(index[(index < 0) | (index >= table.shape[0])][0])
        raise ValueError(f"groups must lie in 0..{table.shape[0] - 1} (probs has G groups): {bad}")
    error = np.abs(table.sum(-1, dtype=np.float64) - 1)
    wrong = ~((error <= PROBABILITY_TOLERANCE) & (table >= 0).all(-1))
    if wrong.any():
        where = tuple(int(k) for k in np.argwhere(wrong)[0])
        raise ValueError(
            "probs must be probabilities that sum to 1 over the last axis (within "
            f"{PROBABILITY_TOLERANCE}): at [group, step, state] = {list(where)} they are "
            f"{table[where].tolist()}"
        )
