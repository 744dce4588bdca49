"""Fig. 2a again: how exploitable the exact MFG-NE of A-SIS is among N agents that differ.

One of alpha and beta is swept over (0, 1/4) while the other is 0. The equilibrium of every game's
own induced mean-field game comes from the exact solver, for all games of a sweep in one compiled
program. It is not unique, so two solvers find one each: mirror descent with a little entropy, and
fictitious play. Beside them stands what is learned from play of the same games without the model,
by Symm-PMD with Algorithm 1 and by today's preset, which is told each agent's parameters. The paper
does not say whether it shows the largest or the mean exploitability over agents, so both are kept:
the lower ends of their intervals, not a largest of noisy estimates. A replicate's draw is stretched
along the sweep, so that its curve is smooth.

Axes: W games of a sweep (replicates times differences).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from crowdnash import mean_field
from crowdnash.approximate_symmetry.bounds import nash_bound
from crowdnash.approximate_symmetry.measurement import symmetry
from crowdnash.certificates.certificate import exploitability
from crowdnash.games import SIS
from crowdnash.learners.driver import solve_together
from crowdnash.learners.mirror_descent import PolicyMirrorDescent
from crowdnash.mean_field.induced import induced_game
from crowdnash.policies.base import Policy
from crowdnash.policies.tabular import TabularPolicy
from crowdnash.reproduction.fig2a_pictures import POLICIES, SWEEPS, draw
from crowdnash.reproduction.fits import number, sample
from crowdnash.reproduction.robust_means import interquartile_mean
from crowdnash.reproduction.study import Conclusion, Point, Scale, Settings, Study, Table
from crowdnash.runs.metrics_log import Row

_ITERATIONS, _TOLERANCE = 20_000, 1e-6
_SOLVERS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "exact": {"method": "mirror_descent", "step_size": 3.0, "temperature": 0.001},
        "exact-other": {"method": "fictitious_play"},
    }
)
_LEARNERS = MappingProxyType({"learned": "td", "mixed": "fitted"})
_THRESHOLD = 0.1


class _Size(NamedTuple):
    num_agents: int
    differences: tuple[float, ...]
    num_seeds: int
    num_epochs: int
    num_paths: int


_SIZES: Mapping[Scale, _Size] = {
    "smoke": _Size(100, (0.0, 0.1, 0.2), 2, 20, 32),
    "small": _Size(1000, (0.0, 0.05, 0.1, 0.15, 0.2, 0.24), 3, 100, 128),
    "paper": _Size(1000, tuple(round(0.02 * k, 2) for k in range(13)), 5, 300, 256),
}


def points(scale: Scale, seed: int) -> tuple[Point, ...]:
    """For either sweep the exact equilibria, then the learned policies."""
    size = _SIZES[scale]
    return tuple(
        Point.of(
            "policy",
            "sweep",
            policy=policy,
            sweep=sweep,
            seed=seed,
            num_seeds=size.num_seeds,
            num_agents=size.num_agents,
            differences=",".join(map(str, size.differences)),
            num_epochs=size.num_epochs,
            num_paths=size.num_paths,
        )
        for policy in POLICIES
        for sweep in SWEEPS
    )


def measure(settings: Settings, _folder: Path | None = None) -> Sequence[Row]:
    """All games of one sweep, solved together; a row for each."""
    point: Any = settings
    places = [
        (run, float(text))
        for run in range(point["num_seeds"])
        for text in point["differences"].split(",")
    ]
    keys = [jax.random.split(jax.random.key(point["seed"] + run), 3) for run, _ in places]
    games = [
        sample_game(point["sweep"], key[0], point["num_agents"], difference)
        for key, (_, difference) in zip(keys, places, strict=True)
    ]
    policies: Sequence[Policy]
    if point["policy"] in _SOLVERS:
        tables = equilibria(games, point["policy"])
        policies = [TabularPolicy.symmetric(probs, point["num_agents"]) for probs in tables]
    else:
        evaluation = _LEARNERS[point["policy"]]
        learner = PolicyMirrorDescent.practical(
            evaluation=evaluation, num_epochs=point["num_epochs"]
        )
        results = solve_together(games, learner, keys=[key[1] for key in keys])
        policies = [result.policy for result in results]
    return [
        {"run": run, "difference": difference}
        | _measure_one(game, policy, key[2], point["num_paths"])
        for (run, difference), game, policy, key in zip(places, games, policies, keys, strict=True)
    ]


def sample_game(sweep: str, key: Any, num_agents: int, difference: float) -> SIS:
    """A-SIS with alpha ("transitions") or beta ("rewards") about `difference`, the other 0."""
    alike = {"susceptibility": 0.0, "recovery": 0.0, "isolation_aversion": 0.0}
    # alpha is twice the largest deviation of a probability (an L1 norm); beta that of a reward.
    differing = {
        "transitions": {"susceptibility": difference / 2, "recovery": difference / 2},
        "rewards": {"isolation_aversion": difference},
    }
    return SIS.sample(key, num_agents=num_agents, heterogeneity=alike | differing[sweep])


def equilibria(games: Sequence[SIS], solver: str = "exact") -> Float[np.ndarray, "W H S A"]:
    """An MFG-NE of every game's induced mean-field game, from one compiled program."""
    stacked = jax.tree_util.tree_map(lambda *arrays: jnp.stack(arrays), *games)

    @jax.jit
    @jax.vmap
    def solve(game: SIS) -> Any:
        return mean_field.solve(
            induced_game(game),
            num_iterations=_ITERATIONS,
            tolerance=_TOLERANCE,
            **_SOLVERS[solver],
        ).policy

    with jax.enable_x64(True):
        return np.asarray(solve(stacked), np.float64)


def _measure_one(game: SIS, policy: Policy, key: Any, num_paths: int) -> Row:
    sym = symmetry(game)
    certificate = exploitability(
        game, policy, key=key, num_trajectories=num_paths, own_influence_agents=0
    )
    row: Row = {
        "alpha": sym.alpha.upper,
        "beta": sym.beta.upper,
        "largest": certificate.maximum.lower,
        "largest_upper": certificate.maximum.upper,
        "mean": certificate.mean.lower,
        "mean_upper": certificate.mean.upper,
    }
    if not isinstance(policy, TabularPolicy):  # one for each agent: not of the induced game
        return row
    mfg = induced_game(game)
    delta = max(mean_field.exploitability(mfg, np.asarray(policy.probs[0])), 0.0)
    bound = nash_bound(game, sym, mean_field_exploitability=delta)
    return row | {
        "mean_field_exploitability": delta,
        "bound_sharper": bound.sharper,
        "bound_trivial": bound.trivial,
    }


def conclude(rows: Sequence[Row]) -> Conclusion:
    """Exploitability at every difference, and what it is where the paper sees it rise."""
    facts: dict[str, Any] = {}
    for sweep in SWEEPS:
        for policy in POLICIES:
            part = [row for row in rows if (row["sweep"], row["policy"]) == (sweep, policy)]
            fact = facts.setdefault(sweep, {})[policy] = {}
            for column in ("largest", "mean"):
                measured = sample(part, "difference", column)
                summary = interquartile_mean(measured.values)
                fact["difference"] = measured.x.tolist()
                fact[column] = {name: value.tolist() for name, value in summary._asdict().items()}
                fact[column]["text"] = [summary.text(k) for k in range(len(measured.x))]
            fact["num_seeds"] = len(measured.values)
            column = "mean_field_exploitability"
            gaps = [number(row, column) for row in part if column in row]
            if gaps:
                fact[column] = max(gaps)
    return Conclusion(facts, _tables(facts), _verdict(facts))


def _tables(facts: Mapping[str, Any]) -> tuple[Table, ...]:
    columns = tuple(
        f"{title}, {column}" for title, _ in POLICIES.values() for column in ("largest", "mean")
    )
    tables = []
    for sweep, (title, symbol) in SWEEPS.items():
        fact = facts[sweep]
        cells = tuple(
            (
                f"{difference:g}",
                *(fact[p][column]["text"][k] for p in POLICIES for column in ("largest", "mean")),
            )
            for k, difference in enumerate(fact["exact"]["difference"])
        )
        named = f"{title}: exploitability, lower ends (interquartile mean over seeds, 95% interval)"
        tables.append(Table(named, (symbol, *columns), cells))
    return tuple(tables)


def _verdict(facts: Mapping[str, Any]) -> tuple[str, ...]:
    text = []
    for sweep, (_, symbol) in SWEEPS.items():
        for policy, (title, _) in POLICIES.items():
            fact = facts[sweep][policy]
            where = np.asarray(fact["difference"])
            near, far = int(np.abs(where - _THRESHOLD).argmin()), len(where) - 1
            said = " to ".join(f"{fact['largest']['text'][k]}" for k in (0, near, far))
            means = " to ".join(f"{fact['mean']['text'][k]}" for k in (0, near, far))
            induced = fact.get("mean_field_exploitability")
            so_exact = "" if induced is None else f" (at most {induced:.2g} in the induced game)"
            text.append(
                f"{title}: from {symbol} = {where[0]:g} to {where[near]:g} to {where[far]:g} the "
                f"largest exploitability goes from {said}, the mean from {means}{so_exact}."
            )
    return tuple(text)


STUDY = Study(
    name="fig2a",
    summary="A-SIS: exploitability of the exact mean-field equilibrium, and of what is learned, "
    "as agents differ more",
    points=points,
    measure=measure,
    conclude=conclude,
    draw=draw,
)
