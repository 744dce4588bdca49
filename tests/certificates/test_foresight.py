"""Upper ends where foresight of the path has its price: tighter, and still upper ends."""

import jax
import numpy as np
import pytest
from scipy.stats import norm

import crowdnash as cn
from crowdnash.certificates import planning
from influence_games import AUDITED, neighbours

KEY = jax.random.key(11)


def both(monkeypatch, game, policy, num_trajectories: int):
    """The certificate as it is, and one without a price on foresight."""
    arguments = {"key": KEY, "method": "paths", "num_trajectories": num_trajectories}
    priced = cn.exploitability(game, policy, own_influence_agents=0, **arguments)
    monkeypatch.setattr(planning, "_PRICED_AGENTS", 0)
    free = cn.exploitability(game, policy, own_influence_agents=0, **arguments)
    return priced, free


@pytest.mark.slow
@pytest.mark.parametrize("name", ["affine, 3", "affine, 6"])
def test_the_gap_is_a_third_at_most(monkeypatch, name):
    game, policy = neighbours(*AUDITED[name])
    priced, free = both(monkeypatch, game, policy, 2000)
    np.testing.assert_array_equal(priced.frozen.lower, free.frozen.lower)
    gap, before = (e.frozen.upper - e.frozen.lower for e in (priced, free))
    assert gap.mean() <= before.mean() / 3
    errors = priced.frozen.upper_standard_error + priced.frozen.standard_error
    assert (gap >= -4 * errors - 1e-5).all()
    for interval, wider in ((priced.frozen.mean, free.frozen.mean), (priced.mean, free.mean)):
        assert interval.upper - interval.lower < wider.upper - wider.lower
    # Where the agent that gains most has next to no gap, two ends at half the error each cost more
    # than the price saves: at most the ratio of the quantiles.
    interval, wider = priced.frozen.maximum, free.frozen.maximum
    split = norm.ppf(1 - 0.05 / 8) / norm.ppf(1 - 0.05 / 4)
    assert interval.upper - interval.lower < split * (wider.upper - wider.lower)


@pytest.mark.slow
def test_fifty_agents_near_equilibrium(monkeypatch):
    """The audit found .244 without and .187 +- .007 with a price, at the mean-field equilibrium."""
    game = cn.games.SIS.sample(KEY, num_agents=50, horizon=20, heterogeneity=0.0)
    solution = cn.mean_field.solve(
        cn.induced_game(game), "mirror_descent", step_size=3.0, temperature=0.003
    )
    policy = cn.TabularPolicy.symmetric(solution.policy, 50)
    priced, free = both(monkeypatch, game, policy, 1000)
    assert 0.15 < priced.frozen.upper.mean() < 0.21
    assert 0.22 < free.frozen.upper.mean() < 0.27
