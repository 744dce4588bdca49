"""Checks of arguments for every room: one line that names the argument, the rule and the value.

They import no JAX, so that what only parses and prints may use them too.
"""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Collection
from typing import Any

import numpy as np

_MOST_SHOWN = 100


def shown(value: object) -> str:
    """`repr(value)` on one line, cut where it is long; a class, None and text as they are."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    try:
        text = " ".join(repr(value).split())
    except Exception:  # an object whose repr fails must not hide the error that it is shown in
        text = f"a {type(value).__name__}"
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def check_count(argument: str, value: Any, least: int, most: int | None = None) -> None:
    """Check an integer that counts or numbers something; True, 2.0 and "2" are none.

    Args:
        argument: its name, for the message.
        value: what was passed.
        least: the smallest value allowed.
        most: the largest value allowed, None for no limit.

    Raises:
        ValueError: `value` is no integer or out of its range.
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise ValueError(f"{argument} must be an integer, not {shown(value)}")
    if most is not None and not least <= value <= most:
        raise ValueError(f"{argument} must be in {least}..{most}, not {value}")
    if value < least:
        raise ValueError(f"{argument} must be at least {least}, not {value}")


def check_number(
    argument: str,
    value: Any,
    *,
    above: float | int | None = None,
    least: float | int | None = None,
    below: float | int | None = None,
    most: float | int | None = None,
) -> None:
    """Check a finite number: a Python or NumPy one, or a JAX scalar whose value is known.

    Args:
        argument: its name, for the message.
        value: what was passed; a traced value passes, to be checked when it runs.
        above: the number must be larger than this.
        least: the number must be at least this.
        below: the number must be smaller than this.
        most: the number must be at most this.

    Raises:
        ValueError: `value` is no finite number or out of its range.
    """
    number = _number(value)
    if number is None:
        raise ValueError(f"{argument} must be a number, not {shown(value)}")
    low, opening = (above, "(") if above is not None else (least, "[")
    high, closing = (below, ")") if below is not None else (most, "]")
    right = (
        math.isfinite(number)
        and (low is None or number > low or (number == low and opening == "["))
        and (high is None or number < high or (number == high and closing == "]"))
    )
    if right or _is_traced(value):
        return
    if low is not None and high is not None:
        rule = f"in {opening}{low:g}, {high:g}{closing}"
    elif low is not None:
        rule = f"{'>' if opening == '(' else '>='} {low:g} and finite"
    elif high is not None:
        rule = f"{'<' if closing == ')' else '<='} {high:g} and finite"
    else:
        rule = "finite"
    raise ValueError(f"{argument} must be {rule}, not {shown(value)}")


def _number(value: Any) -> float | None:
    """`value` as a float, None if it is no real number; 0 where it is traced."""
    if isinstance(value, bool | np.bool_):
        return None
    if isinstance(value, numbers.Real):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    if getattr(value, "shape", None) == () and np.dtype(value.dtype).kind in "iuf":
        return 0.0 if _is_traced(value) else float(value)
    return None


def _is_traced(value: Any) -> bool:
    """Whether JAX is tracing and `value` has no number yet."""
    if not hasattr(value, "aval"):
        return False
    from jax.core import Tracer

    return isinstance(value, Tracer)


def check_flag(argument: str, value: Any) -> None:
    """Raise `ValueError` unless `value` is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{argument} must be True or False, not {shown(value)}")


def check_choice(argument: str, value: Any, choices: Collection[str]) -> None:
    """Raise `ValueError` unless `value` is one of these texts."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{argument} must be one of {', '.join(choices)}, not {shown(value)}")


def check_instance(argument: str, value: Any, *kinds: type) -> None:
    """Raise `ValueError` unless `value` is an instance of one of the classes `kinds`."""
    if not isinstance(value, kinds):
        passed = (
            shown(value)
            if value is None or isinstance(value, type)
            else f"{_article(type(value).__name__)} ({shown(value)})"
        )
        names = " or ".join(_article(kind.__name__) for kind in kinds)
        raise ValueError(f"{argument} must be {names}, not {passed}")


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'AEIOUaeiou' else 'a'} {noun}"


def check_key(argument: str, value: Any) -> None:
    """Check a random key of JAX: one new-style key or the uint32 words of an old-style one.

    Args:
        argument: its name, for the message.
        value: what was passed.

    Raises:
        ValueError: it is no key, or several.
    """
    import jax

    dtype = getattr(value, "dtype", None)
    if dtype is not None and jax.numpy.issubdtype(dtype, jax.dtypes.prng_key):
        if value.shape == ():
            return
        raise ValueError(f"{argument} must be one random key, not {list(value.shape)} of them")
    if dtype == np.uint32 and value.shape in ((2,), (4,)):
        return
    raise ValueError(f"{argument} must be a random key, as jax.random.key(0), not {shown(value)}")


def check_path(argument: str, value: Any) -> None:
    """Raise `ValueError` unless `value` is a path: text or a `pathlib.Path`."""
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise ValueError(f"{argument} must be a path, not {shown(value)}")


def as_array(argument: str, value: Any, *, integers: bool = False) -> Any:
    """`value` as an array: JAX's own as they are, anything else by NumPy.

    Args:
        argument: its name, for the message.
        value: what was passed, any nested sequence of numbers.
        integers: whether the entries must be integers, and not bool.

    Raises:
        ValueError: it is ragged, or its entries are no numbers.
    """
    array = value
    if not hasattr(value, "aval"):
        try:
            array = np.asarray(value)
        except Exception as error:
            raise ValueError(
                f"{argument} must be an array of numbers, not {shown(value)}: "
                f"{str(error).splitlines()[0]}"
            ) from None
    kind = "integers" if integers else "numbers"
    # JAX's own small floats (bfloat16) are of kind V.
    if np.dtype(array.dtype).kind not in ("iu" if integers else "biufV"):
        raise ValueError(f"{argument} must be {kind}, not {array.dtype} ({shown(value)})")
    return array


def check_range(argument: str, value: Any) -> None:
    """Check a pair of finite numbers, the lower one first.

    Args:
        argument: its name, for the message.
        value: what was passed.

    Raises:
        ValueError: it is none.
    """
    ends = np.asarray(as_array(argument, value), np.float64)
    if ends.shape != (2,) or not np.isfinite(ends).all() or not ends[0] < ends[1]:
        raise ValueError(f"{argument} must be (lowest, highest), lowest < highest: {shown(value)}")


def check_below(argument: str, numbers: Any, size: int) -> None:
    """Check that all numbers of an array are in 0..size-1.

    Args:
        argument: its name, for the message.
        numbers: a NumPy array of integers.
        size: how many there are.

    Raises:
        ValueError: one is not; the message names the first.
    """
    wrong = (numbers < 0) | (numbers >= size)
    if wrong.any():
        raise ValueError(f"{argument} must lie in 0..{size - 1}, not {numbers[wrong].flat[0]}")


def check_indices(argument: str, value: Any, size: int) -> Any:
    """Different indices of 0..size-1, as a NumPy array [n] with n >= 1.

    Args:
        argument: its name, for the message.
        value: one index or a sequence of them.
        size: how many there are to choose from.

    Raises:
        ValueError: there is none, or one is no integer, out of range or named twice.
    """
    indices = np.atleast_1d(np.asarray(as_array(argument, value, integers=np.size(value) > 0)))
    if indices.ndim != 1 or indices.size == 0:
        raise ValueError(f"{argument} must be indices, [n], n >= 1: {shown(value)}")
    if indices.min() < 0 or indices.max() >= size:
        raise ValueError(f"{argument} must lie in 0..{size - 1}: {shown(value)}")
    if len(np.unique(indices)) != len(indices):
        raise ValueError(f"{argument} must be different: {shown(value)}")
    return indices
