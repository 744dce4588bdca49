"""Play of simulators outside JAX: what comes out, what is refused, what repeats."""

import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crowdnash as cn
from crowdnash.policies.drawing import draw_legal
from crowdnash.simulators import SimulatorError, as_game
from crowdnash.simulators.contract import kept_generators
from simulator_toys import Cards, Dice, Doors, Drivers, Mortals, uniform

KEY = jax.random.key(0)


def test_trajectories_are_those_of_the_simulator():
    """A plain loop over the simulator with the played actions sees the same."""
    sim = Drivers(num_agents=7, horizon=4)
    seeds = []

    class Seeded(Drivers):
        def reset(self, seed):
            seeds.append(seed)
            return super().reset(seed)

        def spawn(self):
            return Seeded(7, 4)

    played = cn.simulate(Seeded(7, 4), uniform(sim), key=KEY, num_trajectories=3)
    assert isinstance(played, cn.Trajectories)
    assert played.states.shape == (3, 4, 7)
    assert played.alive.all()
    assert played.legal is None
    for m, seed in enumerate(seeds[1:4]):  # the first was a look at the shapes
        states = sim.reset(seed)
        for h in range(4):
            np.testing.assert_array_equal(played.states[m, h], states)
            states, rewards, _, _ = sim.step(played.actions[m, h])
            np.testing.assert_allclose(played.rewards[m, h], rewards, rtol=1e-6)
    assert len(set(seeds)) == 4


def test_uniform_play_draws_all_actions_alike():
    sim = Drivers()
    actions = cn.simulate(sim, uniform(sim), key=KEY, num_trajectories=40).actions
    share = actions.mean()  # of 4000 fair coins
    assert abs(share - 0.5) < 4 * 0.5 / 4000**0.5


def test_trajectory_m_is_the_same_whatever_plays_beside_it():
    few = cn.simulate(Dice(), uniform(Dice()), key=KEY, num_trajectories=2)
    many = cn.simulate(Dice(), uniform(Dice()), key=KEY, num_trajectories=40)
    alone = cn.simulate(Dice(alone=True), uniform(Dice()), key=KEY, num_trajectories=5)
    np.testing.assert_array_equal(few.rewards, many.rewards[:2])
    np.testing.assert_array_equal(alone.rewards, many.rewards[:5])
    np.testing.assert_array_equal(alone.states, many.states[:5])
    assert len(np.unique(many.rewards)) == many.rewards.size


def test_global_generators_are_put_back():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    cn.simulate(Dice(), uniform(Dice()), key=KEY, num_trajectories=3)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    state = random.getstate()  # beartype draws from this one while tests run
    with kept_generators():
        random.seed(1)
        random.random()
    assert random.getstate() == state


def test_who_has_ended_neither_acts_nor_earns():
    played = cn.simulate(Mortals(), uniform(Mortals()), key=KEY, num_trajectories=30)
    assert not played.rewards[~played.alive].any()
    assert not played.actions[~played.alive].any()
    np.testing.assert_array_equal(played.alive[:, 0], True)
    stays = played.alive[:, :-1] & (played.actions[:, :-1] == 0)
    np.testing.assert_array_equal(played.alive[:, 1:], stays)


def test_illegal_actions_are_never_drawn_and_the_rest_is_renormalised():
    rng = np.random.default_rng(0)
    probs = np.tile([0.0, 0.2, 0.8], (20_000, 1))
    legal = np.tile([True, True, False], (20_000, 1))
    numbers = rng.random(20_000)
    np.testing.assert_array_equal(draw_legal(probs, numbers, legal), 1)
    # Where the policy gives the legal actions nothing, they are alike.
    legal = np.tile([True, False, False], (20_000, 1))
    np.testing.assert_array_equal(draw_legal(probs, numbers, legal), 0)
    probs = np.tile([0.5, 0.3, 0.2], (20_000, 1))
    legal = np.tile([False, True, True], (20_000, 1))
    drawn = draw_legal(probs, numbers, legal)
    share = 0.6  # .3 / (.3 + .2)
    assert abs((drawn == 1).mean() - share) < 4 * (share * (1 - share) / 20_000) ** 0.5
    assert not (drawn == 0).any()


def test_observations_may_be_dictionaries_of_arrays():
    class Level(cn.Policy):
        def probabilities(self, observation, agent_index, step):
            return jax.nn.softmax(observation["held"] + 0.0 * observation["round"])

    played = cn.simulate(Cards(), Level(), key=KEY, num_trajectories=20)
    assert played.states["held"].shape == (20, 3, 4, 3)
    np.testing.assert_array_equal(played.legal, played.states["held"] == 1)
    assert all(sorted(row) == [0, 1, 2] for row in played.actions.swapaxes(1, 2).reshape(-1, 3))


def test_a_policy_that_is_no_distribution_is_named_with_agent_and_step():
    class Wrong(cn.Policy):
        def probabilities(self, observation, agent_index, step):
            return jax.numpy.where(step == 1, 0.9, 1 / 3) * jax.numpy.ones(3)

    with pytest.raises(ValueError, match="agent 0 at step 1 must have probabilities that sum to 1"):
        cn.simulate(Cards(), Wrong(), key=KEY, num_trajectories=2)


def altered(base, **changes):
    """A simulator with other members, which breaks its contract from step 1 on."""
    return type("Altered", (base,), changes)()


def from_step(number, change):
    """A `step` that returns what `change` makes of the right answer, from a step on."""

    def step(self, actions):
        self.count = getattr(self, "count", 0) + 1
        right = Drivers.step(self, actions)
        return change(*right) if self.count > number else right

    return step


def with_reward(value):
    def change(seen, rewards, alive, legal):
        rewards[2] = value
        return seen, rewards, alive, legal

    return change


BROKEN = {
    "reward must be a finite number, not nan": with_reward(np.nan),
    r"rewards must be numbers of shape \[20\], not float64 of shape \[3\]": (
        lambda s, r, a, g: (s, r[:3], a, g)
    ),
    "agent 5 at step 2 .*: observes 2: must lie in 0..1": (
        lambda s, r, a, g: (np.where(np.arange(20) == 5, 2, s), r, a, g)
    ),
    r"observations must have shape \[20\], as they had at first, not \[19\]": (
        lambda s, r, a, g: (s[:19], r, a, g)
    ),
    r"alive must be bool of shape \[20\], not int64": lambda s, r, a, g: (s, r, a.astype(int), g),
    "legal actions at every step, or None at every step": (
        lambda s, r, a, g: (s, r, a, np.ones((20, 2), bool))
    ),
    r"step must return \(observations, rewards, alive, legal\)": lambda s, r, a, g: (s, r, a),
    "observations must be 1 arrays, as they were at first, not 2": (
        lambda s, r, a, g: ((s, s), r, a, g)
    ),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_what_a_simulator_does_wrong_is_one_line_that_names_step_and_seed(rule):
    sim = altered(Drivers, step=from_step(3, BROKEN[rule]))
    with pytest.raises(SimulatorError, match=rule) as raised:
        cn.simulate(sim, uniform(Drivers()), key=KEY, num_trajectories=1)
    assert "Altered: " in str(raised.value)
    assert "step 2" in str(raised.value)
    assert "seed" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_a_simulator_raises_is_named_with_step_and_seed():
    def step(self, actions):
        raise KeyError("agent_7")

    reset_only = altered(Drivers, step=step)
    with pytest.raises(SimulatorError, match="step 0 of the episode with seed 0 raised KeyError"):
        cn.simulate(reset_only, uniform(Drivers()), key=KEY, num_trajectories=1)


def test_who_is_out_must_earn_nothing_and_who_is_not_must_have_a_move():
    class Ghosts(Mortals):
        def step(self, actions):
            seen, _, alive, legal = super().step(actions)
            return seen, np.ones(10), alive, legal

    with pytest.raises(SimulatorError, match="reward of an agent that is out must be 0, not 1"):
        cn.simulate(Ghosts(), uniform(Mortals()), key=KEY, num_trajectories=3)

    class Walls(Doors):
        def step(self, actions):
            seen, rewards, alive, legal = super().step(actions)
            return seen, rewards, alive, legal & (np.arange(6) != 4)[:, None]

    with pytest.raises(SimulatorError, match=r"agent 4 at step 1 .* must have a legal action"):
        cn.simulate(Walls(), uniform(Doors()), key=KEY, num_trajectories=1)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"num_agents": 1}, "Altered.num_agents must be at least 2, not 1"),
        ({"num_agents": 20.0}, "Altered.num_agents must be an integer"),
        ({"horizon": 0}, "Altered.horizon must be at least 1"),
        ({"num_states": 0}, "Altered.num_states must be at least 1"),
        ({"agent_features": np.zeros(20)}, r"agent_features must have shape \[10,d\]"),
        ({"reset": lambda self, seed: np.zeros((10, 2))}, r"one integer an agent, \[10\]"),
        ({"reset": lambda self, seed: np.zeros(3, int)}, r"leading axis N=10, not int64 of shape"),
    ],
)
def test_sizes_that_no_simulator_has(changes, rule):
    with pytest.raises(ValueError, match=rule):
        as_game(altered(Mortals, **changes))


def test_what_is_no_game_and_no_simulator_is_named():
    with pytest.raises(ValueError, match="game must be a DynamicGame or a Simulator, not an int"):
        as_game(3)
    with pytest.raises(ValueError, match="not the class Mortals"):
        as_game(Mortals)


def test_functions_that_need_a_compiled_game_say_so():
    game = as_game(Drivers())
    with pytest.raises(ValueError, match="Drivers is a simulator outside JAX"):
        game.step(game.reset(KEY), jnp.zeros(20, jnp.int32), KEY)
