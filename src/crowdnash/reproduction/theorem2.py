"""Theorem 2 tried out: how far TD estimates are from the mean-field Q-values they stand for.

The error is E sum_h |Q_h - Q^tau_h|^2 weighted by mu_h, the flow of the induced game under the
policy, here the uniform one. Three sweeps: trajectories M, agents N, and how different agents are.

The paper's Algorithm 1 learns from agent 1's data. Here every agent has a table of its own: where
agents are alike each is an agent 1, and the error is averaged over them. "Pooled" is one table
from all agents' data.

For the part of the error that is due to N, a run as long as one likes still carries noise of order
1/M. Two independent runs A, B give sum_h <Q^A_h - Q^tau_h, Q^B_h - Q^tau_h>_mu, Q averaged over
agents: its expectation is the squared bias alone, as M goes to infinity the part due to N.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from crowdnash import mean_field
from crowdnash.approximate_symmetry.measurement import symmetry
from crowdnash.games import SIS, RockPaperScissors
from crowdnash.games.base import PopulationGame
from crowdnash.learners.temporal_difference import td_learning
from crowdnash.mean_field.induced import induced_game
from crowdnash.policies.tabular import TabularPolicy
from crowdnash.reproduction.kink_game import KinkGame
from crowdnash.reproduction.study import Point, Scale, Settings, Study
from crowdnash.reproduction.theorem2_conclusions import conclude
from crowdnash.reproduction.theorem2_pictures import draw
from crowdnash.runs.metrics_log import Row

_TEMPERATURE = 0.05

_LONGEST: Mapping[Scale, int] = {"smoke": 3_000, "small": 100_000, "paper": 300_000}
_TRAJECTORIES = (30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000)
_CROWD: Mapping[Scale, int] = {"smoke": 30, "small": 100, "paper": 200}
_SIZES: Mapping[Scale, tuple[int, ...]] = {
    "smoke": (5, 20),
    "small": (5, 10, 20, 40, 80),
    "paper": (5, 10, 20, 40, 80, 160),
}
_AGENT_GAMES: Mapping[Scale, tuple[str, ...]] = {
    "smoke": ("kink",),
    "small": ("sis", "rock-paper-scissors", "kink"),
    "paper": ("sis", "rock-paper-scissors", "kink"),
}
_TRAJECTORY_GAMES: Mapping[Scale, tuple[str, ...]] = {
    "smoke": ("sis",),
    "small": ("sis", "rock-paper-scissors"),
    "paper": ("sis", "rock-paper-scissors"),
}
_DIFFERENCES: Mapping[Scale, tuple[float, ...]] = {
    "smoke": (0.0, 0.1),
    "small": (0.0, 0.05, 0.1, 0.2),
    "paper": (0.0, 0.025, 0.05, 0.1, 0.2),
}
_REPLICATES: Mapping[Scale, int] = {"smoke": 2, "small": 3, "paper": 4}

# Who is observed and with which step sizes, for the sweep over M. The rule "theorem" is
# eta_m = (2/delta)/(m + 2/delta); "adaptive" is the library's own default.
_LEARNERS = MappingProxyType(
    {
        "own": ("own", "theorem"),
        "pooled": ("pooled", "theorem"),
        "pooled-adaptive": ("pooled", "adaptive"),
    }
)


def _games() -> Mapping[str, Callable[[Any, int, float], PopulationGame]]:
    # For A-SIS the difference is alpha and beta alike; A-RPS has beta only.
    return {
        "sis": lambda key, n, x: SIS.sample(
            key,
            num_agents=n,
            heterogeneity={"susceptibility": x / 2, "recovery": x / 2, "isolation_aversion": x},
        ),
        "rock-paper-scissors": lambda key, n, x: RockPaperScissors.sample(
            key, num_agents=n, heterogeneity=x / 2
        ),
        "kink": lambda key, n, x: KinkGame(n),
    }


def points(scale: Scale, seed: int) -> tuple[Point, ...]:
    """The three sweeps, one after the other."""
    plan: list[Point] = []
    lengths = [m for m in _TRAJECTORIES if m <= _LONGEST[scale]]

    def add(**settings: Any) -> None:
        for replicate in range(_REPLICATES[scale]):
            plan.append(
                Point.of(
                    *("sweep", "game", "learner", "num_agents", "num_epochs", "difference"),
                    "replicate",
                    **settings,
                    replicate=replicate,
                    seed=seed,
                    temperature=_TEMPERATURE,
                )
            )

    for game in _TRAJECTORY_GAMES[scale]:
        for learner, (data, rule) in _LEARNERS.items():
            for length in lengths[-3:] if scale == "smoke" else lengths:
                shared = {"sweep": "trajectories", "game": game, "learner": learner}
                shared |= {"num_agents": _CROWD[scale], "difference": 0.0}
                add(**shared, data=data, rule=rule, num_epochs=length)
    for game in _AGENT_GAMES[scale]:
        for data in ("own", "pooled"):
            for size in _SIZES[scale]:
                # The limit M -> infinity is asked for: steps that forget the start sooner.
                shared = {"sweep": "agents", "game": game, "learner": data, "data": data}
                shared |= {"rule": "horizon-visits", "difference": 0.0}
                add(**shared, num_agents=size, num_epochs=_LONGEST[scale])
    for data in ("own", "pooled"):
        for difference in _DIFFERENCES[scale]:
            for length in lengths[-2:] if scale == "smoke" else lengths[1::2]:
                shared = {"sweep": "differences", "game": "sis", "learner": data, "data": data}
                shared |= {"rule": "theorem", "num_agents": _CROWD[scale]}
                add(**shared, difference=difference, num_epochs=length)
    return tuple(plan)


def measure(settings: Settings, _folder: Path | None = None) -> tuple[Row]:
    """Errors of two independent runs of Algorithm 1 for all agents of one game."""
    point: Any = settings
    key = jax.random.fold_in(jax.random.key(point["seed"]), point["replicate"])
    game_key, *run_keys = jax.random.split(key, 3)
    game = _games()[point["game"]](game_key, point["num_agents"], point["difference"])
    mfg = induced_game(game)
    shape = (game.horizon, game.num_states, game.num_actions)
    probs = np.full(shape, 1 / game.num_actions)
    flow = np.asarray(mean_field.population_flow(mfg, probs))
    exact = np.asarray(mean_field.q_values(mfg, probs, temperature=point["temperature"]))
    delta = float(flow[flow > 0].min())
    policy = (
        TabularPolicy.independent(np.broadcast_to(probs, (game.num_agents, *shape)))
        if point["data"] == "own"
        else TabularPolicy.symmetric(probs, game.num_agents)
    )
    tables = [
        td_learning(
            game,
            policy,
            key=run_key,
            num_epochs=point["num_epochs"],
            temperature=point["temperature"],
            step_size=point["rule"],
            delta=delta,
        )
        for run_key in run_keys
    ]
    gaps = [np.asarray(q, np.float64) - exact for q in tables]
    sym = symmetry(game) if point["difference"] else None
    return (
        {
            "delta": delta,
            "alpha": sym.alpha.upper if sym else 0.0,
            "beta": sym.beta.upper if sym else 0.0,
            "scale": float((exact**2 * flow).sum()),
            **errors(gaps, flow),
        },
    )


def errors(
    gaps: Sequence[Float[np.ndarray, "G H S A"]], flow: Float[np.ndarray, "H S A"]
) -> dict[str, float]:
    """Squared errors weighted by the flow, from independent runs' Q - Q^tau (two at least).

    `error` the mean and `largest_error` the largest over tables (averaged over runs); and
    `squared_bias`, without bias, of the mean over tables.
    """
    by_table = np.stack([(gap**2 * flow).sum((1, 2, 3)) for gap in gaps])
    means = [gap.mean(0) for gap in gaps]
    products = [
        float((means[j] * means[k] * flow).sum())
        for j in range(len(means))
        for k in range(j + 1, len(means))
    ]
    return {
        "error": float(by_table.mean()),
        "largest_error": float(by_table.max(1).mean()),
        "squared_bias": float(np.mean(products)),
    }


STUDY = Study(
    name="theorem2",
    summary="error of TD learning against trajectories, agents and heterogeneity",
    points=points,
    measure=measure,
    conclude=conclude,
    draw=draw,
)
