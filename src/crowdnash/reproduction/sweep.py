"""Run a study in a directory: every point is saved as it is measured, so that a run can go on.

The directory holds `config.json` (which study, scale and seed), `points/<name>.json`,
`results.json`, `results.csv` and `results.md`, and the pictures as PNG.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, cast, get_args

from crowdnash import interrupts
from crowdnash.checks import check_choice, check_count
from crowdnash.files import read_json, write_atomically, write_json
from crowdnash.reports.style import save_figure
from crowdnash.reproduction.study import Conclusion, Point, Scale, Settings, Study, Table
from crowdnash.runs.directory import RunDirectory
from crowdnash.runs.executors import InTurn, as_completed, check_executor
from crowdnash.runs.metrics_log import Row, rows_as_csv

_FORMAT = "crowdnash-reproduction-1"


def _ignore(*_: object) -> None:
    pass


@dataclass(frozen=True)
class SweepObserver:
    """Functions that are called as a sweep goes on.

    - `on_start(done, total)`: before the first measurement; `done` points were saved before.
    - `on_point(name, done, total, seconds)`: after each point measured.
    """

    on_start: Callable[[int, int], object] = _ignore
    on_point: Callable[[str, int, int, float], object] = _ignore


@dataclass(frozen=True)
class Results:
    """A finished sweep: `rows` in the order of the points, what they say, and where it is saved.

    `measured_seconds` is the wall time of all measurements, earlier calls included.
    """

    directory: Path
    study: str
    scale: str
    seed: int
    rows: tuple[Row, ...]
    conclusion: Conclusion
    measured_seconds: float


def run(
    study: Study,
    out: str | PathLike[str],
    *,
    scale: Scale | str = "small",
    seed: int = 0,
    observer: SweepObserver | None = None,
    executor: Executor | None = None,
) -> Results:
    """Measure what is missing of a study in `out`, conclude, save; see `draw` for the pictures.

    Args:
        study: what to measure.
        out: a new or empty folder, or that of the same study, scale and seed.
        scale: how much is measured.
        seed: decides every draw, >= 0.
        observer: receives progress events.
        executor: where points are measured; None: one after the other, here. Times that a study
            measures are then those of a busy machine.

    Raises:
        ValueError: an argument is out of range, `out` holds something else or a file in it is
            damaged.
        OSError: it cannot be written; what was saved stays.
    """
    check_choice("scale", scale, get_args(Scale))
    check_count("seed", seed, 0)
    executor = InTurn() if executor is None else executor
    check_executor(executor)
    points = study.points(cast(Scale, scale), seed)
    directory = _open_or_create(study.name, out, scale, seed)
    with directory.locked(), interrupts.watching():
        rows, seconds = _measure(
            study, points, directory.path, executor, observer or SweepObserver()
        )
        results = Results(
            directory=directory.path,
            study=study.name,
            scale=scale,
            seed=seed,
            rows=tuple(rows),
            conclusion=study.conclude(rows),
            measured_seconds=seconds,
        )
        _save(results)
    return results


def draw(study: Study, out: str | PathLike[str]) -> tuple[Path, ...]:
    """Draw the pictures of a finished sweep from its saved results; return their paths.

    Raises:
        ValueError: `out` holds no results of this study.
        OSError: a picture cannot be written.
    """
    results = load(out)
    if results.study != study.name:
        raise ValueError(f"{results.directory} is of {results.study}, not of {study.name}")
    paths = []
    for name, figure in study.draw(results.rows, results.conclusion.facts).items():
        path = results.directory / f"{name}.png"
        save_figure(figure, path)
        paths.append(path)
    return tuple(paths)


def load(out: str | PathLike[str]) -> Results:
    """Read the results of a finished sweep.

    Raises:
        ValueError: `out` is not a finished sweep or its file is damaged.
    """
    path = Path(out)
    saved = read_json(path / "results.json")
    try:
        tables = tuple(
            Table(
                title=table["title"],
                columns=tuple(table["columns"]),
                rows=tuple(tuple(row) for row in table["rows"]),
            )
            for table in saved["tables"]
        )
        return Results(
            directory=path,
            study=saved["experiment"],
            scale=saved["scale"],
            seed=saved["seed"],
            rows=tuple(saved["rows"]),
            conclusion=Conclusion(saved["facts"], tables, tuple(saved["verdict"])),
            measured_seconds=saved["measured_seconds"],
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path / 'results.json'} is damaged: no {error}") from None


def _open_or_create(name: str, out: str | PathLike[str], scale: str, seed: int) -> RunDirectory:
    config = {"format": _FORMAT, "experiment": name, "scale": scale, "seed": seed}
    path = Path(out)
    if not (path / "config.json").is_file():
        return RunDirectory.create(path, json.dumps(config, indent=2) + "\n")
    stored = read_json(path / "config.json")
    if not isinstance(stored, dict) or stored.get("format") != _FORMAT:
        raise ValueError(f"out must be new, empty or of the same experiment, but {path} is not")
    for item in ("experiment", "scale", "seed"):
        if stored.get(item) != config[item]:
            raise ValueError(
                f"{item} {config[item]} contradicts {path}, which has {stored.get(item)}"
            )
    return RunDirectory.open(path)


def _measure(
    study: Study,
    points: Sequence[Point],
    directory: Path,
    executor: Executor,
    observer: SweepObserver,
) -> tuple[list[Row], float]:
    names = [point.name for point in points]
    if len(set(names)) != len(names):
        raise AssertionError(f"{study.name}: two points share a name")
    folder = directory / "points"
    folder.mkdir(exist_ok=True)
    saved = {point.name: _saved(folder / f"{point.name}.json", point) for point in points}
    done = sum(content is not None for content in saved.values())
    observer.on_start(done, len(points))
    missing = [point for point in points if saved[point.name] is None]
    tasks = [(study.measure, dict(x.settings), (folder / x.name).resolve()) for x in missing]
    for number, future in as_completed(executor, _timed, tasks):
        point, (rows, seconds) = missing[number], future.result()
        content = {"settings": dict(point.settings), "rows": rows, "seconds": seconds}
        write_json(folder / f"{point.name}.json", content)
        saved[point.name] = content
        done += 1
        observer.on_point(point.name, done, len(points), seconds)
    measured = [content for content in saved.values() if content is not None]
    rows = [row for content in measured for row in content["rows"]]
    return rows, sum(content["seconds"] for content in measured)


def _timed(
    measure: Callable[[Settings, Path], Sequence[Row]], settings: Settings, folder: Path
) -> tuple[list[Row], float]:
    """The rows of a point, with its settings, and how long they took."""
    began = time.monotonic()
    rows = [dict(settings) | dict(row) for row in measure(settings, folder)]
    return rows, time.monotonic() - began


def _saved(path: Path, point: Point) -> dict[str, Any] | None:
    """What an earlier call measured at this point, or None."""
    if not path.exists():
        return None
    content = read_json(path)
    if not isinstance(content, dict) or not {"settings", "rows", "seconds"} <= set(content):
        raise ValueError(f"{path} is damaged: it is not a measured point")
    if content["settings"] != dict(point.settings):
        raise ValueError(
            f"{path} was measured with other settings, by another version: use a new --out"
        )
    return content


def _save(results: Results) -> None:
    conclusion = results.conclusion
    content = {
        "format": _FORMAT,
        "experiment": results.study,
        "scale": results.scale,
        "seed": results.seed,
        "measured_seconds": results.measured_seconds,
        "verdict": list(conclusion.verdict),
        "facts": conclusion.facts,
        "tables": [dataclasses.asdict(table) for table in conclusion.tables],
        "rows": list(results.rows),
    }
    write_atomically(results.directory / "results.csv", rows_as_csv(results.rows).encode())
    write_json(results.directory / "results.json", content)
    write_atomically(results.directory / "results.md", _markdown(results).encode())


def _markdown(results: Results) -> str:
    """The tables and sentences of a sweep, for a page."""
    lines = [
        f"# {results.study}, scale {results.scale}, seed {results.seed}",
        "",
        *(f"- {sentence}" for sentence in results.conclusion.verdict),
        "",
    ]
    for table in results.conclusion.tables:
        rows = (table.columns, ("---",) * len(table.columns), *table.rows)
        lines += [f"## {table.title}", "", *(f"| {' | '.join(row)} |" for row in rows), ""]
    return "\n".join(lines)
