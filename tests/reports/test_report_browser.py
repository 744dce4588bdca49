"""The report's page in a browser: drawn, read out, zoomed, sorted, offline, without scripts."""

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import headless_chromium
from crowdnash import Exploitability, Interval
from crowdnash.files import read_arrays, write_arrays
from crowdnash.reports.report import SavedRun, write_report
from crowdnash.runs import experiment
from crowdnash.runs.config import RunConfig
from crowdnash.runs.directory import RunDirectory
from headless_chromium import Chromium, Page

pytestmark = pytest.mark.slow

CHART = 'figure:has([data-charts="{}"]) svg'
EXPLOITABILITY = CHART.format("exploitability")
GAINS = CHART.format("gains")


@pytest.fixture(scope="session")
def browser(tmp_path_factory) -> Iterator[Chromium]:
    program = headless_chromium.find()
    if program is None:
        why = headless_chromium.install()
        program = headless_chromium.find()
        if program is None:
            message = f"Chromium is needed to look at the report, and {why}"
            if os.environ.get("CI"):
                pytest.fail(message)
            pytest.skip(message)
    chromium = Chromium(program, tmp_path_factory.mktemp("profile"))
    yield chromium
    chromium.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("browser") / "run"
    config = RunConfig.create(
        "sis",
        game_parameters={"num_agents": 120, "horizon": 4},
        num_epochs=6,
        td_epochs=5,
        groups=4,
        evaluate_every=2,
        num_evaluation_trajectories=8,
        own_influence_agents=2,
    )
    experiment.run(config, out)
    write_report(out)
    return out


@pytest.fixture
def page(browser, run) -> Iterator[Page]:
    opened = browser.open(run / "report.html")
    yield opened
    assert opened.problems() == []
    opened.close()


def column(page: Page, index: int) -> list[float]:
    cells = page.evaluate(
        f"[...document.querySelectorAll('#agents tbody tr')].map(r => r.cells[{index}].innerText)"
    )
    return [float(cell.replace("−", "-")) for cell in cells]


def text(page: Page, selector: str) -> str:
    return page.evaluate(f"document.querySelector({json.dumps(selector)}).innerText")


def x_labels(page: Page, chart: str) -> list[str]:
    return page.evaluate(
        f"[...document.querySelectorAll({json.dumps(chart)})][0]"
        ".querySelectorAll(':scope > text[text-anchor=middle]').values()"
        ".map(t => t.textContent).toArray().slice(0, -2)"
    )


@pytest.mark.parametrize("width", [1200, 420])
@pytest.mark.parametrize("dark", [False, True])
def test_page_fits_and_asks_for_nothing(browser, run, tmp_path, width, dark):
    page = browser.open(run / "report.html", width=width, dark=dark)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shown = "[...document.querySelectorAll('img[data-charts]')].map(i => i.checkVisibility())"
    assert page.evaluate(shown) == [False] * 5
    # exploitability, gains, two states, two populations, mean return, scatter
    assert page.evaluate("document.querySelectorAll('.canvas > svg').length") == 8
    page.screenshot(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as picture:
        pixels = np.asarray(picture.convert("RGBA")).view(np.uint32)
        corner = picture.convert("L").getpixel((0, 0))
    assert corner < 50 if dark else corner > 250
    assert len(np.unique(pixels)) > 100
    assert page.problems() == []
    page.close()


def test_pointing_reads_out_the_interval(page, run):
    row = SavedRun.load(run).certified_rows[1]
    x, y = page.place(EXPLOITABILITY, 0.52, 0.5)
    page.mouse("mouseMoved", x, y)
    shown = text(page, ".read-out:not([hidden])")
    assert shown.startswith(f"epoch: {row['epoch']}")
    numbers = [float(n) for n in re.findall(r"\d+\.\d+", shown)]
    ends = [row[f"exploitability_{n}_{e}"] for n in ("max", "mean") for e in ("lower", "upper")]
    assert numbers[:4] == pytest.approx(ends, rel=1e-3, abs=1e-4)
    page.mouse("mouseMoved", 2, 2)
    assert page.evaluate("document.querySelector('.read-out:not([hidden])')") is None


def test_dragging_zooms_and_a_double_click_shows_all(page):
    before = x_labels(page, GAINS)
    assert before == ["0%", "20%", "40%", "60%", "80%", "100%"]
    page.drag(GAINS, 0.5, 0.7)
    after = [float(label.rstrip("%")) for label in x_labels(page, GAINS)]
    assert 40 < min(after) < max(after) < 75
    page.click(GAINS, clicks=2)
    assert x_labels(page, GAINS) == before
    page.drag(GAINS, 0.5, 0.7)
    page.click(".zoom-out:not([hidden])")
    assert x_labels(page, GAINS) == before


def test_keyboard_reads_and_zooms(page):
    page.evaluate(f"document.querySelector('{EXPLOITABILITY}').focus()")
    page.press("End")
    page.press("ArrowLeft")
    heard = f"document.querySelector('{EXPLOITABILITY}').parentNode.querySelector('.heard')"
    assert "epoch: 4" in page.evaluate(f"{heard}.textContent")
    assert page.evaluate(f"{heard}.getAttribute('aria-live')") == "polite"
    before = x_labels(page, EXPLOITABILITY)
    page.press("+", text="+")
    assert x_labels(page, EXPLOITABILITY) != before
    page.press("Escape")
    assert x_labels(page, EXPLOITABILITY) == before


def test_legend_hides_a_series(page):
    lines = f"document.querySelector('{EXPLOITABILITY}').querySelectorAll('path[fill=none]').length"
    assert page.evaluate(lines) == 4
    page.click(".legend button")
    assert page.evaluate(lines) == 3
    assert page.evaluate("document.querySelector('.legend button').ariaPressed") == "false"


def test_table_sorts_by_pointer_and_key_and_turns_pages(page, run):
    evaluation = SavedRun.load(run).evaluation
    assert evaluation is not None
    policy = evaluation.policies["last"].exploitability
    assert column(page, 2) == pytest.approx(np.sort(policy.upper)[::-1][:50], abs=1e-4, rel=1e-3)
    page.click("#agents th button")
    assert column(page, 0) == list(range(50))
    assert column(page, 1) == pytest.approx(policy.lower[:50], abs=1e-4, rel=1e-3)
    assert page.evaluate("document.querySelector('#agents th').ariaSort") == "ascending"
    page.evaluate("document.querySelector('#agents th button').focus()")
    page.press("Enter")
    assert column(page, 0) == list(range(119, 69, -1))
    assert page.evaluate("document.querySelector('#agents th').ariaSort") == "descending"
    page.click("#agents .controls button:last-child")
    page.click("#agents .controls button:last-child")
    assert column(page, 0) == list(range(19, -1, -1))
    assert "101–120 of 120 agents" in text(page, "#agents [role=status]")
    assert page.evaluate("document.querySelector('#agents .controls button:last-child').disabled")


def test_search(page, run):
    saved = SavedRun.load(run)
    groups = np.asarray(saved.policies["last"].groups)
    recovery = saved.game.parameters["recovery"]
    field, status = "#agents input", "#agents [role=status]"
    page.type(field, "17")
    assert column(page, 0) == [17]
    page.type(field, "group=2 recovery>0.3")
    expected = np.flatnonzero((groups == 2) & (recovery > 0.3))
    assert 0 < len(expected) < 50
    assert sorted(column(page, 0)) == expected.tolist()
    page.type(field, "recovery>2")
    assert text(page, status) == "no agent is like that"
    for wrong, why in (
        ("size>1", "no column is called “size”"),
        ("group=many", "“many” is not a number"),
        ("first", "neither an agent's number nor a condition"),
    ):
        page.type(field, wrong)
        assert why in text(page, status)
        assert page.evaluate("document.querySelector('#agents input').ariaInvalid") == "true"
    assert page.evaluate("document.querySelector('#agents input').labels.length") == 1


def choose(page: Page, selector: str, value: str) -> None:
    page.evaluate(
        f"(s => {{ s.value = {json.dumps(value)}; s.dispatchEvent(new Event('change')) }})"
        f"(document.querySelector({json.dumps(selector)}))"
    )
    page.settle()


def test_gains_against_a_parameter_that_the_reader_picks(page, run):
    options = page.evaluate("[...document.querySelectorAll('#agents option')].map(o => o.value)")
    assert options == ["susceptibility", "recovery", "isolation_aversion", "group"]
    dots = "document.querySelectorAll('#agents svg svg circle').length"
    assert page.evaluate(dots) == 120
    choose(page, "#agents select", "recovery")
    assert text(page, "#agents h3") == "Gains under the last iterate against recovery"
    assert page.evaluate(dots) == 120
    x, y = page.place("#agents svg svg circle")
    page.mouse("mouseMoved", x, y)
    shown = text(page, "#agents .read-out")
    found = re.match(r"agent (\d+)\s+recovery\s+(\d\.\d+)\s+gain\s+(\S+)", shown)
    assert found is not None, shown
    # The first point is that of the table's first row, unless another lies on it.
    recovery = SavedRun.load(run).game_record.parameters["recovery"]
    assert float(found[2]) == pytest.approx(recovery[int(found[1])], abs=1e-4)


def test_groups_of_the_policy(page, run):
    figure = 'figure:has([data-charts="policy"])'
    options = page.evaluate(
        f"[...document.querySelectorAll('{figure} option')].map(o => o.textContent)"
    )
    saved = SavedRun.load(run)
    sizes = np.bincount(np.asarray(saved.policies["last"].groups))
    assert options == [f"{g} ({n} agents)" for g, n in enumerate(sizes)]
    choose(page, f"{figure} select", options[2])
    x, y = page.place(f"{figure} .plot:last-child svg", 1.0, 0.5)
    page.mouse("mouseMoved", x - 30, y)
    shown = text(page, f"{figure} .read-out:not([hidden])")
    shares = [float(n) / 100 for n in re.findall(r"(\d+\.\d)%", shown)]
    last = np.asarray(saved.policies["last"].probs)[2, -1, 1]  # of a healthy agent
    assert shares == pytest.approx(last[::-1].tolist(), abs=6e-4)


def test_without_scripts_the_pictures_and_the_largest_gains_remain(browser, run):
    page = browser.open(run / "report.html", scripts=False)
    page.call("Emulation.setScriptExecutionDisabled", value=False)
    visible = "[...document.querySelectorAll('img')].map(i => i.checkVisibility() && i.width > 400)"
    assert page.evaluate(visible) == [True] * 5
    assert page.evaluate("document.querySelectorAll('.plot, #agents input').length") == 0
    assert page.evaluate("document.querySelectorAll('#agents tbody tr').length") == 50
    assert "need JavaScript" in text(page, "#agents noscript")
    page.close()


def test_on_paper_it_is_light_and_has_no_controls(browser, run):
    page = browser.open(run / "report.html", dark=True, medium="print")
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colour == "rgb(255, 255, 255)"
    controls = "[...document.querySelectorAll('.controls')].some(c => c.checkVisibility())"
    assert page.evaluate(controls) is False
    assert page.pdf().startswith(b"%PDF")
    page.close()


def test_names_from_the_data_run_nothing(browser, run, tmp_path):
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    evil = "</script><img src=x onerror=\"document.title='run'\"><script>document.title='run'"
    directory = RunDirectory(copy)
    # Short ones, which the pictures have room for.
    names = ("</script>", "<s>a</s>")
    evaluation = SavedRun.load(copy).evaluation
    assert evaluation is not None
    dataclasses.replace(evaluation, state_names=names, action_names=names).save(directory)
    write_arrays(directory.agents, {evil: read_arrays(directory.agents)["recovery"]})
    page = browser.open(write_report(copy))
    assert page.evaluate("document.title").startswith("sis: 120 agents")
    shown = text(page, 'figure:has([data-charts="policy"])')
    assert "Actions in state </script>" in shown
    assert "Actions in state <s>a</s>" in shown
    assert page.evaluate("document.querySelectorAll('script').length") == 2
    assert evil in page.evaluate("document.querySelector('#agents option').textContent")
    assert page.problems() == []
    page.close()


def test_a_chart_that_fails_leaves_its_picture(browser, run, tmp_path):
    html = (run / "report.html").read_text()
    broken = tmp_path / "report.html"
    broken.write_text(html.replace('"kind":"lines"', '"kind":"unknown"', 1))
    page = browser.open(broken)
    shown = "[...document.querySelectorAll('img[data-charts]')].map(i => i.checkVisibility())"
    assert page.evaluate(shown) == [True, False, False, False, False]
    assert page.evaluate("document.querySelectorAll('#agents tbody tr').length") == 50
    assert len(page.problems()) == 1
    page.close()


def test_neural_run(browser, tmp_path):
    config = RunConfig.create(
        "taxi",
        learner="ppo",
        game_parameters={"num_agents": 20, "horizon": 6},
        num_epochs=3,
        hidden_sizes=(16, 16),
        num_evaluation_trajectories=2,
    )
    result = experiment.run(config, tmp_path / "run")
    certificate = Exploitability(
        agents=np.array([0, 19]),
        lower=np.array([-0.25, 0.5]),
        upper=np.full(2, np.inf),
        standard_error=np.array([0.125, 0.25]),
        upper_standard_error=np.zeros(2),
        value=np.array([1.0, 2.0]),
        maximum=Interval(0.125, np.inf),
        mean=Interval(0.0, np.inf),
        confidence=0.95,
        method="learned",
        num_trajectories=2,
    )
    last = result.evaluation.policies["last"]
    last = dataclasses.replace(last, exploitability=certificate)
    dataclasses.replace(result.evaluation, policies={"last": last}).save(result.directory)
    page = browser.open(write_report(tmp_path / "run"), width=420)
    titles = page.evaluate("[...document.querySelectorAll('.plot > h3')].map(t => t.textContent)")
    assert titles[:3] == [
        "Mean return of an agent while learning",
        "The game while learning",
        "Where the fleet is",
    ]
    x, y = page.place(CHART.format("zone_occupancy"), 0.3, 0.5)
    page.mouse("mouseMoved", x, y)
    shares = re.findall(r"(\d+\.\d)%", text(page, ".read-out:not([hidden])"))
    assert sum(map(float, shares)) == pytest.approx(100, abs=0.2)
    assert [column(page, k) for k in range(3)] == [[19, 0], [0.5, -0.25], [0.25, 0.125]]
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    assert page.problems() == []
    page.close()
