"""How symmetric a game is: alpha and beta, moduli, sparsity, monotonicity (Defs. 7, 8, 10).

    alpha = max_{i,s,a,rho} |P^i(s,a,rho) - P(s,a,sigma(rho))|_1,  beta likewise for the rewards,

with P, R the laws of the induced mean-field game (Def. 6): means over agents, per group if there
are groups. For laws that depend on the step all maxima are over steps too.

Axes: N agents, G groups, S states, A actions, X = S*A pairs, T steps.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax
import numpy as np
from jaxtyping import Float, Int

from crowdnash.approximate_symmetry.agent_laws import Reader, open_reader
from crowdnash.approximate_symmetry.alike import check_same_start_and_actions
from crowdnash.approximate_symmetry.deviation import (
    Deviation,
    LawStudy,
    SearchEffort,
    study_law,
)
from crowdnash.approximate_symmetry.enumerated import QueryStudy, can_enumerate_laws, enumerate_laws
from crowdnash.approximate_symmetry.moduli import (
    LawVariation,
    LipschitzModuli,
    Sparsity,
    moduli_of,
    monotonicity_of,
    sparsity,
)
from crowdnash.approximate_symmetry.monotonicity import Monotonicity
from crowdnash.approximate_symmetry.play.estimate import (
    SymmetryFromPlay,
    symmetry_from_trajectories,
)
from crowdnash.approximate_symmetry.sampled import sample_laws
from crowdnash.approximate_symmetry.weighted_deviation import study_weighted_law
from crowdnash.checks import check_choice, check_count, check_instance, check_number
from crowdnash.games.base import DynamicGame, PopulationGame, TabularGame
from crowdnash.games.checks import fingerprint, states_for_tables
from crowdnash.games.declarations import check_declarations
from crowdnash.games.grouping import Groups, assign_groups
from crowdnash.interval import Interval
from crowdnash.policies.base import Policy
from crowdnash.simulation.exploration import explore
from crowdnash.simulation.trajectories import Trajectories

SymmetryMethod = Literal["auto", "population", "enumerate", "sample", "trajectories"]


@dataclass(frozen=True)
class Symmetry:
    """How symmetric a game is within each of its groups.

    - `alpha` (L1, in [0,2]) and `beta` (reward per step): intervals that contain Def. 7's values,
      lower = upper where exact; `relative_beta` is beta over the width of `reward_range`.
    - `alpha_attained`, `beta_attained`: where the lower ends are attained (None: not searched).
    - `group_alpha`, `group_beta` [G,2]: the same per group; `groups` [N].
    - `exact`: alpha and beta are; `lipschitz.exact` and `sparsity.exact` say so of those.
    - `reward_range`: (lowest, highest) reward; as declared by the game if it is not exact.
    - `lipschitz`: moduli of the induced P and R; with G > 1 of every group's, when all groups
      share one mu. None if only sampled.
    - `sparsity` (Def. 8; None if only sampled), and `kappa`, its largest number of entries.
    - `monotone` (Def. 10): both senses; None if only sampled, and for several groups whose agents
      contribute differently to the aggregate or whose law had to be queried.
    - `method`: "population", "enumerate", "sample" or "trajectories"; with the last two the lower
      ends are estimates with `alpha_standard_error`, `beta_standard_error`, otherwise 0.
    - `play`: what trajectories showed (method "trajectories"), with intervals for that.
    - `fingerprint`: of the game, by which `nash_bound` knows it; "" if it may be of any.
    """

    alpha: Interval
    beta: Interval
    relative_beta: Interval
    exact: bool
    reward_range: Interval
    alpha_attained: Deviation | None
    beta_attained: Deviation | None
    group_alpha: Float[np.ndarray, "G 2"]
    group_beta: Float[np.ndarray, "G 2"]
    groups: Int[np.ndarray, " N"]
    lipschitz: LipschitzModuli | None
    sparsity: Sparsity | None
    monotone: Monotonicity | None
    method: str
    alpha_standard_error: float = 0.0
    beta_standard_error: float = 0.0
    play: SymmetryFromPlay | None = None
    fingerprint: str = ""

    @property
    def num_groups(self) -> int:
        """G."""
        return len(self.group_alpha)

    @property
    def kappa(self) -> int | None:
        """Def. 8's kappa: entries of the population that one (s,a) depends on, at most."""
        return None if self.sparsity is None else self.sparsity.kappa


def symmetry(
    game: DynamicGame,
    groups: Groups | None = None,
    *,
    method: SymmetryMethod | str = "auto",
    num_populations: int = 256,
    num_permutations: int = 32,
    transition_modulus: float | None = None,
    reward_modulus: float | None = None,
    policy: Policy | Sequence[Policy] | None = None,
    num_trajectories: int = 256,
    seed: int = 0,
) -> Symmetry:
    """Measure how symmetric `game` is, as a whole or within `groups` (Defs. 7, 8, 10).

    Method "population" reads a `PopulationGame`'s laws. alpha (beta) is exact if its law is
    declared free of the aggregate or affine in it, if the agents of each group are identical, or
    if there are few enough joint actions to try all; with agent-specific contributions an affine
    law is exact unless there are too many agents or states. Otherwise the lower end is the best of
    a search over populations, the upper end what the declared moduli allow, or trivial (2, or the
    reward range). Moduli are exact if both laws are free or affine.
    Method "enumerate" queries every joint state-action of a tiny `TabularGame` (symmetrization as
    in Def. 3); "sample" queries some, so that the lower ends carry a standard error. "auto" takes
    the first that applies.

    Agents of a group must start alike and have the same legal actions: Def. 7 is about laws, at
    illegal actions too (maxima over more pairs than are played, so that alpha and beta are no
    smaller than they must be).

    Args:
        game: The game.
        groups: As in `PolicyMirrorDescent` (default: one group).
        method: "population", "enumerate", "sample", "trajectories" or "auto".
        num_populations: >= 1, to search.
        num_permutations: >= 2 of the others for each population ("sample").
        transition_modulus: An L1 Lipschitz modulus in sigma(rho^-i) of every P^i(s,a,.).
        reward_modulus: The same of every R^i(s,a,.).
        policy: One or several to be played for "trajectories" (default: uniform and seven random
            ones, so that populations differ).
        num_trajectories: >= 16 of all policies, rounded up to an even number of each.
        seed: >= 0, of the search or of the play.

    Raises:
        ValueError: Names the argument, the rule and the value; or two agents of a group start from
            different distributions or have different legal actions.
        GameError: A law or a contribution is not finite, or what the game declares of its laws is
            not true.
    """
    check_instance("game", game, DynamicGame)
    check_choice("method", method, get_args(SymmetryMethod))
    _check_arguments(num_populations, num_permutations, seed)
    members = assign_groups(game, "symmetric" if groups is None else groups)
    check_same_start_and_actions(game, members)
    if method == "trajectories" or (method == "auto" and not isinstance(game, TabularGame)):
        sym = _of_play(game, members, explore(game, policy, num_trajectories, seed))
        return dataclasses.replace(sym, fingerprint=fingerprint(game))
    if not isinstance(game, TabularGame):
        raise ValueError(
            f"method={method!r} needs a TabularGame, whose laws can be queried, not a "
            f"{type(game).__name__}: a simulator shows no law; use 'trajectories'"
        )
    for name, value in (
        ("transition_modulus", transition_modulus),
        ("reward_modulus", reward_modulus),
    ):
        if value is not None:
            check_number(name, value, least=0)
    used = _resolve(game, method)
    with jax.enable_x64(True):
        if used == "population":
            assert isinstance(game, PopulationGame)  # _resolve has seen to it
            check_declarations(game)
            moduli = (transition_modulus, reward_modulus)
            sym = _of_population_game(game, members, num_populations, seed, moduli)
        elif used == "enumerate":
            sym = _of_queries(game, members, enumerate_laws(game, members), used)
        else:
            study = sample_laws(game, members, num_populations, num_permutations, seed)
            sym = _of_queries(game, members, study, used)
    return dataclasses.replace(sym, fingerprint=fingerprint(game))


def _check_arguments(num_populations: int, num_permutations: int, seed: int) -> None:
    check_count("num_populations", num_populations, 1)
    check_count("num_permutations", num_permutations, 2)
    check_count("seed", seed, 0)


def _resolve(game: TabularGame, method: str) -> str:
    population = isinstance(game, PopulationGame)
    if method == "population" and not population:
        raise ValueError(
            f"method='population' needs a PopulationGame; {type(game).__name__} is not: "
            "use 'enumerate' or 'sample'"
        )
    if method == "enumerate" and not can_enumerate_laws(game):
        raise ValueError(
            f"method='enumerate' cannot list the joint state-actions of {game.num_agents} agents: "
            "use 'sample'" + (" or 'population'" if population else "")
        )
    if method != "auto":
        return method
    return "population" if population else "enumerate" if can_enumerate_laws(game) else "sample"


def _of_population_game(
    game: PopulationGame,
    groups: Int[np.ndarray, " N"],
    num_populations: int,
    seed: int,
    moduli: tuple[float | None, float | None],
) -> Symmetry:
    reader = open_reader(game, groups)
    study = study_law if reader.same_contributions else study_weighted_law
    declared = game.reward_range
    width = np.inf if declared is None else float(declared[1] - declared[0])
    moves = study(reader, "transition", SearchEffort(num_populations, seed, moduli[0]), 2.0)
    pays = study(reader, "reward", SearchEffort(num_populations, seed, moduli[1]), width)
    ranged = _reward_range(reader, pays, declared)
    parts = (LawVariation.of(reader, "transition", moves), LawVariation.of(reader, "reward", pays))
    exact = parts[0].exact and parts[1].exact
    return _assemble(
        groups=groups,
        alpha=np.stack([moves.lower, moves.upper], 1),
        beta=np.stack([pays.lower, pays.upper], 1),
        attained=(_top(moves), _top(pays)),
        exact=moves.exact and pays.exact,
        reward_range=ranged,
        lipschitz=moduli_of(*parts),
        sparsity=sparsity(parts[0].projection, parts[1].projection, exact=exact),
        monotone=monotonicity_of(reader, *parts),
        method="population",
    )


def _reward_range(reader: Reader, pays: LawStudy, declared: tuple[float, float] | None) -> Interval:
    settled = reader.dependence("reward") == "free" or (
        reader.dependence("reward") == "affine" and reader.same_contributions
    )
    if settled or declared is None:
        return Interval(pays.table.low, pays.table.high)
    return Interval(float(declared[0]), float(declared[1]))


def _top(study: LawStudy) -> Deviation | None:
    deviations = [d for d in study.attained if d is not None]
    return max(deviations, key=lambda d: d.value, default=None)


def _of_play(game: DynamicGame, groups: Int[np.ndarray, " N"], played: Trajectories) -> Symmetry:
    play = symmetry_from_trajectories(
        played,
        num_states=states_for_tables(game),
        num_actions=game.num_actions,
        groups=groups,
    )
    declared = game.reward_range if isinstance(game, TabularGame) else None
    width = np.inf if declared is None else float(declared[1] - declared[0])
    ends = []
    for parts, trivial in ((play.group_alpha, 2.0), (play.group_beta, width)):
        lower = np.array([max(np.nan_to_num(part.estimate), 0.0) for part in parts])
        ends.append(np.stack([lower, np.maximum(lower, trivial)], 1))
    best = [
        None
        if one.mu is None
        else Deviation(max(one.estimate, 0.0), one.agent, one.state, one.action, one.step, one.mu)
        for one in (play.alpha, play.beta)
    ]
    return _assemble(
        groups=groups,
        alpha=ends[0],
        beta=ends[1],
        attained=(best[0], best[1]),
        exact=False,
        reward_range=play.reward_range if declared is None else Interval(*map(float, declared)),
        lipschitz=play.lipschitz,
        sparsity=None,
        monotone=None,
        method="trajectories",
        errors=(play.alpha.standard_error, play.beta.standard_error),
        play=play,
    )


def _of_queries(
    game: TabularGame, groups: Int[np.ndarray, " N"], study: QueryStudy, method: str
) -> Symmetry:
    declared = game.reward_range
    low, high = study.reward_range if method == "enumerate" or declared is None else declared
    width = max(high - low, 0.0) if method == "enumerate" or declared is not None else np.inf
    ends = []
    for lower, trivial in ((study.alpha, 2.0), (study.beta, width)):
        upper = lower if method == "enumerate" else np.maximum(lower, trivial)
        ends.append(np.stack([lower, upper], 1))
    return _assemble(
        groups=groups,
        alpha=ends[0],
        beta=ends[1],
        attained=study.attained,
        exact=method == "enumerate",
        reward_range=Interval(float(low), float(high)),
        lipschitz=study.lipschitz,
        sparsity=study.sparsity,
        monotone=study.monotone,
        method=method,
        errors=study.standard_errors,
    )


def _assemble(
    *,
    alpha: np.ndarray,
    beta: np.ndarray,
    attained: tuple[Deviation | None, Deviation | None],
    reward_range: Interval,
    errors: tuple[float, float] = (0.0, 0.0),
    **fields: Any,
) -> Symmetry:
    """The record, from `group_alpha`, `group_beta` and pairs of what concerns alpha and beta."""
    ends = [Interval(*(float(x) for x in part.max(0))) for part in (alpha, beta)]
    width = reward_range.upper - reward_range.lower
    relative = [end / width if width > 0 else 0.0 if end == 0 else np.inf for end in ends[1]]
    return Symmetry(
        alpha=ends[0],
        beta=ends[1],
        relative_beta=Interval(*relative),
        reward_range=reward_range,
        alpha_attained=attained[0],
        beta_attained=attained[1],
        group_alpha=alpha,
        group_beta=beta,
        alpha_standard_error=errors[0],
        beta_standard_error=errors[1],
        **fields,
    )
