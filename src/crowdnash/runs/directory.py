"""What a run keeps on disk, and how it is written so that a kill loses nothing already saved.

Every whole file is written beside its final name, synced, and moved into place with one atomic
rename; the metrics grow line by line and survive a last line that was cut short.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Shaped

Value = bool | int | float | str | None
"""One cell of the metrics; a number that is not finite is stored as None (JSON has no NaN)."""

Row = dict[str, Value]
"""One epoch of the metrics, by column name."""


@dataclass(frozen=True)
class RunDirectory:
    """The files of one run; see `open` for an existing run and `create` for a new one."""

    path: Path

    @property
    def config(self) -> Path:
        """The settings of the run (`ExperimentConfig` or `PPOConfig`), JSON."""
        return self.path / "config.json"

    @property
    def metrics_jsonl(self) -> Path:
        """One JSON object per epoch."""
        return self.path / "metrics.jsonl"

    @property
    def metrics_csv(self) -> Path:
        """The same rows as `metrics_jsonl`, with a header."""
        return self.path / "metrics.csv"

    @property
    def policy(self) -> Path:
        """Algorithm 2's average policy, or PPO's last."""
        return self.path / "policy.npz"

    @property
    def last_policy(self) -> Path:
        """Algorithm 2's last iterate."""
        return self.path / "last_policy.npz"

    @property
    def evaluation(self) -> Path:
        """What the final policies are worth, JSON; its presence marks a finished run."""
        return self.path / "evaluation.json"

    @property
    def evaluation_arrays(self) -> Path:
        """Per-agent gains and population flows of `evaluation`."""
        return self.path / "evaluation.npz"

    @property
    def symmetry(self) -> Path:
        """alpha and beta of the game, JSON; only there if they are exact and cheap."""
        return self.path / "symmetry.json"

    @property
    def agents(self) -> Path:
        """The agents' parameters, by name."""
        return self.path / "agents.npz"

    @property
    def episode(self) -> Path:
        """One episode of the final policy: the game's statistics and snapshots at every step."""
        return self.path / "episode.npz"

    @property
    def checkpoints(self) -> Path:
        """One folder per kept checkpoint, named by the number of epochs done."""
        return self.path / "checkpoints"

    @property
    def report(self) -> Path:
        """The self-contained report page."""
        return self.path / "report.html"

    def remove_results(self) -> None:
        """Remove what speaks of the last policy, before a newer one takes its place."""
        for path in (self.evaluation, self.report):
            path.unlink(missing_ok=True)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunDirectory:
        """Return the run at `path`.

        Raises:
            ValueError: nothing is at `path`, or it is not the folder of a run.
        """
        directory = cls(Path(path))
        if not directory.path.exists():
            raise ValueError(f"{directory.path}: no such run directory")
        if not directory.config.is_file():
            raise ValueError(f"{directory.path} is not a run directory (it has no config.json)")
        return directory

    @classmethod
    def create(cls, path: str | os.PathLike[str], config: str) -> RunDirectory:
        """Make a new run at `path`, which must be new or an empty folder, with its `config` text.

        The folder appears together with its config.json, in one rename: a kill leaves either
        a run that can be resumed or nothing.

        Raises:
            ValueError: `path` is a file or a folder that is not empty.
            OSError: it cannot be written.
        """
        target = Path(path)
        if target.exists() and not (target.is_dir() and not any(target.iterdir())):
            raise ValueError(f"out must be a new or empty directory, but {target} is not")
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.resolve().parent))
        draft.chmod(0o755)
        try:
            write_atomically(draft / "config.json", config.encode())
            try:
                draft.replace(target)
            except OSError as error:
                if error.errno not in (errno.EBUSY, errno.EXDEV, errno.EACCES, errno.EINVAL):
                    raise
                # A mount point cannot be renamed over; it can still be filled.
                write_atomically(target / "config.json", config.encode())
        finally:
            if draft.exists():
                shutil.rmtree(draft, ignore_errors=True)
        sync_directory(target.resolve().parent)
        return cls(target)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from working on this run; the lock ends with the process.

        Raises:
            ValueError: another process holds the lock.
        """
        try:
            import fcntl
        except ImportError:  # no advisory locks on this platform
            yield
            return
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    # A file system without locks: go on unprotected rather than not at all.
                    yield
                    return
                raise ValueError(f"{self.path} is in use by another process") from None
            yield
        finally:
            os.close(descriptor)


def config_text(directory: RunDirectory) -> str:
    """The stored settings of a run, as text.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        return directory.config.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{directory.config} is damaged: {error}") from None


def write_atomically(path: Path, content: bytes | Callable[[IO[bytes]], object]) -> None:
    """Write a whole file so that `path` holds either its old or its new content, never a part.

    Args:
        path: the file.
        content: its bytes, or a function that writes them to an open binary file.

    Raises:
        OSError: the file cannot be written (its old content is then untouched).
    """
    draft = path.with_name(f".{path.name}.partial")
    try:
        with open(draft, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make renames in the folder `path` durable, where the platform can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, atomically; floats round-trip exactly."""
    write_atomically(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: it is missing or not JSON; the message names the file.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def write_arrays(path: Path, arrays: dict[str, Shaped[np.ndarray, "..."]]) -> None:
    """Write named arrays as npz, atomically."""
    write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **arrays))


def read_arrays(path: Path) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Read named arrays.

    Raises:
        ValueError: the file is missing or damaged; the message names it.
    """
    try:
        # Opened here, because numpy leaves a damaged file open.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None
    except Exception as error:
        raise ValueError(f"{path} is damaged: {error}") from None


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
        try:
            row = json.loads(line)
            epoch = row["epoch"]
        except (json.JSONDecodeError, KeyError, TypeError):
            break
        if not isinstance(epoch, int) or (up_to_epoch is not None and epoch > up_to_epoch):
            break
        rows[epoch] = row
    return tuple(rows.values())
