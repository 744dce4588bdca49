"""Which errors a user can mend, and the one line that says what is wrong."""

from __future__ import annotations

import difflib
import dis
import sys
from collections.abc import Iterable
from pathlib import Path


def nearest(word: str, known: Iterable[str]) -> str:
    """A question that names the known word closest to a misspelt one, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def user_message(error: Exception) -> str | None:
    """Return one line for an error that the user can mend, None for a bug."""
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror or error}"
    if isinstance(error, ValueError | FloatingPointError) and _is_ours(error):
        return " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return _jax_message(f"RESOURCE_EXHAUSTED: {error}")
    if "jax" not in sys.modules:
        return None
    import equinox
    import jax

    if isinstance(error, equinox.EquinoxRuntimeError | jax.errors.JaxRuntimeError):
        # Equinox wraps its one line of message in pages of advice to programmers.
        lines = str(error).strip().split("\n")
        wrapped = [line for line in lines if "EquinoxRuntimeError: " in line]
        return wrapped[0].split("EquinoxRuntimeError: ")[1] if wrapped else _jax_message(lines[0])
    return None


def _is_ours(error: Exception) -> bool:
    """Whether a `raise` of this package made the error: then its message is meant for the user."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    code = trace.tb_frame.f_code
    # Compiled functions, NumPy's say, leave no frame of their own, but the caller does not raise.
    raises = code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    return raises and Path(__file__).parent in Path(code.co_filename).parents


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
