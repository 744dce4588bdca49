"""Algorithm 1: hand-computed updates, and convergence to the enumerated TD fixed point."""

import itertools
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import crowdnash as cn
from brute_force import brute_force
from crowdnash.learners import temporal_difference
from crowdnash.learners.temporal_difference import StepRule, TDTables, entropy_bonus, td_update
from crowdnash.simulation.layout import agent_layout
from crowdnash.simulation.trajectories import Chunk
from random_games import (
    groupings,
    random_policy,
    random_population_game,
    random_tabular_game,
)

# --- by hand ------------------------------------------------------------------------------------


class Record(NamedTuple):
    bonus: Array


class StaircaseGame(cn.PopulationGame):
    """s' = a, reward 1 + bonus_i + (2 if in state 1): deterministic, agents do not interact."""

    transition_in_aggregate: ClassVar[Any] = "free"
    reward_in_aggregate: ClassVar[Any] = "free"
    agents: Record
    initial_distribution: Array
    horizon: int = eqx.field(static=True)
    num_states: ClassVar[int] = 2
    num_actions: ClassVar[int] = 2

    def transition(self, agent: Any, state, action, aggregate, step):
        return jnp.stack([1.0 - action, 1.0 * action]).astype(jnp.float32)

    def reward(self, agent: Any, state, action, aggregate, step):
        return 1.0 + agent.bonus + 2.0 * state


def staircase(horizon: int) -> tuple[StaircaseGame, cn.TabularPolicy]:
    """Two agents with bonuses 0 and 4 who start in 0, always play 1, so live in 1 from step 1."""
    game = StaircaseGame(Record(jnp.array([0.0, 4.0])), jnp.array([1.0, 0.0]), horizon)
    probs = jnp.zeros((horizon, 2, 2)).at[..., 1].set(1.0)
    return game, cn.TabularPolicy.symmetric(probs, 2)


# Every epoch is the same: rewards 1, 3, 3 at steps 0, 1, 2 for agent 0, and 4 more for agent 1,
# so mean rewards 3, 5, 5. Entropy 0. From Q = 0 all h move at once, from the same old Q:
#   epoch 0, eta = 1 in all rules: (3, 5, 5)
#   epoch 1, targets (3+5, 5+5, 5) = (8, 10, 5)
#   epoch 2, targets (3 + Q_1, 10, 5)
# H = 3, two agents: eta is 1, 3/4, 3/5 with "adaptive"; 1, 4/5, 4/6 with "horizon-visits";
# 1, 2/3, 2/4 with "visits" and "theorem" (delta = 1); 4/(m+4) = 1, 4/5, 4/6 with delta = 1/2.
@pytest.mark.parametrize(
    ("rule", "delta", "after"),
    [
        ("adaptive", 1.0, [(3, 5, 5), (6.75, 8.75, 5), (6.75 + 5 * 0.6, 8.75 + 1.25 * 0.6, 5)]),
        ("horizon-visits", 1.0, [(3, 5, 5), (7, 9, 5), (7 + 5 * 4 / 6, 9 + 4 / 6, 5)]),
        ("visits", 1.0, [(3, 5, 5), (19 / 3, 25 / 3, 5), ((19 / 3 + 34 / 3) / 2, 55 / 6, 5)]),
        ("theorem", 1.0, [(3, 5, 5), (19 / 3, 25 / 3, 5), ((19 / 3 + 34 / 3) / 2, 55 / 6, 5)]),
        ("theorem", 0.5, [(3, 5, 5), (7, 9, 5), (7 + 5 * 4 / 6, 9 + 4 / 6, 5)]),
    ],
)
def test_learned_values_of_a_deterministic_game_by_hand(rule, delta, after):
    game, policy = staircase(3)
    for epochs, expected in enumerate(after, start=1):
        values = cn.td_learning(
            game,
            policy,
            key=jax.random.key(0),
            num_epochs=epochs,
            temperature=0.7,
            step_size=rule,
            delta=delta,
        )
        table = np.array(values[0])
        visited = [table[0, 0, 1], table[1, 1, 1], table[2, 1, 1]]
        np.testing.assert_allclose(visited, expected, rtol=1e-6)
        table[0, 0, 1] = table[1, 1, 1] = table[2, 1, 1] = 0
        assert (table == 0).all()  # nobody came


def test_one_agents_values_and_independent_tables_by_hand():
    game, policy = staircase(2)
    arguments = {"key": jax.random.key(1), "num_epochs": 1}
    independent = cn.TabularPolicy.independent(jnp.broadcast_to(policy.probs, (2, 2, 2, 2)))
    own = np.asarray(cn.td_learning(game, independent, **arguments))
    np.testing.assert_allclose(own[:, 0, 0, 1], [1, 5])
    np.testing.assert_allclose(own[:, 1, 1, 1], [3, 7])
    for agents, expected in [(0, [1, 3]), (1, [5, 7]), (np.array([1]), [5, 7])]:
        table = np.asarray(cn.td_learning(game, policy, agents=agents, **arguments)[0])
        np.testing.assert_allclose([table[0, 0, 1], table[1, 1, 1]], expected)


def chunk_in_order(layout, pairs, rewards, num_pairs: int) -> Chunk:
    """A `Chunk` from natural-order arrays [H,B,N]; places that hold nobody are marked."""
    pairs, rewards = np.asarray(pairs), np.asarray(rewards, np.float32)
    flat = (*pairs.shape[:2], layout.agent.size)
    place = np.asarray(layout.place)
    laid_pairs, laid_rewards = np.full(flat, num_pairs, np.uint8), np.full(flat, 9e9, np.float32)
    laid_pairs[..., place], laid_rewards[..., place] = pairs, rewards
    shape = (*flat[:2], *layout.shape)
    totals = jnp.zeros((flat[0], 0, flat[1]))
    return Chunk(
        jnp.asarray(laid_pairs.reshape(shape)), jnp.asarray(laid_rewards.reshape(shape)), totals
    )


@pytest.mark.parametrize("counted", [True, False], ids=["counts", "agents"])
@pytest.mark.parametrize("masked", [True, False], ids=["masked", "segments"])
def test_td_update_by_hand(masked, counted, monkeypatch, tuned):
    """Three agents in groups (0, 0, 1), two steps, pairs x = 2s + a, two trajectories."""
    monkeypatch.setattr(temporal_difference, "are_counted", lambda layout, num_pairs: counted)
    if not masked:
        tuned(masked_pairs=0)
    layout = agent_layout(np.array([0, 0, 1]), 2)
    pairs = [[[0, 0, 0], [0, 1, 3]], [[2, 3, 1], [2, 2, 1]]]  # [H,B,N]
    rewards = [[[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]], [[10.0, 20.0, 30.0], [40.0, 60.0, 50.0]]]
    bonus = np.zeros((2, 2, 2), np.float32)  # [S,H,G]
    bonus[:, 0, 0], bonus[:, 1, 0], bonus[:, :, 1] = (0.5, 0.25), (0.0, 1.0), 2.0
    tables = td_update(
        TDTables.zeros(4, 2, 2),
        chunk_in_order(layout, pairs, rewards, 4),
        jnp.array([True, True]),
        jnp.asarray(bonus),
        StepRule.named("visits", 2, np.array([2, 1])),
        layout,
    )
    # Trajectory 0, all eta = 1, Q = 0. Group 0, step 0: agents 0 and 1 both in pair 0 (state 0):
    #   mean(1, 3) + 0.5 = 2.5. Step 1: pair 2 (state 1): 10 + 1 = 11; pair 3: 20 + 1 = 21.
    # Group 1: step 0 pair 0: 5 + 2 = 7; step 1 pair 1: 30 + 2 = 32.
    # Trajectory 1. Group 0, step 0: agent 0 in pair 0, seen once: eta = 2/3,
    #   target 2 + Q_1(pair 2) + 0.5 = 2 + 11 + 0.5 = 13.5: 2.5 + 2/3 * 11 = 59/6.
    #   agent 1 in pair 1, new: 4 + 11 + 0.5 = 15.5 (the old Q_1, not the new one).
    #   Step 1: both in pair 2, eta = 2/3: mean(40, 60) + 1 = 51: 11 + 2/3 * 40 = 113/3.
    # Group 1: step 0 pair 3, new: 6 + Q_1(pair 1) + 2 = 40. Step 1 pair 1: 52: 32 + 2/3*20.
    values = np.zeros((4, 2, 2))
    values[0, 0], values[1, 0, 0], values[2, 1, 0], values[3, 1, 0] = (59 / 6, 7), 15.5, 113 / 3, 21
    values[3, 0, 1], values[1, 1, 1] = 40, 32 + 40 / 3
    visits = np.zeros((4, 2, 2))
    visits[0, 0], visits[1, 0, 0], visits[2, 1, 0], visits[3, 1, 0] = (2, 1), 1, 2, 1
    visits[3, 0, 1], visits[1, 1, 1] = 1, 2
    np.testing.assert_allclose(tables.values, values, rtol=1e-6)
    np.testing.assert_array_equal(tables.visits, visits)
    assert int(tables.epoch) == 2


def test_inactive_trajectories_change_nothing():
    layout = agent_layout(np.array([0, 0]), 1)
    chunk = chunk_in_order(layout, [[[0, 1]], [[1, 1]]], np.ones((2, 1, 2)), 2)
    before = TDTables.zeros(2, 2, 1)
    rule, bonus = StepRule.named("theorem", 2, np.array([2])), jnp.zeros((1, 2, 1))
    after = td_update(before, chunk, jnp.array([False]), bonus, rule, layout)
    for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(
    ("name", "delta", "scale", "by_visits"),
    [
        ("adaptive", 1.0, [2.0, 6.0, 21.0], True),
        ("horizon-visits", 1.0, [21.0] * 3, True),
        ("visits", 1.0, [2.0] * 3, True),
        ("theorem", 1.0, [2.0] * 3, False),
        ("theorem", 0.25, [8.0] * 3, False),
    ],
)
def test_step_rules(name, delta, scale, by_visits):
    rule = StepRule.named(name, 20, np.array([1, 5, 900]), delta)
    np.testing.assert_array_equal(rule.scale, scale)
    assert bool(rule.by_visits) == by_visits


def test_entropy_bonus_by_hand():
    probs = jnp.array([[[[0.5, 0.5], [1.0, 0.0]], [[0.25, 0.75], [0.0, 1.0]]]])  # [1,2,2,2]
    bonus = np.asarray(entropy_bonus(probs, jnp.float32(2.0)))
    mixed = -0.25 * np.log(0.25) - 0.75 * np.log(0.75)
    np.testing.assert_allclose(bonus[..., 0], [[2 * np.log(2), 2 * mixed], [0, 0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("num_agents", "num_groups"), [(7, 1), (700, 1), (700, 5), (333, 40), (30, 30)]
)
def test_masked_sums_equal_segment_sums(num_agents, num_groups):
    rng = np.random.default_rng(num_agents + num_groups)
    groups = rng.integers(num_groups, size=num_agents)
    groups[:num_groups] = np.arange(num_groups)
    layout = agent_layout(groups, num_groups)
    horizon, num_pairs = 4, 6
    # Pair X marks an agent that is not observed.
    natural = rng.integers(num_pairs + 1, size=(horizon, 1, num_agents))
    rewards = rng.normal(size=(horizon, 1, num_agents))
    chunk = chunk_in_order(layout, natural, rewards, num_pairs)
    table = rng.normal(size=(num_pairs, horizon, num_groups)).astype(np.float32)
    one = (chunk.pairs[:, 0], chunk.rewards[:, 0], layout)
    masked = temporal_difference._masked_sums(tuple(jnp.asarray(table)), *one)
    segments = temporal_difference._segment_sums(tuple(jnp.asarray(table)), *one)

    counts = np.zeros((num_pairs + 1, horizon, num_groups))
    targets = np.zeros_like(counts)
    padded = np.concatenate([table, np.zeros((1, horizon, num_groups))])
    for h, i in np.ndindex(horizon, num_agents):
        x, g = natural[h, 0, i], groups[i]
        counts[x, h, g] += 1
        ahead = padded[natural[h + 1, 0, i], h + 1, g] if h + 1 < horizon else 0.0
        targets[x, h, g] += rewards[h, 0, i] + ahead
    for visitors, sums in (masked, segments):
        np.testing.assert_array_equal(np.stack(visitors), counts[:-1])
        # float32 sums of up to 700 terms of size about 1
        np.testing.assert_allclose(np.stack(sums), targets[:-1], atol=2e-4)


def algorithm_1(played, policy, temperature, rule, weighting, observed=None):
    """Q [G,H,S,A] as the paper's loop computes it, from `Trajectories`; float64."""
    probs, groups = np.asarray(policy.probs, np.float64), np.asarray(policy.groups)
    num_groups, horizon = probs.shape[:2]
    entropy = -(probs * np.log(np.where(probs > 0, probs, 1))).sum(-1)
    observed = range(len(groups)) if observed is None else observed
    sizes = np.bincount(groups[observed], minlength=num_groups)
    values, visits = np.zeros(probs.shape), np.zeros(probs.shape)
    for m, states in enumerate(played.states):
        targets: dict[tuple, list[float]] = {}
        for h, i in itertools.product(range(horizon), observed):
            g = groups[i]
            target = played.rewards[m, h, i] + temperature * entropy[g, h, states[h, i]]
            if h + 1 < horizon:
                target += values[g, h + 1, states[h + 1, i], played.actions[m, h + 1, i]]
            targets.setdefault((g, h, states[h, i], played.actions[m, h, i]), []).append(target)
        for place, seen in targets.items():
            size = sizes[place[0]]
            weight = len(seen) / size if weighting == "visitors" else 1
            scale = {"adaptive": 1 + min(horizon, size), "theorem": 2.0, "visits": 2.0}[rule]
            earlier = m if rule == "theorem" else visits[place]
            eta = scale * weight / (scale * weight + earlier)
            values[place] += eta * (np.mean(seen) - values[place])
            visits[place] += weight
    return values


@pytest.mark.parametrize(
    ("num_groups", "rule", "weighting"),
    [
        (1, "adaptive", "trajectories"),
        pytest.param(1, "theorem", "visitors", marks=pytest.mark.slow),
        (4, "adaptive", "visitors"),
        pytest.param(60, "adaptive", "visitors", marks=pytest.mark.slow),
        (120, "theorem", "trajectories"),
    ],
)
def test_learned_values_are_those_of_the_loop(num_groups, rule, weighting):
    """One group and four: replayed from counts; more: agent by agent."""
    game = cn.games.SIS.sample(jax.random.key(0), num_agents=120, horizon=4)
    policy = random_policy(3, game, np.arange(120) % num_groups)
    learned = cn.td_learning(
        game,
        policy,
        key=jax.random.key(1),
        num_epochs=12,
        temperature=0.3,
        step_size=rule,
        weighting=weighting,
    )
    layout = agent_layout(np.asarray(policy.groups), num_groups)
    assert temporal_difference.are_counted(layout, 4) == (num_groups < 60)
    played = cn.simulate(game, policy, key=jax.random.key(1), num_trajectories=12)
    # float32 sums of up to 120 terms of size below 10
    np.testing.assert_allclose(
        learned, algorithm_1(played, policy, 0.3, rule, weighting), atol=2e-5
    )


@pytest.mark.slow
def test_learned_values_of_some_agents_are_those_of_the_loop():
    game = cn.games.SIS.sample(jax.random.key(0), num_agents=120, horizon=4)
    policy = random_policy(3, game, np.arange(120) % 2)
    some = np.array([3, 5, 8, 100])
    learned = cn.td_learning(
        game, policy, key=jax.random.key(1), num_epochs=12, agents=some, weighting="visitors"
    )
    played = cn.simulate(game, policy, key=jax.random.key(1), num_trajectories=12)
    expected = algorithm_1(played, policy, 0.0, "adaptive", "visitors", some)
    np.testing.assert_allclose(learned, expected, atol=2e-5)


# --- convergence --------------------------------------------------------------------------------

EPOCHS = 200_000


def learned_and_fixed_point(
    game, groups, *, agents="all", rule="visits", temperature=0.3, num_epochs=EPOCHS
):
    policy = random_policy(7, game, groups)
    reference = brute_force(game, policy)
    observed = list(range(game.num_agents)) if isinstance(agents, str) else [agents]
    constant = {"horizon-visits": game.horizon + 1.0}.get(rule, 2.0)
    arguments = (groups, observed, temperature, num_epochs)
    delta = 1.0
    fixed = reference.td_fixed_point(*arguments, lambda p: constant)
    if rule == "theorem":
        chances = fixed.visit_probability
        delta = float(chances[chances > 0].min())
        fixed = reference.td_fixed_point(*arguments, lambda p: 2.0 * p / delta)
    learned = cn.td_learning(
        game,
        policy,
        key=jax.random.key(3),
        num_epochs=num_epochs,
        temperature=temperature,
        agents=agents,
        step_size=rule,
        delta=delta,
    )
    return np.asarray(learned), fixed, reference


def assert_converged(learned, fixed):
    never = fixed.visit_probability == 0
    assert (learned[never] == 0).all()
    # 1e-4: float32 increments stop mattering about there.
    score = np.abs(learned - fixed.values) / (4 * fixed.standard_error + 1e-4)
    assert score.max() < 1, f"{score.max():.2f} times the tolerance"
    assert np.median(4 * fixed.standard_error[~never]) < 0.04  # the comparison means something


@pytest.mark.slow
@pytest.mark.parametrize(
    "grouping",
    ["grouped", *(pytest.param(x, marks=pytest.mark.slow) for x in ("symmetric", "independent"))],
)
def test_td_converges_to_its_fixed_point(grouping):
    game = random_tabular_game(3, num_agents=3, num_states=2, num_actions=2, horizon=3)
    learned, fixed, _ = learned_and_fixed_point(game, groupings(3)[grouping])
    assert_converged(learned, fixed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "num_epochs"),
    [
        ("horizon-visits", EPOCHS),
        pytest.param("theorem", 6 * EPOCHS, marks=pytest.mark.slow),
    ],
)
def test_td_converges_under_every_step_rule(rule, num_epochs):
    game = random_population_game(4, 2, 2, 2, 3)
    groups = groupings(2)["symmetric"]
    learned, fixed, _ = learned_and_fixed_point(game, groups, rule=rule, num_epochs=num_epochs)
    assert_converged(learned, fixed)


@pytest.mark.parametrize("grouping", ["symmetric", "independent"])
def test_td_of_one_observed_agent_converges_to_its_own_fixed_point(grouping):
    game = random_tabular_game(5, num_agents=2, num_states=2, num_actions=2, horizon=3)
    groups = groupings(2)[grouping]
    learned, fixed, _ = learned_and_fixed_point(game, groups, agents=0)
    assert_converged(learned, fixed)
    assert not fixed.visit_probability[groups[0] + 1 :].any()


@pytest.mark.slow
def test_td_of_many_pairs_converges():
    """X = 20 pairs: sums by segments."""
    game = random_population_game(6, 2, 5, 4, 2, weighted=True)
    learned, fixed, _ = learned_and_fixed_point(game, groupings(2)["symmetric"])
    assert_converged(learned, fixed)


def test_the_fixed_point_is_not_the_conditional_return():
    """The tests above could not tell a wrong target apart if all candidates coincided."""
    game = random_tabular_game(6, num_agents=2, num_states=2, num_actions=2, horizon=3)
    groups = groupings(2)["independent"]
    learned, fixed, reference = learned_and_fixed_point(game, groups, temperature=0.0)
    conditional = conditional_returns(reference, agent=0)
    gap = np.abs(fixed.values[0] - conditional) / (4 * fixed.standard_error[0] + 1e-4)
    assert gap[0].max() > 5
    assert_converged(learned, fixed)


def conditional_returns(reference, agent: int) -> np.ndarray:
    """E[r_h + r_{h+1} + ... | s_h, a_h] of one agent under the joint law, [H,S,A]."""
    total = np.zeros((reference.horizon, reference.num_states, reference.num_actions))
    states = reference.joint_states
    ahead = np.zeros(len(states))  # expected return to go from each joint state
    for h in reversed(range(reference.horizon)):
        weights = np.zeros(total.shape[1:])
        before = np.zeros(len(states))
        for k, z in enumerate(states):
            for u in reference.joint_actions:
                p = reference.action_probability(h, z, u)
                to_go = reference.pay[(h, agent, *z, *u)] + reference.next_joint(h, z, u) @ ahead
                before[k] += p * to_go
                total[h, z[agent], u[agent]] += reference.occupancy[h, k] * p * to_go
                weights[z[agent], u[agent]] += reference.occupancy[h, k] * p
        total[h] /= weights
        ahead = before
    return total


@pytest.mark.slow
def test_weighting_by_visitors_takes_the_floor_away():
    """A-RPS, 100 agents alike: the squared error of one table, weighted by the flow."""
    game = cn.games.RockPaperScissors.sample(jax.random.key(3), num_agents=100, heterogeneity=0.0)
    mfg = cn.induced_game(game)
    probs = np.full((game.horizon, 3, 3), 1 / 3)
    flow = np.asarray(cn.mean_field.population_flow(mfg, probs))
    exact = np.asarray(cn.mean_field.q_values(mfg, probs, temperature=0.05))
    policy = cn.TabularPolicy.symmetric(probs, 100)

    def error(weighting: Any, num_epochs: int) -> float:
        learned = [
            cn.td_learning(
                game,
                policy,
                key=jax.random.key(seed),
                num_epochs=num_epochs,
                temperature=0.05,
                weighting=weighting,
            )[0]
            for seed in range(3)
        ]
        return float(np.mean([(flow * (np.asarray(q) - exact) ** 2).sum() for q in learned]))

    assert error("trajectories", 6000) > 0.05
    assert error("visitors", 1000) < 0.02
    assert error("visitors", 6000) < 0.005
