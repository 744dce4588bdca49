"""What the command line shows: progress while a run goes on, and tables at its end."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from crowdnash.runs.evaluation import Evaluation, policy_title
from crowdnash.runs.experiment import Observer
from crowdnash.runs.metrics_log import Row

_RATE_EPOCHS = 20
_PLAIN_LINES = 10
_PLAIN_SECONDS = 30.0

DisplayT = TypeVar("DisplayT", bound="ProgressDisplay")


class ProgressDisplay:
    """A bar on a terminal, plain lines now and then anywhere else; a context manager.

    On a terminal `_progress` is the bar and `_task` its one task; elsewhere `_progress` is None.
    """

    def __init__(self, console: Console, columns: Sequence[ProgressColumn]) -> None:
        self._console = console
        self._task = TaskID(0)
        self._last_line = time.monotonic()
        self._progress = Progress(*columns, console=console) if console.is_terminal else None

    def __enter__(self: DisplayT) -> DisplayT:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class RunDisplay(ProgressDisplay):
    """Shows a run on a console: a bar on a terminal, a few plain lines anywhere else.

    Use as a context manager; `observer` is what the run calls.
    """

    def __init__(self, console: Console, num_epochs: int) -> None:
        self._num_epochs = num_epochs
        self._rate = _StepRate()
        self._largest_gain = ""
        self._is_learned = False
        self._is_narrow = console.width < 110
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=10 if self._is_narrow else 30),
            MofNCompleteColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[figures]}"),
        )
        super().__init__(console, columns)
        if self._progress is not None:
            self._task = self._progress.add_task("compiling", total=num_epochs, rate="", figures="")

    @property
    def observer(self) -> Observer:
        """The functions that a run calls."""
        return Observer(
            on_start=self._start,
            on_epoch=self._epoch,
            on_stage=self._stage,
            on_warning=self.warn,
        )

    def warn(self, message: str) -> None:
        """Show one warning."""
        self._print(f"crowdnash: warning: {message}")

    def _start(self, epoch: int) -> None:
        self._is_learned = epoch == self._num_epochs
        if self._progress is not None:
            self._progress.update(self._task, completed=epoch)
        elif epoch:
            self._print(f"resuming after epoch {epoch} of {self._num_epochs}")

    def _stage(self, stage: str) -> None:
        if self._progress is not None:
            self._progress.update(self._task, description=stage.split()[0])
        if self._is_learned:
            self._print(stage)

    def _epoch(self, row: Row) -> None:
        epoch = int(row["epoch"] or 0)
        self._is_learned = epoch == self._num_epochs
        self._rate.add(row)
        if row.get("exploitability_max_upper") is not None:
            self._largest_gain = f"{row['exploitability_max_upper']:.3f}"
        if self._progress is not None:
            word = "expl." if self._is_narrow else "exploitability"
            self._progress.update(
                self._task,
                completed=epoch,
                description="learning",
                rate=self._rate.text,
                figures=f"{word} ≤ {self._largest_gain}" if self._largest_gain else "",
            )
        elif self._line_is_due(epoch):
            self._last_line = time.monotonic()
            parts = [f"epoch {epoch}/{self._num_epochs}", self._rate.text]
            parts.append(f"mean return {row['mean_return']:.4g}")
            if self._largest_gain:
                parts.append(f"exploitability at most {self._largest_gain}")
            self._print("  ".join(part for part in parts if part))

    def _line_is_due(self, epoch: int) -> bool:
        every = max(1, self._num_epochs // _PLAIN_LINES)
        return (
            epoch == self._num_epochs
            or epoch % every == 0
            or time.monotonic() - self._last_line > _PLAIN_SECONDS
        )


class _StepRate:
    """Agent-steps a second over the newest epochs."""

    def __init__(self) -> None:
        self._newest: deque[tuple[float, float]] = deque(maxlen=_RATE_EPOCHS)
        self._is_first = True

    def add(self, row: Row) -> None:
        steps, seconds = row.get("agent_steps"), row.get("seconds")
        # The first epoch's time is mostly compilation.
        if isinstance(steps, int | float) and isinstance(seconds, float) and not self._is_first:
            self._newest.append((steps, seconds))
        self._is_first = False

    @property
    def text(self) -> str:
        seconds = sum(pair[1] for pair in self._newest)
        if seconds <= 0.0:
            return ""
        return f"{in_si(sum(pair[0] for pair in self._newest) / seconds)} agent-steps/s"


def in_si(number: float) -> str:
    """Return a positive number with three digits and a k, M or G."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.3g} {letter}"
    return f"{number:.3g}"


def evaluation_table(evaluation: Evaluation) -> Table:
    """Return the table of how policies do, the recommended one first."""
    policies = evaluation.policies
    certificates = [one.exploitability for one in policies.values() if one.exploitability]
    caption = f"{evaluation.confidence:.0%} intervals, {evaluation.num_trajectories} plays."
    if certificates:
        caption = (
            "Exploitability: what one agent could still gain in total by deviating "
            f"({evaluation.confidence:.0%} intervals, method: {certificates[0].method}). "
            f"{policy_title(evaluation.recommended).capitalize()}: {certificates[0].statement}"
        )
    table = Table(
        title=f"{evaluation.game}, {evaluation.num_agents} agents, {evaluation.horizon} steps, "
        f"after {evaluation.epoch} epochs",
        caption=caption,
        caption_justify="left",
        title_justify="left",
    )
    table.add_column("policy")
    if certificates:
        table.add_column("largest exploitability", justify="right")
        table.add_column("mean exploitability", justify="right")
    figures = sorted({name: None for one in policies.values() for name in one.statistics})
    for name in ("mean return of an agent", *figures):
        table.add_column(name.replace("_", " "), justify="right")
    for name, one in policies.items():
        gains = one.exploitability
        cells = [interval_text(*gains.maximum), interval_text(*gains.mean)] if gains else []
        cells += ["not measured"] * (2 * bool(certificates) - len(cells))
        cells.append(interval_text(*one.mean_return))
        cells += [f"{one.statistics[x]:.4f}" if x in one.statistics else "" for x in figures]
        table.add_row(policy_title(name), *cells)
    return table


def interval_text(low: float, high: float) -> str:
    """An interval for a table; one without an upper end is "at least"."""
    return f"{low:.4f} to {high:.4f}" if math.isfinite(high) else f"at least {low:.4f}"
