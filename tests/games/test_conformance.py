"""Each rule of `check_game`, broken by one game: the error names the game, the place, the rule."""

import itertools
import re
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crowdnash as cn
from crowdnash.games.conformance.check import check_game
from random_games import random_population_game, random_tabular_game
from small_games import Drift, DriftByLaw, DriftSimulator


@pytest.mark.parametrize(
    "game",
    [
        Drift(),
        Drift(np.linspace(0, 1, 2)),
        DriftByLaw(),
        DriftSimulator(),
        random_population_game(0, 3, 2, 3, 2),
        random_population_game(1, 5, 3, 2, 1, weighted=True),
        random_tabular_game(0, 3, 2, 2, 2),
    ],
    ids=["drift", "two agents", "by law", "simulator", "random", "weighted", "arbitrary law"],
)
def test_sound_games_pass(game):
    assert check_game(game, key=jax.random.key(5)) is None


def fails(game: cn.DynamicGame, *texts: str) -> None:
    with pytest.raises(cn.GameError) as caught:
        check_game(game)
    message = str(caught.value)
    assert "\n" not in message
    for text in (repr(game.name or type(game).__name__), *texts):
        assert text in message


# --- facts about the game ---


class Renamed(Drift):
    name: ClassVar[str] = "renamed"

    @property
    def state_names(self):
        return ("a", "b")


class WrongActions(Drift):
    name: ClassVar[str] = "wrong actions"

    @property
    def action_names(self):
        return ("a", "b", "c")


class WrongFeatures(Drift):
    @property
    def agent_features(self):
        return jnp.zeros((3, 2))


class NanFeatures(Drift):
    @property
    def agent_features(self):
        return jnp.full((4, 1), jnp.nan)


class WrongRange(Drift):
    @property
    def reward_range(self):
        return (1.0, 0.0)


def with_initial(values: Any) -> Drift:
    return eqx.tree_at(lambda g: g.initial_distribution, Drift(), jnp.asarray(values))


@pytest.mark.parametrize(
    ("game", "text"),
    [
        (Renamed(), "state_names must have 3 entries, not 2"),
        (WrongActions(), "action_names must have 2 entries, not 3"),
        (WrongFeatures(), "agent_features must have shape [4,d], not [3, 2]"),
        (NanFeatures(), "agent_features must be finite"),
        (WrongRange(), "reward_range must be (lowest, highest), both finite, not (1.0, 0.0)"),
        (with_initial([0.5, 0.5]), "initial_distribution must be float of shape [3]"),
        (with_initial([1, 0, 0]), "float of shape [3] or [4, 3], not int32"),
        (with_initial([0.5, 0.2, 0.2]), "initial_distribution must be probabilities that sum to 1"),
        (with_initial([1.5, -0.5, 0.0]), "initial_distribution must be probabilities"),
        (with_initial([np.nan, 0.5, 0.5]), "initial_distribution must be probabilities"),
    ],
)
def test_descriptions(game, text):
    fails(game, text)


class Sizes(DriftByLaw):
    num_actions: ClassVar[Any] = 0


class FloatSizes(DriftByLaw):
    num_states: ClassVar[Any] = 3.0


@pytest.mark.parametrize(
    ("game", "text"),
    [
        (DriftSimulator(horizon=0), "horizon must be at least 1, not 0"),
        (DriftSimulator([0.5]), "num_agents must be at least 2, not 1"),
        (Sizes(), "num_actions must be at least 1, not 0"),
        (FloatSizes(), "num_states must be an int, not float"),
    ],
)
def test_sizes(game, text):
    fails(game, text)


# --- laws ---


class Broken(Drift):
    """`Drift` with one fault, at agent 2 (pull 0.5), state 1, action 0, or everywhere."""

    name: ClassVar[str] = "broken"
    fault: str = eqx.field(static=True)

    def __init__(self, fault: str):
        super().__init__()
        self.fault = fault

    @property
    def reward_range(self):
        return (-0.2, 1.1)

    def transition(self, agent, state, action, aggregate, step):
        probs = super().transition(agent, state, action, aggregate, step)
        here = (agent.pull == 0.5) & (state == 1) & (action == 0)
        if self.fault == "sum":
            return jnp.where(here, probs * 1.001, probs)
        if self.fault == "late":
            return jnp.where(here & (step == 3), probs * 0.99, probs)
        if self.fault == "negative":
            return jnp.where(here, jnp.asarray([1.1, 0.0, -0.1]), probs)
        if self.fault == "nan":
            return jnp.where(here, jnp.nan, probs)
        if self.fault == "shape":
            return probs[:2]
        if self.fault == "integer":
            return jnp.asarray([1, 0, 0])
        return probs

    def reward(self, agent, state, action, aggregate, step):
        reward = super().reward(agent, state, action, aggregate, step)
        here = (agent.pull == 0.5) & (state == 1) & (action == 0)
        if self.fault == "nan reward":
            return jnp.where(here, jnp.nan, reward)
        if self.fault == "high reward":
            return jnp.where(here, 1.2, reward)
        if self.fault == "low reward":
            return jnp.where(here, -0.3, reward)
        if self.fault == "reward shape":
            return reward[None]
        if self.fault == "crowded reward":
            # Only when all others are in state 2: no single aggregate but a vertex shows it.
            return jnp.where(here & (aggregate[0] == 1), jnp.inf, reward)
        return reward

    def contribution(self, agent, state, action):
        given = super().contribution(agent, state, action)
        if self.fault == "contribution shape":
            return given[None]
        if self.fault == "contribution nan":
            return jnp.where(given, jnp.nan, 0.0)
        return given


PLACE = "agent 2 at step 0 in state 1 with action 0"
NOT_PROBABILITIES = "transition must be probabilities that sum to 1 within 1e-05, not ["


@pytest.mark.parametrize(
    ("fault", "texts"),
    [
        ("sum", (PLACE, NOT_PROBABILITIES)),
        ("late", ("agent 2 at step 3 in state 1 with action 0", NOT_PROBABILITIES)),
        ("negative", (PLACE, NOT_PROBABILITIES)),
        ("nan", (PLACE, NOT_PROBABILITIES)),
        ("shape", ("transition must be float of shape [3], not float32 of shape [2]",)),
        ("integer", ("transition must be float of shape [3], not int32 of shape [3]",)),
        ("nan reward", (PLACE, "reward must be a finite number, not nan")),
        ("crowded reward", (PLACE, "reward must be a finite number, not inf")),
        ("high reward", (PLACE, "reward must be within reward_range [-0.2, 1.1], not 1.2")),
        ("low reward", (PLACE, "reward must be within reward_range [-0.2, 1.1], not -0.3")),
        ("reward shape", ("reward must be float of shape [], not float32 of shape [1]",)),
        ("contribution shape", ("contribution must have shape [K], not [1, 2]",)),
        ("contribution nan", ("contribution must be finite numbers",)),
    ],
)
def test_broken_laws(fault, texts):
    fails(Broken(fault), *texts)


def test_the_unbroken_twin_passes():
    check_game(Broken("none"))


class BrokenByLaw(DriftByLaw):
    name: ClassVar[str] = "broken by law"

    def law(self, agent, state, action, other_states, other_actions, step):
        probs, reward = super().law(agent, state, action, other_states, other_actions, step)
        met = (agent == 3) & (other_states == 2).all()
        return jnp.where(met, 0.9 * probs, probs), reward


class ShapelessLaw(DriftByLaw):
    def law(self, agent, state, action, other_states, other_actions, step):
        probs, reward = super().law(agent, state, action, other_states, other_actions, step)
        return probs, reward * other_actions


def test_broken_arbitrary_laws():
    fails(BrokenByLaw(), "agent 3 at step 0 in state 0 with action 0", NOT_PROBABILITIES)
    fails(
        ShapelessLaw(), "the second part of law must be float of shape [], not float32 of shape [3]"
    )


class RaggedAgent(NamedTuple):
    pull: Any
    other: Any


def test_ragged_agents():
    agents = RaggedAgent(jnp.zeros(4), jnp.zeros((3, 2)))
    text = r"agents must hold arrays with one leading axis N, not of shapes \[\[4\], \[3, 2\]\]"
    with pytest.raises(ValueError, match=text):
        WrongRecord(agents)
    game = eqx.tree_at(lambda g: g.agents, Drift(), agents)  # by a way around the constructor
    fails(game, "every array of agents must have leading axis [4]", "[3, 2]")


class WrongRecord(Drift):
    def __init__(self, agents: Any):
        super().__init__()
        self.agents = agents

    @property
    def agent_features(self):
        return None


# --- declarations ---


class Bent(Drift):
    """Transitions bend by 0.01 x^2, rewards by y^2."""

    name: ClassVar[str] = "bent"

    def transition(self, agent, state, action, aggregate, step):
        bend = 0.01 * aggregate[0] ** 2
        probs = super().transition(agent, state, action, aggregate, step)
        return probs + bend * jnp.asarray([-1.0, 0.0, 1.0])


class BentTransition(Bent):
    transition_in_aggregate: ClassVar = "affine"


class FreeTransition(Drift):
    transition_in_aggregate: ClassVar = "free"


class AffineReward(Drift):
    reward_in_aggregate: ClassVar = "affine"


class FreeReward(Drift):
    reward_in_aggregate: ClassVar = "free"


class Nonlinear(Bent):
    transition_in_aggregate: ClassVar = "nonlinear"


@pytest.mark.parametrize(
    ("game", "text"),
    [
        (BentTransition(), "transition_in_aggregate is declared 'affine', so transition at"),
        (FreeTransition(), "transition_in_aggregate is declared 'free', so transition must be"),
        (AffineReward(), "reward_in_aggregate is declared 'affine', so reward at"),
        (FreeReward(), "reward_in_aggregate is declared 'free', so reward must be the same"),
    ],
)
@pytest.mark.parametrize("seed", range(2))
def test_false_declarations(game, text, seed):
    with pytest.raises(cn.GameError, match=re.escape(text)):
        check_game(game, key=jax.random.key(seed))


def test_a_nonlinear_law_passes_when_it_declares_nothing():
    check_game(Nonlinear())


# --- agreement, relabelling, play ---


class OwnJointLaw(Drift):
    name: ClassVar[str] = "own joint law"

    def joint_law(self, states, actions, step):
        probs, rewards = super().joint_law(states, actions, step)
        return probs, rewards + 0.01 * (states == 2)


class OwnLaw(Drift):
    def law(self, agent, state, action, other_states, other_actions, step):
        args = (agent, state, action, other_states, jnp.flip(other_actions), step)
        probs, reward = super().law(*args)
        return probs, reward + 0.01 * other_actions[0]


class TabularJointLaw(DriftByLaw):
    def joint_law(self, states, actions, step):
        probs, rewards = super().joint_law(states, actions, step)
        return jnp.roll(probs, 1, axis=1), rewards


def test_laws_must_agree():
    fails(OwnJointLaw(), "in state 2", "joint_law must agree with transition and reward")
    fails(OwnLaw(), "law must agree with transition and reward")
    fails(TabularJointLaw(), "joint_law must agree with law")


class Monarchy(Drift):
    """Everyone's reward looks at the first agent's parameter: the labels matter."""

    name: ClassVar[str] = "monarchy"

    def reward(self, agent, state, action, aggregate, step):
        reward = super().reward(agent, state, action, aggregate, step)
        return reward + self.agents.pull[0]


def test_relabelling():
    fails(Monarchy(), "permuting the agents must permute the laws and change nothing")


_calls = itertools.count()


class BrokenSimulator(DriftSimulator):
    """`DriftSimulator` with one fault; an impure one looks at how often it was called."""

    name: ClassVar[str] = "broken simulator"
    fault: str = eqx.field(static=True)

    def __init__(self, fault: str):
        super().__init__()
        self.fault = fault

    def reset(self, key):
        state = super().reset(key)
        if self.fault == "impure reset":
            return state._replace(place=jnp.full(4, next(_calls), jnp.int32))
        return state

    def step(self, state, actions, key):
        state, rewards = super().step(state, actions, key)
        if self.fault == "impure step":
            rewards = rewards + next(_calls)
        if self.fault == "reward shape":
            rewards = rewards[:, None]
        if self.fault == "reward type":
            rewards = jnp.zeros(4, jnp.int32)
        if self.fault == "reward nan":
            rewards = rewards.at[1].set(jnp.where(state.step == 3, jnp.nan, 0.0))
        if self.fault == "state type":
            state = state._replace(place=state.place.astype(jnp.float32))
        if self.fault == "state structure":
            state = (state,)
        return state, rewards

    def observe(self, state):
        return state.step if self.fault == "observation" else super().observe(state)


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("impure reset", "reset and step must give the same outcome for the same key"),
        ("impure step", "reset and step must give the same outcome for the same key"),
        ("reward shape", "of step must be float of shape [4], not float32 of shape [4, 1]"),
        ("reward type", "the rewards of step must be float of shape [4], not int32"),
        ("reward nan", "agent 1 at step 2: reward must be a finite number, not nan"),
        ("state type", "step must return a state of the same structure, shapes and types as reset"),
        ("state structure", "step must return a state of the same structure"),
        ("observation", "every array of observe must have leading axis [4], one has shape []"),
    ],
)  # fmt: skip
def test_broken_simulators(fault, text):
    fails(BrokenSimulator(fault), text)
