"""TD learning of a policy's Q-values from N-player trajectories (Algorithm 1).

A trajectory m updates every visited (h, s, a) of a group at once, from the same old Q:

    Q_h(s,a) += eta * ( mean over visitors of [r_h + Q_{h+1}(s',a')] + tau H(pi_h(.|s)) - Q_h(s,a) )

It consumes `Chunk`s of simulated play and never calls a game, so that any simulator can feed it.

Axes: G groups, H steps, S states, A actions, X = S*A pairs, [B,L,T] trajectories and places.
"""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from crowdnash.checks import (
    check_count,
    check_indices,
    check_instance,
    check_key,
    check_number,
)
from crowdnash.games.base import DynamicGame, TabularGame
from crowdnash.games.checks import states_for_tables
from crowdnash.games.vectorised import sums_together
from crowdnash.learners.step_rule import StepRule, TDStep, Weighting
from crowdnash.policies.tabular import TabularPolicy
from crowdnash.simulation.device_choice import Work, devices_for
from crowdnash.simulation.devices import ALONE, Devices, at_home
from crowdnash.simulation.faults import explain_fault
from crowdnash.simulation.kept_play import simulate
from crowdnash.simulation.layout import AgentLayout
from crowdnash.simulation.rollouts import chunk_size, fold_trajectories, policy_layout
from crowdnash.simulation.samplers import ActionSampler, action_sampler
from crowdnash.simulation.statistics import (
    VisitStatistics,
    visit_statistics,
)
from crowdnash.simulation.trajectories import Chunk
from crowdnash.tuning import tuning


class TDTables(eqx.Module):
    """Run state of Algorithm 1: `values` Q, `visits` (sums of weights) and `epoch` m."""

    values: Float[Array, "X H G"]
    visits: Float[Array, "X H G"]
    epoch: Int[Array, ""]

    @classmethod
    def zeros(cls, num_pairs: int, horizon: int, num_groups: int) -> "TDTables":
        """Q = 0, nothing visited (the start of Algorithm 1)."""
        empty = jnp.zeros((num_pairs, horizon, num_groups), jnp.float32)
        return cls(empty, empty, jnp.asarray(0, jnp.int32))


def entropy_bonus(
    probs: Float[Array, "G H S A"], temperature: Float[Array, ""]
) -> Float[Array, "S H G"]:
    """The bonus tau H(pi_h(.|s)) for every group, step and state, H in nats."""
    entropy = -jax.scipy.special.xlogy(probs, probs).sum(-1)
    return temperature * jnp.moveaxis(entropy, (0, 1, 2), (2, 1, 0))


def td_update(
    tables: TDTables,
    chunk: Chunk,
    active: Bool[Array, " B"],
    bonus: Float[Array, "S H G"],
    rule: StepRule,
    layout: AgentLayout,
    devices: Devices = ALONE,
) -> TDTables:
    """Run Algorithm 1 over the trajectories of a chunk, one after the other.

    `active` is False for trajectories to leave out. Pairs equal to X mark places to leave out.
    Where `devices` share the trajectories, each has a chunk, and all replay the chunks of all.
    """
    num_pairs = tables.values.shape[0]
    active = devices.gather_trajectories(active, 0)
    # Groups whose agents lie apart can only be counted: a mean needs all of a trajectory's agents.
    groups_apart = devices.shares("agents") and not devices.own_tables
    if groups_apart or are_counted(layout, num_pairs):
        counted = devices.sum_of_groups(visit_statistics(chunk, layout, num_pairs))
        return replay(tables, _in_order(counted, devices), active, bonus, rule)
    pairs, rewards = devices.gather_trajectories((chunk.pairs, chunk.rewards), 1)
    return _replay_agents(tables, Chunk(pairs, rewards, chunk.totals), active, bonus, rule, layout)


def _in_order(statistics: VisitStatistics, devices: Devices) -> VisitStatistics:
    """Statistics of all devices' trajectories, in order."""
    gather = devices.gather_trajectories
    return VisitStatistics(
        gather(statistics.visits, 1), gather(statistics.rewards, 1), gather(statistics.moves, 2)
    )


def are_counted(layout: AgentLayout, num_pairs: int) -> bool:
    """Whether counts [X,X,B,H,G] are no larger than the play [B,H,L,T] that they are taken from.

    Groups of few agents, or many pairs, are cheaper agent by agent: an agent's statistics are its
    pair and its reward.
    """
    return (
        num_pairs <= tuning().masked_pairs and num_pairs**2 * layout.num_groups <= layout.agent.size
    )


def replay(
    tables: TDTables,
    statistics: VisitStatistics,
    active: Bool[Array, " B"],
    bonus: Float[Array, "S H G"],
    rule: StepRule,
) -> TDTables:
    """`td_update` from the visit statistics of every trajectory, [X,B,H,G]."""
    visits, moves = statistics.visits, statistics.moves
    bonuses = jnp.repeat(bonus, visits.shape[0] // bonus.shape[0], axis=0)
    weight = jnp.where(active[:, None, None], rule.weight(visits), 0.0)
    total = tables.visits[:, None] + jnp.cumsum(weight, axis=1)
    epoch = tables.epoch + jnp.cumsum(active, dtype=jnp.int32) - active
    eta = rule.step_size(weight, total - weight, epoch[:, None, None])
    # All that does not depend on Q is known before the loop, which is as short as it can be.
    count = jnp.maximum(visits, 1)
    mean_reward = statistics.rewards / count + bonuses[:, None]
    moved = moves / count[:, None]

    def update(values: Array, trajectory: tuple) -> tuple[Array, None]:
        step_size, target, share = trajectory
        ahead = jnp.pad(values[:, 1:], ((0, 0), (0, 1), (0, 0)))
        for k in range(ahead.shape[0]):
            target = target + share[:, k] * ahead[k]
        return values + step_size * (target - values), None

    by_trajectory = (eta.swapaxes(0, 1), mean_reward.swapaxes(0, 1), jnp.moveaxis(moved, 2, 0))
    values, _ = jax.lax.scan(update, tables.values, by_trajectory)
    return TDTables(values, total[:, -1], tables.epoch + active.sum(dtype=jnp.int32))


def _replay_agents(
    tables: TDTables,
    chunk: Chunk,
    active: Bool[Array, " B"],
    bonus: Float[Array, "S H G"],
    rule: StepRule,
    layout: AgentLayout,
) -> TDTables:
    """`td_update` from every agent's pairs and rewards."""
    num_pairs = tables.values.shape[0]
    sums = _masked_sums if num_pairs <= tuning().masked_pairs else _segment_sums
    num_actions = num_pairs // bonus.shape[0]

    # One array a pair: slices of one large array would keep XLA from vectorising.
    def update(carry: tuple, trajectory: tuple) -> tuple[tuple, None]:
        values, visits, epoch = carry
        pairs, rewards, on = trajectory
        counts, targets = sums(values, pairs, rewards, layout)
        new_values, new_visits = [], []
        for k in range(num_pairs):
            weight = jnp.where(on, rule.weight(counts[k]), 0.0)
            target = targets[k] / jnp.maximum(counts[k], 1) + bonus[k // num_actions]
            eta = rule.step_size(weight, visits[k], epoch)
            new_values.append(values[k] + eta * (target - values[k]))
            new_visits.append(visits[k] + weight)
        return (tuple(new_values), tuple(new_visits), epoch + on), None

    start = (tuple(tables.values), tuple(tables.visits), tables.epoch)
    by_trajectory = (chunk.pairs.swapaxes(0, 1), chunk.rewards.swapaxes(0, 1), active)
    (values, visits, epoch), _ = jax.lax.scan(update, start, by_trajectory)
    return TDTables(jnp.stack(values), jnp.stack(visits), epoch)


def _masked_sums(
    values: tuple[Array, ...], pairs: Array, rewards: Array, layout: AgentLayout
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Visitors and their summed r + Q', each X arrays [H,G], by comparisons: small X."""
    spread = [layout.spread(q)[1:, None] for q in values]
    ahead = jnp.zeros(rewards[1:].shape, jnp.float32)
    for k, value in enumerate(spread):
        ahead = jnp.where(pairs[1:] == k, value, ahead)
    target = rewards + jnp.concatenate([ahead, jnp.zeros_like(rewards[:1])])
    here = [pairs == k for k in range(len(values))]
    terms = [x.astype(jnp.float32) for x in here] + [jnp.where(x, target, 0.0) for x in here]
    alone = layout.shape[0] == 1  # a tile of one agent: nothing to sum
    tiles = [x[:, 0] for x in terms] if alone else sums_together(terms, (1,))
    groups = tuple(layout.gather(x) for x in tiles)
    return groups[: len(values)], groups[len(values) :]


def _segment_sums(
    values: tuple[Array, ...], pairs: Array, rewards: Array, layout: AgentLayout
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """The same by look-ups and scattered sums: cost per agent free of X."""
    num_pairs, (horizon, num_groups) = len(values), values[0].shape
    table = jnp.stack((*values, jnp.zeros_like(values[0])), axis=-1)  # [H,G,X+1]
    group = jnp.broadcast_to(layout.tile_group, pairs.shape[1:])
    index = pairs.astype(jnp.int32)
    step = jnp.arange(horizon)[:, None, None]
    ahead = jnp.where(step[:-1] < horizon, table[step[1:], group, index[1:]], 0.0)
    target = rewards + jnp.concatenate([ahead, jnp.zeros_like(rewards[:1])])
    segment = (step * num_groups + group) * (num_pairs + 1) + index
    total = horizon * num_groups * (num_pairs + 1)
    weights = jnp.stack([jnp.ones_like(target), target], axis=-1).reshape(-1, 2)
    summed = jax.ops.segment_sum(weights, segment.reshape(-1), total)
    summed = summed.reshape(horizon, num_groups, num_pairs + 1, 2)
    counts, targets = summed[..., 0], summed[..., 1]
    return (
        tuple(counts[..., k] for k in range(num_pairs)),
        tuple(targets[..., k] for k in range(num_pairs)),
    )


def learn_values(
    game: DynamicGame,
    sampler: ActionSampler,
    layout: AgentLayout,
    key: PRNGKeyArray,
    num_epochs: Int[Array, ""],
    bonus: Float[Array, "S H G"],
    rule: StepRule,
    observed: Bool[Array, "L T"],
    size: int,
    devices: Devices = ALONE,
) -> tuple[Float[Array, "X H G"], Float[Array, ""]]:
    """Algorithm 1 over `num_epochs` trajectories in chunks of `size`; inside `jit`.

    Returns Q and the mean return (over trajectories and all agents).
    """
    num_pairs = bonus.shape[0] * game.num_actions

    def update(tables: TDTables, chunk: Chunk, active: Array) -> TDTables:
        return td_update(tables, chunk, active, bonus, rule, layout, devices)

    start = TDTables.zeros(num_pairs, game.horizon, layout.num_groups)
    tables, mean_return = fold_trajectories(
        game, sampler, layout, key, num_epochs, observed, size, num_pairs, update, start, devices
    )
    return tables.values, mean_return


@eqx.filter_jit
def _learn_values(devices: Devices, *arguments: Any) -> tuple[Array, Array]:
    return devices.run(lambda *own: learn_values(*own, devices=devices), *arguments)


def observed_places(
    layout: AgentLayout, agents: Literal["all"] | int | Int[np.ndarray, " n"]
) -> Bool[Array, "L T"]:
    """Places of the agents whose transitions are used; `ValueError` for an unknown agent."""
    if isinstance(agents, str):
        if agents != "all":
            raise ValueError(f"agents must be 'all', an index or an array of them: {agents!r}")
        return layout.valid
    index = check_indices("agents", agents, layout.place.shape[0])
    return layout.valid & jnp.isin(layout.agent, jnp.asarray(index))


def td_learning(
    game: TabularGame,
    policy: TabularPolicy,
    *,
    key: PRNGKeyArray,
    num_epochs: int,
    temperature: float = 0.0,
    agents: Literal["all"] | int | Int[np.ndarray, " n"] = "all",
    step_size: TDStep = "adaptive",
    delta: float = 1.0,
    weighting: Weighting = "trajectories",
    mesh: Mesh | str | None = None,
) -> Float[Array, "G H S A"]:
    """Q-values of `policy` from `num_epochs` simulated trajectories (Algorithm 1).

    Args:
        game: any game with finite states.
        policy: one table for each of G groups of agents.
        key: decides every draw.
        num_epochs: number of trajectories M >= 1.
        temperature: tau >= 0, the weight of the policy's entropy (Def. 9), in units of reward.
        agents: whose transitions are used: "all" (each group's table moves by the mean TD error
            over those of the group who visited), one index (the paper's agent 1), or several.
        step_size: rule for eta, see `StepRule.named`.
        delta: see `StepRule.named`.
        weighting: "trajectories": the mean TD error of every trajectory weighs the same (the
            paper's); "visitors": it weighs as many agents as visited, which takes away the bias
            towards trajectories in which few did. See `StepRule.named`.
        mesh: devices that share the trajectories, a mesh of axis "trajectories", or "auto" for
            all there are; None: the default device. All replay the trajectories in their order.

    Returns:
        Q [G,H,S,A] in units of reward, one table for each group of the policy; 0 where nobody
        observed came.

    Raises:
        ValueError: an argument is out of its range.
        GameError: the game pays a NaN or a transition is not a distribution.
    """
    states_for_tables(game)
    check_key("key", key)
    check_count("num_epochs", num_epochs, 1)
    check_number("temperature", temperature, least=0)
    check_instance("policy", policy, TabularPolicy)
    policy.check_fits(game)
    layout = policy_layout(policy, game.num_agents)
    observed = observed_places(layout, agents)
    sizes = np.asarray(layout.group_sizes(observed))
    rule = StepRule.named(step_size, game.horizon, sizes, delta, weighting)
    work = Work(num_epochs, game.num_agents, agents_unfit="td_learning shares trajectories alone")
    devices = devices_for(mesh, work)
    values, mean_return = _learn_values(
        devices,
        game,
        action_sampler(policy, layout),
        layout,
        key,
        jnp.asarray(num_epochs, jnp.int32),
        entropy_bonus(policy.probs, jnp.float32(temperature)),
        rule,
        observed,
        chunk_size(game.num_agents, num_epochs, devices),
    )
    values = at_home(values)
    if not np.isfinite(float(mean_return)):
        explain_fault(game, simulate(game, policy, key=key, num_trajectories=num_epochs))
    return tables_by_group(values, game.num_actions)


def tables_by_group(values: Float[Array, "X H G"], num_actions: int) -> Float[Array, "G H S A"]:
    """[X,H,G] -> [G,H,S,A]."""
    num_pairs, horizon, num_groups = values.shape
    return jnp.moveaxis(values, (0, 1, 2), (2, 1, 0)).reshape(
        num_groups, horizon, num_pairs // num_actions, num_actions
    )
