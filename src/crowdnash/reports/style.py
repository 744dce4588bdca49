"""What all pictures share: colours, style, and figures without global state.

No pyplot, so no global state and no windows. Colours are Paul Tol's "bright" set, which readers
with any colour vision can tell apart; lines differ in dash as well.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from crowdnash.files import write_atomically

COLOURS = MappingProxyType(
    {
        "blue": "#4477AA",
        "red": "#EE6677",
        "green": "#228833",
        "yellow": "#CCBB44",
        "cyan": "#66CCEE",
        "purple": "#AA3377",
        "grey": "#8A8A8A",
    }
)
_INK = "#333333"
_DPI = 150
STYLE: Any = {
    "font.size": 10.5,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": "#B0B0B0",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.axisbelow": True,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": "#E6E6E6",
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.8,
    # Fixed, so that the same data give the same file.
    "svg.hashsalt": "crowdnash",
}


@contextmanager
def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> Iterator[tuple[Figure, np.ndarray]]:
    """A figure in the house style and its axes, always a 2-D array; options go to `subplots`."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure, figure.subplots(rows, columns, squeeze=False, **options)


def heading(figure: Figure, title: str) -> None:
    """The title of a figure with several panels, in the house style."""
    figure.suptitle(title, x=0.01, ha="left", weight="bold", size=12)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a picture file, .png or .svg, in one step."""
    write_atomically(path, rendered(figure, path.suffix[1:]))


def rendered(figure: Figure, suffix: str) -> bytes:
    """A picture file of the figure, "png" or "svg"; the same figure gives the same file."""
    # Without dates and versions.
    metadata = {"Date": None} if suffix == "svg" else {"Software": None}
    buffer: IO[bytes] = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "crowdnash"}):
        figure.savefig(buffer, format=suffix, dpi=_DPI, metadata=metadata)
    buffer.seek(0)
    return buffer.read()
