"""`check_game` on simulators outside JAX, and on games around NumPy functions."""

import random
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crowdnash as cn
from simulator_toys import Dice, Doors, Drivers, Mortals


class Wanton(Drivers):
    """Draws from a generator that nobody seeds."""

    def step(self, actions):
        seen, rewards, alive, legal = super().step(actions)
        return seen, rewards + np.random.default_rng().random(self.num_agents), alive, legal


class Overpaid(Drivers):
    """Pays what is no number, at step 1."""

    def step(self, actions):
        seen, rewards, alive, legal = super().step(actions)
        return seen, np.full_like(rewards, np.inf), alive, legal


class Careless(cn.DynamicGame):
    """Noise from a global generator, through a callback."""

    which: Any
    num_agents: ClassVar[int] = 2
    num_actions: ClassVar[int] = 2
    horizon: ClassVar[int] = 3
    num_states: ClassVar[int] = 1

    def reset(self, key):
        return jnp.zeros(2, jnp.int32)

    def step(self, state, actions, key):
        shape = jax.ShapeDtypeStruct((2,), jnp.float32)
        rewards = jax.pure_callback(lambda _: np.full(2, self.which(), np.float32), shape, actions)
        return state, rewards

    def observe(self, state):
        return state


@pytest.mark.parametrize("make", [Drivers, Doors, Dice, Mortals])
def test_good_simulators_pass(make):
    cn.check_game(make())


def test_what_a_simulator_does_wrong_is_named():
    with pytest.raises(cn.simulators.SimulatorError, match=r"agent 0 at step 0 .*not inf"):
        cn.check_game(Overpaid())
    with pytest.raises(ValueError, match=r"Drivers\.num_agents must be at least 2, not 1"):
        cn.check_game(Drivers(num_agents=1))


def test_a_simulator_need_not_repeat_but_it_is_said():
    with pytest.warns(UserWarning, match="Wanton: the same seed gives different episodes"):
        cn.check_game(Wanton())


@pytest.mark.parametrize(("which", "name"), [(random.random, "random"), (np.random.rand, "NumPy")])
def test_a_global_generator_is_named_as_the_cause(which, name):
    rule = f"same outcome for the same key: they draw from the global generator of {name}$"
    with pytest.raises(cn.GameError, match=rule):
        cn.check_game(Careless(which))
