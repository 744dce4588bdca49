"""Drawing actions for whole blocks of agents, and indices from probabilities.

Axes: H steps, [B,L,T] trajectories and places (see `layout`), G groups, S states, A actions.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int, PyTree

from crowdnash.policies.base import Policy
from crowdnash.policies.features import as_tables
from crowdnash.policies.tabular import TabularPolicy
from crowdnash.simulation.layout import AgentLayout

_MAX_SELECTS = 64


class ActionSampler(eqx.Module):
    """Draws actions for whole blocks of agents; `tables` has leading axis H."""

    tables: eqx.AbstractVar[PyTree]

    @abc.abstractmethod
    def draw(self, table: PyTree, states: PyTree, step: Array, numbers: Array) -> Array:
        """Actions [B,L,T] for `states`, from uniform `numbers`; `table` is one step's."""


class TableSampler(ActionSampler):
    """Inverse-CDF sampling from a small table, by comparisons instead of look-ups.

    `tables[s][a]`, [H,T] or [H] for one agent: the largest number that still draws an action <= a
    in state s. One array each, because slices of one large array would keep XLA from vectorising.
    """

    tables: tuple[tuple[Float[Array, "H *T"], ...], ...]

    def draw(self, table: PyTree, states: Array, step: Array, numbers: Array) -> Array:
        """See `ActionSampler.draw`."""
        thresholds = [_select(states, column) for column in zip(*table, strict=True)]
        return _inverse_cdf(thresholds, numbers)


class FunctionSampler(ActionSampler):
    """Calls `policy.probabilities` for every agent: any policy, at the price of its look-ups."""

    policy: Policy
    agent: Int[Array, "L T"]
    tables: None

    def __init__(self, policy: Policy, agent: Int[Array, "L T"]):
        self.policy, self.agent, self.tables = policy, agent, None

    def draw(self, table: PyTree, states: PyTree, step: Array, numbers: Array) -> Array:
        """See `ActionSampler.draw`."""
        one = self.policy.probabilities
        row = jax.vmap(one, in_axes=(0, 0, None), out_axes=-1)
        block = jax.vmap(row, in_axes=(0, 0, None), out_axes=-2)
        probs = jax.vmap(block, in_axes=(0, None, None), out_axes=-3)(states, self.agent, step)
        return draw_index(probs, numbers)


class DeviatingSampler(ActionSampler):
    """`base` for all agents but one of each trajectory, who follows a table of its own.

    The deviator of trajectory b is at flat place `place[b]` and plays `probs[:, b]`; nobody
    deviates where `place` is -1.
    """

    base: ActionSampler
    place: Int[Array, " B"]
    tables: PyTree

    def __init__(
        self, base: ActionSampler, probs: Float[Array, "H B S A"], place: Int[Array, " B"]
    ):
        self.base, self.place = base, place
        self.tables = (base.tables, probs)

    def draw(self, table: PyTree, states: Array, step: Array, numbers: Array) -> Array:
        """See `ActionSampler.draw`."""
        others = self.base.draw(table[0], states, step, numbers)
        rows = jnp.arange(states.shape[0])

        def there(x: Array) -> Array:
            return x.reshape(len(rows), -1)[rows, jnp.maximum(self.place, 0)]

        own = draw_index(table[1][rows, there(states)].T, there(numbers))
        flat = jnp.arange(states.shape[-2] * states.shape[-1], dtype=jnp.int32)
        deviates = flat.reshape(states.shape[-2:]) == self.place[:, None, None]
        return jnp.where(deviates, own[:, None, None], others)


def table_sampler(probs: Float[Array, "G H S A"], layout: AgentLayout) -> TableSampler:
    """Sampler for group tables."""
    num_states, num_actions = probs.shape[-2:]
    by_step = jnp.moveaxis(_limits(probs), 0, -1)  # [H,S,A-1,G]
    spread = layout.spread
    return TableSampler(
        tuple(
            tuple(spread(by_step[:, s, a]) for a in range(num_actions - 1))
            for s in range(num_states)
        )
    )


def _limits(probs: Float[Array, "... A"]) -> Float[Array, "... B"]:
    """The largest number that still draws an action <= a, for all a but the last."""
    # A draw must never reach an action of probability 0, whatever the sums' last bits are.
    later = jnp.cumsum(probs[..., ::-1], axis=-1)[..., ::-1][..., 1:]
    below = jnp.cumsum(probs, axis=-1) / probs.sum(-1, keepdims=True)
    return jnp.where(later > 0, below[..., :-1], 2.0)


def draw_from_rows(
    probs: Float[Array, "S A b"], states: Int[Array, "*B b"], numbers: Float[Array, "*B b"]
) -> Int[Array, "*B b"]:
    """Actions of b agents by their probabilities at one step, as an `action_sampler` draws them."""
    num_states, num_actions, size = probs.shape
    if num_actions > 1 and num_states * num_actions <= _MAX_SELECTS:
        limits = _limits(jnp.moveaxis(probs, 1, -1))
        columns = (
            tuple(limits[s, :, a] for s in range(num_states)) for a in range(num_actions - 1)
        )
        return _inverse_cdf([_select(states, column) for column in columns], numbers)
    rows = jnp.moveaxis(probs, -1, 0)[jnp.arange(size), states]
    return draw_index(jnp.moveaxis(rows, -1, 0), numbers)


def action_sampler(policy: Policy, layout: AgentLayout) -> ActionSampler:
    """The fastest sampler for `policy`; its groups must be those of `layout` if it is tabular."""
    policy = as_tables(policy)  # of features: the layout has a tile for each agent
    if isinstance(policy, TabularPolicy):
        _, _, num_states, num_actions = policy.probs.shape
        if num_states * num_actions <= _MAX_SELECTS and num_actions > 1:
            return table_sampler(policy.probs, layout)
    return FunctionSampler(policy, layout.agent)


def sampler_specs(sampler: ActionSampler, places: PartitionSpec) -> ActionSampler:
    """Where the arrays of an `action_sampler` lie, if what is read at `places` lies there."""
    if isinstance(sampler, FunctionSampler):
        return eqx.tree_at(lambda x: (x.policy, x.agent), sampler, (PartitionSpec(), places))
    return jax.tree.map(lambda _: places, sampler)


def draw_index(probabilities: Float[Array, "C ..."], numbers: Array) -> Int[Array, "..."]:
    """Draw 0..C-1 with these probabilities, leading axis C, from uniform numbers."""
    below = [probabilities[0]]
    for k in range(1, probabilities.shape[0]):
        below.append(below[-1] + probabilities[k])
    # Against the sum itself, not 1: a last entry of probability 0 must never be drawn.
    return _inverse_cdf(below[:-1], numbers * below[-1])


def select_rows(table: Float[Array, "S b"], states: Int[Array, "M b"]) -> Float[Array, "M b"]:
    """What a table of b agents has for their states."""
    if len(table) <= _MAX_SELECTS:
        return jnp.broadcast_to(_select(states, tuple(table)), states.shape)
    return jnp.take_along_axis(table, states, axis=0)


def _inverse_cdf(limits: list[Array], numbers: Array) -> Array:
    index = jnp.zeros(numbers.shape, jnp.int32)
    for limit in limits:
        index = index + (numbers >= limit)
    return index


def _select(index: Array, options: tuple[Array, ...]) -> Array:
    chosen = options[0]
    for k in range(1, len(options)):
        chosen = jnp.where(index == k, options[k], chosen)
    return chosen
