"""A fleet's night, solved and learned, against a convex program that shares nothing with us.

The nonatomic equilibrium minimises Beckmann's objective: with x[k,h] the share of the cars of type
k that charge at step h, L_h = sum_k share_k rate_k x[k,h] and u_k the steps that are missed,

    min  hours (sum_h price_h L_h + slope / 2 L_h^2 + penalty sum_k share_k rate_k u_k)
    s.t. sum_h x[k,h] + u_k = need_k,  0 <= x <= 1,  u >= 0.

Twice the slope gives the least cost of all cars together. Clarabel solves it.
"""

import functools
import json
import runpy

import clarabel
import jax
import numpy as np
import pytest
from scipy import sparse

import crowdnash as cn
from crowdnash import cases
from crowdnash.cases import charging, charging_studies, ev_charging
from crowdnash.cli import main
from pages import ROOT


def convex_program(sessions, prices, slope, penalty, hours):
    """Load [H], and energy that the mean car misses; all types have equal shares."""
    arrival, departure, energy, power = (np.asarray(x) for x in sessions[:4])
    num_types, horizon = len(arrival), len(prices)
    need = np.where(energy > 0, np.maximum(np.ceil(energy / (power * hours) - 1e-4), 1), 0)
    weight = energy / np.maximum(need, 1) / hours / num_types
    places = [(k, h) for k in range(num_types) for h in range(arrival[k], departure[k])]
    k, h = np.array(places).T
    n, m = len(k), num_types
    total = n + m + horizon  # x, u and the loads
    row = np.arange(n)
    loads = sparse.hstack(
        [
            sparse.csc_matrix((weight[k], (h, row)), (horizon, n)),
            sparse.csc_matrix((horizon, m)),
            -sparse.eye(horizon),
        ]
    )
    needs = sparse.hstack(
        [
            sparse.csc_matrix((np.ones(n), (k, row)), (m, n)),
            sparse.eye(m),
            sparse.csc_matrix((m, horizon)),
        ]
    )
    rows = sparse.vstack([loads, needs, -sparse.eye(n + m, total), sparse.eye(n, total)]).tocsc()
    ends = np.concatenate([np.zeros(horizon), need, np.zeros(n + m), np.ones(n)])
    bend = sparse.block_diag([sparse.csc_matrix((n + m, n + m)), slope * sparse.eye(horizon)])
    linear = np.concatenate([np.zeros(n), penalty * weight, prices])
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    cones = [clarabel.ZeroConeT(horizon + m), clarabel.NonnegativeConeT(2 * n + m)]
    solver = clarabel.DefaultSolver(bend.tocsc(), linear, rows, ends, cones, settings)
    solution = solver.solve()
    assert str(solution.status) == "Solved"
    x = np.asarray(solution.x)
    load, missed = x[n + m :], x[n : n + m]
    return load, hours * missed @ weight


def judged(sessions, prices, slope=0.02, penalty=0.5, hours=1.0, *, central=False):
    load, missed = convex_program(sessions, prices, slope * (1 + central), penalty, hours)
    return load, hours * load @ (prices + slope * load) + penalty * missed


def fleet_of(sessions, num_agents):
    types = np.arange(num_agents) % len(sessions.arrival)
    columns = (column[types] for column in sessions[:4])
    return cn.games.FleetCharging(*columns, prices=ev_charging.night_prices()), types


@pytest.fixture(scope="module")
def few():
    """Twelve types of the data, 20 cars of each."""
    sessions = ev_charging.draw_sessions(12, 3)
    return *fleet_of(sessions, 240), sessions


def test_exact_solution_against_the_convex_program(few):
    """Of 24,000 cars: what one draws is then next to nothing."""
    *_, sessions = few
    game, types = fleet_of(sessions, 24_000)
    load, cost = judged(sessions, np.asarray(game.prices, float))
    night = charging.judge(game, types, cases.solve_charging(game, types))
    assert np.abs(night.load - load).max() < 0.005 * load.max()
    assert night.mean_cost == pytest.approx(cost, rel=2e-3)
    assert night.gain.min() > -1e-6


def test_charging_on_arrival_by_hand(few):
    """Full power from the arrival on, until the energy is in."""
    game, types, sessions = few
    load = np.zeros(24)
    for arrival, departure, energy, power in zip(*sessions[:4], strict=True):
        steps = max(int(np.ceil(energy / power - 1e-4)), 1)
        assert arrival + steps <= departure
        load[arrival : arrival + steps] += energy / steps / 12
    policy = charging.on_arrival(game, types)
    night = charging.judge(game, types, policy)
    np.testing.assert_allclose(night.load, load, rtol=1e-5)
    np.testing.assert_allclose(night.price, np.asarray(game.prices) + 0.02 * load, rtol=1e-5)
    # The certificate: each car against the others' load, its own power added where it charges.
    e = cn.exploitability(game, charging.policy_of(policy, types), key=jax.random.key(0))
    for car in range(12):
        rate, need = float(game.rate[car]), int(game.need[car])
        start, end = sessions.arrival[car], sessions.departure[car]
        others = load.copy()
        others[start : start + need] -= rate / 240
        price = np.asarray(game.prices, float) + 0.02 * (others + rate / 240)
        gain = rate * (price[start : start + need].sum() - np.sort(price[start:end])[:need].sum())
        assert e.lower[car] == pytest.approx(gain, abs=1e-4)
        assert e.upper[car] == pytest.approx(gain, abs=1e-4)


def test_the_data():
    prices = ev_charging.night_prices()[[0, 6, 12, 21]]
    np.testing.assert_allclose(prices, [0.14859, 0.17372, 0.10119, 0.2328])
    sessions = ev_charging.draw_sessions(4000, 0)
    assert set(sessions.power) == {3.6, 7.2, 7.4, 11.0, 22.0}
    assert ((sessions.arrival >= 1) & (sessions.departure <= 24)).all()
    # Medians of the data: 11 hours and 19.4 kWh, before what does not fit a night is cut.
    assert 8 <= np.median(sessions.departure - sessions.arrival) <= 11
    assert 16 < np.median(sessions.energy) < 19.4
    # Of the data 29% begin between 17:00 and 19:00, and are plugged in from 18:00 or 19:00 on.
    assert 0.25 < np.isin(sessions.arrival, (6, 7)).mean() < 0.35
    with pytest.raises(ValueError, match=r"evening must be in 2023-01-16\.\.2023-01-28"):
        ev_charging.night_prices("2023-01-29")


def test_learning_goes_the_right_way(few):
    """A few nights of 240 cars: half of what charging on arrival wastes is gone."""
    game, types, sessions = few
    _, cost = judged(sessions, np.asarray(game.prices, float))
    phases = (charging.Phase(3.0, 0.003, 10), charging.Phase(3.0, 0.001, 10))
    learned = cases.learn_charging(game, types, jax.random.key(0), phases)
    naive = charging.judge(game, types, charging.on_arrival(game, types)).mean_cost
    night = charging.judge(game, types, learned)
    assert night.mean_cost - cost < 0.5 * (naive - cost)
    assert night.share @ night.gain < 0.1


@pytest.mark.slow
def test_the_case_from_play_alone(tmp_path, capsys):
    assert main(["case", "ev-charging", "--scale", "small", "--out", str(tmp_path), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    sessions = ev_charging.draw_sessions(100, 0)
    load, cost = judged(sessions, ev_charging.night_prices())
    table = np.genfromtxt(tmp_path / "load.csv", delimiter=",", names=True)
    assert table.dtype.names == ("step", "price", "load_kw")
    assert np.abs(table["load_kw"] / 10_000 - load).max() < 0.02 * load.max()
    np.testing.assert_allclose(
        table["price"], ev_charging.night_prices() + 0.02 * table["load_kw"] / 10_000, rtol=1e-5
    )
    nights = summary["nights"]
    assert nights["learned"]["mean_cost"] == pytest.approx(cost, rel=5e-3)
    assert nights["exact"]["mean_cost"] == pytest.approx(cost, rel=1e-3)
    least = judged(sessions, ev_charging.night_prices(), central=True)[1]
    assert nights["central"]["mean_cost"] == pytest.approx(least, rel=1e-3)
    assert summary["gains"]["learned"]["largest"] < 0.02
    assert summary["gains"]["on arrival"]["largest"] > 1
    certificate = cn.Exploitability.load(tmp_path / "certificate.json")
    assert certificate.method == "exact"
    assert float(certificate.lower.max()) == summary["gains"]["learned"]["largest"]
    assert {p.name for p in tmp_path.glob("*.png")} == {"night.png", "gains.png"}
    # Goes on where it stopped; another seed does not.
    assert main(["case", "ev-charging", "--scale", "small", "--out", str(tmp_path)]) == 0
    assert "done before" in capsys.readouterr().err
    assert main(["case", "ev-charging", "--seed", "1", "--out", str(tmp_path)]) == 2


@pytest.mark.slow
def test_learners_compared(few, tmp_path):
    game, types, _ = few
    told = []
    compare = functools.partial(
        charging_studies.compare_learners, tmp_path, game, types, jax.random.key(0), told.append
    )
    curves = compare()
    table = np.genfromtxt(
        tmp_path / "learners.csv", delimiter=",", names=True, dtype=None, encoding=None
    )
    assert set(table["learner"]) == {name.replace(",", "") for name in curves}
    fitted = table[table["learner"] == "a table a type fitted"]
    # 1, 2, 5, ... 200 nights of 240 cars and 24 steps.
    np.testing.assert_array_equal(fitted["agent_steps"][[0, -1]], np.array([1, 200]) * 240 * 24)
    assert fitted["mean_gain"][-1] < 0.1 * fitted["mean_gain"][0]
    assert (table["largest_gain"] >= table["mean_gain"]).all()
    assert len(told) == 5
    # What is there is not learned again.
    before = (tmp_path / "learner-0.json").stat().st_mtime_ns
    assert compare() == curves
    assert (tmp_path / "learner-0.json").stat().st_mtime_ns == before


@pytest.mark.slow
def test_the_session_in_the_state(tmp_path):
    """The example's game: cars move alike, and beta is what their power makes of missing energy."""
    example = runpy.run_path(str(ROOT / "examples" / "charging_sessions.py"))
    game = example["ChargingSessions"]([4.0, 8.0], ([1], [3], [2]), [0.3, 0.2, 0.1])
    cn.check_game(game)
    sym = cn.symmetry(game)
    assert sym.alpha.upper == 0
    # Two steps missing at departure, 0.5 EUR a kWh: 4 and 8 EUR, and 6 for the mean car.
    assert sym.beta.lower >= 2.0
    # Both charge in steps 1 and 2: at 0.2 and 0.1, plus 0.02 for each of 6 kW.
    charges = cn.TabularPolicy.symmetric(np.eye(2)[np.ones((3, 4), int)], num_agents=2)
    e = cn.exploitability(game, charges, key=jax.random.key(0))
    np.testing.assert_allclose(e.value, [-4 * 0.54, -8 * 0.54], rtol=1e-5)
    ways = example["both_ways"](3, 6)
    assert ways["steps still needed"].alpha.lower > 1
    assert ways["that, and a policy for each type"].beta.upper < 1e-9
    assert ways["the whole session, one power for all"].beta.upper < 1e-9
    example["draw"](ways, tmp_path / "ways.png")
    assert (tmp_path / "ways.png").stat().st_size > 10_000
