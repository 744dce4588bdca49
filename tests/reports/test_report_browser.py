"""The report's page in a browser: drawn, read out, zoomed, sorted, offline, without scripts."""

import dataclasses
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from browser_pages import canvas, column, drag, figure, point, read_out, x_labels
from crowdnash import Exploitability, Interval
from crowdnash.files import read_arrays, write_arrays
from crowdnash.reports.report import SavedRun, write_report
from crowdnash.runs import experiment
from crowdnash.runs.config import RunConfig
from crowdnash.runs.directory import RunDirectory

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("width", [1200, 420])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_and_asks_for_nothing(open_page, many_agents, tmp_path, width, scheme):
    page = open_page(many_agents / "report.html", width=width, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    pictures = page.locator("img[data-charts]")
    assert [picture.is_visible() for picture in pictures.all()] == [False] * 5
    # exploitability, gains, two states, two populations, mean return, scatter
    assert page.locator(".canvas .main-svg .xtick").first.is_visible()
    assert page.locator(".canvas").count() == 8
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    with Image.open(tmp_path / "page.png") as picture:
        pixels = np.asarray(picture.convert("RGBA")).view(np.uint32)
        corner = picture.convert("L").getpixel((0, 0))
    assert corner < 50 if scheme == "dark" else corner > 250
    assert len(np.unique(pixels)) > 100


def test_charts_change_colour_at_nightfall(page):
    text = canvas(page, "gains").locator(".xtick text").first
    colour = "text => getComputedStyle(text).fill"
    assert text.evaluate(colour) == "rgb(31, 35, 40)"
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(
        "() => getComputedStyle(document.querySelector('.xtick text')).fill == 'rgb(228, 232, 236)'"
    )


def test_pointing_reads_out_the_interval(page, many_agents):
    row = SavedRun.load(many_agents).certified_rows[1]
    chart = canvas(page, "exploitability")
    page.mouse.move(*point(chart, 0.5))
    shown = read_out(chart).replace("−", "-")
    assert shown.startswith(str(row["epoch"]))
    numbers = [float(n) for n in re.findall(r"-?\d+\.\d+", shown)]
    ends = [row[f"exploitability_{n}_{e}"] for n in ("max", "mean") for e in ("lower", "upper")]
    assert numbers[:4] == pytest.approx(ends, rel=1e-3, abs=1e-4)
    page.mouse.move(2, 2)
    chart.locator(".hoverlayer text").first.wait_for(state="detached")


def test_dragging_zooms_and_a_double_click_shows_all(page):
    chart = canvas(page, "gains")
    before = x_labels(chart)
    assert before == ["0%", "20%", "40%", "60%", "80%", "100%"]
    drag(page, chart, 0.5, 0.7)
    page.wait_for_timeout(500)
    after = [float(label.rstrip("%")) for label in x_labels(chart)]
    assert 40 < min(after) < max(after) < 75
    page.mouse.dblclick(*point(chart, 0.5))
    page.wait_for_timeout(500)
    assert x_labels(chart) == before
    drag(page, chart, 0.5, 0.7)
    page.wait_for_timeout(500)
    chart.get_by_role("button", name="Reset axes").click()
    assert x_labels(chart) == before


def test_keyboard_reads_and_zooms(page):
    chart = canvas(page, "exploitability")
    chart.focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    heard = figure(page, "exploitability").locator("[aria-live=polite]")
    assert heard.text_content().startswith("epoch: 4; largest over agents: ")
    expect(chart.locator(".hoverlayer .legendtitletext")).to_have_text("4")
    before = x_labels(chart)
    page.keyboard.press("+")
    page.wait_for_timeout(300)
    assert x_labels(chart) != before
    page.keyboard.press("Escape")
    page.wait_for_timeout(300)
    assert x_labels(chart) == before
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.ariaLabel") == "Zoom in"


def test_legend_hides_a_series(page):
    chart = canvas(page, "exploitability")
    lines = chart.locator(".scatterlayer .js-line")
    assert lines.count() == 6
    chart.locator(".legendtoggle").first.click()
    page.wait_for_function(
        "chart => chart.querySelectorAll('.scatterlayer .js-line').length == 4",
        arg=chart.element_handle(),
    )


def test_scale_of_exploitability_can_be_chosen(page):
    chart, switch = canvas(page, "exploitability"), page.get_by_label("logarithmic")
    kind = "chart => chart._fullLayout.yaxis.type"
    before = chart.evaluate(kind)
    assert switch.is_checked() == (before == "log")
    switch.click()
    assert {before, chart.evaluate(kind)} == {"log", "linear"}


def test_numbers_stand_beside_every_chart(page, many_agents):
    assert page.get_by_text("numbers", exact=True).count() == page.locator(".canvas").count()
    part = figure(page, "exploitability")
    part.get_by_text("numbers", exact=True).click()
    rows = [row.locator("td, th").all_inner_texts() for row in part.locator("tr").all()]
    assert rows[0][:2] == ["epoch", "largest over agents"]
    saved = SavedRun.load(many_agents).certified_rows
    assert [row[0] for row in rows[1:]] == [str(row["epoch"]) for row in saved]
    low, high = (float(n) for n in rows[1][1].replace("−", "-").split(" – "))
    assert low == pytest.approx(saved[0]["exploitability_max_lower"], abs=1e-4)
    assert high == pytest.approx(saved[0]["exploitability_max_upper"], abs=1e-4)


def test_groups_of_the_policy(page, many_agents):
    part = figure(page, "policy")
    saved = SavedRun.load(many_agents)
    sizes = np.bincount(np.asarray(saved.policies["last"].groups))
    options = part.locator("option").all_text_contents()
    assert options == [
        *(f"group {g} ({n} agents)" for g, n in enumerate(sizes)),
        "spread over agents",
    ]
    part.locator("select").select_option(options[2])
    healthy = part.locator(".canvas").nth(1)
    probs = np.asarray(saved.policies["last"].probs)[2, -1, 1]
    for action, down in enumerate((0.25, 0.75)):
        page.mouse.move(*point(healthy, 0.99, down))
        page.wait_for_timeout(200)
        shown = float(read_out(healthy).split(": ")[1])
        assert shown == pytest.approx(probs[action], rel=1e-3)
        page.mouse.move(2, 2)


def test_without_scripts_the_pictures_and_the_largest_gains_remain(open_page, many_agents):
    page = open_page(many_agents / "report.html", scripts=False)
    pictures = page.locator("img").all()
    assert len(pictures) == 5
    assert all(
        picture.is_visible() and picture.bounding_box()["width"] > 400 for picture in pictures
    )
    assert page.locator(".plot, #agents input").count() == 0
    assert page.locator("#agents tbody tr").count() == 50
    assert "need JavaScript" in page.locator("#agents").inner_text()


def test_on_paper_it_is_light_and_has_pictures_and_no_controls(open_page, many_agents):
    page = open_page(many_agents / "report.html", color_scheme="dark")
    page.emulate_media(media="print")
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colour == "rgb(255, 255, 255)"
    assert not any(part.is_visible() for part in page.locator(".controls, .plot").all())
    assert all(picture.is_visible() for picture in page.locator("img").all())
    assert page.pdf().startswith(b"%PDF")


def test_names_from_the_data_run_nothing(open_page, many_agents, tmp_path):
    copy = Path(shutil.copytree(many_agents, tmp_path / "copy"))
    evil = "</script><img src=x onerror=\"document.title='run'\"><script>document.title='run'"
    directory = RunDirectory(copy)
    # Short ones, which the pictures have room for.
    names = ("</script>", "<s>a</s>")
    evaluation = SavedRun.load(copy).evaluation
    assert evaluation is not None
    dataclasses.replace(evaluation, state_names=names, action_names=names).save(directory)
    write_arrays(directory.agents, {evil: read_arrays(directory.agents)["recovery"]})
    page = open_page(write_report(copy))
    assert page.title().startswith("A-SIS")
    part = figure(page, "policy")
    titles = part.locator("h4").all_inner_texts()
    assert titles == ["State </script>", "State <s>a</s>"]
    # Plotly reads some markup; the names are seen as they are.
    assert part.locator(".ytick text").first.text_content() in ("</script>", "<s>a</s>")
    assert page.locator("script").count() == 4
    assert evil in page.locator("#agents option").first.text_content()


def test_a_chart_that_fails_leaves_its_picture(open_page, many_agents, tmp_path):
    html = (many_agents / "report.html").read_text()
    broken = tmp_path / "report.html"
    broken.write_text(html.replace('"layout":{', '"nothing":{', 1))
    page = open_page(broken, expected=1)
    pictures = page.locator("img[data-charts]")
    assert [p.is_visible() for p in pictures.all()] == [True, False, False, False, False]
    assert page.locator("#agents tbody tr").count() == 50


def test_neural_run(open_page, tmp_path):
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
    page = open_page(write_report(tmp_path / "run"), width=420)
    titles = page.locator(".plot > h3").all_inner_texts()
    assert titles[:3] == [
        "Mean return of an agent while learning",
        "The game while learning",
        "Where the fleet is",
    ]
    chart = canvas(page, "zone_occupancy")
    page.mouse.move(*point(chart, 0.3))
    shares = re.findall(r"(\d+\.\d)%", read_out(chart))
    assert sum(map(float, shares)) == pytest.approx(100, abs=0.2)
    assert [column(page, k) for k in range(3)] == [[19, 0], [0.5, -0.25], [0.25, 0.125]]
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
