"""The table of the agents in a browser: sorted, searched, drawn against a parameter."""

import re

import numpy as np
import pytest

from browser_pages import column, read_out
from crowdnash.reports.report import SavedRun

pytestmark = pytest.mark.slow


def test_table_sorts_by_pointer_and_key_and_turns_pages(page, many_agents):
    evaluation = SavedRun.load(many_agents).evaluation
    assert evaluation is not None
    policy = evaluation.policies["last"].exploitability
    head, turn = page.locator("#agents th").first, page.get_by_role("button", name="next")
    assert column(page, 2) == pytest.approx(np.sort(policy.upper)[::-1][:50], abs=1e-4, rel=1e-3)
    head.get_by_role("button").click()
    assert column(page, 0) == list(range(50))
    assert column(page, 1) == pytest.approx(policy.lower[:50], abs=1e-4, rel=1e-3)
    assert head.get_attribute("aria-sort") == "ascending"
    head.get_by_role("button").press("Enter")
    assert column(page, 0) == list(range(119, 69, -1))
    assert head.get_attribute("aria-sort") == "descending"
    turn.click()
    turn.click()
    assert column(page, 0) == list(range(19, -1, -1))
    assert "101–120 of 120 agents" in page.locator("#agents [role=status]").inner_text()
    assert turn.is_disabled()


def test_search(page, many_agents):
    saved = SavedRun.load(many_agents)
    groups = np.asarray(saved.policies["last"].groups)
    recovery = saved.game_record.parameters["recovery"]
    field, status = page.locator("#agents input"), page.locator("#agents [role=status]")
    field.fill("17")
    assert column(page, 0) == [17]
    field.fill("group=2 recovery>0.3")
    expected = np.flatnonzero((groups == 2) & (recovery > 0.3))
    assert 0 < len(expected) < 50
    assert sorted(column(page, 0)) == expected.tolist()
    field.fill("recovery>2")
    assert status.inner_text() == "no agent is like that"
    for wrong, why in (
        ("size>1", "no column is called “size”"),
        ("group=many", "“many” is not a number"),
        ("first", "neither an agent's number nor a condition"),
    ):
        field.fill(wrong)
        assert why in status.inner_text()
        assert field.get_attribute("aria-invalid") == "true"
    assert field.evaluate("field => field.labels.length") == 1


def test_gains_against_a_parameter_that_the_reader_picks(page, many_agents):
    section = page.locator("#agents")
    values = [option.get_attribute("value") for option in section.locator("option").all()]
    assert values == ["susceptibility", "recovery", "isolation_aversion", "group"]
    dots = section.locator(".scatterlayer .point")
    assert dots.count() == 120
    section.locator("select").select_option("recovery")
    assert section.locator("h3").inner_text() == "Gains under the last iterate against recovery"
    assert dots.count() == 120
    dots.last.scroll_into_view_if_needed()
    box = dots.last.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    shown = read_out(section.locator(".canvas"))
    agent, value = re.match(r"agent (\d+)\s*recovery: (\d\.\d+)", shown).groups()
    recovery = SavedRun.load(many_agents).game_record.parameters["recovery"]
    assert float(value) == pytest.approx(recovery[int(agent)], abs=1e-4)
