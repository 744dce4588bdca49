"""What is chosen for another kind of device changes rounding, and nothing else."""

import dataclasses

import jax
import numpy as np
import pytest

import crowdnash as cn
from crowdnash import mean_field, tuning

KEY = jax.random.key(0)
GAME = cn.games.SIS.sample(KEY, num_agents=40, horizon=3, heterogeneity=0.1)
LEARNERS = {
    "td": cn.PolicyMirrorDescent(num_epochs=2, td_epochs=5, groups=35, evaluation="td"),
    "ppo": cn.PPO(num_epochs=2, num_trajectories=2, identity="independent", hidden_sizes=(8,)),
}


def results(name):
    learner = LEARNERS[name]
    played = cn.simulate(GAME, cn.TabularPolicy.uniform(GAME), key=KEY, num_trajectories=4)
    learned = cn.solve(GAME, learner, key=KEY).last_policy
    probs = getattr(learned, "probs", None)
    if probs is None:
        probs = learned.all_probabilities(GAME.observe(GAME.reset(KEY)), np.int32(0))
    induced = cn.induced_game(GAME)
    flow = mean_field.population_flow(induced, np.full((3, 2, 2), 0.5))
    return played, np.asarray(probs), np.asarray(flow)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["td", "ppo"])
def test_an_accelerator_s_choices_give_the_same_results(name, tuned):
    played, probs, flow = results(name)
    tuned(**(dataclasses.asdict(tuning.ACCELERATOR) | {"fused_entries": 0, "reduced_together": 3}))
    assert tuning.tuning().words_in_one_kernel is False
    other_play, other_probs, other_flow = results(name)
    for a, b in zip(played, other_play, strict=True):
        np.testing.assert_array_equal(a, b)
    # Sums in another order: float32 sums of some hundred terms, twice.
    np.testing.assert_allclose(other_probs, probs, atol=2e-5)
    np.testing.assert_allclose(other_flow, flow, atol=1e-12)


def test_the_device_decides(monkeypatch):
    assert tuning.tuning() is tuning.CPU
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert tuning.tuning() is tuning.ACCELERATOR
