"""What an exploitability evaluation found, and its confidence intervals over agents (Def. 2).

Axes: n agents examined, K population paths or trajectories.
"""

import dataclasses
import hashlib
import json
import os
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from crowdnash.certificates.by_label import LabelGains, gains_by_label
from crowdnash.certificates.origin import Origin
from crowdnash.certificates.statement import describe
from crowdnash.certificates.unexamined import rank_for
from crowdnash.checks import check_number
from crowdnash.files import read_arrays, read_json, write_arrays, write_json
from crowdnash.interval import Interval

_FORMAT = "crowdnash-certificate-2"
_EARLIER = "crowdnash-certificate-1"

SMALL_SHARE = 0.05
"""The largest share of the others that an agent may displace for first order to be relied on."""

UPPER_KINDS = {
    "exact": "nothing was sampled",
    "frozen": "nobody's transitions feel the others, so own influence is none",
    "first order": "frozen paths and own influence to first order in 1/N",
    "coupling": "frozen paths and the most that own influence can add",
    "any crowd": "the agent's best return whatever the others do",
    "estimated": "laws that were estimated from play, with an error bar: no proof",
    "none": "no upper end is known",
}
"""What the upper end of an agent is, by the name in `Exploitability.upper_kind`."""


@dataclass(frozen=True)
class OwnInfluence:
    """What holding the population's path fixed leaves out of Def. 2, measured for some agents, [k].

    `difference` is the gain of agent i's best response to frozen paths when it is really played
    (the others feel it) minus its gain against frozen paths, with `standard_error`. Add it to
    `Exploitability.frozen.lower` for an unbiased estimate of what that deviation gains.
    """

    agents: Int[np.ndarray, " k"]
    difference: Float[np.ndarray, " k"]
    standard_error: Float[np.ndarray, " k"]


@dataclass(frozen=True)
class FrozenGains:
    """Gains against frozen population paths: what Def. 2 would be if nobody felt a deviation.

    Per agent, [n]: a policy gains `lower` over the policy's `value` along such paths, and a player
    who knew each path in advance gains `upper`. `maximum` and `mean` cover, at the certificate's
    confidence, the largest and the mean frozen gain over the agents.
    """

    value: Float[np.ndarray, " n"]
    lower: Float[np.ndarray, " n"]
    upper: Float[np.ndarray, " n"]
    standard_error: Float[np.ndarray, " n"]
    upper_standard_error: Float[np.ndarray, " n"]
    maximum: Interval
    mean: Interval


@dataclass(frozen=True)
class Influence:
    """How much a single agent moves the population, and what that is worth to it (Def. 2).

    Per agent, [n], to first order in 1/N: `predicted`, what own influence adds to the gain of its
    deviation; `largest`, what it adds at most to the return of any policy; `share`, the largest
    share of the others that it displaces at any step. `growth`: how many others one displaced
    agent displaces in turn, at most, at any later step. For the k agents whose deviations were
    really played: these, `deviations`, and `measured` with `standard_error`, the same as
    `predicted` but of real play, of `num_plays` plays each.
    """

    predicted: Float[np.ndarray, " n"]
    largest: Float[np.ndarray, " n"]
    share: Float[np.ndarray, " n"]
    growth: float
    agents: Int[np.ndarray, " k"]
    measured: Float[np.ndarray, " k"]
    standard_error: Float[np.ndarray, " k"]
    deviations: Float[np.ndarray, "k H S A"]
    num_plays: int = 2

    @property
    def is_small(self) -> bool:
        """Whether no agent displaces more than a twentieth of the others, to first order."""
        return bool((self.share <= SMALL_SHARE).all())


@dataclass(frozen=True, repr=False)
class Exploitability:
    """How much single agents can gain by deviating in the N-player game, in total reward (Def. 2).

    Own influence is included: the others feel what the deviator does. Per agent, [n]: a known
    policy gains `lower` over the policy's own return `value`, none gains more than `upper` (point
    estimates, with `standard_error` and `upper_standard_error`). `lower_kind` says where the lower
    end comes from: "played" (that deviation was really played), "predicted" (frozen paths and own
    influence to first order), "none" (only that nobody need deviate) or "exact"; `upper_kind` is a
    key of `UPPER_KINDS`. Over the agents: `maximum` and `mean`, intervals that cover at
    `confidence`, with one-sided or trivial upper ends where no better ones are known. They are
    about best deviations, and whoever keeps to the policy gains 0: no end is below that. The gains
    in `lower` are as they were measured, and may be.

    `reward_range` is the declared range of one step's reward if lower ends rest on it: they then
    hold for any number of plays. Where it is None they are Student's, good for many plays.

    `frozen` has the figures against frozen population paths (methods "paths" and "exact"; None for
    the others), `influence` and `own_influence` what those leave out (method "paths"). `origin`
    says of what the certificate is and how it was made, for `crowdnash verify`.
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
    lower_kind: Shaped[np.ndarray, " n"] | None = None
    upper_kind: Shaped[np.ndarray, " n"] | None = None
    frozen: FrozenGains | None = None
    influence: Influence | None = None
    origin: Origin | None = None
    reward_range: Interval | None = None

    def __repr__(self) -> str:
        """A line: arrays of thousands of agents would bury the two intervals."""
        pair = {"maximum": self.maximum, "mean": self.mean}
        ends = [f"{name}=[{x.lower:.4g}, {x.upper:.4g}]" for name, x in pair.items()]
        return (
            f"Exploitability({', '.join(ends)}, {len(self.agents)} agents, "
            f"method={self.method!r}, confidence={self.confidence:g})"
        )

    @property
    def statement(self) -> str:
        """What the certificate says, in a sentence or two, with a warning where one is due."""
        return describe(self)

    @property
    def best_response_value(self) -> Float[np.ndarray, " n"]:
        """Return of the deviation behind `lower`."""
        return self.value + self.lower

    def gain_of_all_but(self, share: float) -> float:
        """A gain that at most a share of all agents exceeds, from randomly drawn ones (Def. 2).

        One of the drawn agents' own gains, by the order statistics of a sample without replacement
        (Wilks 1941): exact for any number of agents, at `confidence`, and free of assumptions. It
        is about what this certificate's deviators would find and measure (`lower`) if they examined
        everybody, not about what could be gained.

        Args:
            share: In (0,1), fixed before the gains are seen.

        Returns:
            The smallest such gain; infinity if too few agents were drawn to say.

        Raises:
            ValueError: `share` is out of range, or the agents were not drawn at random by method
                "learned" (`agents=30`).
        """
        check_number("share", share, above=0, below=1)
        if not self.speaks_for_all:
            raise ValueError(
                "gain_of_all_but needs agents drawn at random: method='learned' with agents=30, say"
            )
        assert self.origin is not None  # else nobody was drawn
        num_agents, num_drawn = self.origin.num_agents, len(self.agents)
        most = int(share * num_agents * (1 + 1e-12))
        rank = rank_for(num_agents, num_drawn, most, 1 - self.confidence)
        return np.inf if rank is None else float(np.sort(self.lower)[rank - 1])

    @property
    def speaks_for_all(self) -> bool:
        """Whether the agents are a random sample that learned, so that others may be spoken of."""
        origin = self.origin
        return self.method == "learned" and origin is not None and origin.sampled_agents > 0

    def by(self, labels: Any) -> tuple[LabelGains, ...]:
        """Gains by group or type: who gains (Def. 2).

        Args:
            labels: One label an agent of the game [N], numbers or strings, such as a policy's
                `groups` or a parameter in classes.

        Returns:
            The largest and the mean gain of the examined agents of each label, in the labels'
            order. The intervals do not cover jointly.

        Raises:
            ValueError: There are fewer labels than agents.
        """
        return gains_by_label(self, labels)

    def numbers(self, arrays: dict[str, np.ndarray] | None = None) -> dict[str, Any]:
        """The fields that are no arrays, ready for JSON; the arrays are put into `arrays`.

        An upper end that is not known (infinite) is None; raises nothing.
        """
        return _flatten(self, "", {} if arrays is None else arrays)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the numbers to `path` (JSON), and the arrays beside it (NumPy .npz).

        The JSON is written last and holds digests of the arrays and of itself. Nothing in the two
        files can be executed.

        Raises:
            OSError: a file cannot be written.
        """
        target, arrays = Path(path), {}
        numbers = self.numbers(arrays)
        write_arrays(_arrays_path(target), arrays)
        digest = hashlib.sha256(_arrays_path(target).read_bytes()).hexdigest()
        content = {"format": _FORMAT, "arrays_sha256": digest} | numbers
        write_json(target, content | {"sha256": _digest(content)})

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
            if stored["format"] == _EARLIER:
                raise ValueError("an earlier version wrote it, about frozen paths: evaluate again")
            if stored["format"] != _FORMAT:
                raise ValueError(f"its format is {stored['format']!r}, not {_FORMAT!r}")
            digest = hashlib.sha256(_arrays_path(source).read_bytes()).hexdigest()
            if stored["arrays_sha256"] != digest:
                raise ValueError(f"{_arrays_path(source).name} is not of this certificate")
            if stored.pop("sha256") != _digest(stored):
                raise ValueError("its numbers were changed after it was written")
            return _restore(cls, stored, "", arrays)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(
                f"{source} is damaged: {error if isinstance(error, ValueError) else repr(error)}"
            ) from None


def _digest(content: dict[str, Any]) -> str:
    """SHA-256 of what a certificate says; a change by accident or by hand shows."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


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
        if not (item.name in stored or name in arrays or item.default is dataclasses.MISSING):
            continue  # an earlier version had no such field
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
