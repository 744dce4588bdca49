"""`crowdnash case`: a real case, solved, learned from play, certified and judged."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from crowdnash.cases import ev_charging, sioux_falls
from crowdnash.cli.parsing import parse
from crowdnash.runs.executors import Processes

CASES = ("sioux-falls", "ev-charging")

Scale = Literal["small", "full"]
STUDIES = {
    "sioux-falls": ("none", "tolls", "roads", "all"),
    "ev-charging": ("none", "learners", "all"),
}


@dataclass(frozen=True)
class CaseFlags:
    """A real case: solve it exactly, learn it from play, certify it; a run that stopped goes on."""

    case: Positional[Literal["sioux-falls", "ev-charging"]]
    """sioux-falls: 360,600 drivers choose routes on 76 links; ev-charging: 100,000 electric cars
    choose when to charge"""
    scale: Scale = "full"
    """full: an agent a driver or car; small: a tenth of them"""
    out: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: in runs/)")] = None
    """where to save: new, empty, or the directory of the same case"""
    seed: int = 0
    """decides all random draws"""
    study: Literal["none", "tolls", "roads", "learners", "all"] = "none"
    """sioux-falls: tolls: who pays for them; roads: closed and added, one by one; ev-charging:
    learners, compared; all: what the case has (minutes more)"""
    workers: int | None = None
    """compute a study in so many processes"""
    json: bool = False
    """print the summary as JSON"""


def show_case(arguments: Sequence[str]) -> None:
    """Run `crowdnash case` with the arguments after it.

    Raises:
        ValueError: a bad argument, or as the case's `run`.
        OSError: as the case's `run`.
    """
    flags = parse(CaseFlags, "case", arguments)
    out = flags.out or Path("runs") / f"{flags.case}-{flags.scale}-seed{flags.seed}"
    options: dict[str, Any] = {
        "scale": flags.scale,
        "seed": flags.seed,
        "tell": lambda line: print(line, file=sys.stderr),
    }
    if flags.study not in STUDIES[flags.case]:
        names = ", ".join(STUDIES[flags.case])
        raise ValueError(f"--study of {flags.case} must be one of {names}, not {flags.study!r}")
    runs: dict[str, Callable[..., dict[str, Any]]]
    runs = {"sioux-falls": sioux_falls.run, "ev-charging": ev_charging.run}
    workers = nullcontext() if flags.workers is None else Processes(flags.workers)
    with workers as executor:
        options["executor"] = executor
        summary = runs[flags.case](out, study=flags.study, **options)
    if flags.json:
        print(json.dumps(summary, indent=2))
        return
    lines = _of_routes(summary) if flags.case == "sioux-falls" else _of_charging(summary)
    print("\n".join(lines))
    print(f"saved in {out}")


def _sentence(figures: dict[str, Any]) -> str:
    return (
        f"Beckmann's objective {figures['objective']:.1f}, {figures['excess']:.2e} above the "
        f"published one; relative gap {figures['relative_gap']:.1e}"
    )


def _of_routes(summary: dict[str, Any]) -> list[str]:
    low, high = summary["largest_gain_minutes"]
    mean = summary["mean_gain_minutes"]
    return [
        *(f"{name}: {_sentence(summary[name])}" for name in ("exact", "learned")),
        f"a driver of {summary['num_agents']} could save at most {low:.3f} to {high:.3f} minutes, "
        f"the mean one {mean[0]:.4f} to {mean[1]:.4f}",
        f"price of anarchy {summary['price_of_anarchy']:.4f}",
    ]


def _of_charging(summary: dict[str, Any]) -> list[str]:
    nights = [
        f"{name}: a car pays {night['mean_cost']:.4f} EUR, the peak is {night['peak_kw']:.0f} kW"
        for name, night in summary["nights"].items()
    ]
    gains = [
        f"{name}: one car of {summary['num_agents']} could save at most {gain['largest']:.4f} EUR, "
        f"the mean one {gain['mean']:.5f}"
        for name, gain in summary["gains"].items()
    ]
    off = f"the learned load is at most {summary['load_off']:.2%} of the peak off the exact one"
    return [*nights, *gains, off, f"price of anarchy {summary['price_of_anarchy']:.4f}"]
