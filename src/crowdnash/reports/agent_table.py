"""What single agents could gain, as a table of the report: sorted, searched and drawn in the page.

Axes: n agents evaluated, N agents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num

from crowdnash.reports import html as html_page
from crowdnash.reports.chart import Axis, Chart, Series
from crowdnash.reports.plotly import content, numbers

# The page holds every agent up to here; of more, those with the largest gains.
_MOST_AGENTS = 2000
_LARGEST = 1000
_STATIC_ROWS = 50
_MAX_PARAMETERS = 8
_GAINS = ("lower", "upper", "gain")


@dataclass(frozen=True)
class Column:
    """One column: the name by which it is searched, its title, and a value a row."""

    name: str
    title: str
    values: Num[np.ndarray, " n"]


@dataclass(frozen=True)
class AgentGains:
    """The table.

    Attributes:
        columns: the agents' numbers first, all of equal length, largest gain first.
        num_agents: how many agents were evaluated; the table may hold fewer.
        left_out: how many parameters of the agents are not in the table.
        standard: what the gains are of, for the title of the chart.
    """

    columns: tuple[Column, ...]
    num_agents: int
    left_out: int
    standard: str

    @classmethod
    def of(
        cls,
        agents: Int[np.ndarray, " n"],
        gains: Mapping[str, Float[np.ndarray, " n"]],
        parameters: Mapping[str, Float[np.ndarray, " N"]],
        groups: Int[np.ndarray, " N"] | None,
        standard: str,
    ) -> AgentGains:
        """Lay out the table.

        Args:
            agents: the agents evaluated.
            gains: "lower" and "upper", or "gain" if they are one; "standard_error", "value" if any.
            parameters: of all agents, by name.
            groups: every agent's group, or None if that says nothing.
            standard: what the gains are of.
        """
        order = np.argsort(-gains["gain" if "gain" in gains else "upper"], kind="stable")
        if len(order) > _MOST_AGENTS:
            order = order[:_LARGEST]
        shown = agents[order]
        columns = [Column("agent", "agent", shown)]
        columns += [Column(name, _TITLES[name], gains[name][order]) for name in gains]
        if groups is not None:
            columns.append(Column("group", "group", groups[shown]))
        kept = list(parameters)[:_MAX_PARAMETERS]
        taken = {column.name for column in columns}
        for name in kept:
            free = f"own_{name}" if name in taken else "_".join(name.split())
            columns.append(Column(free, name.replace("_", " "), parameters[name][shown]))
        return cls(tuple(columns), len(agents), len(parameters) - len(kept), standard)

    @property
    def gain(self) -> tuple[str, str]:
        """The names of the columns between whose values an agent's gain lies."""
        names = [column.name for column in self.columns]
        return ("gain", "gain") if "gain" in names else ("lower", "upper")

    def content(self) -> dict[str, Any]:
        """Return what the page's script needs, for JSON."""
        fixed = {"agent", "standard_error", "group", *_GAINS}
        names = [column.name for column in self.columns]
        return {
            "columns": [
                {"name": c.name, "title": c.title, "values": numbers(c.values)}
                for c in self.columns
            ],
            "sort": self.gain[1],
            "x_names": [n for n in names if n not in fixed] + [n for n in names if n == "group"],
            "scatter": self._scatter(),
            "standard": self.standard,
        }

    def _scatter(self) -> dict[str, Any]:
        """The gains as points; the script puts in what they are drawn against."""
        columns = {column.name: column.values for column in self.columns}
        low, high = (np.asarray(columns[name], np.float64) for name in self.gain)
        look: Any = {"dash": "none", "marker": "circle", "error": (high - low) / 2, "opacity": 0.6}
        series = Series("gain", columns["agent"], (low + high) / 2, **look)
        chart = content(Chart(self.standard, Axis("agent"), Axis("gain (total reward)"), [series]))
        (points,) = chart["figure"]["data"]
        points["text"] = numbers(columns["agent"])
        gain = "%{y:.4~g}"
        if self.gain[0] != self.gain[1]:
            points["customdata"] = list(zip(numbers(low), numbers(high), strict=True))
            gain = "%{customdata[0]:.4~g} – %{customdata[1]:.4~g}"
        points["hovertemplate"] = (
            f"agent %{{text}}<br>%{{xaxis.title.text}}: %{{x:.4~g}}<br>gain: {gain}<extra></extra>"
        )
        return chart

    def section(self) -> list[str]:
        """Return the part of the page, with the first rows for readers without scripts."""
        rows = min(len(self.columns[0].values), _STATIC_ROWS)
        cells = [[_cell(column.values[k]) for column in self.columns] for k in range(rows)]
        heads = [column.title for column in self.columns]
        return [
            '<section id="agents">',
            "<h2>What each agent could gain</h2>",
            f'<p class="note">{self._explanation(rows)}</p>',
            html_page.table(heads, cells, name="gains of single agents", numeric=True),
            "</section>",
        ]

    def _explanation(self, rows: int) -> str:
        written = len(self.columns[0].values)
        text = "Gains are in total reward"
        if self.gain[0] == "lower":
            text += ": at least the one that a known deviation achieves, at most the other"
        if any(column.name == "standard_error" for column in self.columns):
            text += "; the standard error is that of the achieved gain"
        text += "."
        if written < self.num_agents:
            text += f" Of {self.num_agents} agents, the {written} with the largest gains are kept."
        if self.left_out:
            text += f" {self.left_out} more parameters of an agent are in agents.npz."
        if rows < written:
            text += (
                f"<noscript> The {rows} largest gains; sorting, searching and the other agents "
                "need JavaScript.</noscript>"
            )
        return text


_TITLES = {
    "lower": "at least",
    "upper": "at most",
    "gain": "gain",
    "standard_error": "standard error",
    "value": "total reward now",
}


def _cell(value: Any) -> str:
    return str(value) if np.issubdtype(type(value), np.integer) else html_page.number(value, 4)
