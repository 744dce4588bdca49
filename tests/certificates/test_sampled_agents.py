"""Large crowds: a random sample for the mean, the worst of a coarse pass for the maximum."""

import jax
import numpy as np
import pytest

import crowdnash as cn
from crowdnash.certificates.planning import Setting
from crowdnash.certificates.sampled_agents import coarse_gains
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
    # Wider than all agents' by what sampling adds, and no more.
    added = 2 * 2 * all_.lower.std() / 10
    width, least = (x.mean.upper - x.mean.lower for x in (e, all_))
    assert least < width < least + 1.5 * added
    assert e.lower.shape == e.upper_kind.shape == e.influence.share.shape == e.agents.shape
    assert e.origin.sampled_agents == 100
    assert verify_certificate(e, game, policy).holds


@pytest.mark.parametrize(
    ("agents", "message"),
    [(1, "agents must be an integer >= 2|agents must be"), (401, "agents must be at most N = 400")],
)
def test_what_is_no_number_of_agents(game, agents, message):
    with pytest.raises(ValueError, match=message):
        cn.exploitability(game, cn.TabularPolicy.uniform(game), key=KEY, agents=agents)


def test_a_number_of_agents_is_for_paths():
    game = cn.games.RockPaperScissors.sample(KEY, num_agents=5, horizon=2)
    with pytest.raises(ValueError, match="is for method 'paths', not 'exact'"):
        cn.exploitability(game, cn.TabularPolicy.uniform(game), key=KEY, agents=3)
