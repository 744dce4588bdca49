"""Visit statistics: against counting one agent after the other, from JAX and from arrays."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crowdnash as cn
from crowdnash.simulation import statistics
from crowdnash.simulation.layout import agent_layout
from crowdnash.simulation.rollouts import policy_layout, simulate_chunk
from crowdnash.simulation.samplers import action_sampler
from crowdnash.simulation.statistics import VisitStatistics
from crowdnash.simulation.trajectories import chunk_from_arrays

KEY = jax.random.key(11)
visit_statistics = eqx.filter_jit(statistics.visit_statistics)


def counted_by_hand(states, actions, rewards, groups, sizes, alive):
    """Visits, rewards and moves, [X,M,H,G] and [X,X,M,H,G], one agent after the other."""
    num_states, num_actions, num_groups = sizes
    num_pairs = num_states * num_actions
    m, horizon, num_agents = states.shape
    visits = np.zeros((num_pairs, m, horizon, num_groups))
    paid, moves = np.zeros_like(visits), np.zeros((num_pairs, *visits.shape))
    for b, h, i in np.ndindex(m, horizon, num_agents):
        if not alive[b, h, i]:
            continue
        x, g = states[b, h, i] * num_actions + actions[b, h, i], groups[i]
        visits[x, b, h, g] += 1
        paid[x, b, h, g] += rewards[b, h, i]
        if h + 1 < horizon and alive[b, h + 1, i]:
            after = states[b, h + 1, i] * num_actions + actions[b, h + 1, i]
            moves[x, after, b, h, g] += 1
    return visits, paid, moves


def assert_same(counted: VisitStatistics, visits, rewards, moves):
    np.testing.assert_array_equal(counted.visits, visits)
    np.testing.assert_array_equal(counted.moves, moves)
    # float32 sums of up to 300 terms of size about 1
    np.testing.assert_allclose(counted.rewards, rewards, atol=1e-4)


@pytest.mark.parametrize("most_masked", [6, 0])
@pytest.mark.parametrize(("num_agents", "num_groups"), [(7, 1), (300, 1), (300, 5), (6, 6)])
def test_counts_of_arrays_with_agents_that_leave(num_agents, num_groups, most_masked, tuned):
    tuned(masked_pairs=most_masked)
    count = eqx.filter_jit(statistics.visit_statistics.__wrapped__)
    rng = np.random.default_rng(num_agents)
    shape, sizes = (3, 4, num_agents), (2, 3, num_groups)
    states, actions = (rng.integers(n, size=shape).astype(np.int32) for n in (2, 3))
    rewards = rng.normal(size=shape).astype(np.float32)
    groups = np.arange(num_agents) % num_groups
    alive = rng.random(shape) < 0.8
    expected = counted_by_hand(states, actions, rewards, groups, sizes, alive)
    # What is written for agents that are gone is not read.
    states[~alive], actions[~alive], rewards[~alive] = -7, 99, np.nan
    layout = agent_layout(groups, num_groups)
    chunk = chunk_from_arrays(states, actions, rewards, layout, 2, 3, alive)
    by_trajectory = count(chunk, layout, 6)
    assert_same(by_trajectory, *expected)
    sums = (expected[0].sum(1), expected[1].sum(1), expected[2].sum(2))
    assert_same(by_trajectory.over_trajectories(), *sums)
    assert_same(count(chunk, layout, 6, summed=True), *sums)
    to_states = count(chunk, layout, 6, summed=True, actions_apart=3)
    assert_same(to_states, *sums[:2], sums[2].reshape(6, 2, 3, *sums[2].shape[2:]).sum(2))


@pytest.mark.parametrize("num_groups", [1, 3])
def test_a_game_in_jax_and_its_trajectories_give_the_same(num_groups):
    game = cn.games.SIS.sample(KEY, num_agents=120, horizon=5)
    groups = np.arange(120) % num_groups
    rng = np.random.default_rng(0)
    table = rng.dirichlet([1.0, 1.0], (num_groups, 5, 2)).astype(np.float32)
    policy = cn.TabularPolicy.grouped(table, groups)
    layout = policy_layout(policy, 120)
    numbers = jnp.arange(4, dtype=jnp.uint32)
    simulated = eqx.filter_jit(simulate_chunk)
    chunk = simulated(game, action_sampler(policy, layout), layout, KEY, numbers)
    played = cn.simulate(game, policy, key=KEY, num_trajectories=4)
    everybody = np.ones(played.states.shape, bool)
    expected = counted_by_hand(*played, groups, (2, 2, num_groups), everybody)
    assert_same(visit_statistics(chunk, layout, 4), *expected)
    outside = visit_statistics(chunk_from_arrays(*played, layout, 2, 2), layout, 4)
    assert_same(outside, *expected)
    halves = [
        visit_statistics(chunk_from_arrays(*(x[part] for x in played), layout, 2, 2), layout, 4)
        for part in (slice(0, 1), slice(1, 4))
    ]
    total = halves[0].over_trajectories() + halves[1].over_trajectories()
    assert_same(total, *jax.tree.leaves(outside.over_trajectories()))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("states", 2, r"states must lie in 0\.\.1, not 2"),
        ("actions", -1, r"actions must lie in 0\.\.2, not -1"),
        ("rewards", np.inf, "rewards must be finite numbers"),
    ],
)
def test_arrays_out_of_range(name, value, message):
    arrays = {"states": np.zeros((2, 3, 4), int), "actions": np.zeros((2, 3, 4), int)}
    arrays["rewards"] = np.zeros((2, 3, 4), np.float32)
    arrays[name][1, 2, 3] = value
    with pytest.raises(ValueError, match=message):
        chunk_from_arrays(
            **arrays, layout=agent_layout(np.zeros(4, int), 1), num_states=2, num_actions=3
        )
