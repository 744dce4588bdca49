"""The report: complete, self-contained, drawn from saved files alone."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crowdnash import experiment, plotting, report
from crowdnash.experiment_config import ExperimentConfig
from crowdnash.report import SavedRun, draw_pictures, write_report

PICTURES = ("exploitability", "gains", "policy", "population_flow", "mean_return")


def run(out: Path, **settings) -> Path:
    config = ExperimentConfig.create(
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


def test_page_is_self_contained(reported):
    page = (reported / "report.html").read_text()
    assert "http" not in page
    assert "<script" not in page
    assert "<link" not in page
    sources = re.findall(r'src="([^"]{0,30})', page)
    assert len(sources) == len(PICTURES)
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)


def test_page_has_the_summary_settings_and_tables(reported):
    page = (reported / "report.html").read_text()
    evaluation = SavedRun.load(reported).evaluation
    assert evaluation is not None
    upper = evaluation.policies["last"].maximum.upper
    assert "<h1>sis: 12 agents, 3 steps, one shared policy</h1>" in page
    assert f"by more than {upper:.3f} by deviating alone" in page
    assert page.index("largest exploitability") < page.index("<h2>Pictures")
    for text in ("td_epochs", "uniform policy", "isolation_aversion", "95% confidence"):
        assert text in page


def test_report_needs_no_game_and_no_computation(reported, tmp_path, monkeypatch):
    copy = Path(shutil.copytree(reported, tmp_path / "copy"))
    monkeypatch.setattr(ExperimentConfig, "sample_game", pytest.fail)
    before = {name: (copy / name).read_bytes() for name in ("gains.svg", "policy.png")}
    page = write_report(copy)
    assert page == copy / "report.html"
    assert page.read_bytes() == (reported / "report.html").read_bytes()
    for name, content in before.items():
        assert (copy / name).read_bytes() == content


def test_text_is_escaped(reported, tmp_path):
    copy = Path(shutil.copytree(reported, tmp_path / "copy"))
    text = (copy / "evaluation.json").read_text()
    (copy / "evaluation.json").write_text(
        re.sub(r'"method": "[^"]*"', '"method": "<b>&amp;"', text)
    )
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
    with pytest.raises(ValueError, match=r"evaluation.npz is damaged"):
        write_report(copy)


@pytest.mark.slow
def test_groups_are_shown_with_their_spread(tmp_path):
    out = run(tmp_path / "run", groups=4, own_influence_agents=0)
    page = write_report(out).read_text()
    assert "4 groups" in page
    assert "standard deviation over all agents" in page


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
