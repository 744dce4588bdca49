"""Pictures of a road network: what flows on it, who could save time, and who pays for tolls.

Axes: V nodes, L links, R roads (links in both directions), K classes of drivers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure

from crowdnash.games.network import Network
from crowdnash.reports.chart import Axis, Chart, HeatMap, Panels, Series
from crowdnash.reports.style import COLOURS, new_figure

_SIZE = (6.4, 7.2)
_ASIDE = 0.09
_WIDEST = 8.0


def saturation_map(
    places: Float[np.ndarray, "V 2"], roads: Network, flows: Float[np.ndarray, " L"], title: str
) -> Figure:
    """Draw every link, as wide as its flow and coloured by flow / capacity.

    Args:
        places: of the nodes, on the map.
        roads: the links.
        flows: vehicles on them.
        title: over the map.
    """
    share = flows / np.asarray(roads.capacity)
    widths = _WIDEST * flows / flows.max()
    norm = Normalize(0, max(1.0, float(share.max())))
    return _map(places, roads, (widths, share), ("YlOrRd", norm), title, "flow / capacity")


def change_map(
    places: Float[np.ndarray, "V 2"],
    roads: Network,
    change: Float[np.ndarray, " L"],
    title: str,
    unit: str,
) -> Figure:
    """Draw every link, as wide as its value changes, red for more and blue for less.

    Args:
        places: of the nodes, on the map.
        roads: the links.
        change: of each link.
        title: over the map.
        unit: of the change.
    """
    most = max(float(np.abs(change).max()), 1e-12)
    widths = 1.0 + (_WIDEST - 1.0) * np.abs(change) / most
    return _map(
        places, roads, (widths, change), ("coolwarm", TwoSlopeNorm(0, -most, most)), title, unit
    )


def who_could_gain(
    gains: Float[np.ndarray, " P"],
    origins: Int[np.ndarray, " P"],
    destinations: Int[np.ndarray, " P"],
    num_nodes: int,
) -> Panels:
    """What a driver could still save, by origin and destination; NaN where nobody drives.

    Args:
        gains: mean of each pair's drivers, minutes.
        origins: nodes, from 0.
        destinations: nodes, from 0.
        num_nodes: V.
    """
    table = np.full((num_nodes, num_nodes), np.nan)
    table[origins, destinations] = np.maximum(gains, 0)
    chart = HeatMap(
        "What a driver could still save, from (down) and to",
        Axis("destination", unit="count"),
        [str(node + 1) for node in range(num_nodes)],
        table,
        "minutes",
        top=max(float(np.nanmax(table)), 1e-6),
        colour="red",
        first=1,
    )
    return Panels([chart], size=(8.0, 6.4))


def who_pays(
    value_of_time: Float[np.ndarray, " K"],
    loss: Float[np.ndarray, " K"],
    loss_after_refund: Float[np.ndarray, " K"],
    minutes_before: Float[np.ndarray, " K"],
    minutes: Float[np.ndarray, " K"],
) -> Panels:
    """What marginal-cost tolls do to drivers by their value of time (see `cases.planning`)."""
    x = Axis("value of time (of the mean driver's)")
    zero = Series("nothing changes", value_of_time, np.zeros_like(loss), "grey", reference=True)
    money = Chart(
        "What drivers lose by tolls",
        x,
        Axis("minutes of the mean driver"),
        [
            Series("revenue kept", value_of_time, loss, "red", marker="circle"),
            Series("shared equally", value_of_time, loss_after_refund, "blue", marker="square"),
            zero,
        ],
    )
    time = Chart(
        "How long they drive",
        x,
        Axis("minutes"),
        [
            Series("without tolls", value_of_time, minutes_before, "grey", marker="circle"),
            Series("with tolls", value_of_time, minutes, "green", marker="square"),
        ],
    )
    return Panels([money, time], columns=2, size=(5.2, 3.8))


def road_changes(
    places: Float[np.ndarray, "V 2"],
    closed: Sequence[tuple[int, int]],
    closing: Float[np.ndarray, " R"],
    added: Sequence[tuple[int, int]],
    adding: Float[np.ndarray, " R"],
) -> Figure:
    """Draw what closing each road costs, and what each new one saves or costs, in per cent.

    Args:
        places: of the nodes, on the map.
        closed: the nodes of each road that is closed.
        closing: change of the total time, a share.
        added: the nodes of each road that is added.
        adding: change of the total time, a share.
    """
    with new_figure(2 * _SIZE[0], _SIZE[1], 1, 2) as (figure, grid):
        left, right = grid[0]
        norm = Normalize(0, 100 * float(np.max(closing)))
        lines = _straight(places, closed, 100 * closing, ("YlOrRd", norm), 4.0)
        left.add_collection(lines)
        figure.colorbar(lines, ax=left, label="total time, %", fraction=0.04)
        right.add_collection(
            LineCollection(_segments(places, closed), colors="#D8D8D8", linewidths=2)
        )
        most = 100 * float(np.abs(adding).max())
        spread = ("coolwarm", TwoSlopeNorm(0, -most, most))
        lines = _straight(places, added, 100 * adding, spread, 3.0)
        right.add_collection(lines)
        figure.colorbar(lines, ax=right, label="total time, %", fraction=0.04)
        for ax, title in ((left, "A road closed"), (right, "A road added")):
            _nodes(ax, places)
            ax.set_title(title)
    return figure


def _map(
    places: np.ndarray,
    roads: Network,
    drawn: tuple[np.ndarray, np.ndarray],
    colours: tuple[str, Any],
    title: str,
    unit: str,
) -> Figure:
    with new_figure(*_SIZE) as (figure, grid):
        ax = grid[0, 0]
        ends = np.stack([roads.from_node, roads.to_node], axis=1)
        segments = places[ends]
        along = segments[:, 1] - segments[:, 0]
        # Right-hand traffic: each direction beside the middle of the road.
        aside = np.stack([along[:, 1], -along[:, 0]], axis=1)
        aside /= np.linalg.norm(along, axis=1, keepdims=True)
        segments = segments + _ASIDE * aside[:, None]
        lines = LineCollection(list(segments), cmap=colours[0], norm=colours[1])
        lines.set_linewidth(drawn[0].tolist())
        lines.set_array(drawn[1])
        ax.add_collection(lines)
        figure.colorbar(lines, ax=ax, label=unit, fraction=0.04)
        _nodes(ax, places)
        ax.set_title(title)
    return figure


def _segments(places: np.ndarray, ends: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    return [places[list(pair)] for pair in ends]


def _straight(
    places: np.ndarray,
    ends: Sequence[tuple[int, int]],
    values: np.ndarray,
    colours: tuple[str, Any],
    width: float,
) -> LineCollection:
    lines = LineCollection(_segments(places, ends), cmap=colours[0], norm=colours[1])
    lines.set_linewidth(width)
    lines.set_array(values)
    return lines


def _nodes(ax: Axes, places: np.ndarray) -> None:
    ax.scatter(*places.T, s=190, color="white", edgecolor=COLOURS["grey"], zorder=3)
    for node, (x, y) in enumerate(places):
        ax.annotate(str(node + 1), (x, y), ha="center", va="center", fontsize=8, zorder=4)
    ax.set_aspect("equal")
    ax.margins(0.06)
    ax.set_axis_off()
