"""`crowdnash reproduce`: measure a theorem or figure of the paper again, and show the outcome."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.table import Table
from tyro.conf import Positional, arg

from crowdnash.cli.display import ProgressDisplay
from crowdnash.cli.parsing import parse
from crowdnash.reproduction import everything, sweep
from crowdnash.reproduction import study as studies
from crowdnash.reproduction.names import ALIASES, STUDY_NAMES, canonical_name
from crowdnash.reproduction.studies import STUDIES, lookup
from crowdnash.runs.executors import InTurn, Processes

_PLAIN_SECONDS = 15.0
_ALL = "all"


def experiment_names() -> tuple[str, ...]:
    """What can be asked for."""
    return (*STUDY_NAMES, *ALIASES, _ALL)


@dataclass(frozen=True)
class ReproduceFlags:
    """Measure a theorem or figure of the paper again; a run that was stopped goes on."""

    experiment: Annotated[Positional[str], arg(metavar="{" + ",".join(experiment_names()) + "}")]
    """what to measure; `all`: everything, one after the other"""
    scale: studies.Scale = "small"
    """how much: half a minute, minutes, or in full"""
    out: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: in runs/)")] = None
    """where to save: new, empty, or the directory of the same experiment, which goes on"""
    seed: int = 0
    """decides all random draws"""
    workers: Annotated[int | None, arg(metavar="INT", help_behavior_hint="(optional)")] = None
    """measure in so many processes; what a study says of times is then of a busy machine"""
    json: bool = False
    """print the facts as JSON instead of tables"""


class SweepDisplay(ProgressDisplay):
    """Shows a sweep on a console: a bar on a terminal, a line now and then anywhere else."""

    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("measuring"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[newest]}"),
        )
        super().__init__(console, columns)

    @property
    def observer(self) -> sweep.SweepObserver:
        """The functions that a sweep calls."""
        return sweep.SweepObserver(on_start=self._start, on_point=self._point)

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


def show_reproduce(arguments: Sequence[str]) -> None:
    """Run `crowdnash reproduce` with the arguments after it.

    Raises:
        ValueError: a bad argument, or as `sweep.run`.
        OSError: as `sweep.run`.
    """
    flags = parse(ReproduceFlags, "reproduce", arguments, description=_description())
    name = canonical_name(flags.experiment, _ALL)
    out = flags.out or Path("runs") / f"{name}-{flags.scale}-seed{flags.seed}"
    try:
        with Processes(flags.workers) if flags.workers is not None else InTurn() as executor:
            if name == _ALL:
                outcomes = _all(flags, out, executor)
            else:
                outcomes = (_one(flags, lookup(name), out, executor),)
    except KeyboardInterrupt:
        print(f"points measured so far are saved in {out}", file=sys.stderr)
        raise
    if flags.json:
        facts = {one.study.name: _facts(one) for one in outcomes}
        print(json.dumps(facts if name == _ALL else facts[name], indent=2))
        return
    for one in outcomes:
        _show(one)
    if name == _ALL:
        seconds = sum(one.results.measured_seconds for one in outcomes)
        print(f"all of it: {out / 'summary.md'}, measured in {seconds:.1f} s")


def _one(
    flags: ReproduceFlags, study: studies.Study, out: Path, executor: Executor
) -> everything.Done:
    with SweepDisplay(Console(stderr=True)) as display:
        results = sweep.run(
            study,
            out,
            scale=flags.scale,
            seed=flags.seed,
            observer=display.observer,
            executor=executor,
        )
    return everything.Done(study, results, sweep.draw(study, out))


def _all(flags: ReproduceFlags, out: Path, executor: Executor) -> tuple[everything.Done, ...]:
    console = Console(stderr=True)
    with contextlib.ExitStack() as stack:

        def observer_of(study: studies.Study) -> sweep.SweepObserver:
            stack.close()
            console.print(f"{study.name}: {study.summary}", markup=False, highlight=False)
            return stack.enter_context(SweepDisplay(console)).observer

        return everything.run(
            out, scale=flags.scale, seed=flags.seed, observer_of=observer_of, executor=executor
        )


def _facts(done: everything.Done) -> dict[str, Any]:
    return done.results.conclusion.facts | {"pictures": [str(path) for path in done.pictures]}


def _show(done: everything.Done) -> None:
    console = Console()
    for table in done.results.conclusion.tables:
        console.print(_rich_table(table))
    for sentence in done.results.conclusion.verdict:
        console.print(sentence, markup=False, highlight=False)
    for path in done.pictures:
        print(f"picture: {path}")
    print(f"saved in {done.results.directory}, measured in {done.results.measured_seconds:.1f} s")


def _description() -> str:
    choices = "; ".join(f"{study.name}: {study.summary}" for study in STUDIES.values())
    choices += "".join(f"; {alias}: the same as {name}" for alias, name in ALIASES.items())
    return f"{ReproduceFlags.__doc__} {choices}."


def _rich_table(table: studies.Table) -> Table:
    shown = Table(title=table.title, title_justify="left")
    for index, column in enumerate(table.columns):
        shown.add_column(column, justify="left" if index == 0 else "right")
    for row in table.rows:
        shown.add_row(*row)
    return shown
