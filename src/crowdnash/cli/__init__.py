"""The command `crowdnash`: parse, call the library, print.

Exit codes: 0, 1 (`verify`: it does not hold; `sweep`: a cell failed), 2 (error), 130 (Ctrl-C). A
command is imported when it is called, so that help, the version and most errors appear at once.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from crowdnash import interrupts
from crowdnash.reproduction.names import canonical_name

USAGE = """\
usage: crowdnash COMMAND ...

Nash equilibria for crowds: solve games of many agents that are almost, but not quite, alike.

commands:
  solve GAME --out DIR   learn a policy and certify how exploitable it is; with
                         --identity, and for simulators, a neural one
  solve --resume DIR     go on with a run that was interrupted, or for more epochs
  evaluate DIR           certify the policies of a run again
  verify FILE            make a saved certificate again and say whether it holds
  report DIR             draw pictures of a run and write report.html
  games                  list the games
  symmetry GAME          measure how symmetric a game is, and Theorem 1's bound
  mean-field GAME        solve the mean-field game that a game induces
  reproduce EXPERIMENT   measure a theorem or figure of the paper again
  case NAME              solve a real case and judge it: sioux-falls, ev-charging
  sweep FILE             run a grid of settings, also on many machines, and tabulate
  completion SHELL       print a script for completion in bash, zsh or fish

options:
  -h, --help             show this help; `crowdnash COMMAND --help` shows a command's
  --version              show the version
"""

COMMANDS = {
    "solve": "commands:solve",
    "evaluate": "commands:evaluate",
    "verify": "verify:show_verify",
    "report": "commands:report",
    "games": "games_list:show_games",
    "symmetry": "theory:show_symmetry",
    "mean-field": "theory:show_mean_field",
    "reproduce": "reproduce:show_reproduce",
    "case": "case:show_case",
    "sweep": "sweep:show_sweep",
    "completion": "completion:show_completion",
}
"""The module of this package and the function of each command."""

_COMPILE = ("solve", "evaluate", "verify", "symmetry", "mean-field", "reproduce", "case")
"""Commands that compile programs, which are kept for the next one."""

_ERROR = 2
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; set CROWDNASH_TRACEBACK for tracebacks.

    Args:
        arguments: what comes after `crowdnash`; by default the process's own.

    Returns:
        0, 1 if a certificate does not hold or a cell of a sweep failed, 2 after an error that the
        user can mend, or 130 after Ctrl-C.

    Raises:
        Exception: a bug, with its traceback.
        SystemExit: after --help of a command.
    """
    if arguments is None:
        arguments = sys.argv[1:]
        # The process is this command's own: whoever calls `main` decides for theirs.
        if arguments and arguments[0] in _COMPILE and not {"-h", "--help"} & {*arguments}:
            from crowdnash.cli.compiled import keep_compiled_programs

            keep_compiled_programs()
    arguments = list(arguments)
    with interrupts.watching(second_ends_process=True):
        code = _guarded(arguments)
    if code and "crowdnash.runs.hosts" in sys.modules:
        from crowdnash.runs.hosts import leave_at_once

        leave_at_once(code)
    return code


def _guarded(arguments: Sequence[str]) -> int:
    """Run the command line; what goes wrong becomes a line and an exit code."""
    try:
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
        from crowdnash.messages import user_message

        message = user_message(error)
        if message is None or os.environ.get("CROWDNASH_TRACEBACK"):
            raise
        print(f"crowdnash: error: {message}", file=sys.stderr)
        return _ERROR


def _dispatch(arguments: Sequence[str]) -> int:
    if not arguments:
        print(USAGE, end="", file=sys.stderr)
        return _ERROR
    command, *rest = arguments
    if command in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if command == "--version":
        from importlib import metadata

        print(f"crowdnash {metadata.version('crowdnash')}")
        return 0
    if command not in COMMANDS:
        from crowdnash.messages import nearest

        hint = nearest(command, COMMANDS) or f"; there are {', '.join(COMMANDS)}"
        raise ValueError(f"no command {command!r}{hint}")
    return _run(command, rest)


def _run(command: str, arguments: list[str]) -> int:
    """Run a command; a misspelt game or study is refused before anything large is imported."""
    import logging
    import warnings

    from crowdnash.cli.parsing import with_canonical_game

    if command in ("solve", "symmetry", "mean-field"):
        arguments = with_canonical_game(arguments, tabular=command != "solve")
    if command == "reproduce" and arguments and not arguments[0].startswith("-"):
        canonical_name(arguments[0], "all")
    # Orbax logs progress there; errors that matter arrive as exceptions.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    module, function = COMMANDS[command].split(":")
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        call = getattr(importlib.import_module(f"crowdnash.cli.{module}"), function)
        return call(arguments) or 0


def _interrupted(interrupt: KeyboardInterrupt) -> int:
    # After a KeyboardInterrupt inside `exec`, as dataclasses use it, Python ends by SIGINT whatever
    # the exit code; the next `exec` makes it forget.
    exec("")
    if "crowdnash.runs.training_loop" in sys.modules:
        from crowdnash.runs.training_loop import Interrupted

        if isinstance(interrupt, Interrupted):
            import shlex

            print(
                f"crowdnash: stopped; {interrupt.epoch} epochs are saved, go on with\n"
                f"  crowdnash solve --resume {shlex.quote(str(interrupt.directory.path))}",
                file=sys.stderr,
            )
            return _INTERRUPTED
    print("crowdnash: stopped", file=sys.stderr)
    return _INTERRUPTED


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"crowdnash: warning: {message}", file=sys.stderr)
