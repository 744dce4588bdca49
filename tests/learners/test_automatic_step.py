"""The measured step: on operators that are known, and in other units of reward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crowdnash as cn
from crowdnash.learners.automatic_step import MEASURED_EPOCHS, AutomaticStep, variation_of


def descend(operator, noise=0.0, epochs=200, seed=0, force=lambda distance: distance):
    """Follow x <- x + xi operator force(q - x), the step measured; steps, and the last distance."""
    rng = np.random.default_rng(seed)
    size = len(operator)
    target = rng.normal(size=size)
    weight = jnp.full((1, 1, 1, size), 1 / size)
    state, x, steps = AutomaticStep.start(1, 1, 1, size), np.zeros(size), []
    measured = jax.jit(AutomaticStep.measured)
    before = jnp.zeros_like(weight)
    for epoch in range(epochs):
        values = operator @ force(target - x) + noise * rng.normal(size=size)
        tables = jnp.asarray(values, jnp.float32).reshape(weight.shape)
        variation = jnp.full(2, variation_of(tables, before, weight))
        state, before = measured(state, epoch, tables, weight, 0.0, variation), tables
        move = float(state.size) * values
        state = state.moved(jnp.asarray(move, jnp.float32).reshape(weight.shape))
        x, steps = x + move, [*steps, float(state.size)]
    return np.array(steps), np.linalg.norm((target - x) - (target - x).mean())


def centred(operator):
    """The operator on vectors of mean 0, which is all that mirror descent sees."""
    size = len(operator)
    mean = np.eye(size) - 1 / size
    return mean @ operator @ mean


def test_a_rotation_is_damped_where_a_constant_step_diverges():
    # Eigenvalues 1 +- 5i: a step diverges from 2 / 26 on.
    real, turn = 1.0, 5.0
    rotation = np.array([[0, 1, -1], [-1, 0, 1], [1, -1, 0]]) / np.sqrt(3)
    operator = centred(real * np.eye(3) + turn * rotation)
    steps, distance = descend(operator, epochs=500)
    assert steps[-1] == pytest.approx(0.8 * real / (real**2 + turn**2), rel=1e-3)
    assert distance < 1e-3


@pytest.mark.parametrize("strength", [0.3, 3.0, 30.0])
def test_what_pushes_back_gets_the_inverse_of_its_strength(strength):
    steps, distance = descend(centred(strength * np.eye(4)))
    # Never above the largest step, which is in units of the first advantage.
    assert steps[-1] <= 0.8 / strength * (1 + 1e-3)
    assert distance < 1e-3


def test_noise_does_not_shrink_it_much():
    operator = centred(np.eye(4))
    quiet, _ = descend(operator)
    noisy, _ = descend(operator, noise=0.05)
    assert noisy[-1] > 0.5 * quiet[-1]
    assert (noisy[MEASURED_EPOCHS + 1 :] == noisy[-1]).all()


def test_what_pushes_back_ever_less_is_measured_anew():
    """As roads that the first policy jams: the step of the beginning would not get far."""

    def force(x):
        x = x - x.mean()
        return x + 300 * x**3

    steps, distance = descend(centred(np.eye(4)), epochs=150, force=force)
    assert steps[:30].max() < 0.02
    assert steps[-1] > 0.1
    assert distance < 1e-3


class SISInCents(cn.games.SIS):
    """A-SIS with rewards a hundred times as large."""

    def reward(self, agent, state, action, aggregate, step):
        return 100 * super().reward(agent, state, action, aggregate, step)


@pytest.mark.slow
@pytest.mark.parametrize(
    "representation",
    [
        "mixed",
        pytest.param("features", marks=pytest.mark.slow),
        pytest.param("tables", marks=pytest.mark.slow),
    ],
)
def test_the_unit_of_rewards_changes_nothing(representation):
    game = cn.games.SIS.sample(jax.random.key(0), num_agents=60, horizon=4)
    cents = SISInCents(**game.agents._asdict(), horizon=4)
    probs, steps = [], []
    for one, temperature in ((game, 0.01), (cents, 1.0)):
        learner = cn.PolicyMirrorDescent.practical(
            num_epochs=12, td_epochs=5, temperature=temperature, representation=representation
        )
        result = cn.solve(one, learner, key=jax.random.key(1))
        policy = result.policy
        table = policy.tabular() if representation == "features" else policy
        probs.append(np.asarray(table.probs))
        steps.append(np.array([row.step_size for row in result.history]))
    np.testing.assert_allclose(steps[0], 100 * steps[1], rtol=1e-3)
    np.testing.assert_allclose(*probs, atol=2e-3)


def test_needs_fitted_evaluation():
    with pytest.raises(ValueError, match="step_size='auto' needs evaluation='fitted'"):
        cn.PolicyMirrorDescent(step_size="auto")
