"""`crowdnash solve`, `evaluate` and `report`: parse, call the library, print."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from crowdnash.cli.parsing import parse

if TYPE_CHECKING:
    from crowdnash.runs.config import RunConfig


@dataclass(frozen=True)
class EvaluateFlags:
    """Certify the policies of a run again, and save the result in its directory."""

    run: Annotated[Positional[Path], arg(metavar="DIR")]
    """the run directory"""
    num_evaluation_trajectories: Annotated[
        int | None, arg(metavar="INT", help_behavior_hint="(default: the run's)")
    ] = None
    """simulated population paths per certificate; simulators: plays"""
    best_response_agents: Annotated[
        int | None, arg(metavar="INT", help_behavior_hint="(default: the run's)")
    ] = None
    """simulators: agents that learn how to gain by deviating"""
    agents: Annotated[int | None, arg(metavar="INT", help_behavior_hint="(default: the run's)")] = (
        None
    )
    """random agents to examine, and the worst that a coarse pass finds; 0 for all"""
    confidence: Annotated[
        float | None, arg(metavar="FLOAT", help_behavior_hint="(default: the run's)")
    ] = None
    """coverage of the intervals"""
    seed: Annotated[int | None, arg(metavar="INT", help_behavior_hint="(default: the run's)")] = (
        None
    )
    """for fresh random draws"""
    json: bool = False
    """print the numbers as JSON"""


@dataclass(frozen=True)
class ReportFlags:
    """Draw pictures of a run and write its report.html; nothing is computed anew."""

    run: Annotated[Positional[Path], arg(metavar="DIR")]
    """the run directory"""


def solve(arguments: Sequence[str]) -> int:
    """Run `crowdnash solve` with the arguments after it."""
    if _says_finished(arguments):
        return 0
    from rich.console import Console

    from crowdnash.cli import devices
    from crowdnash.cli.display import RunDisplay, evaluation_table
    from crowdnash.cli.flags import parse_solve
    from crowdnash.runs import experiment
    from crowdnash.runs.tensorboard_log import TensorBoardLog

    hosts = devices.start(arguments)
    request = parse_solve(arguments, _stored_config)
    mesh = devices.mesh_of(request.devices)
    if not hosts.leads:
        experiment.take_part(request.config, hosts, mesh)
        return 0
    began = time.monotonic()
    out = (
        request.resume
        or request.out
        or Path("runs") / time.strftime(f"{request.config.game}-%Y%m%d-%H%M%S")
    )
    with contextlib.ExitStack() as stack:
        display = stack.enter_context(RunDisplay(Console(stderr=True), request.config.num_epochs))
        observer = display.observer
        if request.tensorboard:
            log = stack.enter_context(TensorBoardLog(str(out / "tensorboard")))
            observer = log.observer(observer)
        if request.resume is None:
            result = experiment.run(request.config, out, observer, mesh=mesh, hosts=hosts)
        else:
            result = experiment.resume(
                request.resume,
                num_epochs=request.config.num_epochs,
                observer=observer,
                mesh=mesh,
                hosts=hosts,
            )
    if result.resumed_from == result.config.num_epochs and result.seconds == 0.0:
        print(f"{out} is already finished ({result.config.num_epochs} epochs)")
        return 0
    Console().print(evaluation_table(result.evaluation))
    if result.evaluation.lower_bound_cost is not None:
        print(result.evaluation.lower_bound_cost.advice(out))
    if request.report:
        from crowdnash.reports.report import write_report

        print(f"report: {write_report(out)}")
    if mesh is not None:
        print(f"devices: {result.devices}")
    print(f"saved in {out}, wall time {time.monotonic() - began:.1f} s")
    return 0


def _says_finished(arguments: Sequence[str]) -> bool:
    """Say so if all that is asked for is to resume a finished run; nothing slow is imported."""
    match arguments:
        case ["--resume", path] | [_, "--resume", path]:
            from crowdnash.runs.directory import RunDirectory
            from crowdnash.runs.seal import finished_epochs

            directory = RunDirectory.open(path)
            done = finished_epochs(directory, None if len(arguments) == 2 else arguments[0])
            if done is not None:
                print(f"{path} is already finished ({done} epochs)")
            return done is not None
    return False


def _stored_config(path: Path) -> RunConfig:
    """The settings of the run at `path`."""
    from crowdnash.runs.directory import RunDirectory
    from crowdnash.runs.experiment import load_config

    return load_config(RunDirectory.open(path))


def evaluate(arguments: Sequence[str]) -> int:
    """Run `crowdnash evaluate` with the arguments after it."""
    flags = parse(EvaluateFlags, "evaluate", arguments)

    from rich.console import Console

    from crowdnash.cli.display import evaluation_table
    from crowdnash.runs import experiment

    def say(stage: str) -> None:
        print(stage, file=sys.stderr)

    had_report = (flags.run / "report.html").exists()
    evaluation = experiment.evaluate(
        flags.run,
        num_trajectories=flags.num_evaluation_trajectories,
        confidence=flags.confidence,
        best_response_agents=flags.best_response_agents,
        agents=flags.agents,
        seed=flags.seed,
        observer=experiment.Observer(on_stage=say),
    )
    if had_report:
        say(
            f"the report spoke of the older evaluation: crowdnash report {flags.run} writes it anew"
        )
    if flags.json:
        print(json.dumps(evaluation.summary(), indent=2))
        return 0
    Console().print(evaluation_table(evaluation))
    if evaluation.lower_bound_cost is not None:
        print(evaluation.lower_bound_cost.advice(flags.run))
    return 0


def report(arguments: Sequence[str]) -> int:
    """Run `crowdnash report` with the arguments after it."""
    flags = parse(ReportFlags, "report", arguments)

    from crowdnash.reports.report import write_report

    print(write_report(flags.run))
    return 0
