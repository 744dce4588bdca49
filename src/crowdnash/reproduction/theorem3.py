"""Theorem 3 tried out: exploitability of Symm-PMD's average policy against trajectories.

For each eps, T = ceil(eps^-4) epochs of M = ceil(eps^-2) trajectories with the theorem's step
sizes xi_t = 1/sqrt(t+1) and mixing; Theorem 3 then promises O(eps) beside what temperature and
heterogeneity leave: eps^-6 trajectories, exploitability ~ trajectories^(-1/6). All agents' data
are used, and the library's TD step sizes: the theorem's need a visitation probability that no
learner knows. The practical preset gets the same trajectories.

The theorem's rewards are in [0,1]. Congestion's are, up to noise; A-RPS as printed pays over a
range of 12, so it is also played with all payoffs divided by 12. Gains are in the game's own units.

The promise is of the order of eps/tau, which for the eps tried here is more than the uniform policy
leaves to be gained: the theorem's rate can be compared, not its constant. What tau alone leaves is
computed exactly: the exploitability of the regularised equilibrium (Lemma 11).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

import crowdnash as cn
from crowdnash import mean_field
from crowdnash.checks import check_choice
from crowdnash.games import Congestion, RockPaperScissors
from crowdnash.games.base import PopulationGame
from crowdnash.learners.mirror_descent import PolicyMirrorDescent
from crowdnash.mean_field.induced import induced_game
from crowdnash.policies.tabular import TabularPolicy
from crowdnash.reproduction.fits import as_fact, fit_text, number, power_law, sample
from crowdnash.reproduction.study import Conclusion, Point, Scale, Settings, Study, Table
from crowdnash.reproduction.theorem3_pictures import TITLES, draw
from crowdnash.runs.metrics_log import Row

_TEMPERATURE = 0.05
_NUM_AGENTS = 100
_RANGE_OF_RPS = 12.0
_FIRST_EPOCHS = 10

_ACCURACIES: Mapping[Scale, tuple[float, ...]] = {
    "smoke": (0.5, 0.35),
    "small": (0.5, 0.35, 0.25, 0.18),
    "paper": (0.5, 0.35, 0.25, 0.18, 0.11),
}
_GAMES: Mapping[Scale, tuple[str, ...]] = {
    "smoke": ("congestion", "rps-scaled"),
    "small": ("congestion", "rps-scaled", "rps-printed"),
    "paper": ("congestion", "rps-scaled", "rps-printed"),
}
_REPLICATES: Mapping[Scale, int] = {"smoke": 2, "small": 4, "paper": 6}

LEARNERS = MappingProxyType({"theorem": "theorem", "practical": "practical"})


def sample_game(name: str, key: PRNGKeyArray) -> PopulationGame:
    """A draw of a monotone game whose agents differ a little.

    Raises:
        ValueError: an unknown name.
    """
    if name == "congestion":
        widths = {"transitions": 0.02, "congestion": 0.02, "base": 0.0}
        return Congestion.sample(key, num_agents=_NUM_AGENTS, heterogeneity=widths)
    check_choice("game", name, TITLES)
    game = RockPaperScissors.sample(key, num_agents=_NUM_AGENTS, heterogeneity=0.05)
    unit = _RANGE_OF_RPS if name == "rps-scaled" else 1.0
    return RockPaperScissors(
        crowding=game.crowding / unit,
        loss=game.loss / unit,
        win=game.win / unit,
        horizon=game.horizon,
    )


def points(scale: Scale, seed: int) -> tuple[Point, ...]:
    """For every game what the temperature alone costs, then the runs."""
    plan = []
    for game in _GAMES[scale]:
        for replicate in range(_REPLICATES[scale]):
            shared: dict[str, Any] = {
                "game": game,
                "replicate": replicate,
                "seed": seed,
                "temperature": _TEMPERATURE,
            }
            name = ("kind", "game", "replicate")
            plan.append(Point.of(*name, kind="limit", **shared))
            for eps in _ACCURACIES[scale]:
                for learner in LEARNERS:
                    own = {"kind": "run", "learner": learner, "accuracy": eps}
                    own |= {"num_epochs": math.ceil(eps**-4), "td_epochs": math.ceil(eps**-2)}
                    plan.append(Point.of(*name, "learner", "accuracy", **shared, **own))
    return tuple(plan)


def measure(settings: Settings, _folder: Path | None = None) -> tuple[Row]:
    """One run, or what its temperature leaves to be gained at best."""
    point: Any = settings
    key = jax.random.fold_in(jax.random.key(point["seed"]), point["replicate"])
    game_key, learning_key, certificate_key = jax.random.split(key, 3)
    game = sample_game(point["game"], game_key)
    if point["kind"] == "limit":
        return (_limits(game, point["temperature"]),)
    learner = _learner(point)
    result = cn.solve(game, learner, key=learning_key)
    changes = [epoch.policy_change for epoch in result.history[:_FIRST_EPOCHS]]
    row: Row = {
        "trajectories": point["num_epochs"] * point["td_epochs"],
        "largest_early_change": max(changes),
    }
    for name, policy in result.policies.items():
        assert isinstance(policy, TabularPolicy)
        row |= {f"{name}_{k}": v for k, v in _gains(game, policy, certificate_key).items()}
    return (row,)


def _learner(point: Any) -> PolicyMirrorDescent:
    sizes = {"num_epochs": point["num_epochs"], "td_epochs": point["td_epochs"]}
    if point["learner"] == "practical":
        return PolicyMirrorDescent.practical(evaluation="td", **sizes)
    return PolicyMirrorDescent(
        **sizes, temperature=point["temperature"], step_size="theorem", mixing=True
    )


def _gains(game: PopulationGame, policy: TabularPolicy, key: PRNGKeyArray) -> dict[str, float]:
    """Exact mean-field exploitability in the induced game, and that of the N agents."""
    certificate = cn.exploitability(game, policy, key=key)
    return {
        "mean_field": mean_field.exploitability(
            induced_game(game), np.asarray(policy.probs[0], np.float64)
        ),
        "largest_lower": certificate.maximum.lower,
        "largest_upper": certificate.maximum.upper,
        "mean_upper": certificate.mean.upper,
    }


def _limits(game: PopulationGame, temperature: float) -> Row:
    """Exploitability of the uniform policy and of the regularised equilibrium (Lemma 11).

    The solver's iterates settle at the regularised equilibrium; how far the last block of
    iterations still moved the exploitability is kept beside it.
    """
    mfg = induced_game(game)
    low, high = game.reward_range or (0.0, 1.0)
    solution = mean_field.solve(
        mfg,
        temperature=temperature,
        step_size=0.25 / (high - low),
        num_iterations=100_000,
        tolerance=0.0,
        check_every=50_000,
    )
    history = np.asarray(solution.history.exploitability)
    uniform = np.full((game.horizon, game.num_states, game.num_actions), 1 / game.num_actions)
    return {
        "uniform": mean_field.exploitability(mfg, uniform),
        "regularised": float(solution.exploitability),
        "regularised_still_moving": float(abs(history[-1] - history[-2])),
        "lemma_11": temperature * game.horizon * math.log(game.num_actions),
    }


def _runs(rows: Sequence[Row], game: str, learner: str) -> list[Row]:
    key = ("run", game, learner)
    return [row for row in rows if (row["kind"], row["game"], row.get("learner")) == key]


def conclude(rows: Sequence[Row]) -> Conclusion:
    """Slopes in the number of trajectories, and how near the temperature's limit they come."""
    games: dict[str, Any] = {}
    for game in dict.fromkeys(str(row["game"]) for row in rows):
        limits = [row for row in rows if row["kind"] == "limit" and row["game"] == game]
        fact: dict[str, Any] = {
            name: float(np.mean([number(row, name) for row in limits]))
            for name in ("uniform", "regularised", "regularised_still_moving", "lemma_11")
        }
        for learner in LEARNERS:
            part = _runs(rows, game, learner)
            fact[learner] = {
                "largest_early_change": max(number(row, "largest_early_change") for row in part)
            }
            for policy in ("average", "last"):
                for column in ("mean_field", "largest_upper"):
                    curve = sample(part, "trajectories", f"{policy}_{column}")
                    fact[learner][f"{policy}_{column}"] = {
                        "trajectories": curve.x.tolist(),
                        "mean": curve.mean.tolist(),
                        "error": curve.error.tolist(),
                        "slope": as_fact(power_law(curve)),
                        "slope_at_the_end": as_fact(power_law(curve.at(curve.x >= curve.x[-2]))),
                    }
        games[game] = fact
    return Conclusion({"games": games}, _tables(games), _verdict(games))


def _tables(games: Mapping[str, Any]) -> tuple[Table, ...]:
    runs, limits = [], []
    for game, fact in games.items():
        limits.append(
            (
                TITLES[game],
                *(f"{fact[name]:.3g}" for name in ("uniform", "regularised", "lemma_11")),
                f"{fact['theorem']['largest_early_change']:.2g}",
                f"{fact['practical']['largest_early_change']:.2g}",
            )
        )
        for learner, title in LEARNERS.items():
            for policy in ("average", "last"):
                curve, players = (
                    fact[learner][f"{policy}_{column}"]
                    for column in ("mean_field", "largest_upper")
                )
                runs.append(
                    (
                        f"{TITLES[game]}, {title}, {policy}",
                        f"{curve['mean'][0]:.3g} ± {curve['error'][0]:.1g}",
                        f"{curve['mean'][-1]:.3g} ± {curve['error'][-1]:.1g}",
                        f"{players['mean'][-1]:.3g} ± {players['error'][-1]:.1g}",
                        _slopes(curve),
                    )
                )
    columns = ("game", "uniform", "regularised equilibrium", "Lemma 11: at most")
    return (
        Table(
            "Exploitability against trajectories (Theorem 3: slope -1/6 at worst, until its floor)",
            ("game, settings, policy", "fewest", "most", "N agents, largest", "slope, at the end"),
            tuple(runs),
        ),
        Table(
            "What the temperature alone leaves, and the largest early change of policy",
            (*columns, "theorem: change", "practical: change"),
            tuple(limits),
        ),
    )


def _slopes(curve: Mapping[str, Any]) -> str:
    """Over all trajectories, and between the last two."""
    whole, end = (curve[name]["slope"] for name in ("slope", "slope_at_the_end"))
    return f"{whole:.2f}, {end:.2f}"


def _verdict(games: Mapping[str, Any]) -> tuple[str, ...]:
    text = []
    for game, fact in games.items():
        average = fact["theorem"]["average_mean_field"]
        practical = fact["practical"]["last_mean_field"]
        text.append(
            f"{TITLES[game]}: the theorem's average policy falls from {average['mean'][0]:.3g} to "
            f"{average['mean'][-1]:.3g} with slope {fit_text(average['slope'])}, at the end "
            f"{fit_text(average['slope_at_the_end'])} (guaranteed: -1/6 down to a floor; the "
            f"temperature's own is {fact['regularised']:.3g}). With as many trajectories the "
            f"practical preset's last iterate is at {practical['mean'][-1]:.3g}, its average at "
            f"{fact['practical']['average_mean_field']['mean'][-1]:.3g}."
        )
    return tuple(text)


STUDY = Study(
    name="theorem3",
    summary="exploitability of Symm-PMD against the number of trajectories",
    points=points,
    measure=measure,
    conclude=conclude,
    draw=draw,
)
