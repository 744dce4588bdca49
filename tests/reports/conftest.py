"""Chromium through Playwright, and a run to look at."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from browser_pages import OPTIONS, PROGRAMS, Open
from crowdnash.reports.report import write_report
from crowdnash.runs import experiment
from crowdnash.runs.config import RunConfig


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = next((path for name in PROGRAMS if (path := shutil.which(name))), None)
    if program is None:
        message = "Chromium is needed to look at the report: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=program, args=list(OPTIONS))
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser) -> Iterator[Open]:
    """Opens a file in a tab of its own; errors, warnings and requests are what was `expected`."""
    closing = []

    def opened(
        file: Path, *, width: int = 1200, scripts: bool = True, expected: int = 0, **options
    ) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, java_script_enabled=scripts, **options
        )
        page, problems = context.new_page(), []
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: problems.append(request.url))
        page.goto(file.resolve().as_uri())
        if scripts:
            page.wait_for_selector("html[data-ready]", state="attached")
        closing.append((context, problems, expected))
        return page

    yield opened
    for context, problems, expected in closing:
        context.close()
        asked = [text for text in problems if not text.startswith(("file:", "data:"))]
        assert len(asked) == expected, asked


@pytest.fixture(scope="session")
def many_agents(tmp_path_factory) -> Path:
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
def page(open_page, many_agents) -> Page:
    return open_page(many_agents / "report.html")
