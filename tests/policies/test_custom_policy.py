"""Whatever calls itself a policy is checked once, wherever it enters."""

import re
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crowdnash as cn
from crowdnash.policies.base import check_policy
from small_games import Drift, DriftByLaw, DriftSimulator, random_policy

KEY = jax.random.key(0)
WRONG = {
    "zeros": ([0.0, 0.0], "not [0.0, 0.0]"),
    "logits": ([2.0, -1.0], "not [2.0, -1.0]"),
    "sum of two": ([1.0, 1.0], "not [1.0, 1.0]"),
    "not a number": ([np.nan, 1.0], "not [nan, 1.0]"),
    "negative": ([-0.25, 1.25], "not [-0.25, 1.25]"),
}


class Odd(cn.Policy):
    """Uniform, but for agent 2 in state 1 at step 3."""

    row: Any

    def __init__(self, row):
        self.row = jnp.asarray(row, jnp.float32)

    def probabilities(self, observation, agent_index, step):
        odd = (agent_index == 2) & (jnp.asarray(observation) == 1) & (step == 3)
        return jnp.where(odd, self.row, 0.5)


class Short(cn.Policy):
    """Rows of three where there are two actions."""

    def probabilities(self, observation, agent_index, step):
        return jnp.full(3, 1 / 3)


class Shown(eqx.Module):
    number: Any
    step: Any


class Seen(cn.DynamicGame):
    """Agents see one float, 0 in the first half of the steps and 1 later."""

    num_agents: int = 4
    num_actions: int = 2
    horizon: int = 4

    def reset(self, key):
        return Shown(jnp.zeros(4), jnp.asarray(0))

    def step(self, state, actions, key):
        return Shown(state.number + 0.5, state.step + 1), jnp.zeros(4)

    def observe(self, state):
        return {"number": jnp.floor(state.number)}


class OddOnSeen(Odd):
    def probabilities(self, observation, agent_index, step):
        return super().probabilities(observation["number"], agent_index, step)


def calls(game, policy):
    yield lambda: check_policy(game, policy)
    yield lambda: cn.simulate(game, policy, key=KEY, num_trajectories=2)
    for method in ("auto", "paths", "exact", "enumerate", "learned"):
        yield lambda method=method: cn.exploitability(
            game, policy, key=KEY, num_trajectories=2, method=method
        )


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_row_is_found_wherever_it_is(name):
    row, text = WRONG[name]
    text = f"policy: agent 2 in state 1 at step 3 must have probabilities that sum to 1.*, {text}"
    text = text.replace("[", r"\[").replace("]", r"\]")
    games = [Free(), DriftByLaw(), DriftSimulator()] if name == "zeros" else [Free()]
    for game in games:
        for call in calls(game, Odd(row)):
            with pytest.raises(ValueError, match=f"{text}|method='"):
                call()


class Free(Drift):
    """All methods apply to it."""

    transition_in_aggregate = "free"
    reward_in_aggregate = "free"

    def transition(self, agent, state, action, aggregate, step):
        return jnp.full(3, 1 / 3)

    def reward(self, agent, state, action, aggregate, step):
        return agent.pull


def test_a_row_of_the_wrong_length():
    text = r"policy: probabilities must be float of shape \[A\] = \[2\], not float32 of shape \[3\]"
    for call in calls(Free(), Short()):
        with pytest.raises(ValueError, match=text):
            call()


def test_rows_that_a_play_asks_for():
    game = Seen()
    text = re.escape("policy: agent 2 at step 3 must have probabilities") + ".*" + re.escape("[0.0")
    for call in (
        lambda: check_policy(game, OddOnSeen([0.0, 0.0])),
        lambda: cn.simulate(game, OddOnSeen([0.0, 0.0]), key=KEY, num_trajectories=2),
        lambda: cn.exploitability(game, OddOnSeen([0.0, 0.0]), key=KEY, num_trajectories=2),
    ):
        with pytest.raises(ValueError, match=text):
            call()
    check_policy(game, OddOnSeen([0.25, 0.75]))


def test_right_policies_pass():
    for game in (Drift(), DriftSimulator()):
        check_policy(game, Odd([0.0, 1.0]))
    played = cn.simulate(Drift(), Odd([0.0, 1.0]), key=KEY, num_trajectories=2)
    assert played.actions.max() <= 1


@pytest.mark.usefixtures("no_type_checks")
def test_what_is_no_policy():
    for policy, text in (
        (None, "not None"),
        ({"probs": 1}, "not a dict"),
        (cn.TabularPolicy, "not the class TabularPolicy"),
    ):
        with pytest.raises(ValueError, match=f"policy must be a Policy, {text}"):
            check_policy(Drift(), policy)


def test_a_network_with_a_weight_that_is_no_number(tmp_path):
    learner = cn.PPO(num_epochs=0, hidden_sizes=(4,))
    policy = cn.solve(Drift(), learner, key=KEY).policy
    check_policy(Drift(), policy)
    spoilt = eqx.tree_at(lambda p: p.actor.biases[0], policy, jnp.full(4, jnp.nan))
    with pytest.raises(ValueError, match="policy: a weight is not a finite number"):
        check_policy(Drift(), spoilt)
    with pytest.raises(ValueError, match="policy: agent 0 at step 0 must have probabilities"):
        spoilt.act(np.zeros(4, np.int32), 0, KEY)


# --- act ---


@pytest.fixture(scope="module")
def tabular():
    return random_policy(1, [0, 2, 1, 2], horizon=4, num_states=3, num_actions=2)


@pytest.fixture(scope="module")
def neural():
    return cn.solve(Drift(), cn.PPO(num_epochs=0, hidden_sizes=(4,)), key=KEY).policy


@pytest.mark.parametrize("kind", ["tabular", "neural", "custom"])
def test_actions_are_drawn_with_the_policy_s_probabilities(kind, request):
    policy = Odd([1.0, 0.0]) if kind == "custom" else request.getfixturevalue(kind)
    states = np.full(3000, 1, np.int32)
    agents = np.repeat([2, 0, 1], 1000)
    rows = [np.asarray(policy.probabilities(jnp.asarray(1), jnp.asarray(i), jnp.asarray(3)))
            for i in (2, 0, 1)]  # fmt: skip
    for key in (np.random.default_rng(0), KEY):
        actions = policy.act(states, 3, key, agents)
        assert isinstance(actions, np.ndarray if key is not KEY else jax.Array)
        share = np.asarray(actions).reshape(3, 1000).mean(1)
        expected = np.array([row[1] for row in rows])
        tolerance = 4 * np.sqrt(expected * (1 - expected) / 1000)
        assert (abs(share - expected) <= tolerance).all()


def test_an_action_of_probability_zero_is_never_drawn():
    table = np.zeros((1, 1, 3, 4), np.float32)
    table[..., [1, 2]] = 0.5
    policy = cn.TabularPolicy.symmetric(table[0], 10_000)
    actions = policy.act(np.zeros(10_000, int), 0, np.random.default_rng(1))
    assert set(np.unique(actions)) == {1, 2}


STATES = np.zeros(4, np.int32)


@pytest.mark.parametrize("kind", ["tabular", "neural"])
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((STATES, 4, KEY), "step must be in 0..3, not 4"),
        ((STATES, -1, KEY), "step must be in 0..3, not -1"),
        ((STATES, 1.5, KEY), "step must be an integer, not 1.5"),
        ((STATES + 3, 0, KEY), "observations must lie in 0..2, not 3"),
        ((STATES[:2], 0, KEY), "observations must have one entry an agent, [4], not [2]"),
        ((0.5 * STATES, 0, KEY), "observations must be integers, not float64"),
        ((None, 0, KEY), "observations must be"),
        ((STATES[:2], 0, KEY, [0, 4]), "agents must lie in 0..3, not 4"),
        ((STATES[:2], 0, KEY, [0]), "observations must have one entry an agent, [1], not [2]"),
        ((STATES, 0, 3), "key must be a random key"),
    ],
)
@pytest.mark.usefixtures("no_type_checks")
def test_what_act_refuses(kind, arguments, text, request):
    policy = request.getfixturevalue(kind)
    with pytest.raises(ValueError, match=re.escape(text)):
        policy.act(*arguments)
