"""The metrics of a run: one row an epoch, as JSON lines and as CSV.

They grow line by line and survive a last line that was cut short.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crowdnash.files import parse_json, write_atomically
from crowdnash.runs.directory import RunDirectory

Value = bool | int | float | str | None
"""One cell of the metrics; a number that is not finite is stored as None (JSON has no NaN)."""

Row = dict[str, Value]
"""One epoch of the metrics, by column name."""


class MetricsLog:
    """Append-only metrics, one row an epoch, as JSON lines and as CSV.

    Opening it for `columns` writes `rows` afresh (both files, atomically), so that the two agree
    and nothing after the last row remains.
    """

    def __init__(
        self, directory: RunDirectory, columns: Sequence[str], rows: Sequence[Row] = ()
    ) -> None:
        self.columns = tuple(columns)
        write_atomically(directory.metrics_jsonl, "".join(map(self._json_line, rows)).encode())
        header = _csv_line(self.columns)
        write_atomically(
            directory.metrics_csv, (header + "".join(map(self._csv_line, rows))).encode()
        )
        self._jsonl = open(directory.metrics_jsonl, "a", encoding="utf-8")  # noqa: SIM115
        self._csv = open(directory.metrics_csv, "a", encoding="utf-8", newline="")  # noqa: SIM115

    def append(self, row: Row) -> None:
        """Add one epoch; it reaches the operating system before this returns."""
        self._jsonl.write(self._json_line(row))
        self._jsonl.flush()
        self._csv.write(self._csv_line(row))
        self._csv.flush()

    def sync(self) -> None:
        """Make all rows so far durable."""
        os.fsync(self._jsonl.fileno())
        os.fsync(self._csv.fileno())

    def close(self) -> None:
        """Close both files."""
        for file in (self._jsonl, self._csv):
            # After a full disk, closing would try the same write again.
            with contextlib.suppress(OSError):
                file.close()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _cells(self, row: Row) -> Row:
        cells = {column: row.get(column) for column in self.columns}
        return {
            column: None if isinstance(cell, float) and not math.isfinite(cell) else cell
            for column, cell in cells.items()
        }

    def _json_line(self, row: Row) -> str:
        return json.dumps(self._cells(row), allow_nan=False) + "\n"

    def _csv_line(self, row: Row) -> str:
        return _csv_line(["" if cell is None else cell for cell in self._cells(row).values()])


def _csv_line(cells: Sequence[Value]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def rows_as_csv(rows: Sequence[Row]) -> str:
    """A table with a header, of all columns in the order in which they come up; None is empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [["" if row.get(name) is None else row[name] for name in columns] for row in rows]
    return "".join(map(_csv_line, [columns, *lines]))


def read_metrics(path: Path, up_to_epoch: int | None = None) -> tuple[Row, ...]:
    """Return the rows of a metrics.jsonl, in order, each epoch once.

    A line that was cut short, as a kill leaves it, and whatever follows it are left out.

    Args:
        path: the file; a missing one has no rows.
        up_to_epoch: keep only epochs up to this one.
    """
    if not path.exists():
        return ()
    rows: dict[int, Row] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]:
        row = _parse(line)
        if row is None or (up_to_epoch is not None and row["epoch"] > up_to_epoch):
            break
        rows[row["epoch"]] = row
    return tuple(rows.values())


def _parse(line: str) -> Any:
    """The row that a line holds, or None."""
    try:
        row = parse_json(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or type(row.get("epoch")) is not int:
        return None
    return row if all(isinstance(cell, Value) for cell in row.values()) else None
