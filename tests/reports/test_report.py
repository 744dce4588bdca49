"""The report: complete, self-contained, drawn from saved files alone."""

import base64
import dataclasses
import gzip
import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crowdnash.certificates.result import Exploitability
from crowdnash.games.sis import SIS
from crowdnash.interval import Interval
from crowdnash.reports import html as html_page
from crowdnash.reports.page import page as page_of
from crowdnash.reports.pictures import draw_pictures
from crowdnash.reports.report import SavedRun, write_report
from crowdnash.runs import experiment
from crowdnash.runs.config import RunConfig
from crowdnash.runs.directory import RunDirectory
from crowdnash.runs.evaluation import LowerBoundCost

PICTURES = ("exploitability", "gains", "policy", "population_flow", "mean_return", "diagnostics")


def run(out: Path, **settings) -> Path:
    config = RunConfig.create(
        "sis",
        game_parameters={"num_agents": 12, "horizon": 3},
        num_epochs=4,
        td_epochs=5,
        evaluate_every=2,
        num_evaluation_trajectories=8,
        **({"own_influence_agents": 2, "groups": "symmetric"} | settings),
    )
    experiment.run(config, out)
    return out


@pytest.fixture(scope="module")
def reported(tmp_path_factory) -> Path:
    out = run(tmp_path_factory.mktemp("report") / "run")
    write_report(out)
    return out


@pytest.mark.slow
def test_pictures_are_there_and_show_something(reported):
    for name in PICTURES:
        with Image.open(reported / f"{name}.png") as picture:
            assert picture.width > 500
            colours = np.asarray(picture.convert("RGB")).reshape(-1, 3)
            assert len(np.unique(colours, axis=0)) > 20
        svg = (reported / f"{name}.svg").read_text()
        assert svg.startswith("<?xml")
        assert svg.rstrip().endswith("</svg>")
        assert len(svg) > 10_000


def page_content(page: str) -> dict:
    """The data that the page's script draws from."""
    data = re.search(r'<script type="application/json" id="report-data">(.*?)</script>', page)
    assert data is not None
    return json.loads(data[1])


def hash_of(script: bytes) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'"


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
    # The page's own rule lets two scripts run, by their hashes, and nothing be fetched.
    data, packed, script = re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL)
    library = gzip.decompress(base64.b64decode(packed))
    allowed = f"{hash_of(script.encode())} {hash_of(library)}"
    rule = f"img-src data:; style-src 'unsafe-inline'; script-src {allowed}; base-uri"
    assert f"default-src 'none'; {rule}" in page
    assert page_content(page) == json.loads(data)
    assert "eval(" not in script
    assert "innerHTML" not in script
    assert len(page) < 1_500_000


def test_plotly_is_the_published_file():
    library = gzip.decompress(html_page._asset("plotly-cartesian.min.js.gz"))
    assert hashlib.sha256(library).hexdigest() == (
        "79542150855a52c567260e3137095dbe2b744e6d702a5cabe67da246942fba7a"
    )
    assert b"plotly.js (cartesian - minified) v4.1.1" in library[:200]
    assert b"MIT license" in library[:400]
    assert b"eval(" not in library
    assert b"new Function" not in library


def test_page_has_the_summary_settings_and_tables(reported):
    page = (reported / "report.html").read_text()
    evaluation = SavedRun.load(reported).evaluation
    assert evaluation is not None
    upper = evaluation.policies["last"].exploitability.maximum.upper
    assert f"<h1>{SIS.summary}</h1>" in page
    assert "sis, 12 agents, 3 steps, one shared policy" in page
    lead = page[page.index('class="lead"') :]
    assert lead.startswith(
        'class="lead">If all 12 agents play the learned policy (last iterate), no single agent'
    )
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
    assert before == {name: (copy / name).read_bytes() for name in before}


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
        "diagnostics",
    ]
    assert "not finished: 4 of 4 epochs" in write_report(copy).read_text()
    (copy / "metrics.jsonl").unlink()
    with pytest.raises(ValueError, match="nothing to report yet"):
        write_report(copy)


def with_evaluation(saved: SavedRun, policies: dict, **changes) -> str:
    """The page, without pictures, of a run whose policies did like this."""
    assert saved.evaluation is not None
    evaluation = dataclasses.replace(saved.evaluation, policies=policies, **changes)
    return page_of(dataclasses.replace(saved, evaluation=evaluation), [])


def test_a_lower_return_than_the_uniform_policy_s_is_explained(reported):
    saved = SavedRun.load(reported)
    policies = dict(saved.evaluation.policies)
    for mine, said in ((Interval(-5.0, -4.0), True), (Interval(5.0, 6.0), False)):
        policies["last"] = dataclasses.replace(policies["last"], mean_return=mine)
        page = with_evaluation(saved, policies)
        assert ("pays an agent less on average than the uniform policy" in page) is said
        assert ("−5.000 to −4.000 against" in page) is said


def test_a_bound_from_below_or_none_is_said_so(reported):
    saved = SavedRun.load(reported)
    last = saved.evaluation.policies["last"]
    certificate = Exploitability(
        agents=np.array([0, 9]),
        value=np.array([1.0, 2.0]),
        lower=np.array([-0.25, 0.5]),
        upper=np.full(2, np.inf),
        standard_error=np.array([0.125, 0.25]),
        upper_standard_error=np.zeros(2),
        maximum=Interval(0.125, np.inf),
        mean=Interval(0.0, np.inf),
        confidence=0.9,
        method="learned",
        num_trajectories=7,
    )
    page = with_evaluation(saved, {"last": dataclasses.replace(last, exploitability=certificate)})
    assert "picked beforehand gains at least 0.125 in total reward over 3 steps" in page
    assert "the 2 of them at least 0.000 on average" in page
    assert "Samples give no upper bound" in page
    assert '<div class="figure">≥ 0.125</div>' in page
    assert "Each interval holds with 90% confidence." in page
    assert [column["name"] for column in page_content(page)["agents"]["columns"]][1:4] == [
        "gain",
        "standard_error",
        "value",
    ]
    unknown = dataclasses.replace(last, exploitability=None)
    cost = LowerBoundCost(agents=4, agent_steps=1000, seconds=60.0)
    page = with_evaluation(saved, {"last": unknown}, lower_bound_cost=cost)
    assert "Whether this is near a Nash equilibrium was not measured." in page
    assert "--best-response-agents 4" in page
    assert 'id="agents"' not in page


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
    assert len({chart["choice"] for chart in charts}) == 5
    assert charts[-1]["choice"] == "spread over agents"
    (gains,) = page_content(page)["figures"]["gains_by_group"]["charts"]
    assert [trace["x"] for trace in gains["figure"]["data"]] == [[0, 1, 2, 3]] * 2
    assert (out / "gains_by_group.png").stat().st_size > 5000


def test_charts_hold_what_the_run_saved(reported):
    saved = SavedRun.load(reported)
    drawn = page_content((reported / "report.html").read_text())["figures"]
    assert list(drawn) == list(PICTURES)
    (chart,) = drawn["exploitability"]["charts"]
    band, largest, *_ = chart["figure"]["data"]
    assert largest["x"] == [2, 4]
    for k, end in enumerate(("lower", "upper")):
        expected = [row[f"exploitability_max_{end}"] for row in saved.certified_rows]
        assert [ends[k] for ends in largest["customdata"]] == pytest.approx(expected, rel=1e-5)
        half = band["y"][:2] if end == "upper" else band["y"][:1:-1]
        assert half == pytest.approx(expected, rel=1e-5)
    assert saved.evaluation is not None
    (chart,) = drawn["gains"]["charts"]
    ends = chart["figure"]["data"][1]["customdata"]
    assert [ends[k][0] for k in (0, -1)] == pytest.approx(
        [f(saved.evaluation.policies["last"].exploitability.lower) for f in (np.min, np.max)],
        rel=1e-5,
    )
    charts = drawn["policy"]["charts"]
    assert [chart["title"] for chart in charts] == ["State infected", "State healthy"]
    probs = np.asarray(saved.policies["last"].probs)
    for state, chart in enumerate(charts):
        (trace,) = chart["figure"]["data"]
        np.testing.assert_allclose(trace["z"], probs[0, :, state].T, rtol=1e-5)
    for chart in drawn["population_flow"]["charts"]:
        total = np.sum([trace["y"] for trace in chart["figure"]["data"]], axis=0)
        np.testing.assert_allclose(total, 1.0, rtol=1e-4)


def test_alpha_and_beta_are_in_the_summary_if_they_were_saved(reported, tmp_path):
    saved = SavedRun.load(reported).game_record.symmetry
    assert saved is not None
    page = (reported / "report.html").read_text()
    head = page[: page.index("<h2>")]
    assert f"α = {saved.alpha:.3f}" in head
    assert f"β = {saved.beta:.3f}" in head
    copy = Path(shutil.copytree(reported, tmp_path / "copy"))
    for name in ("symmetry.json", "agents.npz"):  # as runs that kept none
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
