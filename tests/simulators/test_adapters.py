"""Adapters to and from PettingZoo, Gymnasium and Mesa, with the packages themselves."""

import warnings

import gymnasium
import jax
import mesa
import numpy as np
import pettingzoo
import pytest
from gymnasium.utils.env_checker import check_env
from pettingzoo.test import parallel_api_test

import crowdnash as cn
from crowdnash.simulators import as_game
from simulator_toys import Cards, Doors, Mortals, uniform

KEY = jax.random.key(0)


class Pasture(pettingzoo.ParallelEnv):
    """Sheep see 2 numbers and have 2 actions, wolves see 3 and have 3; a sheep that rests dies."""

    metadata = {"name": "pasture"}  # noqa: RUF012

    def __init__(self):
        self.possible_agents = ["sheep_0", "sheep_1", "wolf_0"]
        self.seen = []

    def observation_space(self, agent):
        return gymnasium.spaces.Box(0, 1, (2 if "sheep" in agent else 3,))

    def action_space(self, agent):
        return gymnasium.spaces.Discrete(2 if "sheep" in agent else 3, start=1)

    def reset(self, seed=None, options=None):
        self.agents, self.count = list(self.possible_agents), 0
        return self._seen(), {agent: {} for agent in self.agents}

    def step(self, actions):
        assert set(actions) == set(self.agents)
        self.seen.append(actions)
        rewards = {agent: float(action) for agent, action in actions.items()}
        self.count += 1
        ended = {a: ("sheep" in a and actions[a] == 1) or self.count == 4 for a in self.agents}
        everyone = self.agents
        seen = self._seen()
        self.agents = [agent for agent in everyone if not ended[agent]]
        return (
            seen,
            rewards,
            ended,
            dict.fromkeys(everyone, False),
            {agent: {} for agent in everyone},
        )

    def _seen(self):
        return {a: np.full(self.observation_space(a).shape, 0.5, np.float32) for a in self.agents}


class Level(cn.Policy):
    """All actions alike."""

    num_actions: int

    def probabilities(self, observation, agent_index, step):
        return jax.numpy.full(self.num_actions, 1 / self.num_actions)


def test_pettingzoo_agents_of_two_kinds_that_die():
    sim = cn.simulators.pettingzoo(Pasture, horizon=6)
    assert (sim.name, sim.num_agents, sim.num_actions) == ("pasture", 3, 3)
    played = cn.simulate(sim, Level(3), key=KEY, num_trajectories=40)
    assert played.states.shape == (40, 6, 3, 3)  # padded to the wolf's three numbers
    np.testing.assert_array_equal(played.states[:, 0, :2, 2], 0)
    assert played.actions[:, :, :2].max() == 1  # sheep have two actions
    assert played.actions[:, :, 2].max() == 2
    # Actions are numbered from 1, which they earn; who acted is paid, the last step too.
    np.testing.assert_array_equal(played.rewards, np.where(played.alive, played.actions + 1, 0))
    rests = played.alive[:, :-1, :2] & (played.actions[:, :-1, :2] == 0)
    assert not (rests & played.alive[:, 1:, :2]).any()
    np.testing.assert_array_equal(played.alive[:, :, 2].sum(1), 4)  # then the environment ends


class Haunted(Pasture):
    """Its first observation tells of the episodes before: `reset` forgets to forget."""

    episodes = 0

    def reset(self, seed=None, options=None):
        self.episodes += 1
        return super().reset(seed, options)

    def _seen(self):
        seen = super()._seen()
        return {agent: own / self.episodes for agent, own in seen.items()}


def test_pettingzoo_makes_an_environment_an_episode_where_asked():
    first = {}
    for fresh in (False, True):
        sim = cn.simulators.pettingzoo(Haunted, horizon=4, fresh=fresh)
        for one in (sim, sim.spawn()):
            first[fresh] = [one.reset(seed)[0, 0] for seed in range(3)]
            expected = [0.5, 0.5, 0.5] if fresh else [0.5, 0.25, 0.5 / 3]
            np.testing.assert_allclose(first[fresh], expected)


@pytest.mark.slow
def test_pettingzoo_learns_to_graze():
    """Both sheep: 4 steps of 2; the wolf 4 of 3. Resting ends a sheep with 1."""
    sim = cn.simulators.pettingzoo(Pasture, horizon=4)
    settings = {"num_epochs": 15, "num_trajectories": 10, "minibatch_size": 60}
    learner = cn.PPO(**settings, learning_rate=1e-2, hidden_sizes=(16,), identity="one-hot")
    result = cn.solve(sim, learner, key=KEY)
    assert result.history[-1].mean_return > 0.95 * (8 + 8 + 12) / 3


def test_pettingzoo_masks_and_discrete_observations():
    class Masked(Pasture):
        def observation_space(self, agent):
            inner = gymnasium.spaces.Discrete(4)
            mask = gymnasium.spaces.MultiBinary(3)
            return gymnasium.spaces.Dict({"observation": inner, "action_mask": mask})

        def action_space(self, agent):
            return gymnasium.spaces.Discrete(3)

        def _seen(self):
            mask = np.array([0, 1, self.count % 2], np.int8)
            return {a: {"observation": self.count % 4, "action_mask": mask} for a in self.agents}

    sim = cn.simulators.pettingzoo(Masked, horizon=4)
    assert sim.num_states == 4
    played = cn.simulate(sim, uniform(sim), key=KEY, num_trajectories=20)
    assert played.actions[played.alive].min() == 1
    np.testing.assert_array_equal(played.actions[:, 0], 1)
    assert (played.actions[:, 1] == 2)[played.alive[:, 1]].any()


class Walk(gymnasium.Env):
    """Steps right along 0..3; the end pays 1 and is an end."""

    observation_space = gymnasium.spaces.Discrete(4)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = 0
        return 0, {}

    def step(self, action):
        self.place += int(action)
        over = self.place == 3
        return self.place, float(over), over, False, {}


@pytest.mark.parametrize("mode", list(gymnasium.vector.AutoresetMode))
def test_gymnasium_sub_environments_end_once_in_every_autoreset_mode(mode):
    def make():
        return gymnasium.vector.SyncVectorEnv([Walk] * 5, autoreset_mode=mode)

    sim = cn.simulators.gymnasium(make, horizon=8)
    assert (sim.num_agents, sim.num_states, sim.num_actions) == (5, 4, 2)
    played = cn.simulate(sim, uniform(sim), key=KEY, num_trajectories=20)
    right = np.cumsum(played.actions * played.alive, 1)
    before = np.concatenate([np.zeros((20, 1, 5), int), right[:, :-1]], 1)
    np.testing.assert_array_equal(played.states[played.alive], before[played.alive])
    np.testing.assert_array_equal(played.alive, before < 3)
    np.testing.assert_array_equal(played.rewards.sum(1), right[:, -1] == 3)


class Grazer(mesa.Agent):
    """Eats what there is, or moves on to a fresh place; its appetite is its own."""

    def __init__(self, model, appetite):
        super().__init__(model)
        self.appetite, self.moves, self.grass, self.ate = appetite, False, 2, 0.0

    def step(self):
        if self.moves:
            self.grass, self.ate = 2, 0.0
        else:
            self.ate = self.appetite * (self.grass > 0)
            self.grass = max(self.grass - 1, 0)


class Meadow(mesa.Model):
    def __init__(self, seed):
        super().__init__(seed=seed)
        for appetite in np.random.default_rng(7).uniform(1, 2, 12):
            Grazer(self, float(appetite))

    def step(self):
        self.agents.shuffle_do("step")


def meadow(**changes):
    settings = {
        "act": lambda agent, action: setattr(agent, "moves", bool(action)),
        "observe": lambda agent: agent.grass,
        "reward": lambda agent: agent.ate,
        "num_actions": 2,
        "num_states": 3,
        "horizon": 5,
        "features": ["appetite"],
    }
    return cn.simulators.mesa(Meadow, Grazer, **(settings | changes))


def test_mesa_agents_learn_when_to_move_on():
    """Eat, eat, move, eat, eat: four meals of five steps are the most."""
    sim = meadow()
    appetite = np.asarray(as_game(sim).agent_features)[:, 0]
    np.testing.assert_allclose(appetite, np.random.default_rng(7).uniform(1, 2, 12), rtol=1e-6)
    learner = cn.PolicyMirrorDescent.practical(
        num_epochs=25, td_epochs=10, step_size=1.0, groups="symmetric"
    )
    result = cn.solve(sim, learner, key=KEY)
    assert result.history[-1].mean_return == pytest.approx(4 * appetite.mean(), rel=0.01)
    probs = np.asarray(result.policy.probs)[0]
    assert (probs[[2, 3], 0, 1] > 0.9).all()  # where the grass is gone


def test_mesa_agents_that_leave_and_features_that_change():
    class Leaving(Meadow):
        def step(self):
            super().step()
            for agent in list(self.agents):
                if agent.moves:
                    agent.remove()

    sim = cn.simulators.mesa(
        Leaving, Grazer, act=lambda agent, action: setattr(agent, "moves", bool(action)),
        observe=lambda agent: [agent.grass, agent.appetite], reward=lambda agent: agent.ate,
        num_actions=2, horizon=3, legal=lambda agent: [True, agent.grass < 2],
    )  # fmt: skip
    played = cn.simulate(sim, Level(2), key=KEY, num_trajectories=10)
    assert played.states.shape == (10, 3, 12, 2)
    np.testing.assert_array_equal(played.actions[:, 0], 0)  # who has all its grass stays
    left = played.actions[:, 1] == 1
    np.testing.assert_array_equal(played.alive[:, 2], ~left)

    class Redrawn(Meadow):
        def __init__(self, seed):
            super().__init__(seed)
            for agent in self.agents:
                agent.appetite += self.rng.random()

    changing = cn.simulators.mesa(
        Redrawn, Grazer, act=lambda agent, action: None, observe=lambda agent: agent.grass,
        reward=lambda agent: 0.0, num_actions=2, num_states=3, horizon=2, features=["appetite"],
    )  # fmt: skip
    with pytest.raises(cn.simulators.SimulatorError, match="must be the same in every episode"):
        cn.simulate(changing, uniform(changing), key=KEY, num_trajectories=1)


SMALL = cn.games.SIS.sample(KEY, num_agents=4, horizon=5)


@pytest.mark.parametrize("game", [SMALL, Cards(), Mortals()], ids=lambda g: type(g).__name__)
def test_what_goes_out_to_pettingzoo_passes_its_test(game):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = cn.simulators.to_pettingzoo(game)
        env.reset(seed=1)
        if type(game).__name__ != "Cards":  # the test draws without the masks in infos
            parallel_api_test(env, num_cycles=20)


def test_a_game_comes_back_from_pettingzoo_as_it_was():
    """Out and in again: the same rewards for the same seed and actions."""
    there = cn.simulators.pettingzoo(lambda: cn.simulators.to_pettingzoo(Doors()), horizon=2)
    assert there.num_states == 2
    played = cn.simulate(there, uniform(there), key=KEY, num_trajectories=8)
    direct = cn.simulate(Doors(), uniform(Doors()), key=KEY, num_trajectories=8)
    np.testing.assert_array_equal(played.actions, direct.actions)
    np.testing.assert_allclose(played.rewards, direct.rewards)
    np.testing.assert_array_equal(played.legal[played.alive], direct.legal[played.alive])


@pytest.mark.parametrize("game", [SMALL, Mortals(), Cards()], ids=lambda g: type(g).__name__)
def test_one_agent_against_the_crowd_passes_gymnasiums_test(game):
    policy = Level(as_game(game).num_actions)
    env = cn.simulators.best_response_env(game, policy, agent=1)
    env.reset(seed=0)
    if type(game).__name__ != "Cards":  # it draws without the mask in the info
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*render modes.*|.*lower than.*|.*infinity.*")
            check_env(env)


def test_an_adversary_earns_what_it_should():
    """Among the mortals: rest five times, then take 1.5."""
    env = cn.simulators.best_response_env(Mortals(), uniform(Mortals()), agent=3)
    seen, _ = env.reset(seed=0)
    assert seen.shape == (1 + 6,)  # one state, six steps
    total, over = 0.0, False
    for action in (0, 0, 0, 0, 0, 1):
        assert not over
        seen, reward, over, _, _ = env.step(action)
        total += reward
    assert over
    assert total == 6.5
    env.reset(seed=0)
    *_, over, _, _ = env.step(1)
    assert over


def test_an_adversary_in_sis_earns_the_policys_own_return():
    """Playing the policy itself, over 150 plays, within four standard errors of its return."""
    game, policy = SMALL, cn.TabularPolicy.uniform(SMALL)
    env = cn.simulators.best_response_env(game, policy, agent=2)
    rng, totals = np.random.default_rng(0), []
    for seed in range(150):
        env.reset(seed=seed)
        totals.append(sum(env.step(rng.integers(2))[1] for _ in range(5)))
    exact = cn.exploitability(game, policy, key=KEY).value[2]
    assert abs(np.mean(totals) - exact) < 4 * np.std(totals) / 150**0.5


def test_illegal_actions_of_an_adversary_are_refused():
    env = cn.simulators.best_response_env(Doors(), uniform(Doors()), agent=0)
    _, info = env.reset(seed=0)
    np.testing.assert_array_equal(info["action_mask"], [1, 1, 0])
    with pytest.raises(ValueError, match="action 2 is illegal for agent 0 now"):
        env.step(2)


def test_packages_that_are_missing_are_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyspiel", None)
    with pytest.raises(ImportError, match="open_spiel is not installed: pip install open_spiel"):
        cn.simulators.open_spiel("goofspiel")


def test_what_is_no_environment_is_refused():
    with pytest.raises(ValueError, match=r"gymnasium\.vector\.VectorEnv"):
        cn.simulators.gymnasium(Walk, horizon=3)

    class Continuous(Pasture):
        def action_space(self, agent):
            return gymnasium.spaces.Box(0, 1, (2,))

    with pytest.raises(ValueError, match="action space of sheep_0 must be Discrete"):
        cn.simulators.pettingzoo(Continuous, horizon=3)
