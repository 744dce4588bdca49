"""Certificates of policy mixtures: what an agent has drawn becomes a part of its state (Def. 2).

The game in which every agent's state is (m,s), m the policy it drew, has the same returns. An
agent's own m says nothing of the others, nor do the laws depend on it: the best it can do instead
is the same too.

Axes: N agents, M policies, H steps, S states, A actions.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from crowdnash.games.base import InAggregate, PopulationGame
from crowdnash.policies.base import Policy
from crowdnash.policies.mixture import PolicyMixture
from crowdnash.policies.tabular import TabularPolicy


class RememberingGame(PopulationGame):
    """`game` with states m * S + s: agents remember the number m that they drew at the start."""

    game: PopulationGame
    weights: Float[Array, " M"]

    def transition(
        self, agent: Any, state: Array, action: Array, aggregate: Array, step: Array
    ) -> Float[Array, " MS"]:
        """The game's own, within the states of one m."""
        number, own = state // self.game.num_states, state % self.game.num_states
        probs = self.game.transition(agent, own, action, aggregate, step)
        stays = jnp.arange(len(self.weights)) == number
        return (stays[:, None] * probs).reshape(-1)

    def reward(
        self, agent: Any, state: Array, action: Array, aggregate: Array, step: Array
    ) -> Float[Array, ""]:
        """The game's own."""
        return self.game.reward(agent, state % self.game.num_states, action, aggregate, step)

    def contribution(self, agent: Any, state: Array, action: Array) -> Array:
        """The game's own: nobody sees what the others drew."""
        return self.game.contribution(agent, state % self.game.num_states, action)

    @property
    def agents(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The game's own."""
        return self.game.agents

    @property
    def num_states(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """M * S."""
        return len(self.weights) * self.game.num_states

    @property
    def num_actions(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """A."""
        return self.game.num_actions

    @property
    def horizon(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """H."""
        return self.game.horizon

    @property
    def initial_distribution(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """m and s are drawn independently, [MS], or [N,MS] where each agent has its own start."""
        own = self.game.initial_distribution
        return (self.weights[:, None] * own[..., None, :]).reshape(*own.shape[:-1], -1)

    @property
    def legal(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The game's own, whatever was drawn; None where it limits nobody."""
        if self.game.legal is None:
            return None
        return lambda agent, state, step: self.game.legal(agent, state % self.game.num_states, step)

    @property
    def transition_in_aggregate(self) -> InAggregate:  # pyright: ignore
        """The game's own."""
        return self.game.transition_in_aggregate

    @property
    def reward_in_aggregate(self) -> InAggregate:  # pyright: ignore
        """The game's own."""
        return self.game.reward_in_aggregate

    @property
    def reward_range(self) -> tuple[float, float] | None:
        """The game's own."""
        return self.game.reward_range


class _Remembered(Policy):
    """In state (m,s) the m-th policy."""

    policies: tuple[Policy, ...]
    num_states: int = eqx.field(static=True)

    def probabilities(
        self, observation: Any, agent_index: Int[Array, ""], step: Int[Array, ""]
    ) -> Float[Array, " A"]:
        """See `Policy.probabilities`."""
        own = observation % self.num_states
        each = [policy.probabilities(own, agent_index, step) for policy in self.policies]
        return jnp.stack(each)[observation // self.num_states]


def remembering(game: PopulationGame, mixture: PolicyMixture) -> tuple[RememberingGame, Policy]:
    """The game and policy in which what an agent drew is a part of its state."""
    larger = RememberingGame(game, mixture.weights)  # pyright: ignore[reportCallIssue]
    tables = [p for p in mixture.policies if isinstance(p, TabularPolicy)]
    alike = len(tables) == len(mixture.policies) and all(
        np.array_equal(table.groups, tables[0].groups) for table in tables
    )
    if alike:
        probs = jnp.concatenate([table.probs for table in tables], axis=2)
        return larger, TabularPolicy.grouped(probs, tables[0].groups)
    return larger, _Remembered(mixture.policies, game.num_states)
