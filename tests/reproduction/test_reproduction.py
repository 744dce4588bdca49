"""`crowdnash reproduce`: fits, sweeps and their directories, and each study at a tiny size."""

import dataclasses
import gc
import json
import math
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure

import crowdnash as cn
from crowdnash import cli, mean_field
from crowdnash.reproduction import fig1a, names, sweep, theorem1, theorem2, theorem3
from crowdnash.reproduction.fits import Sample, as_fact, fit_text, power_law, sample
from crowdnash.reproduction.kink_game import KinkGame
from crowdnash.reproduction.studies import STUDIES, lookup
from crowdnash.reproduction.study import Conclusion, Point, Study, Table
from crowdnash.reproduction.theorem1_games import CASES, equilibrium, measured_symmetry
from crowdnash.runs import Processes

# --- fits


def test_power_law_recovers_an_exact_slope():
    x = np.array([10.0, 100.0, 1000.0])
    law = power_law(Sample(x, np.stack([3 * x**-0.5, 5 * x**-0.5])))
    assert law is not None
    assert law.slope == pytest.approx(-0.5, abs=1e-12)
    assert law.standard_error == pytest.approx(0.0, abs=1e-12)
    # The mean of log 3 and log 5.
    assert law.intercept == pytest.approx(0.5 * math.log(15), abs=1e-12)
    assert law.num_points == 3


def test_power_law_recovers_a_slope_from_noise():
    random = np.random.default_rng(0)
    x = np.geomspace(10, 10_000, 7)
    values = x**-1.5 * np.exp(0.1 * random.normal(size=(20, 7)))
    law = power_law(Sample(x, values))
    assert law is not None
    centred = np.log(x) - np.log(x).mean()
    expected_error = 0.1 / math.sqrt(centred @ centred) / math.sqrt(20)
    assert abs(law.slope + 1.5) < 4 * expected_error
    assert 0.4 < law.standard_error / expected_error < 2.0


def test_power_law_of_one_replicate_has_the_regression_s_error():
    # log y = 0, 1, 1 at log x = -1, 0, 1: slope 1/2, residuals -1/6, 1/3, -1/6, so
    # s^2 = (1/6)/(3-2) and the error sqrt(s^2/2) = sqrt(1/12).
    law = power_law(Sample(np.exp([-1.0, 0.0, 1.0]), np.exp([[0.0, 1.0, 1.0]])))
    assert law is not None
    assert law.slope == pytest.approx(0.5)
    assert law.standard_error == pytest.approx(math.sqrt(1 / 12))


def test_nothing_is_fitted_to_one_point_or_to_values_that_are_not_positive():
    assert power_law(Sample(np.ones(1), np.ones((3, 1)))) is None
    assert power_law(Sample(np.array([1.0, 2.0]), np.array([[1.0, 0.0]]))) is None
    assert fit_text(as_fact(None)) == "nothing above noise"


def test_sample_gathers_replicates():
    rows = [{"n": n, "y": float(n * k)} for k in (1, 3) for n in (20, 10)]
    measured = sample(rows, "n", "y")
    np.testing.assert_array_equal(measured.x, [10, 20])
    np.testing.assert_array_equal(measured.mean, [20, 40])
    # Standard deviation of 10 and 30 over sqrt(2).
    np.testing.assert_allclose(measured.error, [10, 20])
    assert not measured.clear.any()
    with pytest.raises(ValueError, match="as many replicates at every n"):
        sample(rows[1:], "n", "y")


# --- the kink game


def test_kink_game_s_exploitability_by_hand_and_by_enumeration():
    # One other: |K - 1/2| = 1/2 always. Two others: 1/2 with probability 1/2, else 0.
    assert KinkGame(2).exploitability == pytest.approx(0.5)
    assert KinkGame(3).exploitability == pytest.approx(0.25)
    game = KinkGame(3)
    policy = cn.TabularPolicy.symmetric(game.equilibrium, 3)
    certificate = cn.exploitability(game, policy, key=jax.random.key(0), method="enumerate")
    np.testing.assert_allclose(certificate.lower, 0.25, atol=1e-6)


@pytest.mark.slow
def test_kink_game_meets_the_specified_numbers():
    # Its equilibrium is exact in the mean field, is 0.00399 exploitable among 10^4 agents, and
    # the mended bound is 0.0408 (the constants as printed give 0.0024, which is too small).
    game = KinkGame(10_000)
    assert mean_field.exploitability(cn.induced_game(game), game.equilibrium) == 0.0
    assert game.exploitability == pytest.approx(0.00399, abs=5e-6)
    bound = cn.nash_bound(game, measured_symmetry(game))
    assert bound.value == pytest.approx(0.0408, abs=5e-5)
    assert game.exploitability < bound.sharper < bound.value < bound.trivial


def test_kink_game_s_moduli_agree_with_a_search():
    searched = cn.symmetry(KinkGame(20)).lipschitz
    assert searched is not None
    known = KinkGame(20).moduli
    for name in ("K_s", "K_a", "K_mu", "L_s", "L_a", "L_mu", "transition_spread", "reward_spread"):
        assert getattr(searched, name) == pytest.approx(getattr(known, name), abs=1e-6)


@pytest.mark.slow
def test_congestion_s_closed_forms_are_no_less_than_a_search():
    game = CASES["congestion-curved"].sample(jax.random.key(1), 20, 0.0, 0.0)
    searched, known = cn.symmetry(game).lipschitz, measured_symmetry(game).lipschitz
    assert searched is not None
    assert known is not None
    assert known.exact
    for name in ("K_a", "L_s", "L_a", "L_mu", "reward_spread"):
        assert getattr(known, name) >= getattr(searched, name) - 1e-6


# --- what the studies measure

_THEOREM1 = {
    "sweep": "agents",
    "num_agents": 30,
    "seed": 0,
    "replicate": 0,
    "transitions": 0.0,
    "rewards": 0.0,
    "num_paths": 400,
    "agents_examined": 1,
    "own_influence_agents": 0,
}


@pytest.mark.slow
def test_theorem1_measures_the_kink_game():
    (row,) = theorem1.measure({**_THEOREM1, "game": "kink"})
    exact = KinkGame(30).exploitability
    assert abs(row["achieved"] - exact) < 4 * row["achieved_error"]
    # Action 1 never loses there, so seeing the crowd in advance adds nothing.
    assert row["seen_in_advance"] == pytest.approx(row["achieved"], abs=1e-5)
    assert row["alpha"] == row["beta"] == row["mean_field_exploitability"] == 0.0
    assert row["largest_lower"] <= row["achieved"] <= row["largest_upper"]
    assert row["largest_upper"] < row["bound_sharper"] < row["bound_mended"]
    assert row["method"] == "paths"
    assert row["bound_certified"]


@pytest.mark.slow
def test_theorem1_measures_heterogeneous_rps_exactly():
    settings = {**_THEOREM1, "game": "rock-paper-scissors", "sweep": "rewards", "rewards": 0.1}
    (row,) = theorem1.measure({**settings, "agents_examined": 30})
    assert row["method"] == "exact"
    assert 0.05 < row["beta"] < 0.15
    assert row["alpha"] == 0.0
    assert row["mean_field_exploitability"] < 1e-7
    assert 0 < row["mean_lower"] == row["mean_upper"] < row["largest_lower"] == row["largest_upper"]
    assert row["largest_upper"] < row["bound_sharper"]


@pytest.mark.slow
@pytest.mark.parametrize("name", list(CASES))
def test_equilibria_of_all_cases_are_exact(name):
    game = CASES[name].sample(jax.random.key(2), 10, 0.0, 0.0)
    mfg = cn.induced_game(game)
    assert mean_field.exploitability(mfg, equilibrium(CASES[name], game, mfg)) <= 1e-7


def test_errors_of_td_by_hand():
    # One step, one state, two actions with weights 1/4 and 3/4, two tables in two runs.
    flow = np.array([[[0.25, 0.75]]])
    first = np.array([[2.0, 0.0], [0.0, 2.0]]).reshape(2, 1, 1, 2)
    second = np.array([[2.0, 2.0], [2.0, 2.0]]).reshape(2, 1, 1, 2)
    errors = theorem2.errors([first, second], flow)
    # Errors 1, 3 in the first run, 4, 4 in the second.
    assert errors["error"] == pytest.approx(3.0)
    assert errors["largest_error"] == pytest.approx(3.5)
    # Means over tables (1, 1) and (2, 2): weighted product 2.
    assert errors["squared_bias"] == pytest.approx(2.0)


def _theorem2(**changes):
    settings = {"game": "kink", "data": "own", "rule": "theorem", "num_agents": 20, "replicate": 0}
    settings |= {"num_epochs": 300, "difference": 0.0, "seed": 0, "temperature": 0.05}
    (row,) = theorem2.measure(settings | changes)
    return row


@pytest.mark.slow
def test_theorem2_measures_the_kink_game_s_bias():
    # Under the uniform policy Q_1(s,.) = s + tau H is met exactly. Action 1 at the first step
    # reaches state 1 with a chance that is larger by E|sigma(0) - 1/2|, the exploitability of
    # "always 0": the squared bias is that number's square, weighted by mu_0(., 1) = 1/2.
    row = _theorem2(num_epochs=4000, rule="horizon-visits")
    assert row["squared_bias"] == pytest.approx(0.5 * KinkGame(20).exploitability ** 2, rel=0.15)
    assert row["squared_bias"] < row["error"] <= row["largest_error"]
    assert row["delta"] == pytest.approx(0.25)


def test_theorem2_s_error_falls_with_more_trajectories():
    # Beside the bias, which stays, noise of order 1/M; lengths of one compiled chunk size.
    few, many = (_theorem2(num_epochs=m, rule="horizon-visits") for m in (1000, 4000))
    noise = [row["error"] - row["squared_bias"] for row in (few, many)]
    assert 0 < noise[1] < noise[0] / 2


def _theorem3(**changes):
    settings = {"kind": "run", "game": "rps-scaled", "learner": "theorem", "num_epochs": 16}
    settings |= {"td_epochs": 4, "temperature": 0.05, "seed": 0, "replicate": 0}
    (row,) = theorem3.measure(settings | changes)
    return row


@pytest.mark.slow
def test_theorem3_measures_a_run_and_its_limits():
    row, limits = _theorem3(), _theorem3(kind="limit")
    assert row["trajectories"] == 64
    assert limits["regularised"] < row["average_mean_field"] < limits["uniform"]
    assert limits["uniform"] == pytest.approx(3 / 12, abs=0.02)
    assert limits["regularised"] < limits["lemma_11"] == pytest.approx(0.5 * math.log(3))
    assert limits["regularised_still_moving"] < 1e-6
    # Agents differ, so the worst of them can gain more than the representative agent.
    assert row["average_largest_lower"] > row["average_mean_field"]
    assert 0 < row["largest_early_change"] < 1


def test_scaled_rps_is_the_printed_one_in_another_unit():
    scaled, printed = (
        theorem3.sample_game(name, jax.random.key(0)) for name in ("rps-scaled", "rps-printed")
    )
    uniform = cn.TabularPolicy.uniform(scaled)
    gains = [
        cn.exploitability(game, uniform, key=jax.random.key(0)).lower for game in (scaled, printed)
    ]
    np.testing.assert_allclose(12 * gains[0], gains[1], rtol=1e-4)
    with pytest.raises(ValueError, match="game must be one of"):
        theorem3.sample_game("chess", jax.random.key(0))


# --- points and registry


@pytest.mark.parametrize("scale", ["smoke", "small", "paper"])
@pytest.mark.parametrize("name", list(STUDIES))
def test_points_have_names_of_their_own_and_plain_settings(name, scale):
    points = STUDIES[name].points(scale, 3)
    assert len({point.name for point in points}) == len(points) > 0
    for point in points:
        assert json.loads(json.dumps(dict(point.settings))) == point.settings
        assert "/" not in point.name
    # Another seed, other draws everywhere.
    assert not {str(point) for point in points} & {str(p) for p in STUDIES[name].points(scale, 40)}


def test_lookup_names_the_known_studies():
    assert lookup("theorem2") is theorem2.STUDY
    with pytest.raises(ValueError, match=r"one of .*theorem1, theorem2.*, not 'theorem9'"):
        lookup("theorem9")


# --- sweeps


def _toy_points(scale, seed):
    return tuple(
        Point.of("x", "replicate", x=x, replicate=r, seed=seed) for x in (1, 2, 4) for r in (0, 1)
    )


def _toy_measure(settings, _folder=None):
    random = np.random.default_rng([settings["seed"], settings["x"], settings["replicate"]])
    return ({"y": float(settings["x"] ** 2 * np.exp(0.01 * random.normal())), "note": None},)


def _toy_conclude(rows):
    fit = power_law(sample(rows, "x", "y"))
    table = Table("toy", ("quantity", "value"), (("slope", fit_text(as_fact(fit))),))
    return Conclusion({"fit": as_fact(fit)}, (table,), ("It grows.",))


def _toy_draw(rows, facts):
    figure = Figure(figsize=(2, 2))
    measured = sample(rows, "x", "y")
    figure.subplots().plot(measured.x, measured.mean, label=f"{facts['fit']['slope']:.3f}")
    return {"curve": figure}


TOY = Study("toy", "a parabola", _toy_points, _toy_measure, _toy_conclude, _toy_draw)


def _run_counted(out, **changes):
    """Run the toy study; also which points it measured."""
    measured = []
    observer = sweep.SweepObserver(on_point=lambda name, *_: measured.append(name))
    arguments = {"scale": "smoke", "seed": 0, "observer": observer} | changes
    return sweep.run(TOY, out, **arguments), measured


def test_a_sweep_saves_rows_facts_and_pictures(tmp_path):
    results, measured = _run_counted(tmp_path / "toy")
    assert len(measured) == len(results.rows) == 6
    assert results.conclusion.facts["fit"]["slope"] == pytest.approx(2.0, abs=0.05)
    loaded = sweep.load(tmp_path / "toy")
    assert loaded.rows == results.rows
    assert loaded.conclusion == results.conclusion
    page = (tmp_path / "toy" / "results.md").read_text()
    assert page.startswith("# toy, scale smoke, seed 0\n\n- ")
    assert "| --- |" in page
    lines = (tmp_path / "toy" / "results.csv").read_text().splitlines()
    assert lines[0] == "x,replicate,seed,y,note"
    assert len(lines) == 7
    (picture,) = sweep.draw(TOY, tmp_path / "toy")
    content = picture.read_bytes()
    assert content.startswith(b"\x89PNG")
    picture.unlink()
    sweep.draw(TOY, tmp_path / "toy")
    assert picture.read_bytes() == content


def test_a_sweep_measures_only_what_is_missing(tmp_path):
    out = tmp_path / "toy"
    first, _ = _run_counted(out)
    (out / "points" / "2-1.json").unlink()
    (out / "points" / "4-0.json").unlink()
    (out / "results.json").unlink()
    again, measured = _run_counted(out)
    assert measured == ["2-1", "4-0"]
    assert again.rows == first.rows
    assert again.conclusion == first.conclusion
    assert _run_counted(out)[1] == []


def test_a_sweep_on_an_executor_measures_the_same(tmp_path):
    with ThreadPoolExecutor(3) as threads:
        results, measured = _run_counted(tmp_path / "threads", executor=threads)
    assert len(measured) == 6
    assert results.rows == _run_counted(tmp_path / "here")[0].rows


@pytest.mark.usefixtures("no_type_checks")
def test_what_is_no_executor_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"must be a concurrent\.futures\.Executor, got 2 of type int"
    ):
        _run_counted(tmp_path / "none", executor=2)
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_a_real_study_in_processes_measures_the_same(tmp_path):
    study = lookup("theorem1")
    for point in study.points("smoke", 0):
        json.dumps(dict(point.settings))  # what travels
    with Processes(2) as processes:
        there = sweep.run(study, tmp_path / "there", scale="smoke", executor=processes)
    here = sweep.run(study, tmp_path / "here", scale="smoke")
    assert there.rows == here.rows


def test_a_sweep_that_is_stopped_goes_on(tmp_path):
    out = tmp_path / "toy"
    begun = []

    def stopping(settings, folder):
        begun.append(settings)
        if len(begun) == 4:
            raise KeyboardInterrupt
        return _toy_measure(settings, folder)

    with pytest.raises(KeyboardInterrupt):
        sweep.run(dataclasses.replace(TOY, measure=stopping), out, scale="smoke", seed=0)
    resumed, measured = _run_counted(out)
    assert len(measured) == 3
    assert resumed.rows == _run_counted(tmp_path / "whole")[0].rows


def test_an_interrupt_that_python_drops_stops_a_sweep_after_the_point(tmp_path):
    out, begun = tmp_path / "toy", []

    def press(phase, info):
        gc.callbacks.remove(press)
        signal.raise_signal(signal.SIGINT)

    def dropping(settings, folder):
        begun.append(settings)
        if len(begun) == 2:
            gc.callbacks.append(press)
            gc.collect()
        return _toy_measure(settings, folder)

    with pytest.raises(KeyboardInterrupt):
        sweep.run(dataclasses.replace(TOY, measure=dropping), out, scale="smoke", seed=0)
    assert len(begun) == 2
    assert len(list((out / "points").iterdir())) == 2


def test_another_seed_gives_other_numbers(tmp_path):
    first, other = (_run_counted(tmp_path / str(s), seed=s)[0] for s in (0, 1))
    assert first.rows[0]["y"] != other.rows[0]["y"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"seed": 1}, "seed 1 contradicts .*, which has 0"),
        ({"scale": "paper"}, "scale paper contradicts .*, which has smoke"),
        ({"scale": "large"}, "scale must be one of smoke, small, paper, not 'large'"),
        ({"seed": -1}, "seed must be at least 0, not -1"),
    ],
)
def test_a_directory_keeps_its_scale_and_seed(tmp_path, changes, text):
    first, _ = _run_counted(tmp_path / "toy")
    with pytest.raises(ValueError, match=text):
        _run_counted(tmp_path / "toy", **changes)
    assert sweep.load(tmp_path / "toy").rows == first.rows


def test_directories_of_something_else_are_refused(tmp_path):
    out = tmp_path / "toy"
    _run_counted(out)
    other = dataclasses.replace(TOY, name="other")
    with pytest.raises(ValueError, match=r"experiment other contradicts .*, which has toy"):
        sweep.run(other, out, scale="smoke", seed=0)
    with pytest.raises(ValueError, match="is of toy, not of other"):
        sweep.draw(other, out)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match="out must be a new or empty directory"):
        _run_counted(tmp_path / "full")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="out must be new, empty or of the same experiment"):
        _run_counted(tmp_path / "run")


def test_damaged_and_foreign_points_are_named(tmp_path):
    out = tmp_path / "toy"
    _run_counted(out)
    point = out / "points" / "1-0.json"
    content = json.loads(point.read_text())
    point.write_text("{")
    with pytest.raises(ValueError, match=r"1-0\.json is damaged"):
        _run_counted(out)
    point.write_text(json.dumps(content | {"settings": {"x": 7}}))
    with pytest.raises(ValueError, match=r"1-0\.json was measured with other settings"):
        _run_counted(out)
    with pytest.raises(ValueError, match=r"results\.json is missing"):
        sweep.load(tmp_path)


# --- each study from its points to its pictures, and the command


def _tiny(study: Study) -> Study:
    """The smoke scale, made smaller still."""
    keep = {
        "theorem1": lambda s: s["sweep"] == "agents" or s["game"] == "rock-paper-scissors",
        "theorem2": lambda s: s["game"] == "kink" or s["num_epochs"] <= 300,
        "theorem3": lambda s: s["game"] == "rps-scaled",
    }[study.name]
    changes = {"num_paths": 50, "num_agents": 12, "agents_examined": 1}

    def points(scale, seed):
        kept = []
        for point in study.points("smoke", seed):
            settings = dict(point.settings)
            if study.name == "theorem1":
                sizes = {"num_agents": 10 if settings["num_agents"] == 30 else 20}
                settings |= changes | (sizes if settings["sweep"] == "agents" else {})
            if study.name == "theorem2":
                settings |= {"num_epochs": int(settings["num_epochs"]) // 10}
                settings |= {"num_agents": min(int(settings["num_agents"]), 8)}
            if study.name == "theorem2" or keep(point.settings):
                kept.append(Point(point.name, settings))
        return tuple(kept)

    return dataclasses.replace(study, points=points)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "pictures"),
    [
        ("theorem1", ["agents", "heterogeneity"]),
        ("theorem2", ["agents", "differences", "trajectories"]),
        ("theorem3", ["trajectories"]),
    ],
)
def test_studies_from_points_to_pictures(name, pictures, tmp_path):
    study = _tiny(STUDIES[name])
    results = sweep.run(study, tmp_path / name, scale="smoke", seed=0)
    for row in results.rows:
        for cell in row.values():
            assert not isinstance(cell, float) or math.isfinite(cell)
    assert results.conclusion.verdict
    for table in results.conclusion.tables:
        assert table.rows
        assert all(len(row) == len(table.columns) for row in table.rows)
    drawn = sweep.draw(study, tmp_path / name)
    assert sorted(path.stem for path in drawn) == pictures
    assert all(path.stat().st_size > 10_000 for path in drawn)


def add_toy(monkeypatch, study):
    monkeypatch.setitem(STUDIES, "toy", study)
    monkeypatch.setattr(names, "STUDY_NAMES", (*names.STUDY_NAMES, "toy"))


def test_the_names_are_those_of_the_studies():
    assert tuple(STUDIES) == names.STUDY_NAMES


def test_the_command_shows_tables_verdict_and_pictures(monkeypatch, capsys, tmp_path):
    add_toy(monkeypatch, TOY)
    out = str(tmp_path / "toy")
    arguments = ["reproduce", "toy", "--scale", "smoke", "--seed", "5", "--out", out]
    assert cli.main(arguments) == 0
    printed = capsys.readouterr()
    assert "slope" in printed.out
    assert "It grows." in printed.out
    assert f"picture: {out}/curve.png" in printed.out
    assert "6/6 points" in printed.err
    shutil.rmtree(tmp_path / "toy" / "points")
    assert cli.main([*arguments, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["fit"]["slope"] == pytest.approx(2.0, abs=0.05)
    assert facts["pictures"] == [f"{out}/curve.png"]


def test_the_command_says_in_one_line_what_is_wrong(monkeypatch, capsys, tmp_path):
    add_toy(monkeypatch, TOY)
    out = str(tmp_path / "toy")
    sweep.run(TOY, out, scale="smoke", seed=0)
    for arguments, text in (
        (["theorem9"], "experiment must be one of "),
        (["toy", "--scale", "paper", "--out", out], "scale paper contradicts"),
        (["toy", "--scale", "smoke", "--seed", "2", "--out", out], "seed 2 contradicts"),
    ):
        assert cli.main(["reproduce", *arguments]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("crowdnash: error: ")
        assert printed.err.count("\n") == 1
        assert text in printed.err
    assert cli.main(["reproduce", "toy", "--scale", "huge"]) == 2
    assert "--scale must be one of smoke, small, paper, not 'huge'" in capsys.readouterr().err


def test_the_command_says_where_a_stopped_sweep_is(monkeypatch, capsys, tmp_path):
    def stopping(settings, folder):
        raise KeyboardInterrupt

    add_toy(monkeypatch, dataclasses.replace(TOY, measure=stopping))
    out = tmp_path / "toy"
    assert cli.main(["reproduce", "toy", "--scale", "smoke", "--out", str(out)]) == 130
    assert f"points measured so far are saved in {out}" in capsys.readouterr().err
    assert Path(out, "config.json").is_file()


# --- fig1a -----------------------------------------------------------------------------------


def _fig1a_rows(rewards: dict, epochs: int) -> list[dict]:
    return [
        {
            "learner": learner,
            "seed": seed,
            "epoch": epoch + 1,
            "agent_steps": 100,
            "mean_return": 0.0,
            "mean_reward": level * min(1.0, (epoch + 1) / 10) + 0.001 * seed,
            "entropy": 1.0,
            "zone_1_share": 0.9 if learner == "no-entropy" else 0.5,
            "zone_2_share": 0.1,
            "play_seconds": 0.1,
            "seconds": 5.0 if learner == "independent" else 1.0,
        }
        for learner, level in rewards.items()
        for seed in range(2)
        for epoch in range(epochs)
    ]


def test_fig1a_concludes_what_the_curves_say():
    rows = _fig1a_rows({"symmetric": 0.2, "independent": 0.1, "no-entropy": 0.15}, 20)
    conclusion = fig1a.conclude(rows)
    assert conclusion.facts["symmetric"]["final_reward"] == pytest.approx([0.2, 0.201])
    # 90% of the best mean, 0.2005, is passed where 0.2 * epoch/10 (+ 0.001) first exceeds 0.18045.
    assert conclusion.facts["symmetric"]["epochs_to_90_percent"] == [10, 9]
    assert conclusion.facts["independent"]["epochs_to_90_percent"] == [None, None]
    assert conclusion.facts["no-entropy"]["final_zone_1_share"] == pytest.approx([0.9, 0.9])
    text = " ".join(conclusion.verdict)
    assert "Symm-NN 0.2005, Symm-NN-NR 0.1505, Ind-NN 0.1005" in text
    assert "5.0 times as long" in text
    assert "saves 80%" in text
    assert set(fig1a.STUDY.draw(rows, conclusion.facts)) == {"fig1a", "fig2b"}


@pytest.mark.slow
def test_fig1a_measures_a_run_that_can_go_on(tmp_path):
    settings = {
        "learner": "number", "seed": 1, "num_agents": 10, "horizon": 4, "num_epochs": 2,
    }  # fmt: skip
    rows = fig1a.measure(settings, tmp_path / "run")
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[0]["agent_steps"] == 40
    assert fig1a.measure(settings, tmp_path / "run") == rows
    assert '"identity": "number"' in (tmp_path / "run" / "config.json").read_text()
    longer = fig1a.measure(settings | {"num_epochs": 3}, tmp_path / "run")
    assert [row["epoch"] for row in longer] == [1, 2, 3]
    for other in ({"num_epochs": 2}, {"seed": 2}, {"learner": "symmetric"}):
        with pytest.raises(ValueError, match="is a run with other settings"):
            fig1a.measure(settings | other, tmp_path / "run")
