"""Epochs by blocks of agents, against those that count the play of all agents at once."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crowdnash as cn
from crowdnash.learners import mirror_epoch
from crowdnash.learners.feature_epoch import evaluate_by_blocks, largest_change
from crowdnash.simulation import block_play
from crowdnash.tuning import CPU

M = 3


class Limited(cn.games.SIS):
    """Who is easily infected may not keep its distance while healthy."""

    def legal(self, agent, state, step):
        bound = (state == 1) & (agent.susceptibility > 0.8)
        return (jnp.arange(self.num_actions) > 0) | ~bound


def of_class(kind, game):
    """`game` with the laws of `kind`."""
    arrays = (game.susceptibility, game.recovery, game.isolation_aversion)
    return kind(*arrays, horizon=game.horizon)


def sis(**changes):
    drawn = {"num_agents": 37, "horizon": 4} | changes
    return cn.games.SIS.sample(jax.random.key(0), **drawn)


def own_starts():
    game = sis()
    starts = jnp.stack([jnp.linspace(0, 1, 37), 1 - jnp.linspace(0, 1, 37)], axis=1)
    return eqx.tree_at(lambda g: g.initial_distribution, game, starts)


GAMES = {
    "one step": lambda: sis(horizon=1),
    "affine": sis,
    "own starts": own_starts,
    "many pairs": lambda: cn.games.CrowdModelling.sample(
        jax.random.key(1), num_agents=23, horizon=3
    ),
    "many selects": lambda: cn.games.Garnet.sample(
        jax.random.key(1), num_agents=23, horizon=3, num_states=12, num_actions=6
    ),
    "illegal actions": lambda: of_class(Limited, sis()),
}


SLOW = ("one step", "own starts", "many selects")


@pytest.fixture(params=[pytest.param(x, marks=[pytest.mark.slow] * (x in SLOW)) for x in GAMES])
def game(request):
    return GAMES[request.param]()


def state_of(game, features: Any = "linear"):
    """A state whose policy is not uniform."""
    learner = cn.PolicyMirrorDescent.practical(
        representation="features", features=features, td_epochs=M, step_size=0.3
    )
    state = learner.init(game, key=jax.random.key(2))
    assert state.weights is not None
    weights = jax.random.normal(jax.random.key(3), state.weights.shape)
    return learner, dataclasses.replace(state, weights=weights)


def test_equals_the_statistics_of_all_agents_at_once(game, monkeypatch):
    # Five agents at a time: the last block overlaps the one before.
    monkeypatch.setattr(block_play, "tuning", lambda: dataclasses.replace(CPU, block_lanes=5 * M))
    learner, state = state_of(game)
    numbers = learner._numbers(0)
    by_blocks = eqx.filter_jit(evaluate_by_blocks)(game, state, state.layout.agent[0], numbers, M)
    expected, mean_return = eqx.filter_jit(mirror_epoch._fitted_values)(
        game, state, state.layout, state.probs, numbers, M, mirror_epoch.ALONE
    )
    visits = np.asarray(expected.visits).sum(0)
    np.testing.assert_array_equal(by_blocks.visits[0], visits)  # the same play
    np.testing.assert_allclose(by_blocks.mean_return, mean_return, rtol=1e-5)
    scale = np.abs(expected.values).max()
    np.testing.assert_allclose(by_blocks.weights / scale, expected.values / scale, atol=2e-5)


def test_largest_change_of_all_tables():
    game = sis()
    _, before = state_of(game)
    assert before.weights is not None
    after = dataclasses.replace(before, weights=before.weights + 0.1 * before.weights**2)
    tables = np.abs(np.asarray(after.probs - before.probs)).sum(-1) / 2
    np.testing.assert_allclose(largest_change(before, after), tables.max(), rtol=1e-5)


@pytest.mark.slow
def test_features_of_each_step():
    def hour(agents, step):
        return jnp.stack([agents.susceptibility, agents.recovery * (step + 1)], axis=1)

    game = sis()
    learner, state = state_of(game, features=hour)
    numbers = learner._numbers(0)
    by_blocks = eqx.filter_jit(evaluate_by_blocks)(game, state, state.layout.agent[0], numbers, M)
    expected, _ = eqx.filter_jit(mirror_epoch._fitted_values)(
        game, state, state.layout, state.probs, numbers, M, mirror_epoch.ALONE
    )
    scale = np.abs(expected.values).max()
    np.testing.assert_allclose(by_blocks.weights / scale, expected.values / scale, atol=2e-5)


def test_a_wrong_transition_is_named():
    class Wrong(cn.games.SIS):
        def transition(self, agent, state, action, aggregate, step):
            right = super().transition(agent, state, action, aggregate, step)
            return jnp.where(step == 2, 1.5 * right, right)

    learner, _ = state_of(sis())
    with pytest.raises(cn.GameError, match=r"step 2 .*transition must be probabilities"):
        cn.solve(of_class(Wrong, sis()), learner, key=jax.random.key(0))
