"""Policies as tables, one for each group of agents.

Axes: G groups, N agents, n agents asked, H steps, S states, A actions.
"""

import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PRNGKeyArray

from crowdnash.checks import as_array, check_count, check_instance, check_path
from crowdnash.files import write_arrays
from crowdnash.games.base import PROBABILITY_TOLERANCE, DynamicGame, is_distribution
from crowdnash.games.checks import check_integer_observations, states_for_tables
from crowdnash.games.grouping import check_group_numbers
from crowdnash.games.legal import LegalActions, uniform_over
from crowdnash.policies.base import (
    Policy,
    check_asked,
    check_sizes,
    illegal_error,
)
from crowdnash.policies.drawing import draw_actions
from crowdnash.policies.plain import TABLES, Arrays, policy_file


class TabularPolicy(Policy):
    """One table of action probabilities a group: `probs` [G,H,S,A] and `groups` [N] -> 0..G-1.

    G = 1 is a symmetric policy (Symm-PMD), G = N an independent one (IPMD); Def. 1 has the latter.

    Raises:
        ValueError: a shape is wrong, an entry is negative or NaN, the last axis does not sum to 1
            within 1e-5, or `groups` names a group that `probs` does not have.
    """

    probs: Float[Array, "G H S A"]
    groups: Int[Array, " N"]

    def __init__(self, probs: Any, groups: Any):
        self.probs = jnp.asarray(as_array("probs", probs), jnp.float32)
        if self.probs.ndim != 4 or 0 in self.probs.shape:
            raise ValueError(
                f"probs must have shape [G,H,S,A] with no empty axis, not {self.probs.shape}"
            )
        check_group_numbers(groups, self.probs.shape[0])
        self.groups = jnp.asarray(groups, jnp.int32)
        _check_rows(self.probs)

    @classmethod
    def symmetric(cls, probs: Any, num_agents: int) -> "TabularPolicy":
        """All N agents play the one table `probs` [H,S,A].

        Raises:
            ValueError: `probs` is not such a table or `num_agents` < 1.
        """
        probs = as_array("probs", probs)
        if probs.ndim != 3:
            raise ValueError(f"probs must have shape [H,S,A], not {probs.shape}")
        check_count("num_agents", num_agents, 1)
        return cls(probs[None], jnp.zeros(num_agents, jnp.int32))

    @classmethod
    def grouped(cls, probs: Any, groups: Any) -> "TabularPolicy":
        """Agent i plays the table `probs[groups[i]]`; probs [G,H,S,A], groups [N].

        Raises:
            ValueError: as the class.
        """
        return cls(probs, groups)

    @classmethod
    def independent(cls, probs: Any) -> "TabularPolicy":
        """Every agent has its own table: probs [N,H,S,A].

        Raises:
            ValueError: as the class.
        """
        probs = as_array("probs", probs)
        return cls(probs, jnp.arange(probs.shape[0] if probs.ndim else 0, dtype=jnp.int32))

    @classmethod
    def uniform(cls, game: DynamicGame) -> "TabularPolicy":
        """Every action equally likely, for all agents of `game`; every legal one, if it says so.

        Raises:
            ValueError: the game has no `num_states`, or its agents do not observe integers.
        """
        check_instance("game", game, DynamicGame)
        states_for_tables(game)
        legal = LegalActions.of(game)
        if legal is not None:
            return cls(uniform_over(legal.tables), legal.kinds)
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
        check_sizes(game, self.num_agents, *self.probs.shape[1:])

    def check_probabilities(self, game: DynamicGame) -> None:
        """Raise `ValueError` if an illegal action is played; rows were checked before."""
        legal = LegalActions.of(game)
        if legal is None:
            return
        groups, kinds = np.asarray(self.groups), np.asarray(legal.kinds)
        pairs, first = np.unique(np.stack([groups, kinds]), axis=1, return_index=True)
        for group, kind, agent in zip(*pairs, first, strict=True):
            table, own = np.asarray(self.probs[group]), np.asarray(legal.tables[kind])
            wrong = ((table > 0) & ~own).any(-1)
            if wrong.any():
                step, state = (int(k) for k in np.argwhere(wrong)[0])
                place = (step, state)
                raise illegal_error(table[place], own[place], int(agent), *place)

    def act(
        self,
        observations: Any,
        step: int | Int[Array, ""],
        key: PRNGKeyArray | np.random.Generator,
        agents: Any = None,
    ) -> Int[Array, " n"] | Int[np.ndarray, " n"]:
        """See `Policy.act`; NumPy's generator needs no JAX.

        Args:
            observations: The states of those who act, [n].
            step: As there.
            key: As there.
            agents: Who acts, [n]; None for all N.

        Raises:
            ValueError: As there.
        """
        _, horizon, num_states, _ = self.probs.shape
        states, index, step = check_asked(
            as_array("observations", observations, integers=True),
            step,
            agents,
            num_agents=self.num_agents,
            horizon=horizon,
            num_states=num_states,
        )
        if not isinstance(key, np.random.Generator):
            return super().act(states, step, key, index)
        groups = np.asarray(self.groups)[np.asarray(index)]
        return draw_actions(np.asarray(self.probs)[groups, step, np.asarray(states)], key)

    def save(self, path: str | os.PathLike) -> None:
        """Write the policy to `path` (NumPy .npz), replacing the file in one step.

        Raises:
            OSError: it cannot be written; an older file is then still there.
        """
        check_path("path", path)
        write_arrays(Path(path), self._file_arrays())

    def _file_arrays(self) -> Arrays:
        """See `Policy._file_arrays`."""
        arrays = {"format": TABLES, "probs": self.probs, "groups": self.groups}
        return {name: np.asarray(array) for name, array in arrays.items()}

    @classmethod
    def load(cls, path: str | os.PathLike) -> "TabularPolicy":
        """Read a policy that `save` wrote.

        Raises:
            ValueError: the file is damaged or is not a policy.
            OSError: it cannot be read.
        """
        with policy_file(path, "crowdnash") as data:
            if "about" in data:
                raise ValueError("it may be a NeuralPolicy")
            if str(data["format"]).startswith("crowdnash-feature-policy"):
                raise ValueError("it may be a FeaturePolicy")
            if str(data["format"]) != TABLES:
                raise ValueError("it has another format")
            return cls(data["probs"], data["groups"])


def _check_rows(probs: Array) -> None:
    if isinstance(probs, Tracer):
        return
    table = np.asarray(probs)
    wrong = ~is_distribution(table.astype(np.float64))
    if wrong.any():
        where = tuple(int(k) for k in np.argwhere(wrong)[0])
        raise ValueError(
            "probs must be probabilities that sum to 1 over the last axis (within "
            f"{PROBABILITY_TOLERANCE}): at [group, step, state] = {list(where)} they are "
            f"{table[where].tolist()}"
        )
