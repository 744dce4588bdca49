"""Run a grid: every cell is a run with a directory of its own, on any executor.

The directory holds `config.json` (the grid), `cells/<name>/` (one run each), `table.csv`,
`times.csv`, and `failures/<name>.txt` with the traceback of a cell that failed.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from crowdnash import interrupts
from crowdnash.files import read_json, write_atomically
from crowdnash.messages import user_message
from crowdnash.runs import experiment
from crowdnash.runs.config import RunConfig
from crowdnash.runs.directory import RunDirectory
from crowdnash.runs.executors import InTurn, as_completed, check_executor
from crowdnash.runs.grid import Cell, Grid
from crowdnash.runs.grid_table import cell_figures, cell_seconds
from crowdnash.runs.metrics_log import Row, read_metrics, rows_as_csv
from crowdnash.runs.seal import is_finished
from crowdnash.runs.training_loop import Observer

_FORMAT = "crowdnash-sweep-1"
_DIED = "the process that ran it died, twice, perhaps for want of memory"


def _ignore(*_: object) -> None:
    pass


@dataclass(frozen=True)
class GridObserver:
    """Functions that are called as a grid is run.

    Attributes:
        on_start: the numbers of cells that are finished, and of all, before the first one is run.
        on_cell: a cell's name, how many are done now, of how many, and None, or why it failed.
        on_warning: a cell's name, and what went wrong in it without stopping it.
    """

    on_start: Callable[[int, int], object] = _ignore
    on_cell: Callable[[str, int, int, str | None], object] = _ignore
    on_warning: Callable[[str, str], object] = _ignore


@dataclass(frozen=True)
class GridResults:
    """What a grid gave.

    Attributes:
        directory: where it is saved.
        axes: the columns of `rows` that hold settings.
        rows: one a cell: its name, status ("finished", "failed" or "unfinished"), its values, what
            went wrong, and its figures; the same for any executor and after any interruption.
    """

    directory: Path
    axes: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def failures(self) -> dict[str, str]:
        """What went wrong, by cell."""
        return {
            str(row["cell"]): str(row["error"]) for row in self.rows if row["status"] == "failed"
        }


class _Report(NamedTuple):
    """How a cell went: why it failed, or None; with the traceback; and warnings."""

    error: str | None
    details: str
    warnings: tuple[str, ...]


def run_grid(
    grid: Grid,
    out: str | PathLike[str],
    *,
    executor: Executor | None = None,
    observer: GridObserver | None = None,
) -> GridResults:
    """Run what is missing of a grid in `out`, and write its table.

    Finished cells are not run again, and one that was stopped goes on from its checkpoint. The
    workers write the cells' directories, everything else is written here; so workers on other
    machines need a file system that they share with the caller. A cell that fails is in the table
    with the reason, and is tried again by the next call.

    Args:
        grid: what to run.
        out: a new or empty folder, or that of a grid. Cells of values that are no longer in the
            grid stay there and are not in its table.
        executor: where cells are run; None: one after the other, here.
        observer: receives progress events.

    Raises:
        ValueError: `out` holds something else, or a cell that was run with other settings; or
            `executor` is none.
        OSError: `out` cannot be written.
        KeyboardInterrupt: Ctrl-C; what is finished is kept and in the table.
    """
    executor = InTurn() if executor is None else executor
    check_executor(executor)
    observer = observer or GridObserver()
    directory = _open_or_create(grid, Path(out))
    with directory.locked(), interrupts.watching():
        cells = {cell.name: cell for cell in grid.cells}
        finished = [name for name, cell in cells.items() if _is_done(directory.path, cell)]
        missing = [cell for name, cell in cells.items() if name not in set(finished)]
        write_atomically(directory.config, _config_text(grid).encode())
        errors: dict[str, str] = {}
        observer.on_start(len(finished), len(cells))
        try:
            _run_all(directory.path, missing, executor, errors, observer, len(cells))
        finally:
            results = _results(directory.path, grid, tuple(cells.values()), errors)
    return results


def run_cell(config: str, path: str) -> _Report:
    """Start a cell's run or go on with it; whatever goes wrong is in the report.

    Args:
        config: its settings, as JSON.
        path: its directory.
    """
    warnings: list[str] = []
    observer = Observer(on_warning=warnings.append)
    try:
        settings = RunConfig.from_json(config, "the cell")
        if (Path(path) / "config.json").is_file():
            experiment.resume(path, num_epochs=settings.num_epochs, observer=observer)
        else:
            experiment.run(settings, path, observer)
    except Exception as error:
        return _Report(_in_a_line(error), traceback.format_exc(), tuple(warnings))
    return _Report(None, "", tuple(warnings))


def _run_all(
    path: Path,
    cells: Sequence[Cell],
    executor: Executor,
    errors: dict[str, str],
    observer: GridObserver,
    total: int,
) -> None:
    """Run cells; those in flight when a process died are tried once more, one by one."""
    done = total - len(cells)

    def note(cell: Cell, report: _Report) -> None:
        nonlocal done
        done += 1
        _keep_failure(path, cell.name, report)
        for warning in report.warnings:
            observer.on_warning(cell.name, warning)
        if report.error is not None:
            errors[cell.name] = report.error
        observer.on_cell(cell.name, done, total, report.error)

    suspects = []
    for number, future in as_completed(executor, run_cell, _tasks(path, cells)):
        try:
            note(cells[number], _report(future))
        except BrokenExecutor:
            suspects.append(cells[number])
    for cell in suspects:
        for _, future in as_completed(executor, run_cell, _tasks(path, [cell])):
            try:
                note(cell, _report(future))
            except BrokenExecutor as error:
                note(cell, _Report(_DIED, str(error), ()))


def _tasks(path: Path, cells: Sequence[Cell]) -> list[tuple[str, str]]:
    return [(cell.config.to_json(), str(_cell_path(path, cell.name).resolve())) for cell in cells]


def _report(future: Future[_Report]) -> _Report:
    """What a worker says of its cell; where it could say nothing, what the executor says.

    Raises:
        BrokenExecutor: the worker died.
    """
    try:
        return future.result()
    except BrokenExecutor:
        raise
    except Exception as error:  # the executor's own: what cannot be sent, a lost node
        return _Report(_in_a_line(error), traceback.format_exc(), ())


def _in_a_line(error: Exception) -> str:
    message = user_message(error)
    if message is None:
        text = str(error).strip().split("\n")[0]
        message = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return message


def _cell_path(path: Path, name: str) -> Path:
    return path / "cells" / name


def _keep_failure(path: Path, name: str, report: _Report) -> None:
    file = path / "failures" / f"{name}.txt"
    if report.error is None:
        file.unlink(missing_ok=True)
        return
    file.parent.mkdir(exist_ok=True)
    write_atomically(file, f"{report.error}\n\n{report.details}".encode())


def _is_done(path: Path, cell: Cell) -> bool:
    """Whether a cell has nothing left to do.

    Raises:
        ValueError: it was run with other settings, or for more epochs.
    """
    place = _cell_path(path, cell.name)
    if not (place / "config.json").is_file():
        return False
    directory = RunDirectory.open(place)
    stored = experiment.load_config(directory)
    before = _comparable(stored)
    for name, value in _comparable(cell.config).items():
        if before.get(name) != value:
            raise ValueError(
                f"{name} {value} contradicts {place}, which has {before.get(name)}: use a new --out"
            )
    if stored.num_epochs > cell.config.num_epochs:
        raise ValueError(
            f"num_epochs can only grow: {place} has {stored.num_epochs}, "
            f"got {cell.config.num_epochs}"
        )
    if not is_finished(directory, stored.num_epochs):
        return False
    return stored.num_epochs == cell.config.num_epochs or _has_reached_target(directory, stored)


def _comparable(config: RunConfig) -> dict[str, Any]:
    """All settings but the number of epochs, as JSON has them."""
    settings = json.loads(json.dumps(dict(config.settings())))
    del settings["num_epochs"]
    return settings


def _has_reached_target(directory: RunDirectory, config: RunConfig) -> bool:
    rows = read_metrics(directory.metrics_jsonl)
    upper = rows[-1].get("exploitability_max_upper") if rows else None
    return isinstance(upper, int | float) and upper <= config.evaluation.target


def _open_or_create(grid: Grid, path: Path) -> RunDirectory:
    if not (path / "config.json").is_file():
        return RunDirectory.create(path, _config_text(grid))
    stored = read_json(path / "config.json")
    if not isinstance(stored, dict) or stored.get("format") != _FORMAT:
        raise ValueError(f"out must be new, empty or of a sweep, but {path} is not")
    return RunDirectory.open(path)


def _config_text(grid: Grid) -> str:
    content = {"format": _FORMAT, "settings": grid.settings, "axes": grid.axes}
    return json.dumps(content, indent=2) + "\n"


def _results(path: Path, grid: Grid, cells: Sequence[Cell], errors: dict[str, str]) -> GridResults:
    """Read what the cells left, and write the tables."""
    rows: list[Row] = []
    seconds: list[Row] = []
    for cell in cells:
        directory = RunDirectory(_cell_path(path, cell.name))
        finished = cell.name not in errors and _is_done(path, cell)
        status = "finished" if finished else "failed" if cell.name in errors else "unfinished"
        row: Row = {"cell": cell.name, "status": status}
        row |= {
            name: value if isinstance(value, str | int | float) else json.dumps(value)
            for name, value in cell.values.items()
        }
        row["error"] = errors.get(cell.name)
        if finished:
            row |= cell_figures(directory)
            seconds.append({"cell": cell.name} | cell_seconds(directory))
        rows.append(row)
    write_atomically(path / "table.csv", rows_as_csv(rows).encode())
    write_atomically(path / "times.csv", rows_as_csv(seconds).encode())
    return GridResults(path, tuple(grid.columns.values()), tuple(rows))
