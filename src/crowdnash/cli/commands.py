"""The command `crowdnash`: parse, call the library, print. Exit codes: 0, 2 (error), 130 (Ctrl-C).

Imports are inside the commands, so that help and the version appear at once.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import Positional, arg

from crowdnash import interrupts

if TYPE_CHECKING:
    from crowdnash.runs.config import RunConfig

USAGE = """\
usage: crowdnash COMMAND ...

Nash equilibria for crowds: solve games of many agents that are almost, but not quite, alike.

commands:
  solve GAME --out DIR   learn a policy and certify how exploitable it is; with
                         --identity, and for simulators, a neural one
  solve --resume DIR     go on with a run that was interrupted, or for more epochs
  evaluate DIR           certify the policies of a run again
  report DIR             draw pictures of a run and write report.html
  games                  list the games
  symmetry GAME          measure how symmetric a game is, and Theorem 1's bound
  mean-field GAME        solve the mean-field game that a game induces
  reproduce EXPERIMENT   measure a theorem or figure of the paper again
  completion SHELL       print a script for completion in bash, zsh or fish

options:
  -h, --help             show this help; `crowdnash COMMAND --help` shows a command's
  --version              show the version
"""

_ERROR = 2
_INTERRUPTED = 130


@dataclass(frozen=True)
class EvaluateFlags:
    """Certify the policies of a run again, and save the result in its directory."""

    run: Annotated[Positional[Path], arg(metavar="DIR")]
    """the run directory"""
    num_evaluation_trajectories: Annotated[
        int | None, arg(metavar="INT", help_behavior_hint="(default: the run's)")
    ] = None
    """simulated population paths per certificate; neural policies: plays"""
    best_response_agents: Annotated[
        int | None, arg(metavar="INT", help_behavior_hint="(default: the run's)")
    ] = None
    """neural policies: agents that learn how to gain by deviating"""
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


@dataclass(frozen=True)
class GamesFlags:
    """List the games, with the parameters of each and their defaults."""

    json: bool = False
    """print the list as JSON"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; set CROWDNASH_TRACEBACK for tracebacks."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    # Orbax narrates its inner life there; what matters of it arrives as an exception.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    with interrupts.watching(second_ends_process=True):
        return _run(arguments)


def _run(arguments: Sequence[str]) -> int:
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return _dispatch(arguments)
    except KeyboardInterrupt as interrupt:
        return _interrupted(interrupt)
    except BrokenPipeError:
        # The reader of a pipe has gone; so is the place to complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _ERROR
    except Exception as error:
        if interrupts.is_pressed():  # Ctrl-C in an import or a callback comes out as another error
            return _interrupted(KeyboardInterrupt())
        message = _user_message(error)
        if message is None or os.environ.get("CROWDNASH_TRACEBACK"):
            raise
        print(f"crowdnash: error: {message}", file=sys.stderr)
        return _ERROR


def _dispatch(arguments: Sequence[str]) -> int:
    commands: dict[str, Callable[[Sequence[str]], int]] = {
        "solve": _solve,
        "evaluate": _evaluate,
        "report": _report,
        "games": _games,
        "symmetry": _symmetry,
        "mean-field": _mean_field,
        "reproduce": _reproduce,
        "completion": lambda rest: _completion(rest, tuple(commands)),
    }
    if not arguments:
        print(USAGE, end="", file=sys.stderr)
        return _ERROR
    command, *rest = arguments
    if command in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if command == "--version":
        print(f"crowdnash {metadata.version('crowdnash')}")
        return 0
    if command not in commands:
        raise ValueError(f"no command {command!r}; there are {', '.join(commands)}")
    return commands[command](rest)


def _user_message(error: Exception) -> str | None:
    """Return one line for an error that the user can mend, None for a bug."""
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror or error}"
    if isinstance(error, ValueError | FloatingPointError):
        return " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return _jax_message(f"RESOURCE_EXHAUSTED: {error}")
    if "jax" not in sys.modules:
        return None
    import equinox
    import jax

    if isinstance(error, equinox.EquinoxRuntimeError | jax.errors.JaxRuntimeError):
        # Equinox wraps its one line of message in pages of advice to programmers.
        found = re.search(r"EquinoxRuntimeError: (.+)", str(error))
        return found[1] if found else _jax_message(str(error).strip().split("\n")[0])
    return None


def _jax_message(line: str) -> str:
    """JAX's first line in plain words: it begins with a status code, and may end there."""
    code, _, details = line.partition(":")
    if code == "RESOURCE_EXHAUSTED" or "out of memory" in line.lower():
        what = details.strip().rstrip(".") or code
        return f"not enough memory: {what}; fewer agents or trajectories need less"
    if code == "INTERNAL":
        what = details.strip() or "JAX says no more"
        return f"the computation failed inside JAX, perhaps for want of memory: {what}"
    return line


def _interrupted(interrupt: KeyboardInterrupt) -> int:
    if "crowdnash.runs.experiment" in sys.modules:
        from crowdnash.runs.experiment import Interrupted

        if isinstance(interrupt, Interrupted):
            print(
                f"crowdnash: stopped; {interrupt.epoch} epochs are saved, go on with\n"
                f"  crowdnash solve --resume {interrupt.directory.path}",
                file=sys.stderr,
            )
            return _INTERRUPTED
    print("crowdnash: stopped", file=sys.stderr)
    return _INTERRUPTED


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"crowdnash: warning: {message}", file=sys.stderr)


def _solve(arguments: Sequence[str]) -> int:
    from rich.console import Console

    from crowdnash.cli.display import RunDisplay, evaluation_table, ppo_evaluation_table
    from crowdnash.cli.flags import parse_solve
    from crowdnash.runs import experiment, ppo_experiment
    from crowdnash.runs.ppo_config import PPOConfig
    from crowdnash.runs.tensorboard_log import TensorBoardLog

    request = parse_solve(arguments, _stored_config)
    began = time.monotonic()
    neural = isinstance(request.config, PPOConfig)
    kind, table = (
        (ppo_experiment, ppo_evaluation_table) if neural else (experiment, evaluation_table)
    )
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
            result = kind.run(request.config, out, observer)
        else:
            result = kind.resume(
                request.resume, num_epochs=request.config.num_epochs, observer=observer
            )
    if result.resumed_from == result.config.num_epochs and result.seconds == 0.0:
        print(f"{out} is already finished ({result.config.num_epochs} epochs)")
        return 0
    Console().print(table(result.evaluation))
    if request.report:
        from crowdnash.reports.report import write_report

        print(f"report: {write_report(out)}")
    print(f"saved in {out}, wall time {time.monotonic() - began:.1f} s")
    return 0


def _stored_config(path: Path) -> RunConfig:
    """The settings of the run at `path`, whatever its learner."""
    from crowdnash.runs.directory import RunDirectory
    from crowdnash.runs.stored_config import read_config

    return read_config(RunDirectory.open(path))


def _evaluate(arguments: Sequence[str]) -> int:
    flags = tyro.cli(EvaluateFlags, prog="crowdnash evaluate", args=arguments)

    from rich.console import Console

    from crowdnash.cli.display import evaluation_table, ppo_evaluation_table
    from crowdnash.runs import experiment, ppo_experiment
    from crowdnash.runs.ppo_config import PPOConfig

    def say(stage: str) -> None:
        print(stage, file=sys.stderr)

    if isinstance(_stored_config(flags.run), PPOConfig):
        evaluation = ppo_experiment.evaluate(
            flags.run,
            num_trajectories=flags.num_evaluation_trajectories,
            best_response_agents=flags.best_response_agents,
            confidence=flags.confidence,
            seed=flags.seed,
        )
        table = ppo_evaluation_table(evaluation)
    else:
        if flags.best_response_agents is not None:
            raise ValueError(
                f"best_response_agents is for neural policies, and {flags.run} has tables: "
                "its certificate covers all agents"
            )
        evaluation = experiment.evaluate(
            flags.run,
            num_trajectories=flags.num_evaluation_trajectories,
            confidence=flags.confidence,
            seed=flags.seed,
            observer=experiment.Observer(on_stage=say),
        )
        table = evaluation_table(evaluation)
    if flags.json:
        print(json.dumps(evaluation.summary(), indent=2))
    else:
        Console().print(table)
    return 0


def _report(arguments: Sequence[str]) -> int:
    flags = tyro.cli(ReportFlags, prog="crowdnash report", args=arguments)

    from crowdnash.reports.report import write_report

    print(write_report(flags.run))
    return 0


def _games(arguments: Sequence[str]) -> int:
    flags = tyro.cli(GamesFlags, prog="crowdnash games", args=arguments)

    from crowdnash import games
    from crowdnash.runs.config import sample_parameters

    known = [
        {
            "name": name,
            "summary": games.lookup(name).summary,
            "parameters": {
                parameter: details.default
                for parameter, details in sample_parameters(games.lookup(name)).items()
            },
        }
        for name in games.names()
    ]
    if flags.json:
        print(json.dumps(known, indent=2))
        return 0

    from rich.console import Console

    from crowdnash.cli.display import games_table

    Console().print(games_table(known))
    return 0


def _symmetry(arguments: Sequence[str]) -> int:
    from crowdnash.cli.theory import show_symmetry

    show_symmetry(arguments)
    return 0


def _mean_field(arguments: Sequence[str]) -> int:
    from crowdnash.cli.theory import show_mean_field

    show_mean_field(arguments)
    return 0


def _reproduce(arguments: Sequence[str]) -> int:
    from crowdnash.cli.reproduce import show_reproduce

    show_reproduce(arguments)
    return 0


def _completion(arguments: Sequence[str], commands: Sequence[str]) -> int:
    from crowdnash.cli.completion import show_completion

    show_completion(arguments, _dispatch, commands)
    return 0


if __name__ == "__main__":
    sys.exit(main())
