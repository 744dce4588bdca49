"""The paper's figures and cost claims: what each study measures, concludes and draws."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest
from test_reproduction import TOY

import crowdnash as cn
from crowdnash import cli, mean_field
from crowdnash.reproduction import (
    costs,
    everything,
    fig2a,
    learning_curves,
    lookup,
    studies,
    sweep,
)
from crowdnash.reproduction.costs_pictures import duration
from crowdnash.reproduction.learning_curves import evaluated_epochs
from crowdnash.reproduction.learning_curves_pictures import OUTPUTS
from crowdnash.reproduction.robust_means import interquartile_mean
from crowdnash.reproduction.study import Point

# --- interquartile means


def test_interquartile_mean_by_hand():
    # Eight seeds: the lowest and highest two are left out, (3 + 4 + 5 + 6) / 4.
    values = np.array([1, 2, 3, 4, 5, 6, 70, -80.0])[:, None]
    estimate = interquartile_mean(values)
    # Sorted: -80 1 | 2 3 4 5 | 6 70.
    assert estimate.mean[0] == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert estimate.low[0] < estimate.mean[0] < estimate.high[0]
    assert interquartile_mean(values[::-1]).mean[0] == estimate.mean[0]


def test_interquartile_interval_covers_as_often_as_it_says():
    # 20 seeds, 400 trials: a percentile interval for so few seeds covers a little less than 95%.
    random = np.random.default_rng(1)
    estimate = interquartile_mean(random.normal(size=(20, 400)))
    covered = ((estimate.low < 0) & (estimate.high > 0)).mean()
    assert 0.86 < covered < 0.98
    # The width is that of the interquartile mean of normal numbers: its variance is 1.2 / R.
    width = np.median(estimate.high - estimate.low) / (2 * 1.96 * math.sqrt(1.2 / 20))
    assert 0.8 < width < 1.2


def test_interquartile_mean_of_one_seed_and_of_none():
    estimate = interquartile_mean(np.array([[3.0, 4.0]]))
    for end in estimate:
        np.testing.assert_array_equal(end, [3.0, 4.0])
    with pytest.raises(ValueError, match="at least one seed, not 0"):
        interquartile_mean(np.zeros((0, 2)))
    with pytest.raises(ValueError, match="values must be finite"):
        interquartile_mean(np.array([[1.0], [math.nan]]))


# --- learning curves (Figs. 1b, 1c)


def test_evaluated_epochs_reach_from_the_first_to_the_last():
    assert evaluated_epochs(300, 4) == (1, 7, 45, 300)
    assert evaluated_epochs(3, 16) == (1, 2, 3)


def _curve_settings(figure, **changes):
    (point, *_) = lookup(figure).points("smoke", 0)
    small = {"num_agents": 12, "num_epochs": 3, "td_epochs": 5, "num_evaluations": 2}
    return {**point.settings, **small, "num_paths": 8, **changes}


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["theorem", "practical", "fitted"])
def test_learning_curves_are_those_of_solve(preset):
    settings = _curve_settings("fig1b", preset=preset)
    rows = learning_curves.measure(settings)
    game_key, learning_key, _ = jax.random.split(jax.random.key(1), 3)
    game = cn.games.RockPaperScissors.sample(game_key, num_agents=12, heterogeneity=0.05)
    settings = {"num_epochs": 3, "td_epochs": 5, "temperature": 0.01}
    learner, names = {
        "theorem": (cn.PolicyMirrorDescent(**settings), ("average",)),
        "practical": (
            cn.PolicyMirrorDescent.practical(evaluation="td", **settings),
            ("average", "last"),
        ),
        "fitted": (
            cn.PolicyMirrorDescent.practical(groups="symmetric", **settings),
            ("last",),
        ),
    }[preset]
    result = cn.solve(game, learner, key=learning_key)
    # A-RPS is certified exactly, so no random number comes between.
    expected = cn.exploitability(game, result.policies[names[0]], key=jax.random.key(9))
    (row,) = (
        row
        for row in rows
        if (row["run"], row["output"], row.get("epoch")) == (1, f"{preset}-{names[0]}", 3)
    )
    assert row["method"] == "exact"
    assert row["largest"] == pytest.approx(expected.maximum.upper, rel=1e-4)
    assert row["mean"] == pytest.approx(expected.mean.upper, rel=1e-4)
    assert row["agent_steps"] == 3 * 5 * 12 * game.horizon
    outputs = {row["output"] for row in rows} - {"game"}
    assert outputs == {f"{preset}-{name}" for name in names}
    assert {row["epoch"] for row in rows if row["output"] != "game"} == {1, 3}


def test_heterogeneity_is_the_paper_s():
    for figure, alpha in (("fig1b", 0.0), ("fig1c", 0.1)):
        game = learning_curves.BENCHMARKS[figure].sample(jax.random.key(0), 1000)
        sym = cn.symmetry(game)
        assert sym.alpha.upper == pytest.approx(alpha, abs=0.015)
        assert sym.beta.upper == pytest.approx(0.1, abs=0.015)


def _curve_rows(levels: dict) -> list[dict]:
    rows = []
    for groups, level in levels.items():
        for run in range(4):
            rows.append({"groups": groups, "output": "game", "alpha": 0.1, "beta": 0.1})
            rows += [
                {
                    "groups": groups,
                    "output": output,
                    "run": run,
                    "epoch": epoch,
                    "agent_steps": 100 * epoch,
                    "learning_seconds": 0.5 * (epoch - 1),
                    "largest": 2 * level / epoch + 0.01 * run,
                    "mean": level / epoch + 0.01 * run,
                }
                for output in OUTPUTS
                for epoch in (1, 10)
            ]
    return rows


def test_learning_curves_conclude_and_draw():
    study = lookup("fig1c")
    rows = _curve_rows({"symmetric": 1.0, 16: 0.5, "independent": 3.0})
    conclusion = study.conclude(rows)
    fact = conclusion.facts["outputs"]["practical-last"]["16"]
    assert fact["mean"]["iqm"] == pytest.approx([0.5 + 0.015, 0.05 + 0.015])
    assert fact["largest"]["best"] == pytest.approx(0.1 + 0.015)
    assert fact["seconds_per_epoch"] == pytest.approx(0.5)
    start = "Algorithm 2 as printed, mean"
    (said,) = (text for text in conclusion.verdict if text.startswith(start))
    assert said.index("G = 16") < said.index("Symm-PMD") < said.index("IPMD")
    json.dumps(conclusion.facts)
    (figure,) = study.draw(rows, conclusion.facts).values()
    for ax in figure.axes:
        assert len(ax.lines) == 3
    tops = {ax.get_ylim() for ax in figure.axes[:3]}
    assert len(tops) == 1


# --- fig2a


def test_games_of_fig2a_have_the_difference_that_they_say():
    for sweep_name, symbol in (("transitions", "alpha"), ("rewards", "beta")):
        game = fig2a.sample_game(sweep_name, jax.random.key(0), 500, 0.2)
        sym = cn.symmetry(game)
        other = {"alpha": "beta", "beta": "alpha"}[symbol]
        assert getattr(sym, symbol).upper == pytest.approx(0.2, rel=0.1)
        assert getattr(sym, other).upper == pytest.approx(0.0, abs=1e-6)


@pytest.mark.slow
def test_equilibria_of_fig2a_are_exact_and_those_of_single_solves():
    games = [fig2a.sample_game("rewards", jax.random.key(k), 40, 0.1 * k) for k in range(3)]
    tables = fig2a.equilibria(games)
    assert tables.dtype == np.float64
    for game, probs in zip(games, tables, strict=True):
        mfg = cn.induced_game(game)
        assert mean_field.exploitability(mfg, probs) < 1e-5
    alone = mean_field.solve(
        cn.induced_game(games[2]),
        num_iterations=20_000,
        tolerance=1e-6,
        step_size=3.0,
        temperature=0.001,
    )
    np.testing.assert_allclose(tables[2], alone.policy, atol=1e-3)


@pytest.mark.slow
def test_fig2a_from_points_to_picture(tmp_path):
    def points(scale, seed):
        return tuple(
            Point(p.name, {**p.settings, "num_agents": 100, "num_epochs": 3, "num_paths": 32})
            for p in fig2a.STUDY.points(scale, seed)
        )

    study = dataclasses.replace(fig2a.STUDY, points=points)
    results = sweep.run(study, tmp_path / "fig2a", scale="smoke", seed=0)
    exact = [row for row in results.rows if row["policy"] == "exact"]
    assert max(row["mean_field_exploitability"] for row in exact) < 1e-5
    # Agents who are all alike gain nothing against the exact equilibrium but what N leaves.
    alike = [row["largest"] for row in exact if row["difference"] == 0]
    differing = [row["largest"] for row in exact if row["difference"] == 0.2]
    assert max(alike) < min(differing)
    assert {len(table.columns) for table in results.conclusion.tables} == {9}
    other = [row for row in results.rows if row["policy"] == "exact-other"]
    assert max(row["mean_field_exploitability"] for row in other) < 1e-5
    (picture,) = sweep.draw(study, tmp_path / "fig2a")
    assert picture.name == "fig2a.png"


# --- costs


def _cost_rows(seconds: dict) -> list[dict]:
    return [
        dict(point.settings)
        | {
            "first_seconds": 5.0,
            "least_seconds": 0.5 * seconds[point.name],
            "seconds": seconds[point.name],
            "greatest_seconds": 2 * seconds[point.name],
            "device": "cpu",
            "machine": "any",
            "cores": 2,
            "jax": "1",
        }
        for point in costs.STUDY.points("paper", 0)
    ]


def test_costs_compare_by_hand():
    names = [point.name for point in costs.STUDY.points("paper", 0)]
    seconds = dict.fromkeys(names, 1.0) | {
        "learn-sis-symmetric": 0.02,
        "learn-sis-independent": 0.05,
        "certify-sis": 0.5,
        "learn-taxi-none-1000": 2.0,
        "learn-taxi-independent-1000": 5.0,
        "learn-taxi-independent-2": 0.4,
    }
    rows = _cost_rows(seconds)
    conclusion = costs.conclude(rows)
    ours = {claim["claim"]: claim["ours"] for claim in conclusion.facts["claims"]}
    assert ours["Symm-PMD on A-SIS, a run"] == pytest.approx(300 * 0.02)
    assert ours["A-SIS: Symm-PMD saves against IPMD"] == pytest.approx(0.6)
    assert ours["exploitability of a policy on A-SIS"] == pytest.approx(0.5)
    assert ours["PPO (Symm-NN) on A-Taxi, a run"] == pytest.approx(2000)
    assert ours["A-Taxi: Symm-NN saves against Ind-NN"] == pytest.approx(0.6)
    # 500 fleets of two, 0.4 s each, against 2 s.
    in_turn = "A-Taxi: Symm-NN saves against Ind-NN in turn"
    assert ours[in_turn] == pytest.approx(1 - 2 / 200)
    assert len(conclusion.tables[0].rows) == len(ours)
    (figure,) = costs.STUDY.draw(rows, conclusion.facts).values()
    assert len(figure.axes[0].get_yticks()) == sum("run" in n or "expl" in n for n in ours)


@pytest.mark.slow
def test_costs_are_measured():
    settings = {"task": "learn", "game": "sis", "groups": "symmetric", "num_agents": 10}
    (row,) = costs.measure({**settings, "seed": 0, "repeats": 3})
    assert 0 < row["least_seconds"] <= row["seconds"] <= row["greatest_seconds"]
    assert row["first_seconds"] > row["seconds"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "0.25 s"), (90.0, "90 s"), (240.0, "4 min"), (7200.0, "2 h"), (3600.0, "60 min")],
)
def test_durations_for_readers(seconds, text):
    assert duration(seconds) == text


# --- all


def test_fig2b_is_the_study_of_fig1a():
    assert lookup("fig2b") is lookup("fig1a")


@pytest.fixture
def two_toys(monkeypatch):
    toys = {name: dataclasses.replace(TOY, name=name) for name in ("toy", "other")}
    for module in (everything, cli_module(), studies):
        monkeypatch.setattr(module, "STUDIES", toys)
    return toys


def cli_module():
    from crowdnash.cli import reproduce as cli_reproduce

    return cli_reproduce


def test_all_measures_every_study_and_goes_on(two_toys, tmp_path, capsys):
    out = tmp_path / "all"
    arguments = ["reproduce", "all", "--scale", "smoke", "--out", str(out)]
    assert cli.main(arguments) == 0
    printed = capsys.readouterr()
    for name in two_toys:
        assert f"picture: {out / name / 'curve.png'}" in printed.out
    assert f"all of it: {out / 'summary.md'}" in printed.out
    page = (out / "summary.md").read_text()
    assert page.startswith("# The paper, measured again: scale smoke, seed 0")
    assert "![curve](other/curve.png)" in page
    (out / "other" / "points" / "2-1.json").unlink()
    measured = []

    def observer_of(study):
        return sweep.SweepObserver(on_point=lambda name, *_: measured.append((study.name, name)))

    everything.run(out, scale="smoke", observer_of=observer_of)
    assert measured == [("other", "2-1")]
    assert cli.main([*arguments, "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == set(two_toys)


def test_all_refuses_a_folder_of_something_else(two_toys, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match=r"new, empty or of `reproduce all`.* holds thesis\.tex"):
        everything.run(tmp_path, scale="smoke")
    with pytest.raises(ValueError, match="out must be a folder"):
        everything.run(tmp_path / "thesis.tex", scale="smoke")
