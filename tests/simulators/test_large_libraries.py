"""Adapters to MAgent2, OpenSpiel, JaxMARL and MFGLib, where they are installed."""

import jax
import numpy as np
import pytest
from scipy.stats import binom

import crowdnash as cn
from crowdnash.simulators import as_game

pytestmark = pytest.mark.slow
KEY = jax.random.key(0)


def test_crowd_modelling_played_by_copies_pays_what_it_should():
    """Uniform play keeps all copies independent and uniform on the ring of ten.

    A step pays 1 - |x - 5| / 5 (mean .5) less |a| / 10 (mean 2/30, from the second on) less the log
    of the share at x: 1/10 at first, then that of oneself and of Binomial(99, 1/10) others.
    """
    pytest.importorskip("pyspiel")
    sim = cn.simulators.open_spiel("mfg_crowd_modelling", num_agents=100)
    assert (sim.num_states, sim.num_actions, sim.horizon) == (10, 3, 10)
    others = np.arange(100)
    crowding = -(binom.pmf(others, 99, 0.1) * np.log((1 + others) / 100)).sum()
    expected = 10 * 0.5 - 9 * 2 / 30 + np.log(10) + 9 * crowding
    uniform = cn.TabularPolicy.uniform(as_game(sim))
    played = cn.simulate(sim, uniform, key=KEY, num_trajectories=40)
    by_play = played.rewards.sum(1).mean(1)
    assert abs(by_play.mean() - expected) < 4 * by_play.std(ddof=1) / 40**0.5
    learner = cn.PolicyMirrorDescent.practical(num_epochs=20, td_epochs=10, groups="symmetric")
    result = cn.solve(sim, learner, key=KEY)
    assert result.history[-1].mean_return > expected + 0.2


class Level(cn.Policy):
    """All actions alike."""

    num_actions: int

    def probabilities(self, observation, agent_index, step):
        return jax.numpy.full(self.num_actions, 1 / self.num_actions)


def battle():
    """Two armies in a small field."""
    return pytest.importorskip("magent2.environments.battle_v4").parallel_env(map_size=12)


def pursuit():
    """Predators and prey, who see differently much and have differently many actions."""
    name = "magent2.environments.adversarial_pursuit_v4"
    return pytest.importorskip(name).parallel_env(map_size=12)


def knights():
    """Knights and archers against zombies, which come every fifth step."""
    name = "pettingzoo.butterfly.knights_archers_zombies_v11"
    pytest.importorskip("pygame")
    return pytest.importorskip(name).parallel_env(spawn_delay=5)


def knights_before(seed, count):
    """What happens in an episode to those who do nothing, after others have played."""
    sim = cn.simulators.pettingzoo(knights, horizon=12, fresh=count < 0)
    for _ in range(abs(count)):
        sim.reset(seed)
        sim.step(np.full(4, 5))
    sim.reset(seed)
    return np.stack([sim.step(np.full(4, 5))[0] for _ in range(12)])


@pytest.mark.filterwarnings("ignore")  # other libraries' own
def test_zombies_come_by_a_clock_that_reset_does_not_set_back():
    """Three steps of another episode, and all that follows is early; not in a new environment."""
    once = knights_before(7, 0)
    assert np.abs(knights_before(7, 3) - once).max() > 0.01
    np.testing.assert_array_equal(knights_before(7, -3), once)


@pytest.mark.filterwarnings("ignore")  # other libraries' own
@pytest.mark.parametrize(("make", "horizon"), [(battle, 150), (pursuit, 20), (knights, 60)])
def test_play_is_what_the_bare_environment_answers_to_the_same_actions(make, horizon):
    """Played again in the environment's own loop, by name: what all saw and earned, who was there.

    The environments draw from generators that `reset(seed=)` seeds.
    """
    from crowdnash.simulation.outside import episode_randomness

    fresh = make is knights  # whose reset leaves something behind
    bare = make()
    sim = cn.simulators.pettingzoo(make, horizon=horizon, fresh=fresh)
    played = cn.simulate(sim, Level(sim.num_actions), key=KEY, num_trajectories=2)
    own = [int(bare.action_space(agent).n) for agent in bare.possible_agents]
    assert (played.actions < np.array(own))[played.alive].all()
    for m in range(2):
        bare = make() if fresh else bare
        seen, _ = bare.reset(seed=episode_randomness(KEY, m)[0])
        for h in range(horizon):
            present = [agent in bare.agents for agent in bare.possible_agents]
            np.testing.assert_array_equal(played.alive[m, h], present)
            moves, everyone = {}, enumerate(bare.possible_agents)
            for k, agent in ((k, agent) for k, agent in everyone if present[k]):
                flat = np.asarray(seen[agent], np.float32).reshape(-1)
                np.testing.assert_allclose(played.states[m, h, k, : flat.size], flat, atol=1e-6)
                assert not played.states[m, h, k, flat.size :].any()
                moves[agent] = int(played.actions[m, h, k])
            if not moves:
                break
            seen, rewards, *_ = bare.step(moves)
            earned = [rewards.get(agent, 0.0) for agent in bare.possible_agents]
            np.testing.assert_allclose(played.rewards[m, h], earned, atol=1e-5)


def test_goofspiel_plays_every_card_once():
    pytest.importorskip("pyspiel")
    parameters = {"players": 4, "num_cards": 4, "imp_info": True, "points_order": "descending"}
    sim = cn.simulators.open_spiel("goofspiel", parameters=parameters)
    learner = cn.PPO(num_epochs=3, num_trajectories=16, minibatch_size=192, hidden_sizes=(16,))
    result = cn.solve(sim, learner, key=KEY)
    played = cn.simulate(sim, result.policy, key=KEY, num_trajectories=30)
    cards = np.where(played.alive, played.actions, -1).swapaxes(1, 2).reshape(-1, sim.horizon)
    assert all(len(set(row[row >= 0])) == (row >= 0).sum() for row in cards)
    np.testing.assert_allclose(played.rewards.sum((1, 2)), 0, atol=1e-5)


@pytest.mark.parametrize(("name", "parameters"), [("kuhn_poker", {}), ("mfg_garnet", {})])
def test_games_of_other_kinds_are_refused(name, parameters):
    pytest.importorskip("pyspiel")
    with pytest.raises(ValueError, match=r"must be a simultaneous|num_agents must be an integer"):
        cn.simulators.open_spiel(name, parameters=parameters)


@pytest.mark.parametrize("name", ["MPE_simple_spread_v3", "SMAX"])
def test_jaxmarl_lanes_are_what_its_own_steps_are(name):
    marl = pytest.importorskip("jaxmarl")
    sim = cn.simulators.jaxmarl(marl.make(name), horizon=20)
    learner = cn.PPO(num_epochs=2, num_trajectories=4, minibatch_size=400, hidden_sizes=(16,))
    result = cn.solve(sim, learner, key=KEY)
    seeds = []
    played = cn.simulate(sim, result.policy, key=KEY, num_trajectories=3)
    from crowdnash.simulation.outside import episode_randomness

    for m in range(3):
        seeds.append(episode_randomness(KEY, m)[0])
        seen = sim.reset(seeds[-1])
        for h in range(20):
            lives = played.alive[m, h]
            np.testing.assert_allclose(played.states[m, h][lives], seen[lives], atol=1e-4)
            seen, rewards, alive, _ = sim.step(played.actions[m, h])
            np.testing.assert_allclose(played.rewards[m, h], rewards, atol=1e-4)
            if h < 19:
                np.testing.assert_array_equal(played.alive[m, h + 1], alive)
    if played.legal is not None:
        chosen = np.take_along_axis(played.legal, played.actions[..., None], -1)[..., 0]
        assert chosen[played.alive].all()


@pytest.mark.parametrize("name", ["rock_paper_scissors", "beach_bar", "left_right"])
def test_mfglib_games_have_the_exploitability_that_mfglib_computes(name):
    pytest.importorskip("mfglib")
    import mfglib.alg  # noqa: F401 (first: its modules import each other)
    import torch
    from mfglib.env import Environment
    from mfglib.scoring import exploitability_score

    environment = getattr(Environment, name)()
    game = cn.simulators.mfglib(environment, num_agents=20)
    assert game.transition_in_aggregate == "free"
    cn.check_game(game)
    rng = np.random.default_rng(0)
    shape = (game.horizon, game.num_states, game.num_actions)
    probs = rng.dirichlet(np.ones(game.num_actions), shape[:2])
    theirs = exploitability_score(
        environment,
        torch.as_tensor(probs, dtype=torch.float32).reshape(-1, *environment.S, *environment.A),
    )
    ours = cn.mean_field.exploitability(cn.induced_game(game), probs)
    assert float(ours) == pytest.approx(float(theirs), abs=1e-5)
    uniform = cn.TabularPolicy.uniform(game)
    certificate = cn.exploitability(game, uniform, key=KEY, num_trajectories=8)
    assert certificate.maximum.lower <= certificate.maximum.upper


def test_mfglib_agents_of_two_kinds():
    pytest.importorskip("mfglib")
    from mfglib.env import Environment

    kinds = np.array([0, 1, 1, 0])
    environments = [Environment.beach_bar(bar_loc=k) for k in (1, 2)]
    game = cn.simulators.mfglib(environments, num_agents=4, kinds=kinds)
    states, actions = np.full(4, 1), np.full(4, 1)
    joint = (jax.numpy.asarray(x) for x in (states, actions, 0))
    _, rewards = game.joint_law(*joint)
    # At the bar of one kind, a place from that of the other; the crowd is the same.
    np.testing.assert_allclose(np.asarray(rewards)[0] - np.asarray(rewards)[1], 1, atol=1e-5)
    with pytest.raises(ValueError, match="kinds must be 4 numbers"):
        cn.simulators.mfglib(environments, num_agents=4, kinds=[0, 1, 2, 0])
