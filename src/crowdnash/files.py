"""Whole files written so that a kill leaves the old content or the new, never a part.

A file is written beside its final name, synced, and moved into place with one atomic rename.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Shaped


def write_atomically(path: Path, content: bytes | Callable[[IO[bytes]], object]) -> None:
    """Write a whole file so that `path` holds either its old or its new content, never a part.

    Args:
        path: the file.
        content: its bytes, or a function that writes them to an open binary file.

    Raises:
        OSError: the file cannot be written (its old content is then untouched).
    """
    draft = draft_of(path)
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
        remove(draft)
        raise
    sync_directory(path.parent)


def draft_of(path: Path) -> Path:
    """Where `path` is being written before it is renamed; a kill may leave it there."""
    return path.with_name(f".{path.name}.partial")


def sync_directory(path: Path) -> None:
    """Make renames in the folder `path` durable, where the platform can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a folder with all it holds, a file or a link, as far as possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, atomically; floats round-trip exactly."""
    write_atomically(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: it is missing or not JSON; the message names the file.
    """
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def read_text(path: Path) -> str:
    """Read a text file.

    Raises:
        ValueError: it is not UTF-8; the message names the file.
        OSError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def parse_json(text: str) -> Any:
    """Read JSON.

    Raises:
        ValueError: it is not JSON, or no program of good will wrote it.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def write_arrays(path: Path, arrays: dict[str, Shaped[np.ndarray, "..."]]) -> None:
    """Write named arrays as npz, atomically."""
    write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **arrays))


def read_arrays(path: Path) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Read named arrays.

    Raises:
        ValueError: the file is missing or damaged; the message names it.
    """
    try:
        with open(path, "rb") as file:
            return read_archive(file)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None
    except Exception as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def read_archive(file: IO[bytes]) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Named arrays of an open npz file.

    Raises:
        Exception: of many kinds where it is damaged; none gives NumPy's advice to unpickle.
    """
    if not zipfile.is_zipfile(file):
        raise ValueError("it is no whole npz file")
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        try:
            return {name: arrays[name] for name in arrays.files}
        except ValueError as error:
            if "pickle" not in str(error):
                raise
            raise ValueError("it holds Python objects where numbers must be") from None
