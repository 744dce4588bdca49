"""CPU time until the command line answers, beside that of importing JAX, Equinox and Optax.

    python benchmarks/startup.py

User and system time of a process with Python's own start, medians of ten; no result is kept.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

COMMANDS = {
    "import jax, equinox, optax": ["-c", "import jax, equinox, optax"],
    "import crowdnash": ["-c", "import crowdnash"],
    "crowdnash --help": ["-m", "crowdnash", "--help"],
    "crowdnash games": ["-m", "crowdnash", "games"],
    "crowdnash solve siss": ["-m", "crowdnash", "solve", "siss"],
    "crowdnash evaluate --hlep": ["-m", "crowdnash", "evaluate", "--hlep"],
    "crowdnash solve sis --help": ["-m", "crowdnash", "solve", "sis", "--help"],
}
REPETITIONS = 10


def cpu_seconds(arguments: list[str]) -> float:
    """User and system time of one process."""
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, _, usage = os.wait4(process.pid, 0)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Measure every command in turn, and print the medians."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(REPETITIONS):
        for name, arguments in COMMANDS.items():
            seconds[name].append(cpu_seconds(arguments))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    yardstick = next(iter(medians.values()))
    for name, median in medians.items():
        print(f"{name:28} {median:6.3f} s  {median / yardstick:6.3f}")


if __name__ == "__main__":
    main()
