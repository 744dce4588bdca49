"""What more groups buy: alpha, beta, Theorem 1's bound and measured exploitability against G.

For each number of groups G, the game is folded into its G-group induced mean-field game, that is
solved (nearly) exactly, and the equilibrium is played by all N agents. More groups are more alike
inside (alpha, beta fall) and smaller (the bound's sampling term grows).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import PRNGKeyArray

from crowdnash import mean_field
from crowdnash.approximate_symmetry.bounds import bound_exists, nash_bound
from crowdnash.approximate_symmetry.measurement import symmetry
from crowdnash.certificates.certificate import exploitability
from crowdnash.checks import as_array, check_count, check_instance, check_key
from crowdnash.games.base import PopulationGame
from crowdnash.games.grouping import assign_groups
from crowdnash.interval import Interval
from crowdnash.mean_field.induced import induced_game
from crowdnash.mean_field.solvers import MeanFieldSolution
from crowdnash.policies.tabular import TabularPolicy

_RECIPES: tuple[dict[str, Any], ...] = (
    {"method": "fictitious_play", "step_size": 0.1},
    {"method": "mirror_descent", "step_size": 0.03},
    {"method": "mirror_descent", "step_size": 1.0, "temperature": 0.003},
    {"method": "fictitious_play"},
)


@dataclass(frozen=True)
class GroupCountResult:
    """One number of groups.

    - `alpha` (L1), `beta` (reward per step): the largest over groups, as `symmetry` gives them;
    - `bound`, `sharper_bound`, `trivial_bound`: Theorem 1 for the policy played, its mean-field
      exploitability `mean_field_exploitability` included, in total reward; the first two None if
      the theorem does not apply (`nash_bound`'s conditions);
    - `certified`: whether they are bounds, or estimates from searched values;
    - `maximum`, `mean`: measured N-player exploitability over the agents, intervals;
    - `smallest_group`: its number of agents.
    """

    num_groups: int
    smallest_group: int
    alpha: Interval
    beta: Interval
    mean_field_exploitability: float
    bound: float | None
    sharper_bound: float | None
    trivial_bound: float
    certified: bool
    maximum: Interval
    mean: Interval


def symmetry_against_groups(
    game: PopulationGame,
    group_counts: Sequence[int],
    *,
    key: PRNGKeyArray,
    num_trajectories: int = 256,
    confidence: float = 0.95,
    num_iterations: int = 4000,
    tolerance: float = 1e-3,
    seed: int = 0,
    callback: Callable[[GroupCountResult], None] | None = None,
) -> list[GroupCountResult]:
    """Measure symmetry (Def. 7) and the quality of the exact MFG-NE for several group counts.

    Args:
        game: The game.
        group_counts: Distinct integers in 1..N; agents are clustered by their parameters.
        key: Of the certificates, the same for all.
        num_trajectories: As in `exploitability`.
        confidence: As in `exploitability`.
        num_iterations: Of every attempt to solve the induced game; the best of up to four recipes
            is taken, and what is left is in `mean_field_exploitability`.
        tolerance: Of every attempt.
        seed: Of the search for alpha and beta.
        callback: Called with every result as it comes.

    Raises:
        ValueError: Names the argument, the rule and the value.
    """
    check_instance("game", game, PopulationGame)
    check_key("key", key)
    counts = np.asarray(as_array("group_counts", group_counts)).tolist()
    if not isinstance(counts, list) or not counts:
        raise ValueError(f"group_counts must be a list, not empty: {group_counts!r}")
    for count in counts:
        check_count("group_counts", count, 1, game.num_agents)
    if len(set(counts)) != len(counts):
        raise ValueError(f"group_counts must be distinct, not {counts}")
    results = []
    for count in counts:
        groups = assign_groups(game, count)
        induced = induced_game(game, groups)
        solution = nearly_exact_equilibrium(induced, num_iterations, tolerance)
        delta = np.asarray(mean_field.evaluate(induced, solution.policy).exploitability)
        delta = np.maximum(delta, 0.0)
        sym = symmetry(game, groups, seed=seed)
        bound = nash_bound(game, sym, delta) if bound_exists(game, sym) else None
        probs = solution.policy[None] if count == 1 else solution.policy
        played = exploitability(
            game,
            TabularPolicy.grouped(probs, groups),
            key=key,
            num_trajectories=num_trajectories,
            confidence=confidence,
            own_influence_agents=0,
        )
        low, high = sym.reward_range
        results.append(
            GroupCountResult(
                num_groups=count,
                smallest_group=int(np.bincount(groups).min()),
                alpha=sym.alpha,
                beta=sym.beta,
                mean_field_exploitability=float(delta.max()),
                bound=None if bound is None else bound.value,
                sharper_bound=None if bound is None else bound.sharper,
                trivial_bound=game.horizon * (high - low),
                certified=bound is not None and bound.certified,
                maximum=played.maximum,
                mean=played.mean,
            )
        )
        if callback is not None:
            callback(results[-1])
    return results


def nearly_exact_equilibrium(
    induced: mean_field.MeanFieldGame, num_iterations: int, tolerance: float
) -> MeanFieldSolution:
    """The best of some recipes, none of which converges in every game."""
    best = None
    for recipe in _RECIPES:
        solution = mean_field.solve(
            induced, num_iterations=num_iterations, tolerance=tolerance, **recipe
        )
        if best is None or solution.exploitability < best.exploitability:
            best = solution
        if solution.converged:
            break
    assert best is not None
    return best
