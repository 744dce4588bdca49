"""Charts by hand: what they hold, and both ways of drawing them."""

import json

import numpy as np
import pytest

from crowdnash.certificates import LabelGains
from crowdnash.interval import Interval
from crowdnash.reports import figures
from crowdnash.reports import html as html_page
from crowdnash.reports.agent_table import AgentGains
from crowdnash.reports.chart import Axis, Chart, HeatMap, Panels, Series
from crowdnash.reports.plotly import content, numbers, page_data
from crowdnash.reports.still import draw
from crowdnash.reports.style import rendered


def test_representative_groups_by_hand():
    probs = np.zeros((4, 1, 1, 2), np.float32)
    probs[:, 0, 0, 0] = [0.9, 0.1, 0.5, 0.0]
    probs[..., 1] = 1 - probs[..., 0]
    sizes = np.array([1, 1, 1, 0])
    assert figures.representative_groups(probs, sizes) == (1, 2, 0)
    assert figures.representative_groups(probs[:1], np.array([7])) == (0,)
    maps = figures.policy_maps(probs, sizes, ["s"], ["a", "b"], [0], "title")
    assert maps.choices == (
        "group 1 (1 agent)",
        "group 2 (1 agent)",
        "group 0 (1 agent)",
        "spread over agents",
    )
    spread = maps.panels.charts[-1]
    assert isinstance(spread, HeatMap)
    np.testing.assert_allclose(spread.values, np.std([0.9, 0.1, 0.5]), rtol=1e-6)
    assert len(draw(maps.panels, maps.choices).axes) == 4 + 2


def test_many_states_show_the_most_visited():
    flow = np.zeros((2, 30, 2), np.float32)
    flow[:, 5:17] = np.linspace(1, 2, 12)[None, :, None]
    assert figures.most_visited(flow, 30) == tuple(range(5, 17))
    panels = figures.population_flow(
        {"last iterate": flow / flow.sum((1, 2), keepdims=True)},
        [f"s{index}" for index in range(30)],
        ["left", "right"],
    )
    legend = draw(panels).legends[0]
    assert "all others" in [text.get_text() for text in legend.get_texts()]


def test_long_runs_make_small_pictures():
    epochs = np.arange(100_000)
    panels = figures.return_over_epochs(epochs, np.sin(epochs / 1e4), None)
    assert len(rendered(draw(panels), "svg")) < 300_000
    (trace,) = content(panels.charts[0])["figure"]["data"]
    assert len(trace["x"]) == 1500
    assert (trace["x"][0], trace["x"][-1]) == (0, 99_999)


def test_a_far_level_makes_the_axis_logarithmic():
    ends = np.array([[0.8, 1.0], [-0.05, 0.3]])
    near, far = (
        figures.exploitability_over_epochs(
            np.array([1, 2]), ends, ends / 2, {"maximum": level, "mean": level}, "title"
        )
        for level in (Interval(2.0, 2.5), Interval(20.0, 25.0))
    )
    assert [draw(panels).axes[0].get_yscale() for panels in (near, far)] == ["linear", "log"]
    charts = [content(panels.charts[0]) for panels in (near, far)]
    assert [chart["figure"]["layout"]["yaxis"]["type"] for chart in charts] == ["linear", "log"]
    # The reader may choose; bands then end at half the least value, not at nothing.
    assert [chart["log_floor"] for chart in charts] == [0.0625 / 2] * 2


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
    saved = table.content()
    assert saved["x_names"] == ["cost", "own_group", "group"]
    assert saved["sort"] == "upper"
    (points,) = saved["scatter"]["figure"]["data"]
    np.testing.assert_allclose(points["y"], [0.4, 0.35, 0.15])
    np.testing.assert_allclose(points["error_y"]["array"], [0.2, 0.05, 0.05])
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
    assert len(json.dumps(table.content())) < 220_000


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
    with pytest.raises(ValueError, match="y must be as long as x, 3, but that of 'a' has 2"):
        Series("a", np.arange(3), np.zeros(2))
    with pytest.raises(ValueError, match="interval must be as long as x, 3, but that of 'a' has 2"):
        Series("a", np.arange(3), np.zeros(3), interval=np.zeros((2, 2)))


def test_one_description_is_drawn_both_ways():
    x, y, error = np.arange(3), np.array([1.0, np.nan, 3.0]), np.array([0.1, 0.2, 0.3])
    ends = np.stack([y - 1, y + 1], 1)
    series = [
        Series("line", x, y, "red", "dashed", "circle", interval=ends),
        Series("points", x, y + 1, dash="none", marker="x", error=error),
        Series("level", x, np.full(3, 2.0), "#123456", interval=ends, reference=True),
    ]
    chart = Chart("title", Axis("x", "count"), Axis("y", from_zero=True), series, verticals=(1.5,))
    (ax,) = draw(Panels([chart])).axes
    assert ax.get_title(loc="left") == "title"
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_ylim()[0]) == ("x", "y", 0.0)
    assert len(ax.collections) == 1 + 1  # a band and error bars; none around the level
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["line", "level", "points"]
    drawn = content(chart)["figure"]
    band, line, points, level = drawn["data"]
    assert band["x"] == [0, 2, 2, 0]
    assert band["y"] == [2.0, 4.0, 2.0, 0.0]
    assert band["fillcolor"] == line["line"]["color"] == "var(--red)"
    assert (line["mode"], line["line"]["dash"], line["y"]) == (
        "lines+markers",
        "dash",
        [1, None, 3],
    )
    assert (points["mode"], points["error_y"]["array"]) == ("markers", [0.1, 0.2, 0.3])
    assert level["line"]["color"] == "#123456"
    assert [shape["x0"] for shape in drawn["layout"]["shapes"]] == [1.5]


def test_numbers_in_the_text():
    assert [html_page.number(x) for x in (-0.0001, -1.5, 0.0, 2.0)] == [
        "0.000",
        "−1.500",
        "0.000",
        "2.000",
    ]
    assert html_page.interval(Interval(0.5, 0.5)) == "0.500"
    assert html_page.interval(Interval(-0.5, 0.5)) == "−0.500 to 0.500"
    assert html_page.interval(Interval(0.25, 0.5)) == "0.250\u2009–\u20090.500"


def test_gains_by_label_by_hand():
    """Bars from a lower to an upper end; words stand in their order, numbers where they belong."""
    kinds = [
        LabelGains("cars", 3, Interval(1.0, 2.0), Interval(0.0, 1.0), 5.0),
        LabelGains("vans", 1, Interval(3.0, 3.0), Interval(3.0, 3.0), 5.0),
    ]
    (chart,) = figures.gains_by_label(kinds, "vehicle").charts
    assert (list(chart.x.ticks), list(chart.x.labels)) == ([0, 1], ["cars", "vans"])
    largest, mean = chart.series
    assert (largest.y.tolist(), largest.error.tolist()) == ([1.5, 3.0], [0.5, 0.0])
    assert (mean.y.tolist(), mean.error.tolist()) == ([0.5, 3.0], [0.5, 0.0])
    learned = [LabelGains(k, 1, Interval(k, np.inf), Interval(0.0, np.inf), 0.0) for k in (2.5, 4)]
    panels = figures.gains_by_label(learned, "hardship")
    (largest, _), x = panels.charts[0].series, panels.charts[0].x
    assert (list(x.ticks), list(x.labels)) == ([2.5, 4.0], [])
    assert (largest.x.tolist(), largest.y.tolist(), largest.error) == ([2.5, 4], [2.5, 4], None)
    for drawn in (figures.gains_by_label(kinds, "vehicle"), panels):
        assert len(draw(drawn).axes) == 1


def test_gain_quantiles_by_hand():
    shares, low, high = figures.gain_quantiles(np.array([2.0, 0.0]), np.array([3.0, 1.0]))
    assert shares.tolist() == [0.0, 0.5, 1.0]
    assert low.tolist() == [0.0, 1.0, 2.0]
    assert high.tolist() == [1.0, 2.0, 3.0]
