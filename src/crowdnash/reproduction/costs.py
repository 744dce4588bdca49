"""The paper's claims about cost, beside what the same work costs here.

Everything is timed in this process, on whatever machine it runs: give it a quiet one. The first
call of every program is kept apart, because it compiles. An epoch of a learner is the same number
of agent-steps for all of them. The paper's wall times are of other machines (64 cores, an
RTX 3090) and do not say how many epochs they are of; a run here is `_RUN_EPOCHS` epochs of
`_TD_EPOCHS` trajectories for tables, `_PPO_EPOCHS` epochs for networks.

The paper trains the N networks of Ind-NN in turn; here they are trained side by side. What in turn
would cost is estimated from fleets of two, whose two networks have as many samples each.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax

from crowdnash.certificates.certificate import exploitability
from crowdnash.games import SIS, RockPaperScissors, Taxi
from crowdnash.games.base import DynamicGame, PopulationGame
from crowdnash.learners.driver import solve
from crowdnash.learners.mirror_descent import PolicyMirrorDescent
from crowdnash.learners.ppo.learner import PPO
from crowdnash.policies.tabular import TabularPolicy
from crowdnash.reproduction.costs_pictures import draw, duration
from crowdnash.reproduction.fits import number
from crowdnash.reproduction.study import Conclusion, Point, Scale, Settings, Study, Table
from crowdnash.runs.metrics_log import Row

_RUN_EPOCHS, _TD_EPOCHS, _PPO_EPOCHS = 300, 100, 1000
_PATHS = 256
_HETEROGENEITY = 0.05

GAMES: Mapping[str, tuple[str, type[SIS] | type[RockPaperScissors]]] = MappingProxyType(
    {"rock-paper-scissors": ("A-RPS", RockPaperScissors), "sis": ("A-SIS", SIS)}
)


class _Size(NamedTuple):
    num_agents: Mapping[str, int]
    taxis: int
    taxi_horizon: int
    tabular_repeats: int
    neural_repeats: int


_FULL: Mapping[str, int] = {"rock-paper-scissors": 2000, "sis": 1000}
_SIZES: Mapping[Scale, _Size] = {
    "smoke": _Size({"rock-paper-scissors": 100, "sis": 100}, 20, 32, 5, 2),
    "small": _Size(_FULL, 1000, 128, 10, 2),
    "paper": _Size(_FULL, 1000, 128, 30, 5),
}


def points(scale: Scale, seed: int) -> tuple[Point, ...]:
    """Learners and certificates of both tabular games, then PPO on A-Taxi."""
    size, plan = _SIZES[scale], []
    for game in GAMES:
        shared: dict[str, Any] = {"game": game, "num_agents": size.num_agents[game], "seed": seed}
        shared |= {"repeats": size.tabular_repeats}
        for groups in ("symmetric", "independent"):
            plan.append(Point.of("task", "game", "groups", task="learn", groups=groups, **shared))
        plan.append(Point.of("task", "game", task="certify", num_paths=_PATHS, **shared))
    taxi: dict[str, Any] = {"game": "taxi", "seed": seed, "repeats": size.neural_repeats}
    taxi |= {"horizon": size.taxi_horizon, "task": "learn"}
    for identity, taxis in (("none", size.taxis), ("independent", size.taxis), ("independent", 2)):
        settings = taxi | {"identity": identity, "num_agents": taxis}
        plan.append(Point.of("task", "game", "identity", "num_agents", **settings))
    return tuple(plan)


def measure(settings: Settings, _folder: Path | None = None) -> tuple[Row]:
    """Seconds of one piece of work: first call, and least, median and greatest of the later."""
    point: Any = settings
    first, later = _timer(point)
    return (
        {
            "first_seconds": first,
            "least_seconds": min(later),
            "seconds": statistics.median(later),
            "greatest_seconds": max(later),
            "device": jax.devices()[0].device_kind,
            "machine": platform.machine(),
            "cores": os.cpu_count() or 0,
            "jax": jax.__version__,
        },
    )


def _timer(point: Any) -> tuple[float, list[float]]:
    game_key, key = jax.random.split(jax.random.key(point["seed"]))
    if point["game"] == "taxi":
        sizes = {name: point[name] for name in ("num_agents", "horizon")}
        learner = PPO(num_epochs=point["repeats"] + 1, identity=point["identity"])
        return _epochs(Taxi.sample(game_key, **sizes), learner, key)
    sample = GAMES[point["game"]][1].sample
    game = sample(game_key, num_agents=point["num_agents"], heterogeneity=_HETEROGENEITY)
    if point["task"] == "learn":
        learner = PolicyMirrorDescent.practical(
            evaluation="td",
            num_epochs=point["repeats"] + 1,
            td_epochs=_TD_EPOCHS,
            groups=point["groups"],
        )
        return _epochs(game, learner, key)
    return _certificates(game, key, point["num_paths"], point["repeats"])


def _epochs(game: DynamicGame, learner: Any, key: Any) -> tuple[float, list[float]]:
    first, *later = (epoch.seconds for epoch in solve(game, learner, key=key).history)
    return first, later


def _certificates(
    game: PopulationGame, key: Any, num_paths: int, repeats: int
) -> tuple[float, list[float]]:
    def once() -> float:
        begun = time.perf_counter()
        policy = TabularPolicy.uniform(game)
        exploitability(game, policy, key=key, num_trajectories=num_paths)
        return time.perf_counter() - begun

    return once(), [once() for _ in range(repeats)]


class _Claim(NamedTuple):
    """What the paper says (`low` to `high`, seconds or a share), and ours as a function."""

    name: str
    paper: str
    interval: tuple[float, float]
    ours: Callable[[Callable[..., float]], float]
    unit: str
    note: str


def _saved(whole: float, part: float) -> float:
    return 1 - part / whole


def _claims() -> tuple[_Claim, ...]:
    minutes, hours = (5 * 60.0, 20 * 60.0), 2 * 3600.0
    claims = []
    for game, (title, _) in GAMES.items():
        for groups, learner in (("symmetric", "Symm-PMD"), ("independent", "IPMD")):
            claims.append(
                _Claim(
                    f"{learner} on {title}, a run",
                    "5 to 20 min (64 cores)",
                    minutes,
                    lambda s, game=game, groups=groups: _RUN_EPOCHS * s("learn", game, groups),
                    "seconds",
                    f"{_RUN_EPOCHS} epochs of {_TD_EPOCHS} trajectories",
                )
            )
        claims.append(
            _Claim(
                f"{title}: Symm-PMD saves against IPMD",
                "about 60%",
                (0.6, 0.6),
                lambda s, game=game: _saved(
                    s("learn", game, "independent"), s("learn", game, "symmetric")
                ),
                "share",
                "time of an epoch; to the same exploitability see fig1b and fig1c",
            )
        )
        claims.append(
            _Claim(
                f"exploitability of a policy on {title}",
                "about 2 h",
                (hours, hours),
                lambda s, game=game: s("certify", game),
                "seconds",
                f"all agents, with an interval; {_PATHS} + {_PATHS} paths unless it is exact",
            )
        )
    claims.append(
        _Claim(
            "PPO (Symm-NN) on A-Taxi, a run",
            "about 2 h (RTX 3090)",
            (hours, hours),
            lambda s: _PPO_EPOCHS * s("learn", "taxi", "none"),
            "seconds",
            f"{_PPO_EPOCHS} epochs",
        )
    )
    claims.append(
        _Claim(
            "A-Taxi: Symm-NN saves against Ind-NN",
            "over 95%",
            (0.95, 1.0),
            lambda s: _saved(s("learn", "taxi", "independent"), s("learn", "taxi", "none")),
            "share",
            "all networks trained side by side",
        )
    )
    claims.append(
        _Claim(
            "A-Taxi: Symm-NN saves against Ind-NN in turn",
            "over 95%",
            (0.95, 1.0),
            lambda s: _saved(s("in turn", "taxi"), s("learn", "taxi", "none")),
            "share",
            "estimated from fleets of two",
        )
    )
    return tuple(claims)


def conclude(rows: Sequence[Row]) -> Conclusion:
    """Each claim beside ours, and the seconds behind it."""
    taxis = max(number(row, "num_agents") for row in rows if row["game"] == "taxi")

    def seconds(task: str, game: str, learner: Any = None) -> float:
        if task == "in turn":
            pair = next(r for r in rows if r["game"] == "taxi" and r["num_agents"] == 2)
            return number(pair, "seconds") * taxis / 2
        matches = [
            row
            for row in rows
            if (row["task"], row["game"]) == (task, game)
            and learner in (None, row.get("groups"), row.get("identity"))
            and (game != "taxi" or row["num_agents"] == taxis)
        ]
        return number(matches[0], "seconds")

    claims = [
        {
            "claim": claim.name,
            "paper": claim.paper,
            "paper_interval": list(claim.interval),
            "ours": claim.ours(seconds),
            "unit": claim.unit,
            "note": claim.note,
        }
        for claim in _claims()
    ]
    facts: dict[str, Any] = {"claims": claims, "where": _where(rows)}
    return Conclusion(facts, _tables(facts, rows), _verdict(facts))


def _where(rows: Sequence[Row]) -> str:
    places = {(r["device"], r["machine"], r["cores"], r["jax"]) for r in rows}
    return "; ".join(f"{d} ({m}), {c} cores, jax {j}" for d, m, c, j in sorted(places, key=str))


def _text(value: float, unit: str) -> str:
    return f"{value:.0%}" if unit == "share" else duration(value)


def _tables(facts: Mapping[str, Any], rows: Sequence[Row]) -> tuple[Table, ...]:
    claims = tuple(
        (c["claim"], c["paper"], _text(c["ours"], c["unit"]), c["note"]) for c in facts["claims"]
    )
    timed = tuple(
        (
            f"{row['task']} {row['game']}, N = {row['num_agents']}",
            str(row.get("groups") or row.get("identity") or ""),
            *(f"{number(row, f'{name}seconds'):.4g}" for name in ("least_", "", "greatest_")),
            f"{max(number(row, 'first_seconds') - number(row, 'seconds'), 0):.3g}",
            str(row["repeats"]),
        )
        for row in rows
    )
    columns = ("work", "learner", "least", "median", "greatest", "compilation", "repeats")
    return (
        Table("The paper's costs and ours", ("claim", "paper", "ours", "note"), claims),
        Table(f"Seconds of an epoch or a certificate; {facts['where']}", columns, timed),
    )


def _verdict(facts: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(
        f"{c['claim']}: {_text(c['ours'], c['unit'])} ({c['note']}); the paper: {c['paper']}."
        for c in facts["claims"]
    )


STUDY = Study(
    name="costs",
    summary="the paper's claims about cost, timed here",
    points=points,
    measure=measure,
    conclude=conclude,
    draw=draw,
)
