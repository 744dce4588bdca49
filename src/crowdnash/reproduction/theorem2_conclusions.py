"""What the rows of `theorem2` say: slopes in M and N, and what agents who differ leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Bool

from crowdnash.reproduction.fits import as_fact, fit_text, number, power_law, sample
from crowdnash.reproduction.study import Conclusion, Table
from crowdnash.runs.metrics_log import Row

_DATA = MappingProxyType({"own": "own data", "pooled": "all agents' data"})
_LEARNERS = MappingProxyType(
    {
        "own": "own data, theorem's steps",
        "pooled": "all agents' data, theorem's steps",
        "pooled-adaptive": "all agents' data, adaptive steps",
    }
)


def _select(rows: Sequence[Row], **columns: Any) -> list[Row]:
    return [row for row in rows if all(row[name] == value for name, value in columns.items())]


def _distinct(rows: Sequence[Row], column: str) -> list[Any]:
    return list(dict.fromkeys(row[column] for row in rows))


def _pairs(rows: Sequence[Row]) -> list[tuple[Any, Any]]:
    """Every game and learner among the rows."""
    return list(dict.fromkeys((row["game"], row["learner"]) for row in rows))


def _last_two(clear: Bool[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """The last two of the clear places."""
    return clear & (np.cumsum(clear[::-1])[::-1] <= 2)


def conclude(rows: Sequence[Row]) -> Conclusion:
    """Slopes in M and N, and the floor that differences between agents leave."""
    differing = _select(rows, sweep="differences")
    longest = max(_distinct(differing, "num_epochs"))
    facts = {
        "trajectories": _over_trajectories(_select(rows, sweep="trajectories")),
        "agents": _over_agents(_select(rows, sweep="agents")),
        "floors": _floors(_select(differing, num_epochs=longest)),
        "longest": longest,
    }
    return Conclusion(facts, _tables(facts), _verdict(facts))


def _over_trajectories(rows: Sequence[Row]) -> list[dict[str, Any]]:
    facts = []
    for game, learner in _pairs(rows):
        measured = sample(_select(rows, game=game, learner=learner), "num_epochs", "error")
        last = measured.x >= measured.x.max() / 10
        facts.append(
            {
                "game": game,
                "learner": learner,
                "last_decade": as_fact(power_law(measured.at(last))),
                "all": as_fact(power_law(measured)),
                "at_the_end": float(measured.mean[-1]),
            }
        )
    return facts


def _over_agents(rows: Sequence[Row]) -> list[dict[str, Any]]:
    facts = []
    for game, learner in _pairs(rows):
        bias = sample(_select(rows, game=game, learner=learner), "num_agents", "squared_bias")
        facts.append(
            {
                "game": game,
                "learner": learner,
                "squared_bias": as_fact(power_law(bias.at(bias.clear))),
                "at_the_end": as_fact(power_law(bias.at(_last_two(bias.clear)))),
                "sizes": bias.x.tolist(),
                "mean": bias.mean.tolist(),
                "error": bias.error.tolist(),
            }
        )
    return facts


def _floors(rows: Sequence[Row]) -> list[dict[str, Any]]:
    facts = []
    for learner in _distinct(rows, "learner"):
        for difference in _distinct(rows, "difference"):
            mine = _select(rows, learner=learner, difference=difference)
            mean = {name: float(np.mean([number(row, name) for row in mine])) for name in _FLOOR}
            squares = mean["alpha"] ** 2 + mean["beta"] ** 2
            error = float(sample(mine, "num_epochs", "error").error[0])
            fact = {"learner": learner, **mean, "squares": squares, "standard_error": error}
            facts.append(fact)
    return facts


_FLOOR = ("alpha", "beta", "error", "largest_error")


def _tables(facts: Mapping[str, Any]) -> tuple[Table, ...]:
    in_m = tuple(
        (
            f"{fact['game']}, {_LEARNERS[fact['learner']]}",
            fit_text(fact["last_decade"]),
            fit_text(fact["all"]),
            f"{fact['at_the_end']:.3g}",
        )
        for fact in facts["trajectories"]
    )
    in_n = tuple(
        (
            f"{fact['game']}, {_DATA[fact['learner']]}",
            fit_text(fact["squared_bias"]),
            fit_text(fact["at_the_end"]),
            f"{fact['mean'][0]:.3g} ± {fact['error'][0]:.1g}",
            f"{fact['mean'][-1]:.3g} ± {fact['error'][-1]:.1g}",
        )
        for fact in facts["agents"]
    )
    floors = tuple(
        (
            f"sis, {_DATA[fact['learner']]}",
            f"{fact['alpha']:.3g}, {fact['beta']:.3g}",
            f"{fact['squares']:.3g}",
            f"{fact['error']:.3g} ± {fact['standard_error']:.1g}",
            f"{fact['largest_error']:.3g}",
        )
        for fact in facts["floors"]
    )
    return (
        Table(
            "Error against trajectories M (Theorem 2: slope -1 at worst)",
            ("game and data", "slope, last decade", "slope, all", "error at the end"),
            in_m,
        ),
        Table(
            "Squared bias against agents N (Theorem 2: slope -1 at worst)",
            ("game and data", "slope", "at the end", "fewest agents", "most agents"),
            in_n,
        ),
        Table(
            "What agents who differ leave, at the largest M",
            ("game and data", "alpha, beta", "alpha²+beta²", "error, mean", "largest"),
            floors,
        ),
    )


def _verdict(facts: Mapping[str, Any]) -> tuple[str, ...]:
    text = []
    for fact in facts["trajectories"]:
        if fact["learner"] == "own":
            text.append(
                f"{fact['game']}: with its own data an agent's error falls with slope "
                f"{fit_text(fact['last_decade'])} in log M over the last decade, where Theorem 2 "
                "says -1 at worst."
            )
    for fact in facts["agents"]:
        text.append(
            f"{fact['game']}, {_DATA[fact['learner']]}: the part due to N, squared bias, has slope "
            f"{fit_text(fact['squared_bias'])} in log N, at the end "
            f"{fit_text(fact['at_the_end'])}; Theorem 2 says -1 at worst."
        )
    own = {fact["squares"]: fact["error"] for fact in facts["floors"] if fact["learner"] == "own"}
    pooled = {f["squares"]: f["error"] for f in facts["floors"] if f["learner"] == "pooled"}
    text.append(
        f"With {facts['longest']} trajectories, agents who differ most keep an error of "
        f"{own[max(own)]:.3g} ({own[min(own)]:.3g} if alike) from their own data, "
        f"{pooled[max(pooled)]:.3g} ({pooled[min(pooled)]:.3g}) from all agents'."
    )
    return tuple(text)
