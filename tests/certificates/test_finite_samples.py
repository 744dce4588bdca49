"""Statements that hold for any number of plays and of agents, against exact distributions."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
import scipy.stats

import crowdnash as cn
from crowdnash.certificates.bounded import bounded_lower_end
from crowdnash.certificates.intervals import lower_end
from crowdnash.certificates.unexamined import most_above, rank_for
from crowdnash.interval import Interval
from simulator_toys import Mortals, uniform

KEY, UNIT = jax.random.key(0), Interval(0.0, 1.0)


# --- plays ---


@pytest.mark.parametrize("count", [3, 40])
def test_of_zeros_and_ones_it_is_below_the_exact_end(count):
    """Clopper and Pearson's is the highest that there can be; and the coverage, summed exactly."""
    successes = np.arange(count + 1)
    ends = np.array(
        [bounded_lower_end(np.repeat([1.0, 0.0], [s, count - s]), UNIT, 0.05) for s in successes]
    )
    exact = np.zeros(count + 1)
    exact[1:] = scipy.stats.beta.ppf(0.05, successes[1:], count - successes[1:] + 1)
    assert (ends <= exact + 1e-12).all()
    assert (np.diff(ends) > 0)[1:].all()
    for mean in np.linspace(0.005, 0.995, 199):
        chances = scipy.stats.binom.pmf(successes, count, mean)
        assert chances[ends > mean].sum() <= 0.05
    # Not empty either: all ones exclude what has the chance 1 / 240 of them, 1 / (12 stakes * 20).
    assert ends[-1] >= (1 / 240) ** (1 / count) - 1e-9


def test_it_holds_where_students_does_not():
    """One play in fifty loses everything: in two of three samples of 20 none is seen."""
    rng = np.random.default_rng(0)
    samples = (rng.random((200, 20)) < 0.98).astype(float)
    student = [lower_end(x.mean(), x.std(ddof=1) / np.sqrt(20), 0.95, 20) > 0.98 for x in samples]
    bounded = [bounded_lower_end(x, UNIT, 0.05) > 0.98 for x in samples]
    assert np.mean(student) > 0.5
    assert np.mean(bounded) <= 0.05


def test_it_knows_the_variance():
    """Gains of 1 +- 1 where +-10 are possible, beside Student, Bernstein (2009) and Hoeffding."""
    samples = np.random.default_rng(1).normal(1.0, 1.0, 256).clip(-10, 10)
    end = bounded_lower_end(samples, Interval(-10.0, 10.0), 0.05)
    mean, variance, logarithm = samples.mean(), samples.var(ddof=1), np.log(2 / 0.05)
    bernstein = np.sqrt(2 * variance * logarithm / 256) + 7 * 20 * logarithm / (3 * 255)
    hoeffding = 20 * np.sqrt(np.log(1 / 0.05) / (2 * 256))
    student = lower_end(mean, np.sqrt(variance / 256), 0.9, 256)
    assert end < student
    assert mean - end < 0.4 * bernstein < 0.4 * hoeffding
    assert end == pytest.approx(bounded_lower_end(samples[::-1], Interval(-10.0, 10.0), 0.05))


# --- agents ---


@pytest.mark.parametrize("gains", [np.arange(7.0), np.array([0, 0, 1, 1, 1, 2, 2.0])])
def test_all_samples_of_a_few_agents(gains):
    """Every sample of 3 of 7: too many exceed the k-th in as few as it says, and it is sharp."""
    samples = [np.sort(gains[list(x)]) for x in itertools.combinations(range(7), 3)]
    for rank, tail in itertools.product((1, 2, 3), (0.03, 0.1, 0.4)):
        most = most_above(7, 3, rank, tail)
        above = np.array([(gains > x[rank - 1]).sum() for x in samples])
        assert np.mean(above > most) <= tail
        if len(set(gains)) == 7 and most > 3 - rank:
            assert np.mean(above > most - 1) > tail
        lowest = rank_for(7, 3, most, tail)
        assert lowest is not None
        assert lowest <= rank
        assert most_above(7, 3, lowest, tail) <= most


def test_of_many_agents_it_is_wilks_count():
    """59 drawn ones, 5%: 0.95^59 = 0.0485; with 58 it is 0.0510."""
    assert most_above(10**6, 59, 59, 0.05) <= 0.05 * 10**6
    assert most_above(10**6, 58, 58, 0.05) > 0.05 * 10**6
    assert rank_for(10**6, 59, 50_000, 0.05) == 59
    assert rank_for(10**6, 58, 50_000, 0.05) is None
    # The 90th of 100: 1 - 0.95 quantile of a beta law says how many exceed it.
    share = scipy.stats.beta.ppf(0.95, 11, 90)
    assert most_above(10**6, 100, 90, 0.05) / 10**6 == pytest.approx(share, rel=1e-3)


# --- certificates ---


@pytest.fixture(scope="module")
def certificate():
    """Two of ten mortals, drawn at random, with an end for any few plays."""
    sim, known = Mortals(), {"key": KEY, "agents": 2, "budget_steps": 4000}
    return cn.exploitability(sim, uniform(sim), **known, reward_range=(0, 1.5))


def test_lower_ends_say_on_what_they_rest(certificate, tmp_path):
    """The best gain is 6.5 - 1.25 (2 - 1/32) = 4.04; Student's ends are made by hand."""
    e = certificate
    count = e.num_trajectories
    assert 0 < e.maximum.lower < lower_end(e.lower.max(), e.standard_error.min(), 0.95, count)
    assert 0 < e.mean.lower < 4.04
    assert "for any number of plays" in e.statement
    assert "pays between 0 and 1.5" in e.statement
    assert "Student's" in dataclasses.replace(e, reward_range=None).statement
    e.save(tmp_path / "certificate.json")
    again = cn.Exploitability.load(tmp_path / "certificate.json")
    assert again.reward_range == Interval(0.0, 1.5)
    assert again.statement == e.statement


def test_drawn_agents_speak_for_all(certificate):
    """More than 7 of 10 exceed the better of 2 with chance C(2,2) / C(10,2) = 1 / 45; 6: 3 / 45."""
    e = certificate
    assert len(np.unique(e.agents)) == 2
    assert "at most 70.0% of all 10 agents" in e.statement
    assert e.gain_of_all_but(0.7) == e.lower.max()
    assert np.isinf(e.gain_of_all_but(0.6))
    # All but the lowest may exceed the lower one: that is certain.
    assert e.gain_of_all_but(0.9) == e.lower.min()
    named = dataclasses.replace(e, origin=dataclasses.replace(e.origin, sampled_agents=0))
    assert "of all 10" not in named.statement
    with pytest.raises(ValueError, match="gain_of_all_but needs agents drawn at random"):
        named.gain_of_all_but(0.5)


def test_a_range_that_is_none_or_not_true():
    sim, known = Mortals(), {"key": KEY, "agents": [0], "budget_steps": 500}
    with pytest.raises(ValueError, match=r"reward_range=\(1, 1.5\) allows total rewards from 6 to"):
        cn.exploitability(sim, uniform(sim), **known, reward_range=(1, 1.5))
    with pytest.raises(ValueError, match=r"reward_range must be \(lowest, highest\)"):
        cn.exploitability(sim, uniform(sim), **known, reward_range=(1, 1))
    game = cn.games.SIS.sample(KEY, num_agents=3, horizon=2)
    with pytest.raises(ValueError, match="reward_range is for method='learned', not for 'enum"):
        cn.exploitability(game, uniform(game), key=KEY, reward_range=(-2, 0))
