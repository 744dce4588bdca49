"""A case's directory: what has been done there is not done again."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from crowdnash.certificates.result import Exploitability
from crowdnash.files import read_arrays, read_json, write_arrays, write_atomically, write_json

Tell = Callable[[str], Any]


def open_case(out: Path, settings: Mapping[str, Any]) -> None:
    """Make the directory of a case, or make sure that it is the one of these settings.

    Args:
        out: the directory.
        settings: case, scale and seed.

    Raises:
        ValueError: it holds something else.
        OSError: it cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    if (out / "case.json").exists():
        if read_json(out / "case.json") != dict(settings):
            raise ValueError(f"--out must be new or of the same case, scale and seed: {out}")
    elif any(out.iterdir()):
        raise ValueError(f"--out must be new or empty: {out}")
    write_json(out / "case.json", dict(settings))


def stage(out: Path, name: str, tell: Tell, work: Callable[[], np.ndarray]) -> np.ndarray:
    """Probabilities that `work` computes, kept in `out`, where they are read the next time.

    Args:
        out: the case's directory.
        name: of the stage and its file.
        tell: is called with a line about it.
        work: computes the probabilities.

    Raises:
        OSError: the file cannot be read or written.
    """
    path = out / f"{name}.npz"
    if path.exists():
        tell(f"{name}: done before")
        return read_arrays(path)["probs"]
    begun = time.perf_counter()
    probs = work()
    write_arrays(path, {"probs": probs})
    tell(f"{name}: {time.perf_counter() - begun:.1f} s")
    return probs


def certified(
    path: Path, tell: Tell, who: str, work: Callable[[], Exploitability]
) -> Exploitability:
    """The certificate that `work` makes, kept at `path`, where it is read the next time.

    Args:
        path: of its file.
        tell: is called with a line about it.
        who: is certified, for the line.
        work: makes the certificate.

    Raises:
        ValueError: the file is damaged.
        OSError: it cannot be read or written.
    """
    if path.exists():
        tell(f"{path.stem}: done before")
        return Exploitability.load(path)
    begun = time.perf_counter()
    certificate = work()
    certificate.save(path)
    tell(f"certified {who} in {time.perf_counter() - begun:.1f} s")
    return certificate


def write_table(path: Path, header: str, rows: Any) -> None:
    """A CSV file: a header, and rows whose numbers have seven digits.

    Args:
        path: of the file.
        header: names, with commas between them.
        rows: of numbers and texts.
    """

    def text(value: Any) -> str:
        return f"{value:.7g}" if isinstance(value, float | np.floating) else str(value)

    lines = [",".join(text(value) for value in row) for row in rows]
    write_atomically(path, "\n".join([header, *lines, ""]).encode())
