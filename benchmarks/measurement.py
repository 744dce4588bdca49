"""How the benchmarks take time and memory, and what they note about where they ran."""

import datetime
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


@dataclass(frozen=True)
class Timing:
    """Seconds of one action: of its first call, and the median and least of the later ones."""

    first: float
    median: float
    minimum: float
    repeats: int

    @property
    def compilation(self) -> float:
        """What the first call took beyond a later one."""
        return max(self.first - self.median, 0.0)


def measure(action: Callable[[], Any], repeats: int) -> Timing:
    """Times `action()` once for its compilation and `repeats` times more.

    The arrays that it returns are waited for. Nothing is cached between processes, so the first
    call compiles everything that no earlier call of this process has compiled.
    """
    return measure_in_turn([action], repeats)[0]


def measure_in_turn(actions: Sequence[Callable[[], Any]], repeats: int) -> list[Timing]:
    """The same for several actions, one after the other in every repeat: to be compared."""

    def seconds(action: Callable[[], Any]) -> float:
        begin = time.perf_counter()
        jax.block_until_ready(action())
        return time.perf_counter() - begin

    first = [seconds(action) for action in actions]
    later = [[seconds(action) for action in actions] for _ in range(repeats)]
    return [
        Timing(compiling, statistics.median(own), min(own), repeats)
        for compiling, own in zip(first, zip(*later, strict=True), strict=True)
    ]


def peak_resident_gigabytes() -> float:
    """The most memory that this process has held so far, in 10^9 bytes.

    Linux's `ru_maxrss` of a process includes the peak of the one that started it, so the kernel's
    high-water mark of this address space is read instead where there is one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def in_fresh_process(script: str, *arguments: str) -> dict[str, Any]:
    """Runs `benchmarks/<script>` in a process of its own; it prints a JSON record as last line."""
    command = [sys.executable, str(ROOT / "benchmarks" / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def environment() -> dict[str, str | int]:
    """Commit, date, device and versions: what a number means nothing without."""
    versions = {
        name: importlib.metadata.version(name) for name in ("crowdnash", "jax", "numpy", "numba")
    }
    return {
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else -1,
        "device": f"{jax.devices()[0].platform} ({jax.device_count()})",
        "python": platform.python_version(),
        **versions,
    }


def write_results(name: str, record: dict[str, Any], markdown: str) -> None:
    """Writes `results/<name>.json` and `results/<name>.md`, and says so."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")
    (RESULTS / f"{name}.md").write_text(markdown)
    print(f"wrote {RESULTS.relative_to(ROOT) / name}.json and .md")


def describe(where: dict[str, str | int]) -> str:
    """The environment as one line of markdown."""
    versions = ", ".join(f"{name} {where[name]}" for name in ("python", "jax", "numpy", "numba"))
    return (
        f"Commit {where['commit']}, {where['date']}, {where['processor']}, {where['cores']} cores, "
        f"device {where['device']}; {versions}."
    )


def _commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "--short", "HEAD")
    if not commit:
        return "unknown"
    changed = git("status", "--porcelain", "--", "src")
    return f"{commit} with changes" if changed else commit


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
