"""`crowdnash reproduce`: measure a theorem or figure of the paper again, and show the outcome."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table
from tyro.conf import Positional, arg

from crowdnash.reproduction import STUDIES, lookup, sweep
from crowdnash.reproduction import study as studies

_PLAIN_SECONDS = 15.0


@dataclass(frozen=True)
class ReproduceFlags:
    """Measure a theorem or figure of the paper again; a run that was stopped goes on."""

    experiment: Annotated[Positional[str], arg(metavar="{" + ",".join(STUDIES) + "}")]
    """what to measure"""
    scale: studies.Scale = "small"
    """how much: half a minute, minutes, or in full"""
    out: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: in runs/)")] = None
    """where to save: new, empty, or the directory of the same experiment, which goes on"""
    seed: int = 0
    """decides all random draws"""
    json: bool = False
    """print the facts as JSON instead of tables"""


class SweepDisplay:
    """Shows a sweep on a console: a bar on a terminal, a line now and then anywhere else."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._last_line = time.monotonic()
        if console.is_terminal:
            self._progress = Progress(
                TextColumn("measuring"),
                BarColumn(bar_width=30),
                MofNCompleteColumn(),
                TextColumn("{task.fields[newest]}"),
                console=console,
            )

    @property
    def observer(self) -> sweep.SweepObserver:
        """The functions that a sweep calls."""
        return sweep.SweepObserver(on_start=self._start, on_point=self._point)

    def __enter__(self) -> SweepDisplay:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def _start(self, done: int, total: int) -> None:
        if self._progress is not None:
            self._task = self._progress.add_task("", total=total, completed=done, newest="")
        elif done:
            self._print(f"{done} of {total} points were measured before")

    def _point(self, name: str, done: int, total: int, seconds: float) -> None:
        if self._progress is not None:
            self._progress.update(self._task, completed=done, newest=name)
        elif done == total or time.monotonic() - self._last_line > _PLAIN_SECONDS:
            self._last_line = time.monotonic()
            self._print(f"{done}/{total} points  {name} ({seconds:.1f} s)")

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def show_reproduce(arguments: Sequence[str]) -> None:
    """Run `crowdnash reproduce` with the arguments after it.

    **Raises:** `ValueError`, `OSError` as `sweep.run`; `SystemExit` is tyro's own.
    """
    flags = tyro.cli(
        ReproduceFlags, prog="crowdnash reproduce", args=arguments, description=_description()
    )
    study = lookup(flags.experiment)
    out = flags.out or Path("runs") / f"{study.name}-{flags.scale}-seed{flags.seed}"
    with SweepDisplay(Console(stderr=True)) as display:
        try:
            results = sweep.run(
                study, out, scale=flags.scale, seed=flags.seed, observer=display.observer
            )
        except KeyboardInterrupt:
            print(f"points measured so far are saved in {out}", file=sys.stderr)
            raise
    pictures = sweep.draw(study, out)
    if flags.json:
        facts = results.conclusion.facts | {"pictures": [str(path) for path in pictures]}
        print(json.dumps(facts, indent=2))
        return
    console = Console()
    for table in results.conclusion.tables:
        console.print(_rich_table(table))
    for sentence in results.conclusion.verdict:
        console.print(sentence, markup=False, highlight=False)
    for path in pictures:
        print(f"picture: {path}")
    print(f"saved in {results.directory}, measured in {results.measured_seconds:.1f} s")


def _description() -> str:
    known = "; ".join(f"{study.name}: {study.summary}" for study in STUDIES.values())
    return f"{ReproduceFlags.__doc__} {known}."


def _rich_table(table: studies.Table) -> Table:
    shown = Table(title=table.title, title_justify="left")
    for index, column in enumerate(table.columns):
        shown.add_column(column, justify="left" if index == 0 else "right")
    for row in table.rows:
        shown.add_row(*row)
    return shown
