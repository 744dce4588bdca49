"""Games whose agents have illegal actions, or start each from a distribution of its own."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crowdnash as cn
from crowdnash.simulators.as_simulator import SteppedGame
from limited_games import STARTS, Drivers, DriversByLaw, may

LICENCES = (0, 0, 1)


def crowd(horizon=3):
    """Twenty agents, every second one with a licence."""
    return Drivers(
        np.linspace(0.1, 0.9, 20), np.arange(20) % 2, np.full((20, 2), 0.5), horizon=horizon
    )


def assert_legal(game_licences, played):
    """Every (agent, step, state) of the play, by the rule in plain Python."""
    for m, h, i in np.ndindex(*played.actions.shape):
        allowed = may(game_licences[i], int(played.states[m, h, i]), h)
        assert allowed[played.actions[m, h, i]]


@pytest.fixture(params=[Drivers, DriversByLaw])
def game(request):
    return request.param()


@pytest.mark.slow
def test_uniform_play_is_legal_and_starts_where_each_agent_does(game):
    cn.check_game(game)
    uniform = cn.TabularPolicy.uniform(game)
    probs = np.asarray(uniform.probs)[np.asarray(uniform.groups)]
    for i, h, s in np.ndindex(3, 2, 2):
        allowed = np.array(may(LICENCES[i], s, h))
        np.testing.assert_allclose(probs[i, h, s], allowed / allowed.sum(), rtol=1e-6)
    played = cn.simulate(game, uniform, key=jax.random.key(0), num_trajectories=400)
    assert_legal(LICENCES, played)
    # Four standard errors of a mean of 400 draws; agents 0 and 2 start for sure where they do.
    error = 4 * np.sqrt(STARTS[:, 1] * (1 - STARTS[:, 1]) / 400)
    assert (np.abs(played.states[:, 0].mean(0) - STARTS[:, 1]) <= error).all()
    state = game.reset(jax.random.key(1))
    assert state.states[0] == 0
    assert state.states[2] == 1


def test_a_policy_that_plays_what_is_illegal_is_refused(game):
    wrong = cn.TabularPolicy.symmetric(np.full((2, 2, 3), 1 / 3), 3)
    rule = r"agent 0 in state 0 at step 0 must not play action 0, which is illegal there"
    with pytest.raises(ValueError, match=rule):
        cn.simulate(game, wrong, key=jax.random.key(0), num_trajectories=2)
    with pytest.raises(ValueError, match=rule):
        cn.exploitability(game, wrong, key=jax.random.key(0))

    class Careless(cn.Policy):
        def probabilities(self, observation, agent_index, step):
            return jnp.where(jnp.arange(3) == 2, 1.0, 0.0)

    with pytest.raises(ValueError, match=r"in state 0 at step 0 must not play action 2, .* 1$"):
        cn.simulate(game, Careless(), key=jax.random.key(0), num_trajectories=2)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        pytest.param({"representation": "features"}, marks=pytest.mark.slow),
        {"evaluation": "td", "groups": "independent"},
        {"representation": "tables", "groups": np.arange(20) % 2, "mixing": True, "step_size": 0.3},
    ],
)
def test_mirror_descent_learns_among_legal_actions(settings, tmp_path):
    game, key = crowd(), jax.random.key(1)
    learner = cn.PolicyMirrorDescent.practical(num_epochs=8, td_epochs=5, **settings)
    result = cn.solve(game, learner, key=key)
    assert result.history[-1].mean_return > result.history[0].mean_return + 0.1
    played = cn.simulate(game, result.policy, key=key, num_trajectories=5)
    assert_legal(np.arange(20) % 2, played)
    policy: Any = result.policy
    policy.save(tmp_path / "policy.npz")
    again = type(policy).load(tmp_path / "policy.npz")
    replayed = cn.simulate(game, again, key=key, num_trajectories=5)
    np.testing.assert_array_equal(replayed.actions, played.actions)


def test_agents_that_share_a_table_must_have_the_same_actions():
    rule = "agents 0 and 1 of group 0 have not"
    with pytest.raises(ValueError, match=rule):
        cn.solve(crowd(), cn.PolicyMirrorDescent(num_epochs=1), key=jax.random.key(0))


@pytest.mark.slow
def test_ppo_learns_among_legal_actions(tmp_path):
    game, key = crowd(), jax.random.key(1)
    learner = cn.PPO(
        num_epochs=20,
        num_trajectories=8,
        learning_rate=1e-2,
        minibatch_size=200,
        hidden_sizes=(16,),
    )
    result = cn.solve(game, learner, key=key)
    assert result.history[-1].mean_return > result.history[0].mean_return + 0.5
    result.policy.save(tmp_path / "policy.npz")
    loaded = cn.NeuralPolicy.load(tmp_path / "policy.npz", game)
    played = cn.simulate(game, loaded, key=key, num_trajectories=5)
    assert_legal(np.arange(20) % 2, played)
    table = loaded.tabulate()
    assert table.num_groups == 2  # alike to the network, but of two kinds
    row = loaded.probabilities(jnp.asarray(0), jnp.asarray(1), jnp.asarray(1))
    np.testing.assert_allclose(table.probs[table.groups[1], 1, 0], row, atol=1e-6)
    unlimited = cn.NeuralPolicy(
        loaded.actor, loaded.identity, loaded.features, game.name, game.num_actions
    )
    with pytest.raises(ValueError, match="must play legal actions alone"):
        cn.simulate(game, unlimited, key=key, num_trajectories=1)


def test_outside_it_is_a_simulator_that_says_what_is_legal(game):
    sim: Any = SteppedGame(game)
    seen = sim.reset(0)
    assert sim.legal().tolist() == [may(LICENCES[i], int(seen[i]), 0) for i in range(3)]
    with pytest.raises(ValueError, match="agent 0 at step 0 must not play action 0"):
        sim.step(np.zeros(3, int))
    seen, _, _, legal = sim.step(np.ones(3, int))
    assert legal.tolist() == [may(LICENCES[i], int(seen[i]), 1) for i in range(3)]


def test_faults_of_a_game_are_named():
    class Stuck(Drivers):
        def legal(self, agent, state, step):
            return jnp.arange(3) < state

    class Numbers(Drivers):
        def legal(self, agent, state, step):
            return jnp.ones(3)

    class Short(Drivers):
        def legal(self, agent, state, step):
            return jnp.ones(2, bool)

    faults: Any = (
        (Stuck, "agent 0 at step 0 in state 0: legal must leave at least one action"),
        (Numbers, "legal must be bool, not float32"),
        (Short, r"legal must have shape \[3\], not \[2\]"),
    )
    for broken, rule in faults:
        with pytest.raises(cn.GameError, match=rule):
            cn.check_game(broken())
    with pytest.raises(ValueError, match=r"shape \[2\] or \[3,2\], not \[2, 2\]"):
        DriversByLaw(starts=np.full((2, 2), 0.5))
    with pytest.raises(ValueError, match=r"not \[0.5, 0.75\] \(agent 1\)"):
        DriversByLaw(starts=np.array([[1, 0], [0.5, 0.75], [1, 0]]))
