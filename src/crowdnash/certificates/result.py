"""What an exploitability evaluation found, and its confidence intervals over agents (Def. 2).

Axes: n agents examined, K population paths or trajectories.
"""

import dataclasses
import hashlib
import os
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
from jaxtyping import Float, Int

from crowdnash.files import read_arrays, read_json, write_arrays, write_json
from crowdnash.interval import Interval

_FORMAT = "crowdnash-certificate-1"


@dataclass(frozen=True)
class OwnInfluence:
    """What holding the population's path fixed leaves out of Def. 2, measured for some agents, [k].

    `difference` is the gain of agent i's deviation when it is really played (the others feel it)
    minus its gain against frozen paths, with `standard_error`; O(1/N). Add it to
    `Exploitability.lower` for an unbiased estimate of what that deviation gains.
    """

    agents: Int[np.ndarray, " k"]
    difference: Float[np.ndarray, " k"]
    standard_error: Float[np.ndarray, " k"]


@dataclass(frozen=True)
class Exploitability:
    """How much single agents can gain by deviating, in units of total reward (Def. 2).

    Per agent, [n]: a known policy gains `lower` over the policy's own return `value`; none gains
    more than `upper` (point estimates, with `standard_error` and `upper_standard_error`; method
    "learned" knows no upper bound, its `upper` is infinite). Over the agents: `maximum` and
    `mean`, intervals that cover at `confidence`. With method "paths" all of this holds against
    frozen population paths; `own_influence` is what that leaves out.
    """

    agents: Int[np.ndarray, " n"]
    value: Float[np.ndarray, " n"]
    lower: Float[np.ndarray, " n"]
    upper: Float[np.ndarray, " n"]
    standard_error: Float[np.ndarray, " n"]
    upper_standard_error: Float[np.ndarray, " n"]
    maximum: Interval
    mean: Interval
    confidence: float
    method: str
    num_trajectories: int
    own_influence: OwnInfluence | None = None

    @property
    def best_response_value(self) -> Float[np.ndarray, " n"]:
        """Return of the deviation behind `lower`."""
        return self.value + self.lower

    def numbers(self, arrays: dict[str, np.ndarray] | None = None) -> dict[str, Any]:
        """The fields that are no arrays, ready for JSON; the arrays are put into `arrays`.

        An upper end that is not known (infinite) is None; raises nothing.
        """
        return _flatten(self, "", {} if arrays is None else arrays)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the numbers to `path` (JSON), and the arrays beside it (NumPy .npz).

        The JSON is written last and holds a digest of the arrays.

        Raises:
            OSError: a file cannot be written.
        """
        target, arrays = Path(path), {}
        numbers = self.numbers(arrays)
        write_arrays(_arrays_path(target), arrays)
        digest = hashlib.sha256(_arrays_path(target).read_bytes()).hexdigest()
        write_json(target, {"format": _FORMAT, "arrays_sha256": digest} | numbers)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Exploitability":
        """Read what `save` wrote, exactly as it was.

        Raises:
            ValueError: a file is missing or damaged, or the two are not of one certificate; the
                message names it.
        """
        source = Path(path)
        stored, arrays = read_json(source), read_arrays(_arrays_path(source))
        try:
            if stored["format"] != _FORMAT:
                raise ValueError(f"its format is {stored['format']!r}, not {_FORMAT!r}")
            digest = hashlib.sha256(_arrays_path(source).read_bytes()).hexdigest()
            if stored["arrays_sha256"] != digest:
                raise ValueError(f"{_arrays_path(source).name} is not of this certificate")
            return _restore(cls, stored, "", arrays)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(
                f"{source} is damaged: {error if isinstance(error, ValueError) else repr(error)}"
            ) from None


def _arrays_path(path: Path) -> Path:
    return path.with_suffix(".npz")


def _flatten(record: Any, prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """A record's numbers, ready for JSON; its arrays go to `arrays`, named after their fields."""
    numbers: dict[str, Any] = {}
    for item in dataclasses.fields(record):
        value, name = getattr(record, item.name), f"{prefix}{item.name}"
        if isinstance(value, Interval):
            ends = (("lower", value.lower), ("upper", value.upper))
            numbers[item.name] = {end: float(x) if np.isfinite(x) else None for end, x in ends}
        elif dataclasses.is_dataclass(value):
            numbers[item.name] = _flatten(value, f"{name}.", arrays)
        elif np.ndim(value):
            arrays[name] = np.asarray(value)
        else:
            numbers[item.name] = value
    return numbers


def _restore(cls: type, stored: Any, prefix: str, arrays: dict[str, np.ndarray]) -> Any:
    """The record that `_flatten` took apart."""
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for item in dataclasses.fields(cls):
        kinds = (*typing.get_args(hints[item.name]), hints[item.name])
        records: list[Any] = [kind for kind in kinds if dataclasses.is_dataclass(kind)]
        name = f"{prefix}{item.name}"
        if name in arrays:
            values[item.name] = arrays[name]
        elif stored[item.name] is not None and Interval in kinds:
            ends = (stored[item.name][end] for end in ("lower", "upper"))
            values[item.name] = Interval(*(np.inf if x is None else float(x) for x in ends))
        elif stored[item.name] is not None and records:
            values[item.name] = _restore(records[0], stored[item.name], f"{name}.", arrays)
        else:
            values[item.name] = stored[item.name]
    return cls(**values)


def maximum_interval(
    lower: np.ndarray,
    lower_error: np.ndarray,
    upper: np.ndarray,
    upper_error: np.ndarray,
    planned_gain: np.ndarray,
    confidence: float,
    num_paths: int,
) -> Interval:
    """The largest gain over the agents, two-sided at `confidence`.

    The agent is picked on the planning paths, so that fresh paths judge it without bias. The
    upper end must hold for whichever agent is the worst: a union bound over all of them.
    """
    tail = (1 - confidence) / 2
    pick = int(np.argmax(planned_gain))
    one = scipy.stats.t.ppf(1 - tail, num_paths - 1)
    all_ = scipy.stats.t.ppf(1 - tail / len(lower), num_paths - 1)
    return Interval(
        float(lower[pick] - one * lower_error[pick]), float((upper + all_ * upper_error).max())
    )


def mean_interval(
    lower_by_path: np.ndarray, upper_by_path: np.ndarray, confidence: float
) -> Interval:
    """The mean gain over the agents, two-sided at `confidence`, from its value on every path [K].

    Agents share paths: the error of a mean over agents is that of the per-path means.
    """
    count = len(lower_by_path)
    wide = scipy.stats.t.ppf(1 - (1 - confidence) / 2, count - 1) / np.sqrt(count)
    lower = lower_by_path.mean() - wide * lower_by_path.std(ddof=1)
    if np.isinf(upper_by_path).any():
        return Interval(float(lower), np.inf)
    upper = upper_by_path.mean() + wide * upper_by_path.std(ddof=1)
    return Interval(float(lower), float(upper))
