"""Runs killed and interrupted at random moments, each resumed and compared bit for bit.

A reference of each kind (policy mirror descent on A-SIS, PPO on A-Taxi, `reproduce theorem3` at
the smoke scale) goes to its end undisturbed. Then the same command is started again and again and
gets SIGKILL or SIGINT at a random moment: one in four while Python imports and the game is drawn,
the others after that, evaluation included. It is resumed and must leave what the reference left:
policies, metrics, evaluation, game record and saved points, all but wall times. An interrupted run
must say so in one line, without a traceback, and exit with 130; one that had nothing left to do
may finish.

    python benchmarks/interruptions.py [--kills 30] [--interrupts 20] [--kinds KIND ...]

prints a table and exits with 1 if anything failed. About ten minutes on two free cores. Nothing is
kept: runs and the compilation cache that they share go to a temporary directory.
"""

import argparse
import csv
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

PATIENCE = 300.0  # seconds for a command that is left alone, however busy the machine
LAST_MOMENT = 2.0  # seconds after which a run that ignores Ctrl-C is no longer just finishing

_SIS = "solve sis --num-agents 30 --horizon 5 --num-epochs 40 --td-epochs 10"
_TAXI = "solve taxi --num-agents 20 --horizon 6 --num-epochs 6 --hidden-sizes 16 16"
_SAVED = "--num-evaluation-trajectories 8 --checkpoint-every 3 --no-report"


@dataclass(frozen=True)
class Kind:
    """A kind of run: how it starts, how it goes on, and how many of the trials are of it."""

    name: str
    start: str
    resume: str
    share: int

    def command(self, template: str, out: Path) -> list[str]:
        """The command line for the directory `out`."""
        return [sys.executable, "-m", "crowdnash", *template.split(), str(out)]


KINDS = (
    Kind("tabular", f"{_SIS} {_SAVED} --evaluate-every 10 --out", "solve --no-report --resume", 2),
    Kind("ppo", f"{_TAXI} {_SAVED} --out", "solve --no-report --resume", 2),
    Kind(
        "reproduce",
        "reproduce theorem3 --scale smoke --out",
        "reproduce theorem3 --scale smoke --out",
        1,
    ),
)


class Span(NamedTuple):
    """Seconds of an undisturbed run until its directory is there, and from then on."""

    start: float
    rest: float


@dataclass(frozen=True)
class Trial:
    """One disturbed run, and what came of it; `moment` in seconds, once it has begun or not."""

    kind: Kind
    sent: signal.Signals
    has_begun: bool
    moment: float
    exit_code: int = 0
    seconds: float = 0.0
    stage: str = ""
    fault: str = ""


def main() -> int:
    """Run the campaign and return the exit code."""
    flags = _flags()
    # A shell's background jobs ignore Ctrl-C, and so would their children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    kinds = [kind for kind in KINDS if kind.name in flags.kinds]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="crowdnash-interruptions-") as folder:
        campaign = _Campaign(Path(folder))
        references = {kind: campaign.reference(kind) for kind in kinds}
        trials = _draw(flags, references)
        with ThreadPoolExecutor(flags.workers) as pool:
            futures = [pool.submit(campaign.disturb, trial) for trial in trials]
            outcomes = [_say(future.result()) for future in as_completed(futures)]
    _print_table(outcomes)
    failures = sum(bool(trial.fault) for trial in outcomes)
    print(f"{len(outcomes)} trials, {failures} failed, {time.monotonic() - began:.0f} s")
    return 1 if failures else 0


def _flags() -> argparse.Namespace:
    names = [kind.name for kind in KINDS]
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--interrupts", type=int, default=20)
    parser.add_argument("--kinds", nargs="+", choices=names, default=names)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    return parser.parse_args()


def _draw(flags: argparse.Namespace, references: dict[Kind, Span]) -> list[Trial]:
    """The trials in random order, each kind's share of them, moments uniform in their part."""
    random_ = random.Random(flags.seed)
    turns = [kind for kind in references for _ in range(kind.share)]
    trials = []
    for sent, count in ((signal.SIGKILL, flags.kills), (signal.SIGINT, flags.interrupts)):
        for index in range(count):
            kind = turns[index % len(turns)]
            has_begun = random_.random() > 0.25
            span = references[kind].rest if has_begun else references[kind].start
            trials.append(Trial(kind, sent, has_begun, random_.uniform(0.0, span)))
    random_.shuffle(trials)
    return trials


class _Campaign:
    """Starts runs in a folder and compares what they leave with the references."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = iter(range(10**6))
        self._environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "MPLBACKEND": "Agg",
            "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }

    def reference(self, kind: Kind) -> Span:
        """Run to the end, twice, and return the seconds of the second time."""
        span = Span(0.0, 0.0)
        for out in (self._reference(kind), self._folder / f"{kind.name}-again"):
            process = self._start(kind, out)
            start = _wait_for_begin(process, out)
            began = time.monotonic()
            _, errors = process.communicate(timeout=PATIENCE)
            span = Span(start, time.monotonic() - began)
            if process.returncode != 0:
                raise SystemExit(f"{kind.name} fails undisturbed: {errors}")
            difference = first_difference(self._reference(kind), out)
            if difference:
                raise SystemExit(f"{kind.name} differs from itself: {difference}")
        print(
            f"{kind.name}: {span.start:.1f} s to start, {span.rest:.1f} s undisturbed", flush=True
        )
        return span

    def disturb(self, trial: Trial) -> Trial:
        """Start a run, send it the signal, resume it, and say what is wrong."""
        out = self._folder / f"{trial.kind.name}-{next(self._number)}"
        process = self._start(trial.kind, out)
        if trial.has_begun:
            _wait_for_begin(process, out)
        time.sleep(trial.moment)
        stage = _stage(out)
        sent = time.monotonic()
        process.send_signal(trial.sent)
        try:
            _, errors = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return dataclasses.replace(trial, stage=stage, fault="the signal was ignored")
        trial = dataclasses.replace(
            trial,
            exit_code=process.returncode,
            seconds=time.monotonic() - sent,
            stage=stage,
        )
        fault = _stopping_fault(trial, errors) or self._resuming_fault(trial.kind, out)
        return dataclasses.replace(trial, fault=fault)

    def _reference(self, kind: Kind) -> Path:
        return self._folder / kind.name

    def _start(self, kind: Kind, out: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            kind.command(kind.start, out),
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _finish(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env=self._environment, capture_output=True, text=True, timeout=PATIENCE
        )

    def _resuming_fault(self, kind: Kind, out: Path) -> str:
        has_begun = (out / "config.json").exists()
        if out.exists() and not has_begun:
            return f"{out.name} has no config.json"
        done = self._finish(kind.command(kind.resume if has_begun else kind.start, out))
        if done.returncode != 0 or "warning" in done.stderr:
            return f"resuming exits with {done.returncode}: {done.stderr[-300:]}"
        return first_difference(self._reference(kind), out)


def _wait_for_begin(process: subprocess.Popen[str], out: Path) -> float:
    """Wait until a run has a directory, or has ended; return the seconds."""
    began = time.monotonic()
    while not (out / "config.json").exists() and process.poll() is None:
        time.sleep(0.01)
    return time.monotonic() - began


def _stage(out: Path) -> str:
    """How far a run has got, as its files say."""
    for name, stage in (
        ("evaluation.json", "evaluated"),
        ("results.json", "evaluated"),
        ("policy.npz", "evaluating"),
        ("checkpoints", "learning"),
        ("points", "measuring"),
        ("config.json", "compiling"),
    ):
        if (out / name).exists():
            return stage
    return "starting"


def _stopping_fault(trial: Trial, errors: str) -> str:
    """What is wrong with how a run ended, or nothing."""
    if trial.sent == signal.SIGKILL:
        return "" if trial.exit_code in (0, -signal.SIGKILL) else f"exit code {trial.exit_code}"
    if "Traceback" in errors or "Exception ignored" in errors:
        return f"a traceback: {errors[-300:]}"
    if trial.exit_code == 0 and trial.seconds > LAST_MOMENT:
        return f"Ctrl-C was ignored for {trial.seconds:.1f} s"
    # After `main` Python takes its handlers down, and the system's own ends what is left: nothing.
    endings = (0, 130, -signal.SIGINT) if trial.stage == "evaluated" else (0, 130)
    if trial.exit_code not in endings:
        return f"exit code {trial.exit_code}: {errors[-300:]}"
    if trial.exit_code == 130 and "stopped" not in errors:
        return f"it does not say that it stopped: {errors[-300:]}"
    return ""


def first_difference(left: Path, right: Path) -> str:
    """The first file, column or array in which two finished runs differ, wall times apart."""
    contents = [dict(_contents(path)) for path in (left, right)]
    for name in sorted(contents[0].keys() | contents[1].keys()):
        if contents[0].get(name) != contents[1].get(name):
            return f"{name} differs from the undisturbed run's"
    return ""


def _contents(run: Path) -> Iterator[tuple[str, Any]]:
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if not path.is_file() or name.startswith("checkpoints/"):
            continue
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                for key in arrays.files:
                    array = arrays[key]
                    yield f"{name}:{key}", (str(array.dtype), array.shape, array.tobytes())
        elif path.suffix == ".json":
            yield name, _without_times(json.loads(path.read_text()))
        elif path.suffix == ".jsonl":
            yield name, [_without_times(json.loads(line)) for line in path.open()]
        elif path.suffix == ".csv":
            with path.open(newline="") as file:
                yield name, [_without_times(row) for row in csv.DictReader(file)]
        elif path.suffix != ".md":  # the pages of `reproduce` say how long it took
            yield name, path.read_bytes()


def _without_times(value: Any) -> Any:
    """JSON without wall times, and without digests, which cover them."""
    if isinstance(value, dict):
        return {
            key: _without_times(item)
            for key, item in value.items()
            if not any(word in key for word in ("seconds", "digest", "sha256"))
        }
    return [_without_times(item) for item in value] if isinstance(value, list) else value


def _say(trial: Trial) -> Trial:
    print(
        f"{trial.kind.name}: {trial.sent.name} after {trial.moment:.2f} s ({trial.stage}): "
        f"{trial.fault or 'sound'}",
        flush=True,
    )
    return trial


def _print_table(trials: Sequence[Trial]) -> None:
    print("kind        signal   stage       trials  finished before  slowest stop  failed")
    groups = sorted({(trial.kind.name, trial.sent.name, trial.stage) for trial in trials})
    for group in groups:
        members = [t for t in trials if (t.kind.name, t.sent.name, t.stage) == group]
        finished = sum(trial.exit_code == 0 for trial in members)
        slowest = max(trial.seconds for trial in members)
        failed = sum(bool(trial.fault) for trial in members)
        print(
            f"{group[0]:10}  {group[1]:7}  {group[2]:10}  {len(members):6}  {finished:15}  "
            f"{slowest:10.1f} s  {failed:6}"
        )


if __name__ == "__main__":
    sys.exit(main())
