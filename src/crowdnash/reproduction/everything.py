"""All studies, one after the other, in one directory, and a page that shows their results.

`out/<study>/` holds each study as `sweep.run` leaves it; `out/summary.md` their verdicts and
pictures. A run that was stopped goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from crowdnash.files import write_atomically
from crowdnash.reproduction import sweep
from crowdnash.reproduction.studies import STUDIES
from crowdnash.reproduction.study import Scale, Study


@dataclass(frozen=True)
class Done:
    """One finished study with its pictures."""

    study: Study
    results: sweep.Results
    pictures: tuple[Path, ...]


def run(
    out: str | PathLike[str],
    *,
    scale: Scale | str = "small",
    seed: int = 0,
    observer_of: Callable[[Study], sweep.SweepObserver] | None = None,
    executor: Executor | None = None,
) -> tuple[Done, ...]:
    """Measure and draw every study in `out`, on `executor` if one is named.

    `observer_of` makes the observer of each.

    Raises:
        ValueError: `out` holds something else, or as `sweep.run`.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"out must be a folder, but {folder} is a file")
    if folder.is_dir():
        strangers = sorted({path.name for path in folder.iterdir()} - {*STUDIES, "summary.md"})
        if strangers:
            raise ValueError(
                f"out must be new, empty or of `reproduce all`, but {folder} holds {strangers[0]}"
            )
    finished = []
    for study in STUDIES.values():
        observer = observer_of(study) if observer_of is not None else None
        results = sweep.run(
            study,
            folder / study.name,
            scale=scale,
            seed=seed,
            observer=observer,
            executor=executor,
        )
        finished.append(Done(study, results, sweep.draw(study, folder / study.name)))
    write_atomically(folder / "summary.md", _summary(finished, str(scale), seed).encode())
    return tuple(finished)


def _summary(finished: Sequence[Done], scale: str, seed: int) -> str:
    seconds = sum(done.results.measured_seconds for done in finished)
    lines = [
        f"# The paper, measured again: scale {scale}, seed {seed}",
        "",
        f"Measured in {seconds / 60:.1f} minutes.",
        "",
    ]
    for done in finished:
        lines += [f"## {done.study.name}: {done.study.summary}", ""]
        lines += [f"- {sentence}" for sentence in done.results.conclusion.verdict]
        lines += ["", *(f"![{path.stem}]({done.study.name}/{path.name})" for path in done.pictures)]
        lines += ["", f"Tables: [{done.study.name}]({done.study.name}/results.md)", ""]
    return "\n".join(lines)
