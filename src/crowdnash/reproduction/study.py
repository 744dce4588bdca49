"""What an experiment of the paper is made of: points to measure, conclusions, pictures.

A `Study` knows nothing of files. `sweep` measures its points one by one and saves each; what is
concluded and drawn is a function of the saved rows alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from matplotlib.figure import Figure

from crowdnash.runs.metrics_log import Row, Value

Scale = Literal["smoke", "small", "paper"]
"""How much is measured: in about half a minute, in minutes, or in full."""

Settings = Mapping[str, Value]
"""Everything that decides a measurement, by name."""


@dataclass(frozen=True)
class Point:
    """One measurement of a sweep: `name` is its file's, `settings` decide it entirely."""

    name: str
    settings: Settings

    @classmethod
    def of(cls, *key: str, **settings: Value) -> Point:
        """A point named by the settings `key`, in that order."""
        name = "-".join(str(settings[part]) for part in key)
        return cls(name, settings)


@dataclass(frozen=True)
class Table:
    """A table of text cells for the reader."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Conclusion:
    """What the rows say: `facts` in numbers (JSON), `tables`, and the `verdict` in sentences."""

    facts: dict[str, Any]
    tables: tuple[Table, ...]
    verdict: tuple[str, ...]


@dataclass(frozen=True)
class Study:
    """One experiment.

    - `name`, `summary`: for the command line;
    - `points(scale, seed)`: what to measure, in order;
    - `measure(settings, folder)`: one measurement, as rows of finite numbers, text and None; one
      that takes long may keep its own files in `folder`, to go on where it stopped;
    - `conclude(rows)`: what all rows say;
    - `draw(rows, facts)`: the pictures by file name (without suffix), from saved numbers alone.
    """

    name: str
    summary: str
    points: Callable[[Scale, int], tuple[Point, ...]]
    measure: Callable[[Settings, Path], Sequence[Row]]
    conclude: Callable[[Sequence[Row]], Conclusion]
    draw: Callable[[Sequence[Row], Mapping[str, Any]], dict[str, Figure]]
