"""Large crowds: a random sample for the mean, the worst of a coarse pass for the maximum."""

import jax
import numpy as np
import pytest

import crowdnash as cn
from crowdnash.certificates.planning import Setting
from crowdnash.certificates.sampled_agents import _for_everybody, coarse_gains
from crowdnash.certificates.verification import verify_certificate

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def game():
    return cn.games.SIS.sample(KEY, num_agents=400, horizon=4, heterogeneity=0.15)


@pytest.mark.slow
def test_a_sample_speaks_for_all(game):
    policy = cn.TabularPolicy.uniform(game)
    arguments = {"num_trajectories": 32, "own_influence_agents": 0}
    all_ = cn.exploitability(game, policy, key=KEY, **arguments)
    coarse = coarse_gains(Setting.of(game, policy, KEY, 32))
    assert np.corrcoef(coarse, all_.lower)[0, 1] > 0.99
    e = cn.exploitability(game, policy, key=KEY, agents=100, **arguments)
    worst = np.argsort(-all_.lower)[:10]
    assert np.isin(worst, e.agents).all()
    assert len(np.unique(e.agents)) == len(e.agents) <= 132
    assert e.maximum.lower <= all_.lower.max() <= e.maximum.upper
    assert e.mean.lower <= all_.lower.mean() <= e.mean.upper
    # Wider than all agents' by what sampling adds, which the coarse pass makes a tenth.
    added = 2 * 2 * all_.lower.std() / 10
    width, least = (x.mean.upper - x.mean.lower for x in (e, all_))
    assert least < width < least + 0.2 * added
    assert e.lower.shape == e.upper_kind.shape == e.influence.share.shape == e.agents.shape
    assert e.origin.sampled_agents == 100
    assert verify_certificate(e, game, policy).holds


def test_a_mean_by_regression_covers():
    """The mean of 1000 known gains from 40 of them, with 200 draws: at 95%, 19 misses are 0.3%."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(size=1000)
    gains = 2 * coarse + 0.3 * rng.normal(size=1000)
    missed, widths = 0, []
    for _ in range(200):
        drawn = rng.choice(1000, 40, replace=False)
        middle = gains[drawn].mean()
        low, high = (_for_everybody(middle, gains[drawn], coarse, drawn, c) for c in (-0.95, 0.95))
        missed += not low <= gains.mean() <= high
        widths.append(high - low)
    assert missed <= 19
    # Twice the quantile of t, times the residuals' error: by the sample alone seven times as much.
    assert abs(np.mean(widths) - 2 * 2.02 * 0.3 * (0.96 / 40) ** 0.5) < 0.02


@pytest.mark.parametrize(
    ("agents", "message"),
    [(1, "agents must be an integer >= 2|agents must be"), (401, "agents must be at most N = 400")],
)
def test_what_is_no_number_of_agents(game, agents, message):
    with pytest.raises(ValueError, match=message):
        cn.exploitability(game, cn.TabularPolicy.uniform(game), key=KEY, agents=agents)


def test_a_number_of_agents_is_for_paths():
    game = cn.games.RockPaperScissors.sample(KEY, num_agents=5, horizon=2)
    with pytest.raises(ValueError, match="is for methods 'paths' and 'learned', not 'exact'"):
        cn.exploitability(game, cn.TabularPolicy.uniform(game), key=KEY, agents=3)
