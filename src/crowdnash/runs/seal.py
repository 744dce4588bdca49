"""evaluation.json and the files that it speaks of: written last, believed only with all of them.

Nothing here needs JAX: whether a run is finished is known before anything slow is imported.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from crowdnash.files import read_json, write_json
from crowdnash.runs.directory import RunDirectory

FORMAT = 2
"""Of config.json and of evaluation.json; runs of other versions are refused."""


def write_sealed(directory: RunDirectory, content: dict[str, Any], files: Iterable[Path]) -> None:
    """Write evaluation.json with the digests of `files`, and one digest over all.

    Raises:
        OSError: it cannot be written.
    """
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    record = {"format": FORMAT} | content | {"files": digests}
    write_json(directory.evaluation, record | {"digest": _digest(record)})


def read_sealed(directory: RunDirectory) -> dict[str, Any]:
    """Return what evaluation.json says, if it is whole and speaks of the files that are there.

    Raises:
        ValueError: it is missing or damaged, or a file is another one than was evaluated.
    """
    path = directory.evaluation
    remedy = f"“crowdnash evaluate {directory.path}” makes it anew"
    record = read_json(path)
    if not isinstance(record, dict) or not isinstance(record.get("files"), dict):
        raise ValueError(f"{path} is not an evaluation of this version; {remedy}")
    digest = record.pop("digest", None)
    if record.get("format") != FORMAT or digest != _digest(record):
        raise ValueError(f"{path} is damaged or was altered; {remedy}")
    for name, expected in record.pop("files").items():
        file = directory.path / name
        if not file.exists():
            raise ValueError(f"{file} is missing; {remedy}")
        if hashlib.sha256(file.read_bytes()).hexdigest() != expected:
            raise ValueError(
                f"{file} is not what was evaluated: it is damaged, of another time or for another "
                f"game; {remedy}"
            )
    return record


def is_finished(directory: RunDirectory, num_epochs: int) -> bool:
    """Whether the run's policies are saved and evaluated after this many epochs."""
    try:
        return read_sealed(directory)["epoch"] == num_epochs
    except (ValueError, KeyError):
        return False


def finished_epochs(directory: RunDirectory, game: str | None = None) -> int | None:
    """The epochs of a finished run whose settings are those of its checkpoints; None for any other.

    Args:
        directory: the run.
        game: the game that the run is expected to be of, or None.
    """
    try:
        config = read_json(directory.config)
        num_epochs = int(config["learner"].pop("num_epochs"))
        if config.pop("format") != FORMAT or game not in (None, config["game"]):
            return None
        newest = directory.checkpoints / str(num_epochs) / "crowdnash.json"
        if newest.exists():
            decisive = {name: config[name] for name in read_json(newest)["settings"]}
            if decisive != read_json(newest)["settings"]:
                return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return num_epochs if is_finished(directory, num_epochs) else None


def _digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
