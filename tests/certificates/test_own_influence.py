"""Own influence in the certificate: Def. 2's truth by enumeration, by counts, and by own play."""

import jax
import numpy as np
import pytest
import scipy.stats

import crowdnash as cn
import exchangeable_sis
from crowdnash.certificates.deviations import play
from crowdnash.certificates.planning import Setting, mean_model, prepare, response_of
from influence_games import AUDITED, contagion, neighbours

KEY = jax.random.key(0)
EPIDEMIC = {"susceptibility": 0.81, "recovery": 0.3, "isolation_aversion": 0.5}


# --- the counterexample -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_agents", "horizon", "gain"),
    [(100, 10, 4.79), pytest.param(1000, 15, 7.72, marks=pytest.mark.slow)],
)
def test_a_gain_that_frozen_paths_do_not_see(num_agents, horizon, gain):
    """Infecting oneself at step 0 gains 7.72 (4.79): its growth, twofold a step, does the rest."""
    game, never = contagion(num_agents, horizon)
    e = cn.exploitability(game, never, key=KEY)
    assert e.frozen.maximum == (0.0, 0.0)
    assert (e.own_influence.difference == 0).all()  # the best response to frozen paths does nothing
    for interval in (e.maximum, e.mean):
        assert 0.9 * gain <= interval.lower <= gain + 0.1
        assert gain <= interval.upper <= horizon  # the highest reward is 1 a step
    assert not e.influence.is_small
    assert "Warning: own influence is not small" in e.statement
    assert set(e.upper_kind) == {"any crowd"}
    np.testing.assert_array_equal(e.influence.deviations[0, 0, 0], [0.0, 1.0])
    alone = cn.exploitability(game, never, key=KEY, own_influence_agents=0)
    assert alone.maximum.lower == alone.mean.lower == 0.0
    assert set(alone.lower_kind) == {"none"}


# --- coverage of Def. 2 by enumeration ----------------------------------------------------------


def misses(game, policy, truth: np.ndarray, keys: int, num_trajectories: int) -> tuple[int, int]:
    """How many intervals of `maximum` and of `mean` do not contain the truth."""
    missed = [0, 0]
    for k in range(keys):
        e = cn.exploitability(
            game,
            policy,
            key=jax.random.key(5000 + k),
            method="paths",
            num_trajectories=num_trajectories,
        )
        ends = ((e.maximum, truth.max()), (e.mean, truth.mean()))
        for which, (interval, true) in enumerate(ends):
            missed[which] += not interval.lower <= true <= interval.upper
        assert (e.lower <= truth + 5 * e.standard_error + 1e-5).all()
    return missed[0], missed[1]


def enumerated(game, policy) -> np.ndarray:
    return cn.exploitability(game, policy, key=KEY, method="enumerate").lower


@pytest.mark.slow
@pytest.mark.parametrize("name", ["affine, 3", "self-influential, 4"])
def test_intervals_cover_what_enumeration_finds(name):
    """At 95% seven misses of 30 have a chance of 0.1%."""
    game, policy = neighbours(*AUDITED[name])
    assert max(misses(game, policy, enumerated(game, policy), 30, 64)) <= 6


@pytest.mark.slow
@pytest.mark.parametrize("name", AUDITED)
def test_intervals_cover_over_300_keys(name):
    """At least 93%: at 95% coverage, 22 misses of 300 have a chance of 5%, 25 of 0.8%."""
    game, policy = neighbours(*AUDITED[name])
    assert max(misses(game, policy, enumerated(game, policy), 300, 256)) <= 21


@pytest.mark.slow
def test_frozen_figures_alone_would_not_cover():
    """Where own influence is large, the true gain lies above every frozen upper end."""
    game, policy = neighbours(*AUDITED["self-influential, 3"])
    e = cn.exploitability(game, policy, key=KEY, method="paths", num_trajectories=2000)
    worst = int(np.argmax(enumerated(game, policy)))
    truth = enumerated(game, policy)[worst]
    assert e.frozen.upper[worst] + 5 * e.frozen.upper_standard_error[worst] < truth
    assert e.maximum.lower <= truth <= e.maximum.upper


# --- A-SIS by counts ----------------------------------------------------------------------------


def identical_sis(num_agents: int, horizon: int, seed: int):
    game = cn.games.SIS(**{k: np.full(num_agents, v) for k, v in EPIDEMIC.items()}, horizon=horizon)
    table = np.random.default_rng(seed).dirichlet(np.ones(2), size=(horizon, 2)).astype(np.float32)
    policy = cn.TabularPolicy.symmetric(table, num_agents)
    value, gain = exchangeable_sis.exploitability(
        num_agents, *EPIDEMIC.values(), (0.5, 0.5), table.astype(np.float64)
    )
    return game, policy, value, gain


def test_counts_agree_with_enumeration():
    game, policy, value, gain = identical_sis(4, 3, 0)
    e = cn.exploitability(game, policy, key=KEY, method="enumerate")
    np.testing.assert_allclose(e.value, value, atol=1e-5)
    np.testing.assert_allclose(e.lower, gain, atol=1e-5)


@pytest.mark.slow
def test_intervals_cover_in_a_crowd_of_fifty():
    game, policy, value, gain = identical_sis(50, 4, 1)
    truth = np.full(50, gain)
    assert max(misses(game, policy, truth, 300, 256)) <= 21
    e = cn.exploitability(game, policy, key=KEY, method="paths", num_trajectories=256)
    assert set(e.upper_kind) == {"first order"}
    # As narrow as the frozen one, but for the error of the measured influence.
    assert e.maximum.upper - e.maximum.lower < 1.25 * (
        e.frozen.maximum.upper - e.frozen.maximum.lower
    )
    assert abs(e.value.mean() - value) < 0.02


# --- prediction, measurement, and play that shares no code --------------------------------------


@pytest.fixture(scope="module")
def epidemic():
    game = cn.games.SIS.sample(jax.random.key(3), num_agents=60, horizon=8, heterogeneity=0.15)
    policy = cn.TabularPolicy.uniform(game)
    e = cn.exploitability(
        game, policy, key=jax.random.key(4), num_trajectories=512, own_influence_agents=2
    )
    return game, policy, e


@pytest.mark.slow
def test_first_order_predicts_what_is_measured(epidemic):
    """All 60 agents' deviations, 512 plays each; a formula that forgets where the agent then is
    (its later interest not conditioned on what it does) predicts twice as much."""
    game, policy, e = epidemic
    setting = Setting.of(game, policy, jax.random.key(4), 512)
    everyone = np.arange(60)
    model, totals = mean_model(setting, everyone)
    response = response_of(setting, model, everyone, totals)
    agents = prepare(setting, everyone, model, totals, response).at(everyone)
    played = play(setting, agents, np.asarray(agents.players.deviation), everyone, 512)
    measured, error = played.influence.mean(), played.influence.mean(0).std(ddof=1) / 512**0.5
    assert abs(measured) > 8 * error
    assert abs(measured - agents.influence.mean()) < 4 * error
    errors = played.influence.std(1, ddof=1) / 512**0.5
    apart = (played.influence.mean(1) - agents.influence) / errors
    assert np.abs(apart).max() < 4.5
    np.testing.assert_allclose(agents.influence, e.influence.predicted, atol=2e-4)
    more = agents.gain + agents.base_influence - agents.planned_gain
    assert (more <= agents.largest + 1e-5).all()


@pytest.mark.slow
def test_a_small_influence_is_added_to_first_order(epidemic):
    _, _, e = epidemic
    assert e.influence.is_small
    assert "Warning" not in e.statement
    assert set(e.upper_kind) == {"first order"}
    assert (e.upper >= e.lower - 1e-4).all()
    assert set(e.lower_kind[e.influence.agents]) == {"played"}
    assert (e.upper - e.frozen.upper <= 2 * e.influence.largest + 0.01).all()


def play_sis(game, tables: np.ndarray, num_plays: int, agent: int, seed: int) -> np.ndarray:
    """Returns of one agent when everybody plays `tables` [N,H,S,A], [M]; NumPy only."""
    rng = np.random.default_rng(seed)
    n, horizon = len(tables), game.horizon
    infect, recover, aversion = (
        np.asarray(x, np.float64)
        for x in (game.susceptibility, game.recovery, game.isolation_aversion)
    )
    states = rng.integers(2, size=(num_plays, n))
    total = np.zeros(num_plays)
    for h in range(horizon):
        out = rng.random((num_plays, n)) < tables[np.arange(n), h, states, 1]
        total -= (states[:, agent] == 0) + aversion[agent] * ~out[:, agent]
        spreads = (states == 0) & out
        met = (spreads.sum(1, keepdims=True) - spreads) / (n - 1)
        ill = np.where(states == 0, 1 - recover, infect * met * out)
        states = (rng.random((num_plays, n)) >= ill).astype(int)
    return total


def test_the_deviations_gain_what_is_reported_when_somebody_else_plays_them(epidemic):
    game, policy, e = epidemic
    tables = np.repeat(np.asarray(policy.probs, np.float64), 60, axis=0)
    plays = 20_000
    for k in range(2):
        agent = int(e.influence.agents[k])
        deviating = tables.copy()
        deviating[agent] = e.influence.deviations[k]
        stays = play_sis(game, tables, plays, agent, 2 * k)
        leaves = play_sis(game, deviating, plays, agent, 2 * k + 1)
        gain = leaves.mean() - stays.mean()
        error = np.sqrt((stays.var() + leaves.var()) / plays)
        assert abs(gain - e.lower[agent]) < 4 * (error + e.standard_error[agent])
        assert gain > 10 * error
        assert abs(stays.mean() - e.value[agent]) < 4 * error + 0.05


# --- records ------------------------------------------------------------------------------------


def test_saved_and_loaded_it_is_the_same(epidemic, tmp_path):
    _, _, e = epidemic
    e.save(tmp_path / "certificate.json")
    again = cn.Exploitability.load(tmp_path / "certificate.json")
    np.testing.assert_array_equal(again.upper_kind, e.upper_kind)
    np.testing.assert_array_equal(again.influence.deviations, e.influence.deviations)
    assert again.frozen.maximum == e.frozen.maximum
    assert again.statement == e.statement
    text = (tmp_path / "certificate.json").read_text()
    earlier = text.replace("crowdnash-certificate-2", "crowdnash-certificate-1")
    (tmp_path / "certificate.json").write_text(earlier)
    with pytest.raises(ValueError, match="an earlier version wrote it, about frozen paths"):
        cn.Exploitability.load(tmp_path / "certificate.json")


@pytest.mark.slow
def test_where_nobody_feels_anybody_frozen_figures_are_those_of_the_game():
    game = cn.games.RockPaperScissors.sample(KEY, num_agents=5, horizon=3)
    policy = cn.TabularPolicy.uniform(game)
    exact = cn.exploitability(game, policy, key=KEY)
    np.testing.assert_array_equal(exact.frozen.lower, exact.lower)
    assert "are exact" in exact.statement
    paths = cn.exploitability(
        game, policy, key=KEY, method="paths", num_trajectories=16, own_influence_agents=0
    )
    assert set(paths.upper_kind) == {"frozen"}
    assert paths.maximum == paths.frozen.maximum
    tail = scipy.stats.t.ppf(0.975, 15)
    assert abs(paths.mean.lower - exact.mean.lower) < 4 * tail
