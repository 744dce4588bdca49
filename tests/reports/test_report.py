"""The report: complete, self-contained, drawn from saved files alone."""

import base64
import dataclasses
import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crowdnash.interval import Interval
from crowdnash.reports import html as html_page
from crowdnash.reports import plotting, report
from crowdnash.reports.agent_table import AgentGains
from crowdnash.reports.chart import Chart, Series, numbers, page_data
from crowdnash.reports.picture_data import gain_quantiles
from crowdnash.reports.report import SavedRun, draw_pictures, write_report
from crowdnash.runs import experiment
from crowdnash.runs.config import RunConfig
from crowdnash.runs.directory import RunDirectory

PICTURES = ("exploitability", "gains", "policy", "population_flow", "mean_return")


def run(out: Path, **settings) -> Path:
    config = RunConfig.create(
        "sis",
        game_parameters={"num_agents": 12, "horizon": 3},
        num_epochs=4,
        td_epochs=5,
        evaluate_every=2,
        num_evaluation_trajectories=8,
        **({"own_influence_agents": 2} | settings),
    )
    experiment.run(config, out)
    return out


@pytest.fixture(scope="module")
def reported(tmp_path_factory) -> Path:
    out = run(tmp_path_factory.mktemp("report") / "run")
    write_report(out)
    return out


def test_pictures_are_there_and_show_something(reported):
    for name in PICTURES:
        with Image.open(reported / f"{name}.png") as picture:
            assert picture.width > 600
            colours = np.asarray(picture.convert("RGB")).reshape(-1, 3)
            assert len(np.unique(colours, axis=0)) > 20
        svg = (reported / f"{name}.svg").read_text()
        assert svg.startswith("<?xml")
        assert svg.rstrip().endswith("</svg>")
        assert len(svg) > 10_000


def page_content(page: str) -> dict:
    """The data that the page's script draws from."""
    found = re.search(r'<script type="application/json" id="report-data">(.*?)</script>', page)
    assert found is not None
    return json.loads(found[1])


def test_page_is_self_contained_and_may_load_nothing(reported):
    page = (reported / "report.html").read_text()
    assert "http:" not in page
    assert "https:" not in page
    assert "<link" not in page
    assert "url(" not in page
    assert "@import" not in page
    sources = re.findall(r'src="([^"]{0,30})', page)
    assert len(sources) == len(PICTURES)
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    # The page's own rule lets this one script run, by its hash, and nothing be fetched.
    data, script = re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rule = f"img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri"
    assert f"default-src 'none'; {rule}" in page
    assert page_content(page) == json.loads(data)
    assert "eval(" not in script
    assert len(re.findall("innerHTML", script)) == 1
    assert 'innerHTML = "<svg></svg>"' in script


def test_page_has_the_summary_settings_and_tables(reported):
    page = (reported / "report.html").read_text()
    evaluation = SavedRun.load(reported).evaluation
    assert evaluation is not None
    upper = evaluation.policies["last"].exploitability.maximum.upper
    assert "<h1>sis: 12 agents, 3 steps, one shared policy</h1>" in page
    assert f"by more than {upper:.3f} by deviating alone" in page
    assert page.index("largest exploitability") < page.index("<h2>Charts")
    for text in ("td_epochs", "uniform policy", "isolation_aversion", "95% confidence"):
        assert text in page


def test_report_needs_no_game_and_no_computation(reported, tmp_path, monkeypatch):
    copy = Path(shutil.copytree(reported, tmp_path / "copy"))
    monkeypatch.setattr(RunConfig, "draw_game", pytest.fail)
    before = {name: (copy / name).read_bytes() for name in ("gains.svg", "policy.png")}
    page = write_report(copy)
    assert page == copy / "report.html"
    assert page.read_bytes() == (reported / "report.html").read_bytes()
    for name, content in before.items():
        assert (copy / name).read_bytes() == content


def test_text_is_escaped(reported, tmp_path):
    copy = Path(shutil.copytree(reported, tmp_path / "copy"))
    evaluation = SavedRun.load(copy).evaluation
    policies = {
        name: dataclasses.replace(
            one, exploitability=dataclasses.replace(one.exploitability, method="<b>&amp;")
        )
        for name, one in evaluation.policies.items()
    }
    dataclasses.replace(evaluation, policies=policies).save(RunDirectory.open(copy))
    page = write_report(copy).read_text()
    assert "<b>&amp;" not in page
    assert "&lt;b&gt;&amp;amp;" in page


def test_unfinished_run_gets_what_there_is(reported, tmp_path):
    copy = Path(shutil.copytree(reported, tmp_path / "copy"))
    for name in ("policy.npz", "last_policy.npz", "evaluation.json"):
        (copy / name).unlink()
    assert [picture.name for picture in draw_pictures(SavedRun.load(copy))] == [
        "exploitability",
        "mean_return",
    ]
    assert "not finished: 4 of 4 epochs" in write_report(copy).read_text()
    (copy / "metrics.jsonl").unlink()
    with pytest.raises(ValueError, match="nothing to report yet"):
        write_report(copy)


def test_damaged_evaluation_is_named(reported, tmp_path):
    copy = Path(shutil.copytree(reported, tmp_path / "copy"))
    (copy / "evaluation.npz").write_bytes((reported / "evaluation.npz").read_bytes()[:300])
    with pytest.raises(ValueError, match=r"evaluation.npz is not what was evaluated"):
        write_report(copy)


@pytest.mark.slow
def test_groups_are_shown_with_their_spread(tmp_path):
    out = run(tmp_path / "run", groups=4, own_influence_agents=0)
    page = write_report(out).read_text()
    assert "4 groups" in page
    assert "standard deviation over all agents" in page
    charts = page_content(page)["figures"]["policy"]["charts"]
    assert len({chart["choice"] for chart in charts}) == 4


def test_representative_groups_by_hand():
    probs = np.zeros((4, 1, 1, 2), np.float32)
    probs[:, 0, 0, 0] = [0.9, 0.1, 0.5, 0.0]
    probs[..., 1] = 1 - probs[..., 0]
    assert plotting.representative_groups(probs, np.array([1, 1, 1, 0])) == (1, 2, 0)
    assert plotting.representative_groups(probs[:1], np.array([7])) == (0,)


def test_many_states_show_the_most_visited():
    flow = np.zeros((2, 30, 2), np.float32)
    flow[:, 5:17] = np.linspace(1, 2, 12)[None, :, None]
    assert plotting.most_visited(flow, 30) == tuple(range(5, 17))
    figure = plotting.population_flow(
        {"last iterate": flow / flow.sum((1, 2), keepdims=True)},
        [f"s{index}" for index in range(30)],
        ["left", "right"],
    )
    assert "all others" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_long_runs_make_small_pictures():
    epochs = np.arange(100_000)
    figure = plotting.return_over_epochs(epochs, np.sin(epochs / 1e4), None)
    assert len(report._render(figure, "svg")) < 300_000


def test_charts_hold_what_the_run_saved(reported):
    saved = SavedRun.load(reported)
    figures = page_content((reported / "report.html").read_text())["figures"]
    assert list(figures) == list(PICTURES)
    (chart,) = figures["exploitability"]["charts"]
    assert chart["x"] == [2, 4]
    largest = chart["series"][0]
    for name, end in (("low", "lower"), ("high", "upper")):
        expected = [row[f"exploitability_max_{end}"] for row in saved.certified_rows]
        assert largest[name] == pytest.approx(expected, rel=1e-5)
    assert saved.evaluation is not None
    (chart,) = figures["gains"]["charts"]
    assert [chart["series"][0]["low"][k] for k in (0, -1)] == pytest.approx(
        [f(saved.evaluation.policies["last"].exploitability.lower) for f in (np.min, np.max)],
        rel=1e-5,
    )
    charts = figures["policy"]["charts"]
    assert [chart["title"] for chart in charts] == [
        "Actions in state infected",
        "Actions in state healthy",
    ]
    probs = np.asarray(saved.policies["last"].probs)
    for state, chart in enumerate(charts):
        layers = np.array([series["y"] for series in chart["series"]])
        np.testing.assert_allclose(layers, probs[0, :, state].T, rtol=1e-5)
    for chart in figures["population_flow"]["charts"]:
        total = np.sum([series["y"] for series in chart["series"]], axis=0)
        np.testing.assert_allclose(total, 1.0, rtol=1e-4)


def test_alpha_and_beta_are_in_the_summary_if_they_were_saved(reported, tmp_path):
    saved = SavedRun.load(reported).game_record.symmetry
    assert saved is not None
    page = (reported / "report.html").read_text()
    head = page[: page.index("<h2>")]
    assert f"α = {saved.alpha:.3f}" in head
    assert f"β = {saved.beta:.3f}" in head
    copy = Path(shutil.copytree(reported, tmp_path / "copy"))
    for name in ("symmetry.json", "agents.npz"):  # as runs of old
        (copy / name).unlink()
    page = write_report(copy).read_text()
    assert "α" not in page
    names = [column["name"] for column in page_content(page)["agents"]["columns"]]
    assert names == ["agent", "lower", "upper", "standard_error"]


def test_damaged_record_of_the_game_is_named(reported, tmp_path):
    copy = Path(shutil.copytree(reported, tmp_path / "copy"))
    (copy / "symmetry.json").write_text('{"format": 1, "alpha": "much"}')
    with pytest.raises(ValueError, match=r"symmetry.json is damaged: KeyError: 'reward_range'"):
        write_report(copy)
    (copy / "symmetry.json").unlink()
    np.savez(copy / "agents.npz", recovery=np.zeros(11))
    with pytest.raises(ValueError, match=r"agents.npz is not for this run: 'recovery' must be"):
        write_report(copy)


def test_table_of_agents_by_hand():
    gains = {"lower": np.array([0.1, 0.3, 0.2]), "upper": np.array([0.2, 0.4, 0.6])}
    parameters = {"cost": np.arange(10.0), "group": np.arange(10.0) + 0.5}
    groups = np.arange(10) % 2
    table = AgentGains.of(np.array([4, 7, 9]), gains, parameters, groups, "Gains")
    assert [(c.name, c.values.tolist()) for c in table.columns] == [
        ("agent", [9, 7, 4]),
        ("lower", [0.2, 0.3, 0.1]),
        ("upper", [0.6, 0.4, 0.2]),
        ("group", [1, 1, 0]),
        ("cost", [9.0, 7.0, 4.0]),
        ("own_group", [9.5, 7.5, 4.5]),  # a parameter that bears a column's name
    ]
    content = table.content()
    assert content["x_names"] == ["cost", "own_group", "group"]
    assert content["sort"] == "upper"
    exact = AgentGains.of(np.array([0, 1]), {"gain": np.array([0.0, -0.5])}, {}, None, "Gains")
    assert exact.gain == ("gain", "gain")
    assert "<td>−0.5000</td>" in "".join(exact.section())


def test_many_agents_write_a_bounded_number():
    count = 100_000
    gain = np.linspace(0.0, 1.0, count)
    parameters = {f"p{k}": gain for k in range(12)}
    table = AgentGains.of(np.arange(count), {"gain": gain}, parameters, None, "Gains")
    assert len(table.columns) == 2 + 8
    assert table.columns[0].values.tolist() == list(range(count - 1, count - 1001, -1))
    page = "".join(table.section())
    assert "Of 100000 agents, the 1000 with the largest gains are kept" in page
    assert "4 more parameters of an agent are in agents.npz" in page
    assert page.count("<tr>") == 1 + 50
    assert len(json.dumps(table.content())) < 150_000


def test_data_in_the_page_cannot_leave_its_element():
    text = page_data({"name": "</script><!-- & \u2028"})
    assert "<" not in text
    assert ">" not in text
    assert "&" not in text
    assert text.isascii()
    assert json.loads(text) == {"name": "</script><!-- & \u2028"}


def test_numbers_for_charts():
    values = np.array([1.23456789, np.nan, np.inf, -0.0])
    assert numbers(values) == [1.23457, None, None, 0.0]
    assert numbers(np.array([3, 10**9])) == [3, 10**9]
    long = Chart("", "epoch", "", np.arange(100_000), [Series("", np.zeros(100_000))])
    kept = long.content()["x"]
    assert len(kept) == 1500
    assert (kept[0], kept[-1]) == (0, 99_999)
    with pytest.raises(ValueError, match="series must be as long as x, 3, but 'y' has 2 values"):
        Chart("", "", "", np.arange(3), [Series("y", np.zeros(2))])


def test_numbers_in_the_text():
    assert [html_page.number(x) for x in (-0.0001, -1.5, 0.0, 2.0)] == [
        "0.000",
        "−1.500",
        "0.000",
        "2.000",
    ]
    assert html_page.interval(Interval(0.5, 0.5)) == "0.500"
    assert html_page.interval(Interval(-0.5, 0.5)) == "−0.500\u2009–\u20090.500"


def test_gain_quantiles_by_hand():
    shares, low, high = gain_quantiles(np.array([2.0, 0.0]), np.array([3.0, 1.0]))
    assert shares.tolist() == [0.0, 0.5, 1.0]
    assert low.tolist() == [0.0, 1.0, 2.0]
    assert high.tolist() == [1.0, 2.0, 3.0]
