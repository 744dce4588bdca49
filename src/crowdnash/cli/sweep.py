"""`crowdnash sweep`: many runs, on this machine or on others, and a table of what they gave."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional, arg

from crowdnash.cli.display import interval_text
from crowdnash.cli.parsing import parse
from crowdnash.cli.reproduce import SweepDisplay
from crowdnash.files import read_text
from crowdnash.reports.grid_figures import (
    check_axis,
    default_axis,
    default_metric,
    metric_against,
)
from crowdnash.reports.still import draw
from crowdnash.reports.style import save_figure
from crowdnash.runs.executors import Processes, RayTasks, made_by
from crowdnash.runs.grid import Grid
from crowdnash.runs.grid_runs import GridObserver, GridResults, run_grid

_FAILED = 1
_SHOWN = 60
_LOCAL = "local"


@dataclass(frozen=True)
class SweepFlags:
    """Run a grid of settings, one run a cell, and write a table; a sweep that stopped goes on.

    The file is a run's config.toml with one more section, [grid], of settings with lists of values.
    """

    grid: Annotated[Positional[Path], arg(metavar="FILE")]
    """the grid, a TOML file"""
    out: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: in runs/)")] = None
    """where to save: new, empty, or the directory of a sweep, which goes on"""
    workers: Annotated[int | None, arg(metavar="INT", help_behavior_hint="(optional)")] = None
    """run the cells in so many processes of this machine"""
    ray: Annotated[str | None, arg(metavar="[ADDRESS]", help_behavior_hint="(optional)")] = None
    """run the cells as tasks of Ray: on this machine, or on the cluster at an address"""
    executor: Annotated[
        str | None, arg(metavar="MODULE:FACTORY", help_behavior_hint="(optional)")
    ] = None
    """run the cells on the concurrent.futures.Executor that this function returns"""
    metric: Annotated[
        str | None, arg(metavar="NAME", help_behavior_hint="(default: exploitability_mean)")
    ] = None
    """draw this column of the table, or two with _lower and _upper"""
    against: Annotated[
        str | None, arg(metavar="SETTING", help_behavior_hint="(default: the first but seed)")
    ] = None
    """draw it against this setting of the grid"""
    json: bool = False
    """print the table as JSON"""


class _Display(SweepDisplay):
    """A bar for cells, and a line for each one that failed."""

    @property
    def grid_observer(self) -> GridObserver:
        """The functions that a grid calls."""
        return GridObserver(on_start=self._begin, on_cell=self._cell, on_warning=self._warning)

    def _begin(self, done: int, total: int) -> None:
        self._newest = time.monotonic()
        self._start(done, total)

    def _cell(self, name: str, done: int, total: int, error: str | None) -> None:
        seconds, self._newest = time.monotonic() - self._newest, time.monotonic()
        if error is not None:
            self._print(f"crowdnash: {name} failed: {error}")
        self._point(name, done, total, seconds)

    def _warning(self, name: str, message: str) -> None:
        self._print(f"crowdnash: warning: {name}: {message}")


def show_sweep(arguments: Sequence[str]) -> int:
    """Run `crowdnash sweep` with the arguments after it.

    Returns:
        0, or 1 if a cell failed.

    Raises:
        ValueError: a bad argument or grid, or as `run_grid`.
        OSError: as `run_grid`.
    """
    flags = parse(SweepFlags, "sweep", with_address(arguments))
    grid = Grid.from_toml(read_text(flags.grid), str(flags.grid))
    out = flags.out or Path("runs") / f"sweep-{flags.grid.stem}"
    if flags.against is not None:
        check_axis(flags.against, tuple(grid.columns.values()))
    began = time.monotonic()
    try:
        with _Display(Console(stderr=True)) as display, _executor(flags) as executor:
            results = run_grid(grid, out, executor=executor, observer=display.grid_observer)
    except KeyboardInterrupt:
        print(f"cells run so far are saved in {out}: the same command goes on", file=sys.stderr)
        raise KeyboardInterrupt from None
    if flags.json:
        print(json.dumps({"rows": [_plain(row) for row in results.rows]}, indent=2))
    else:
        Console().print(_table(results))
    failures = results.failures
    if len(failures) < len(results.rows):
        _say(flags, f"picture: {_draw(results, flags)}")
    _say(
        flags,
        f"table: {results.directory / 'table.csv'}, wall time {time.monotonic() - began:.1f} s",
    )
    if failures:
        print(
            f"crowdnash: {len(failures)} of {len(results.rows)} cells failed; tracebacks are in "
            f"{results.directory / 'failures'}",
            file=sys.stderr,
        )
    return _FAILED if failures else 0


def with_address(arguments: Sequence[str]) -> list[str]:
    """The arguments with the address of --ray written out where it is left out."""
    words: list[str] = []
    for word, following in itertools.pairwise([*arguments, "--"]):
        words.append(word)
        if word == "--ray" and (following.startswith("-") or following.endswith(".toml")):
            words.append(_LOCAL)
    return words


@contextlib.contextmanager
def _executor(flags: SweepFlags) -> Iterator[Executor | None]:
    """What runs the cells; it is shut down afterwards, and at once if something goes wrong."""
    named = [n for n in ("workers", "ray", "executor") if getattr(flags, n) is not None]
    if len(named) > 1:
        raise ValueError(f"--{named[0]} and --{named[1]} exclude each other")
    if flags.workers is not None:
        made: Executor = Processes(flags.workers)
    elif flags.ray is not None:
        made = RayTasks(None if flags.ray == _LOCAL else flags.ray)
    elif flags.executor is not None:
        made = made_by(flags.executor)
    else:
        yield None
        return
    try:
        yield made
    except BaseException:
        made.shutdown(cancel_futures=True)
        raise
    made.shutdown()


def _draw(results: GridResults, flags: SweepFlags) -> Path:
    rows = [row for row in results.rows if row["status"] == "finished"]
    metric = flags.metric or default_metric(rows)
    against = flags.against or default_axis(results.rows, results.axes)
    panels = metric_against(rows, results.axes, metric, against)
    path = results.directory / f"{metric}-against-{against}.png"
    save_figure(draw(panels), path)
    return path


def _table(results: GridResults) -> Table:
    """The cells, their values, and what matters most of what they gave."""
    rows = results.rows[:_SHOWN]
    hidden = len(results.rows) - len(rows)
    table = Table(caption=f"... and {hidden} more in table.csv" if hidden else None)
    for axis in results.axes:
        table.add_column(axis)
    headings = {
        "exploitability_max": "largest exploitability",
        "exploitability_mean": "mean exploitability",
        "mean_return": "mean return of an agent",
    }
    shown = [n for n in headings if any(f"{n}_lower" in row for row in rows)]
    for name in shown:
        table.add_column(headings[name], justify="right")
    if any(row["status"] != "finished" for row in rows):
        table.add_column("status")
    for row in rows:
        cells = [str(row[axis]) for axis in results.axes]
        cells += [_ends(row, name) for name in shown]
        table.add_row(*cells, *([str(row["status"])] * (len(table.columns) - len(cells))))
    return table


def _ends(row: Mapping[str, Any], name: str) -> str:
    low, high = row.get(f"{name}_lower"), row.get(f"{name}_upper")
    if low is None or high is None:
        return ""
    return interval_text(low, high)


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as JSON can hold it: what is not finite is null."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }


def _say(flags: SweepFlags, line: str) -> None:
    """Print to standard output, or beside it where JSON is there."""
    print(line, file=sys.stderr if flags.json else sys.stdout)
