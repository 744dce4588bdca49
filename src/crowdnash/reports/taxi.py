"""Pictures of a taxi fleet, drawn from its positions alone; see `games.taxi_map.TaxiMap`.

Axes: H steps, N agents, P positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float, Integer
from matplotlib.animation import PillowWriter
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import MaxNLocator

from crowdnash.checks import check_count
from crowdnash.games.taxi_map import TaxiMap
from crowdnash.reports.chart import Panels
from crowdnash.reports.figures import zone_shares
from crowdnash.reports.style import COLOURS, STYLE, heading, new_figure

_ZONE_COLOURS = tuple(COLOURS[name] for name in ("grey", "blue", "red"))
_ZONE_NAMES = ("start", "zone 1", "zone 2")
_WALL = "#5A5A5A"
_HALF = 0.46
_MAX_DOTS = 1000
_SHOWN = (1, 0, 2)


def zone_occupancy(positions: Integer[np.ndarray, "H N"], city: TaxiMap) -> Panels:
    """Return the chart of the share of taxis in each zone over the steps, stacked.

    Args:
        positions: of every taxi at every step; episodes may lie side by side along N.
        city: the map they drive on.

    Raises:
        ValueError: a position is not on the map.
    """
    return zone_shares(_zone_shares(positions, city))


def fleet_on_map(
    positions: Integer[np.ndarray, "H N"], city: TaxiMap, steps: Sequence[int]
) -> Figure:
    """Draw the number of taxis in every cell at some steps, a panel for each.

    Args:
        positions: of every taxi at every step.
        city: the map they drive on.
        steps: which steps to show, each in 0..H-1.

    Raises:
        ValueError: a position is not on the map or a step not in the episode.
    """
    _check_positions(positions, city)
    if len(steps) == 0 or not all(0 <= step < len(positions) for step in steps):
        raise ValueError(f"steps must be some of 0..{len(positions) - 1}, not {list(steps)}")
    counts = [np.bincount(positions[step], minlength=city.num_positions) for step in steps]
    rows, columns = city.walls.shape
    size = (max(0.66 * columns * len(steps), 2.4), 0.62 * rows + 0.8)
    with new_figure(*size, 1, len(steps)) as (figure, axes):
        # The queue at the start would leave all other cells pale; roots keep thin traffic visible.
        fullest = max(int(count[:-1].max()) for count in counts)
        for ax, step, count in zip(axes[0], steps, counts, strict=True):
            strength = 0.08 + 0.72 * np.sqrt(np.minimum(count / max(fullest, 1), 1.0))
            _draw_city(ax, city, strength)
            for (row, column), taxis in zip(city.cells, count, strict=True):
                if taxis:
                    ax.text(column, row, str(taxis), ha="center", va="center", color="black")
            ax.set_title(f"step {step}", fontsize=10)
        heading(figure, "Taxis by cell")
    return figure


def save_animation(
    path: str | Path,
    positions: Integer[np.ndarray, "H N"],
    city: TaxiMap,
    frames_per_second: int = 8,
) -> None:
    """Write an animated GIF of an episode: the taxis on the map, the zones' shares beside it.

    A taxi is a dot that keeps its place within a cell; of a fleet of more than 1000, every k-th
    taxi is shown, so that at most 1000 are. A frame is a step.

    Args:
        path: the file to write.
        positions: of every taxi at every step.
        city: the map they drive on.
        frames_per_second: steps shown in a second.

    Raises:
        ValueError: a position is not on the map or `frames_per_second` < 1.
    """
    check_count("frames_per_second", frames_per_second, 1)
    shares = _zone_shares(positions, city)
    shown = positions[:, :: -(-positions.shape[1] // _MAX_DOTS)]
    rows, columns = city.walls.shape
    with matplotlib.rc_context(STYLE):
        width = 0.62 * columns
        figure = Figure(figsize=(width + 4.0, max(0.62 * rows + 0.5, 3.0)), layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2, width_ratios=(width, 3.4))
        _draw_city(left, city, np.full(city.num_positions, 0.13))
        dots = left.scatter([], [], s=5, linewidths=0, alpha=0.85)
        lines = _empty_shares(right, len(shares))
        writer = PillowWriter(fps=frames_per_second)
        with writer.saving(figure, str(path), dpi=100):
            for step in range(len(positions)):
                _place_dots(dots, shown[step], city)
                for zone, line in lines.items():
                    line.set_data(np.arange(step + 1), shares[: step + 1, zone])
                left.set_title(f"Step {step}")
                writer.grab_frame()
                figure.set_layout_engine("none")  # laid out once: frames must not wobble


def _draw_city(ax: Axes, city: TaxiMap, strength: Float[np.ndarray, " P"]) -> None:
    """Draw walls, the start and the zones' cells, with this strength of colour, 0..1, by cell."""
    rows, columns = city.walls.shape
    for row, column in np.argwhere(city.walls):
        _box(ax, row, column, facecolor=_WALL, edgecolor=_WALL)
    for (row, column), zone, share in zip(city.cells, city.zone, strength, strict=True):
        paint = np.asarray(to_rgb(_ZONE_COLOURS[zone]))
        _box(ax, row, column, facecolor=1 - share * (1 - paint), edgecolor=paint)
    row, column = city.cells[city.start]
    ax.text(column - 0.4, row - 0.38, "S", ha="left", va="top", size=8, weight="bold", zorder=5)
    ax.set_xlim(-0.55, columns - 0.45)
    ax.set_ylim(rows - 0.45, -0.55)
    ax.set_aspect("equal")
    ax.axis("off")


def _box(ax: Axes, row: Any, column: Any, **paint: Any) -> None:
    corner = (column - _HALF + 0.08, row - _HALF + 0.08)
    side = 2 * _HALF - 0.16
    style = "round,pad=0.08,rounding_size=0.1"
    ax.add_patch(FancyBboxPatch(corner, side, side, boxstyle=style, linewidth=0.8, **paint))


def _empty_shares(ax: Axes, num_steps: int) -> dict[int, Any]:
    """Set up the axes of the zones' shares; return one empty line for each zone."""
    dashes = ((0, (1, 1)), "-", (0, (5, 1.5)))
    lines = {
        zone: ax.plot(
            [], [], color=_ZONE_COLOURS[zone], linestyle=dashes[zone], label=_ZONE_NAMES[zone]
        )[0]
        for zone in _SHOWN
    }
    ax.set_xlim(0, max(num_steps - 1, 1))
    ax.set_ylim(0, 1)
    ax.set_xlabel("step")
    ax.set_title("Share of taxis")
    ax.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(True)
    ax.legend(loc="upper right")
    return lines


def _place_dots(dots: PathCollection, positions: np.ndarray, city: TaxiMap) -> None:
    agent = np.arange(len(positions))[:, None]
    # Roberts' R2 sequence: any few or many of its points fill the cell evenly.
    within = (0.5 + agent * np.array([0.7548776662, 0.5698402910])) % 1
    offsets = city.cells[positions][:, ::-1] + (within - 0.5) * 1.7 * _HALF
    dots.set_offsets(offsets)
    dots.set_facecolor([_ZONE_COLOURS[zone] for zone in city.zone[positions]])


def _zone_shares(positions: np.ndarray, city: TaxiMap) -> Float[np.ndarray, "H 3"]:
    _check_positions(positions, city)
    zones = city.zone[positions]
    return np.stack([(zones == zone).mean(1) for zone in range(3)], axis=1)


def _check_positions(positions: np.ndarray, city: TaxiMap) -> None:
    if positions.size == 0:
        raise ValueError(f"positions must have steps and taxis, not shape {positions.shape}")
    outside = (positions < 0) | (positions >= city.num_positions)
    if outside.any():
        step, agent = (int(k) for k in np.argwhere(outside)[0])
        raise ValueError(
            f"positions must be in 0..{city.num_positions - 1}: taxi {agent} at step {step} is at "
            f"{positions[step, agent]}"
        )
