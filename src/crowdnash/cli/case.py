"""`crowdnash case`: a real case, solved, learned from play, certified and judged."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from crowdnash.cases import sioux_falls
from crowdnash.cases.sioux_falls_studies import Study
from crowdnash.cli.parsing import parse

CASES = ("sioux-falls",)


@dataclass(frozen=True)
class CaseFlags:
    """A real case: solve it exactly, learn it from play, certify it; a run that stopped goes on."""

    case: Positional[Literal["sioux-falls"]]
    """sioux-falls: 360,600 drivers choose routes on 76 links"""
    scale: sioux_falls.Scale = "full"
    """full: an agent a driver; small: one for ten of them"""
    out: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: in runs/)")] = None
    """where to save: new, empty, or the directory of the same case"""
    seed: int = 0
    """decides all random draws"""
    study: Study = "none"
    """tolls: who pays for them; roads: closed and added, one by one; all: both (minutes more)"""
    json: bool = False
    """print the summary as JSON"""


def show_case(arguments: Sequence[str]) -> None:
    """Run `crowdnash case` with the arguments after it.

    Raises:
        ValueError: a bad argument, or as `sioux_falls.run`.
        OSError: as `sioux_falls.run`.
    """
    flags = parse(CaseFlags, "case", arguments)
    out = flags.out or Path("runs") / f"{flags.case}-{flags.scale}-seed{flags.seed}"
    summary = sioux_falls.run(
        out,
        scale=flags.scale,
        seed=flags.seed,
        study=flags.study,
        tell=lambda line: print(line, file=sys.stderr),
    )
    if flags.json:
        print(json.dumps(summary, indent=2))
        return
    for name in ("exact", "learned"):
        print(f"{name}: {_sentence(summary[name])}")
    low, high = summary["largest_gain_minutes"]
    mean = summary["mean_gain_minutes"]
    print(
        f"a driver of {summary['num_agents']} could save at most {low:.3f} to {high:.3f} minutes, "
        f"the mean one {mean[0]:.4f} to {mean[1]:.4f}"
    )
    print(f"price of anarchy {summary['price_of_anarchy']:.4f}")
    print(f"saved in {out}")


def _sentence(figures: dict[str, Any]) -> str:
    return (
        f"Beckmann's objective {figures['objective']:.1f}, {figures['excess']:.2e} above the "
        f"published one; relative gap {figures['relative_gap']:.1e}"
    )
