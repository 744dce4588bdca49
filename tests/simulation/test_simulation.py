"""Simulation: the law of the game, whatever the chunks, the grouping and the class of the game."""

import re
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import crowdnash as cn
from brute_force import brute_force
from crowdnash.simulation import rollouts as simulation
from crowdnash.simulation import samplers
from crowdnash.simulation.layout import agent_layout
from crowdnash.simulation.samplers import (
    FunctionSampler,
    TableSampler,
    action_sampler,
    draw_index,
    table_sampler,
)
from random_games import random_population_game, random_tabular_game
from small_games import Drift, DriftByLaw, DriftSimulator, random_policy

KEY = jax.random.key(7)
BELOW_1 = np.float32(1 - 2.0**-24)


def assert_same_play(one, other):
    np.testing.assert_array_equal(one.states, other.states)
    np.testing.assert_array_equal(one.actions, other.actions)
    np.testing.assert_allclose(one.rewards, other.rewards, atol=1e-6)


def drift_policy(groups: Any = (0, 0, 0, 0), seed: int = 0) -> cn.TabularPolicy:
    return random_policy(seed, groups, horizon=4, num_states=3, num_actions=2)


# --- shapes and arguments ---


@pytest.mark.parametrize("game", [Drift(), DriftByLaw(), DriftSimulator()], ids=lambda g: g.name)
def test_shapes(game):
    played = cn.simulate(game, drift_policy(), key=KEY, num_trajectories=5)
    for values in played:
        assert isinstance(values, np.ndarray)
        assert values.shape == (5, 4, 4)
    assert played.states.dtype == played.actions.dtype == np.int32
    assert played.rewards.dtype == np.float32
    assert set(np.unique(played.states)) <= {0, 1, 2}
    assert set(np.unique(played.actions)) <= {0, 1}
    assert (played.states[:, 0] != 1).all()


def test_bad_arguments():
    with pytest.raises(ValueError, match="num_trajectories must be at least 1, not 0"):
        cn.simulate(Drift(), drift_policy(), key=KEY, num_trajectories=0)
    other = cn.TabularPolicy.uniform(Drift([0.1] * 5))
    with pytest.raises(ValueError, match="policy must fit the game: the game has N=4"):
        cn.simulate(Drift(), other, key=KEY, num_trajectories=1)
    taxi = cn.games.Taxi.sample(KEY, num_agents=4, horizon=4)
    with pytest.raises(ValueError, match="each of its N agents observe one integer"):
        cn.simulate(taxi, drift_policy(), key=KEY, num_trajectories=1)


@pytest.mark.slow
def test_a_simulator_that_shows_anything(tuned):
    """A-Taxi under a neural policy: what was seen, done and paid is one course of the game."""
    taxi = cn.games.Taxi.sample(KEY, num_agents=6, horizon=9)
    learner = cn.PPO(identity="number", hidden_sizes=(8,))
    policy = learner.policies(taxi, learner.init(taxi, key=KEY))["last"]
    played = cn.simulate(taxi, policy, key=KEY, num_trajectories=5)
    assert played.actions.shape == played.rewards.shape == (5, 9, 6)
    assert played.states.shape == (5, 9, 6, taxi.num_features)
    assert set(np.unique(played.actions)) == {0, 1, 2, 3, 4}
    start = taxi.observe(taxi.reset(KEY))
    for m in range(5):
        np.testing.assert_array_equal(played.states[m, 0], start)
    # One chunk or many: the same play.
    tuned(lanes=12)
    again = cn.simulate(taxi, policy, key=KEY, num_trajectories=5)
    for a, b in zip(played, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_neural_policy_of_another_game():
    """An agent's row or step beyond its arrays would be clamped."""
    small, learner = Drift(), cn.PPO(identity="number", hidden_sizes=(4,))
    policy = learner.policies(small, learner.init(small, key=KEY))["last"]
    for game, text in ((Drift([0.1] * 5), "N=5"), (Drift(horizon=6), "H=6")):
        with pytest.raises(ValueError, match=f"policy must fit the game: the game has {text}"):
            cn.simulate(game, policy, key=KEY, num_trajectories=1)


class Lost(DriftSimulator):
    """Agent 3 observes a state that there is not, at step 2."""

    def observe(self, state):
        return jnp.where((state.step == 2) & (jnp.arange(4) == 3), 7, state.place)


@pytest.mark.slow
def test_an_observation_that_is_no_state():
    policy = drift_policy()
    with pytest.raises(cn.GameError, match=r"agent 3 at step 2 observes 7: must lie in 0\.\.2"):
        cn.simulate(Lost(), policy, key=KEY, num_trajectories=3)
    tables = cn.PolicyMirrorDescent(num_epochs=1, td_epochs=4)
    with pytest.raises(cn.GameError, match=r"agent 3 at step 2 observes 7: must lie in 0\.\.2"):
        cn.solve(Lost(), tables, key=KEY)
    networks = cn.PPO(num_epochs=1, hidden_sizes=(4,))
    text = r"agent 3 at step 2: observation must be a state in 0\.\.2"
    with pytest.raises(cn.GameError, match=text):
        cn.solve(Lost(), networks, key=KEY)


# --- what the draws must not depend on ---


@pytest.mark.slow
def test_chunks_do_not_matter(tuned):
    game = cn.games.SIS.sample(KEY, num_agents=30, horizon=6)
    policy = random_policy(1, [0] * 30, horizon=6, num_states=2, num_actions=2)
    whole = cn.simulate(game, policy, key=KEY, num_trajectories=11)
    for lanes, draws in ((30, 10**6), (100, 2 * 90), (10**6, 3 * 330)):
        tuned(lanes=lanes, draws=draws)
        parts = cn.simulate(game, policy, key=KEY, num_trajectories=11)
        assert_same_play(whole, parts)


@pytest.mark.parametrize("game", [Drift(), DriftByLaw(), DriftSimulator()], ids=lambda g: g.name)
def test_the_number_of_trajectories_does_not_matter(game):
    many = cn.simulate(game, drift_policy(), key=KEY, num_trajectories=9)
    few = cn.simulate(game, drift_policy(), key=KEY, num_trajectories=2)
    assert_same_play(few, cn.Trajectories(*(x[:2] for x in many)))
    assert len(np.unique(many.actions.reshape(9, -1), axis=0)) > 1
    other = cn.simulate(game, drift_policy(), key=jax.random.key(8), num_trajectories=9)
    assert (many.actions != other.actions).any()


@pytest.mark.parametrize("num_agents", [4, 201])
def test_grouping_of_one_policy_does_not_matter(num_agents):
    """201 agents are laid out in tiles, with an empty place."""
    pull = np.linspace(0, 1, num_agents)
    game = Drift(pull)
    table = np.asarray(drift_policy().probs)[0]
    symmetric = cn.TabularPolicy.symmetric(table, num_agents)
    groups = np.random.default_rng(0).integers(0, 3, num_agents)
    grouped = cn.TabularPolicy.grouped(np.stack([table] * 3), groups)
    independent = cn.TabularPolicy.independent(np.stack([table] * num_agents))
    plays = [
        cn.simulate(game, policy, key=KEY, num_trajectories=3)
        for policy in (symmetric, grouped, independent)
    ]
    assert_same_play(plays[0], plays[1])
    assert_same_play(plays[0], plays[2])
    if num_agents == 201:
        assert simulation.policy_layout(symmetric, num_agents).padded


def test_a_table_that_nobody_plays_does_not_matter():
    """A group may be empty: agents still play the table that `groups` names."""
    tables = np.zeros((3, 4, 3, 2), np.float32)
    tables[[0, 2], ..., 0] = 1
    tables[1, ..., 1] = 1
    policy = cn.TabularPolicy.grouped(tables, [0, 0, 2])
    played = cn.simulate(Drift([0.1, 0.2, 0.3]), policy, key=KEY, num_trajectories=4)
    assert (played.actions == 0).all()


def test_select_path_equals_function_path(monkeypatch):
    game = cn.games.RockPaperScissors.sample(KEY, num_agents=20, horizon=3)
    groups = np.arange(20) % 4
    policy = random_policy(2, groups, horizon=3, num_states=3, num_actions=3)
    layout = simulation.policy_layout(policy, 20)
    assert isinstance(action_sampler(policy, layout), TableSampler)
    selected = cn.simulate(game, policy, key=KEY, num_trajectories=40)
    monkeypatch.setattr(samplers, "_MAX_SELECTS", 8)
    assert isinstance(action_sampler(policy, layout), FunctionSampler)
    assert_same_play(selected, cn.simulate(game, policy, key=KEY, num_trajectories=40))


class Contrarian(cn.Policy):
    """Not a table: the probability of action 1 falls with the state, rises with the agent."""

    def probabilities(self, observation, agent_index, step):
        one = (1 + agent_index) / (5.0 + observation)
        return jnp.stack([1 - one, one])


@pytest.mark.parametrize("game", [Drift(), DriftByLaw(), DriftSimulator()], ids=lambda g: g.name)
def test_any_policy_can_be_played(game):
    table = [[[[1 - (1 + i) / (5 + s), (1 + i) / (5 + s)] for s in range(3)]] * 4 for i in range(4)]
    tabular = cn.TabularPolicy.independent(np.asarray(table, np.float32))
    assert_same_play(
        cn.simulate(game, Contrarian(), key=KEY, num_trajectories=30),
        cn.simulate(game, tabular, key=KEY, num_trajectories=30),
    )


def test_one_action():
    played = cn.simulate(
        OneAction(), cn.TabularPolicy.uniform(OneAction()), key=KEY, num_trajectories=2
    )
    assert (played.actions == 0).all()


class OneAction(Drift):
    num_actions: ClassVar[int] = 1


@pytest.mark.slow
def test_jit_equals_no_jit():
    game, policy = Drift([0.3, 0.8], horizon=2), drift_policy((0, 1))
    policy = cn.TabularPolicy.grouped(policy.probs[:, :2], policy.groups)
    compiled = cn.simulate(game, policy, key=KEY, num_trajectories=3)
    with jax.disable_jit():
        assert_same_play(compiled, cn.simulate(game, policy, key=KEY, num_trajectories=3))


# --- never what has probability zero ---


@st.composite
def distributions(draw):
    size = draw(st.integers(2, 6))
    weights = [draw(st.sampled_from([0.0, 1e-30, 1e-7, 0.1, 1 / 3, 1.0])) for _ in range(size)]
    if max(weights) < 0.1:
        weights[draw(st.integers(0, size - 1))] = 1.0
    return np.float32(np.asarray(weights) / np.sum(weights))


NUMBERS = np.concatenate([np.float32([0, 2.0**-24, 0.5, BELOW_1]), np.linspace(0, BELOW_1, 60)])


@settings(max_examples=60)
@given(distributions())
def test_zero_probabilities_are_never_drawn(probs):
    numbers = jnp.asarray(NUMBERS, jnp.float32)
    table = jnp.broadcast_to(jnp.asarray(probs)[:, None], (len(probs), len(NUMBERS)))
    index = np.asarray(draw_index(table, numbers))
    assert (probs[index] > 0).all()
    # The largest number that stays below each partial sum, and the sum itself.
    sums = np.cumsum(probs, dtype=np.float32)
    edges = np.clip(np.concatenate([sums, np.nextafter(sums, 0)]), 0, BELOW_1)
    table = jnp.broadcast_to(jnp.asarray(probs)[:, None], (len(probs), len(edges)))
    assert (probs[np.asarray(draw_index(table, jnp.asarray(edges)))] > 0).all()


@settings(max_examples=40)
@given(distributions())
def test_zero_actions_are_never_drawn_from_tables(probs):
    sampler = table_sampler(jnp.asarray(probs)[None, None, None], agent_layout(np.zeros(1, int), 1))
    sums = np.cumsum(probs, dtype=np.float32)
    numbers = np.clip(np.concatenate([NUMBERS, sums, np.nextafter(sums, 0)]), 0, BELOW_1)
    numbers = jnp.asarray(numbers, jnp.float32)[:, None, None]
    now = jax.tree_util.tree_map(lambda x: x[0], sampler.tables)
    states = jnp.zeros(numbers.shape, jnp.int32)
    index = np.asarray(sampler.draw(now, states, jnp.asarray(0), numbers))
    assert (probs[index] > 0).all()


class Sparse(Drift):
    """From (s,a) to (s + 1 + a) mod 4 or (s + 2 a) mod 4; six agents in four states."""

    num_states: ClassVar[int] = 4
    num_actions: ClassVar[int] = 3

    def __init__(self):
        super().__init__([0.5] * 6, horizon=5)
        self.initial_distribution = jnp.asarray([0.0, 0.7, 0.3, 0.0])

    def transition(self, agent, state, action, aggregate, step):
        places = jnp.arange(4)
        first = places == (state + 1 + action) % 4
        second = places == (state + 2 * action) % 4
        return 0.3 * first + 0.7 * second


@pytest.mark.parametrize("selects", [64, 1], ids=["table", "function"])
def test_impossible_actions_and_states_never_occur(selects, monkeypatch):
    monkeypatch.setattr(samplers, "_MAX_SELECTS", selects)
    table = np.zeros((5, 4, 3))
    # One impossible action a state, first, middle and last; the last state plays only action 1.
    table[:, 0] = [0, 0.5, 0.5]
    table[:, 1] = [0.4, 0, 0.6]
    table[:, 2] = [0.9, 0.1, 0]
    table[:, 3] = [0, 1, 0]
    policy = cn.TabularPolicy.symmetric(table, 6)
    played = cn.simulate(Sparse(), policy, key=KEY, num_trajectories=2000)
    s, a = played.states, played.actions
    assert np.isin(s[:, 0], [1, 2]).all()
    assert (table[0, s, a] > 0).all()
    after = s[:, 1:]
    assert ((after == (s + 1 + a)[:, :-1] % 4) | (after == (s + 2 * a)[:, :-1] % 4)).all()
    share = (played.states[:, 0] == 1).mean()
    assert abs(share - 0.7) < 4 * np.sqrt(0.7 * 0.3 / 12000)


# --- the law of large numbers against exact enumeration ---


def expected_play(exact) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """P(s), P(a), and the mean reward, [H,N,S], [H,N,A], [H,N], of a `BruteForce`."""
    n, horizon = exact.num_agents, exact.horizon
    states = np.zeros((horizon, n, exact.num_states))
    actions = np.zeros((horizon, n, exact.num_actions))
    rewards = np.zeros((horizon, n))
    for h in range(horizon):
        for p, z in zip(exact.occupancy[h], exact.joint_states, strict=True):
            for u in exact.joint_actions:
                weight = p * exact.action_probability(h, z, u)
                for i in range(n):
                    states[h, i, z[i]] += weight
                    actions[h, i, u[i]] += weight
                    rewards[h, i] += weight * exact.pay[(h, i, *z, *u)]
    return states, actions, rewards


EXACT_GAMES = {
    "drift": (Drift([0.2, 0.9, 0.6], horizon=3), (0, 1, 0)),
    "drift by law": (DriftByLaw([0.2, 0.9, 0.6], horizon=3), (0, 1, 0)),
    "random population": (random_population_game(3, 3, 2, 3, 2), (1, 0, 1)),
    "weighted": (random_population_game(4, 3, 2, 2, 3, weighted=True), (0, 0, 0)),
    "arbitrary law": (random_tabular_game(5, 3, 2, 2, 3), (0, 1, 2)),
    "two agents": (random_tabular_game(6, 2, 3, 2, 2), (0, 1)),
}


@pytest.mark.parametrize("name", EXACT_GAMES)
def test_simulated_play_has_the_exact_law(name):
    game, groups = EXACT_GAMES[name]
    sizes = {"horizon": game.horizon, "num_states": game.num_states}
    policy = random_policy(1, groups, num_actions=game.num_actions, **sizes)
    m = 20_000
    played = cn.simulate(game, policy, key=KEY, num_trajectories=m)
    states, actions, rewards = expected_play(brute_force(game, policy))
    for values, exact in ((played.states, states), (played.actions, actions)):
        share = np.stack([(values == k).mean(0) for k in range(exact.shape[-1])], axis=-1)
        error = np.sqrt(exact * (1 - exact) / m)
        assert (np.abs(share - exact) <= 4.5 * error + 1e-7).all()
    error = played.rewards.std(0) / np.sqrt(m)
    assert (np.abs(played.rewards.mean(0) - rewards) <= 4.5 * error + 1e-6).all()


def test_bare_simulator_has_the_law_of_its_twin():
    m = 20_000
    policy = drift_policy((0, 1, 1, 0))
    known = cn.simulate(Drift(), policy, key=KEY, num_trajectories=m)
    bare = cn.simulate(DriftSimulator(), policy, key=KEY, num_trajectories=m)
    returns = [x.rewards.sum(1) for x in (known, bare)]
    error = np.sqrt(sum(x.var(0) for x in returns) / m)
    assert (np.abs(returns[0].mean(0) - returns[1].mean(0)) < 4.5 * error).all()
    for pair in range(6):
        share = [(2 * x.states + x.actions == pair).mean(0) for x in (known, bare)]
        error = np.sqrt(sum(p * (1 - p) for p in share) / m)
        assert (np.abs(share[0] - share[1]) <= 4.5 * error).all()


def test_the_twin_by_law_plays_the_same_draws():
    policy = drift_policy((0, 1, 1, 0))
    assert_same_play(
        cn.simulate(Drift(), policy, key=KEY, num_trajectories=50),
        cn.simulate(DriftByLaw(), policy, key=KEY, num_trajectories=50),
    )


def test_next_states_pass_a_chi_square_test():
    """Infected agents of A-SIS stay infected with probability 1 - recovery, each their own."""
    n = 400
    game = cn.games.SIS.sample(KEY, num_agents=n, horizon=10, heterogeneity=0.1)
    policy = cn.TabularPolicy.uniform(game)
    states = cn.simulate(game, policy, key=KEY, num_trajectories=100).states
    infected = states[:, :-1] == 0
    stayed = infected & (states[:, 1:] == 0)
    count, kept = infected.sum((0, 1)), stayed.sum((0, 1))
    stay = 1 - np.asarray(game.recovery)
    chi_square = ((kept - count * stay) ** 2 / (count * stay * (1 - stay))).sum()
    assert abs(chi_square - n) < 4 * np.sqrt(2 * n)
    wrong = ((kept - count * stay[::-1]) ** 2 / (count * stay * (1 - stay))[::-1]).sum()
    assert wrong > n + 20 * np.sqrt(2 * n)


# --- faults ---


class Faulty(Drift):
    """Wrong for agent 2 (pull 0.5) in state 2 with action 1 from step 1 on."""

    name: ClassVar[str] = "faulty"
    fault: str = eqx.field(static=True)

    def __init__(self, fault: str):
        super().__init__()
        self.fault = fault

    def transition(self, agent, state, action, aggregate, step):
        probs = super().transition(agent, state, action, aggregate, step)
        here = (agent.pull == 0.5) & (state == 2) & (action == 1) & (step > 0)
        wrong = {"sum": 1.01 * probs, "negative": probs + jnp.asarray([0.9, -0.9, 0.0])}
        return jnp.where(here, wrong.get(self.fault, probs), probs)

    def reward(self, agent, state, action, aggregate, step):
        reward = super().reward(agent, state, action, aggregate, step)
        here = (agent.pull == 0.5) & (state == 2) & (action == 1) & (step > 0)
        wrong = {"nan": jnp.nan, "infinite": jnp.inf}
        return jnp.where(here, wrong.get(self.fault, reward), reward)


FAULTS = {
    "sum": "transition must be probabilities that sum to 1 within 1e-05, not [",
    "negative": "transition must be probabilities that sum to 1 within 1e-05, not [",
    "nan": "reward must be a finite number, not nan",
    "infinite": "reward must be a finite number, not inf",
}


def fault_text(fault: str) -> str:
    place = r"game 'faulty': agent 2 at step [123] in state 2 with action 1: "
    return place + re.escape(FAULTS[fault])


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(fault):
    with pytest.raises(cn.GameError, match=fault_text(fault)):
        cn.simulate(Faulty(fault), drift_policy(), key=KEY, num_trajectories=100)


def test_learners_name_faults():
    with pytest.raises(cn.GameError, match=fault_text("nan")):
        cn.td_learning(Faulty("nan"), drift_policy(), key=KEY, num_epochs=50)
    learner = cn.PolicyMirrorDescent(num_epochs=2, td_epochs=50)
    with pytest.raises(cn.GameError, match=fault_text("sum")):
        cn.solve(Faulty("sum"), learner, key=KEY)


def test_rewards_are_not_changed_where_the_game_is_sound():
    played = cn.simulate(Faulty("none"), drift_policy(), key=KEY, num_trajectories=20)
    assert_same_play(played, cn.simulate(Drift(), drift_policy(), key=KEY, num_trajectories=20))


class FaultySimulator(DriftSimulator):
    name: ClassVar[str] = "faulty simulator"

    def step(self, state, actions, key):
        after, rewards = super().step(state, actions, key)
        return after, rewards.at[3].set(jnp.where(state.step == 2, jnp.nan, rewards[3]))


def test_a_simulator_that_pays_nan():
    text = "game 'faulty simulator': agent 3 at step 2: reward must be a finite number, not nan"
    with pytest.raises(cn.GameError, match=text):
        cn.simulate(FaultySimulator(), drift_policy(), key=KEY, num_trajectories=2)
