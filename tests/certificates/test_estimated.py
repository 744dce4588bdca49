"""Upper ends on laws estimated from play: beside the laws themselves, which the simulator hides."""

import dataclasses
import re

import equinox as eqx
import jax
import numpy as np
import pytest

import crowdnash as cn
from crowdnash import mean_field
from crowdnash.certificates import estimated
from crowdnash.certificates.estimated_game import (
    LawForm,
    _starts,
    choose_form,
    estimate_game,
    play_exploring,
    resampled,
)
from crowdnash.certificates.outside_plan import plan_estimate
from simulator_toys import Dice, Doors, Mortals, uniform

KEY = jax.random.key(0)
GAME = cn.games.SIS.sample(jax.random.key(0), num_agents=20, horizon=4)


class OutsideSIS:
    """A-SIS in NumPy, which says nothing of its laws."""

    num_agents, num_actions, num_states, horizon = 20, 2, 2, 4
    agent_features = np.asarray(GAME.agent_features)
    steps = 0

    def reset(self, seed):
        self.rng = np.random.default_rng(seed)
        self.states = self.rng.integers(0, 2, self.num_agents)
        return self.states

    def step(self, actions):
        OutsideSIS.steps += 1
        sick, inside = self.states == 0, actions == 0
        spreads = sick & ~inside
        met = (spreads.sum() - spreads) / (self.num_agents - 1)
        susceptible, recovers, averse = np.asarray(GAME.agent_features).T
        number = self.rng.random(self.num_agents)
        stays_sick = number < 1 - recovers
        falls_sick = ~inside & (number < susceptible * met)
        self.states = 1 - np.where(sick, stays_sick, falls_sick)
        return self.states, -1.0 * sick - averse * inside, np.ones(self.num_agents, bool), None


UNIFORM = cn.TabularPolicy.uniform(GAME)


@pytest.fixture(scope="module")
def parts():
    return play_exploring(GAME, UNIFORM, KEY, 60)


@pytest.mark.parametrize("time_dependent", [False, True])
def test_laws_are_those_of_the_mean_field_estimate(parts, time_dependent):
    """One joint state of all agents, as N populations of one agent each."""
    game = estimate_game(GAME, parts, LawForm("linear", time_dependent))
    play = cn.Trajectories(*(np.concatenate(x) for x in zip(*parts, strict=True)))
    mfg = mean_field.game_from_play(GAME, play, time_dependent=time_dependent)
    states, actions = play.states[3, 2], play.actions[3, 2]
    moves, pays = eqx.filter_jit(game.joint_law)(states, actions, jax.numpy.int32(2))
    mu = np.zeros((20, 2, 2))
    mu[np.arange(20), states, actions] = 1
    laws = mean_field.laws_at(mfg, mu, 2)
    where = (np.arange(20), states, actions)
    np.testing.assert_allclose(moves, laws.transition[where], atol=1e-5)
    np.testing.assert_allclose(pays, laws.reward[where], atol=1e-5)
    np.testing.assert_allclose(np.asarray(moves).sum(-1), 1, atol=1e-6)


def test_starts_are_agents_own_where_they_differ():
    """Two who always begin elsewhere; and four who throw the same coin twice."""
    np.testing.assert_allclose(_starts(np.tile([0, 1], (5, 1)), 2), np.eye(2))
    coins = _starts(np.array([[0, 1, 0, 1], [1, 0, 0, 1]]), 2)
    # Frequencies of 0: .5, .5, 1, 0. Chance (.5 + .5 + 0 + 0) / 4 explains (0 + 0 + .5 + .5) / 4.
    np.testing.assert_allclose(coins, 0.5)


def test_the_form_of_laws_is_what_predicts():
    """Rewards of neither, of a parameter squared, of the step, of both."""
    rng = np.random.default_rng(0)
    size = (24, 4, 20)
    states, actions = rng.integers(0, 2, size), rng.integers(0, 2, size)
    first = OutsideSIS.agent_features[:, 0]
    squares = np.broadcast_to((first - first.mean()) ** 2, size)
    hours = np.broadcast_to(np.arange(4.0)[:, None] ** 2, size)
    noise = 0.1 * rng.normal(size=size)
    forms, squares = [], squares / squares.std()
    for rewards in (np.zeros(size), squares, hours, hours + 5 * squares):
        play = cn.Trajectories(states, actions, (rewards + noise).astype(np.float32))
        forms.append(choose_form(GAME, [play]))
    assert forms[0] == ("linear", False)
    assert forms[1] == ("quadratic", False)
    assert forms[2] == ("linear", True)
    assert forms[3] == ("quadratic", True)


def test_refits_are_to_trajectories_drawn_again(parts):
    (again,) = resampled(parts, KEY, 1)
    for drawn, whole in zip(again, parts, strict=True):
        assert drawn.states.shape == whole.states.shape
        rows = {
            (x.tobytes(), y.tobytes()) for x, y in zip(whole.states, whole.rewards, strict=True)
        }
        kept = [
            (x.tobytes(), y.tobytes()) for x, y in zip(drawn.states, drawn.rewards, strict=True)
        ]
        assert set(kept) < rows
        assert 0.4 < len(set(kept)) / len(kept) < 0.85  # 1 - 1/e of 20


@pytest.mark.slow
def test_an_interval_of_a_simulator_that_hides_its_laws():
    """Beside the certificate of the same laws in the open; the budget is kept."""
    white = cn.exploitability(GAME, UNIFORM, key=KEY, num_trajectories=256)
    sim = OutsideSIS()
    cn.simulators.as_game(sim)  # plays a step, to see what it is
    OutsideSIS.steps = 0
    e = cn.exploitability(sim, UNIFORM, key=KEY, method="estimated", budget_steps=4000)
    assert OutsideSIS.steps <= 4000
    assert e.maximum.lower < white.maximum.upper
    assert white.maximum.lower < e.maximum.upper < white.maximum.upper + 0.3
    assert e.mean.lower < white.mean.lower < e.mean.upper < white.mean.upper + 0.3
    assert e.upper_kind is not None
    assert e.lower_kind is not None
    assert set(e.upper_kind) == {"estimated"}
    assert list(e.lower_kind).count("played") == 8
    assert e.maximum.lower > 0.7 * white.maximum.lower
    np.testing.assert_allclose(e.value, white.value, atol=0.5)
    assert "laws estimated from play" in e.statement
    assert "no proof" in e.statement
    assert "really played" in e.statement


@pytest.mark.slow
def test_an_estimate_never_beats_what_was_measured(monkeypatch):
    """An estimate that promises nothing: what was really played stays."""
    real = estimated.exploitability_on_paths

    def promises_nothing(*arguments):
        e = real(*arguments)
        nothing = cn.Interval(0.0, 0.0)
        return dataclasses.replace(e, upper=0 * e.upper, maximum=nothing, mean=nothing)

    monkeypatch.setattr(estimated, "exploitability_on_paths", promises_nothing)
    monkeypatch.setattr(estimated, "_spread", lambda gains: estimated._Spread(0 * gains[0], 0, 0))
    monkeypatch.setattr(estimated, "_REFITS", 2)
    e = cn.exploitability(GAME, UNIFORM, key=KEY, method="estimated", num_trajectories=64)
    assert e.maximum.lower == e.maximum.upper > 0.3
    assert e.mean.lower == e.mean.upper > 0.1
    assert (e.upper >= e.lower).all()
    assert e.upper.max() == e.lower.max() > 0.3


@pytest.mark.parametrize(
    ("sim", "changes", "text"),
    [
        (Doors(), {}, "needs agents that have all actions at all times; game 'Doors'"),
        (Mortals(), {"budget_steps": 1000}, "needs agents that stay to the end"),
        (Dice(), {"learner": cn.PPO()}, "learner is for method='learned', not for 'estimated'"),
        (OutsideSIS(), {"budget_steps": 40}, "budget_steps must be at least 184 for 8 deviations"),
        (OutsideSIS(), {"agents": 3}, "a number, is for methods 'paths' and 'learned'"),
        (GAME, {"budget_steps": 1000}, "budget_steps is for simulators outside JAX"),
    ],
)
def test_what_cannot_be_estimated(sim, changes, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        cn.exploitability(sim, uniform(sim), key=KEY, method="estimated", **changes)


def test_the_least_budget_will_do():
    """As the message of the case before says."""
    game = cn.simulators.as_game(OutsideSIS())
    plan = plan_estimate(game, 20, 256, 8, 184)
    assert plan.num_measured >= 2
    assert plan.num_plays * 4 + plan.num_measured * 9 * 4 <= 184
    with pytest.raises(ValueError, match="at least 184"):
        plan_estimate(game, 20, 256, 8, 179)
