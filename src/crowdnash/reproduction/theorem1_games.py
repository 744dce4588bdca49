"""The games on which Theorem 1 is tried, with their exact mean-field equilibria."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float, PRNGKeyArray

from crowdnash import mean_field
from crowdnash.approximate_symmetry.measurement import Symmetry, symmetry
from crowdnash.games import SIS, Congestion, RockPaperScissors
from crowdnash.games.base import PopulationGame
from crowdnash.mean_field.game import MeanFieldGame
from crowdnash.reproduction.kink_game import KinkGame


@dataclass(frozen=True)
class Case:
    """A game for the sweeps.

    - `title`: for readers;
    - `sample(key, num_agents, transitions, rewards)`: a draw; the two numbers are how different
      agents are in each, about alpha and beta;
    - `solver`: what makes `mean_field.solve` converge on it.
    """

    title: str
    sample: Callable[[PRNGKeyArray, int, float, float], PopulationGame]
    solver: Mapping[str, Any] = field(default_factory=dict)


def _kink(_: PRNGKeyArray, num_agents: int, transitions: float, rewards: float) -> KinkGame:
    assert transitions == rewards == 0, "all agents of the kink game are alike"
    return KinkGame(num_agents)


def _congestion(power: float) -> Callable[[PRNGKeyArray, int, float, float], Congestion]:
    """Two states and actions, and a crowd that weighs enough for a mixed equilibrium."""

    def draw(key: PRNGKeyArray, num_agents: int, transitions: float, rewards: float) -> Congestion:
        return Congestion.sample(
            key,
            num_agents=num_agents,
            heterogeneity={
                "transitions": transitions,
                "congestion": rewards / 2,
                "base": rewards / 2,
            },
            num_states=2,
            num_actions=2,
            congestion=1.0,
            power=power,
        )

    return draw


def _sis(**centres: Any) -> Callable[[PRNGKeyArray, int, float, float], SIS]:
    # alpha is twice the largest deviation of susceptibility or recovery (L1), beta that of
    # isolation aversion.
    def draw(key: PRNGKeyArray, num_agents: int, transitions: float, rewards: float) -> SIS:
        widths = {
            "susceptibility": transitions / 2,
            "recovery": transitions / 2,
            "isolation_aversion": rewards,
        }
        return SIS.sample(key, num_agents=num_agents, heterogeneity=widths, **centres)

    return draw


def _rock_paper_scissors(
    key: PRNGKeyArray, num_agents: int, transitions: float, rewards: float
) -> RockPaperScissors:
    # Its transitions are s' = a for everyone. Noise on crowding and on payoffs adds up.
    assert transitions == 0, "A-RPS has no transitions to vary"
    return RockPaperScissors.sample(key, num_agents=num_agents, heterogeneity=rewards / 2)


# Two time scales: large steps, and a little entropy against circling.
_SIS_SOLVER = MappingProxyType({"step_size": 3.0, "temperature": 0.001})

CASES: Mapping[str, Case] = MappingProxyType(
    {
        "kink": Case("kink game (2 steps)", _kink),
        "congestion-curved": Case("congestion, square-root", _congestion(0.5), {"step_size": 1.0}),
        "congestion": Case("congestion, linear", _congestion(1.0), {"step_size": 1.0}),
        "sis": Case("A-SIS", _sis(), _SIS_SOLVER),
        "sis-weak": Case(
            "A-SIS, hardly infectious",
            _sis(susceptibility=0.2, recovery=0.6, isolation_aversion=0.1, horizon=10),
            _SIS_SOLVER,
        ),
        "rock-paper-scissors": Case("A-RPS", _rock_paper_scissors),
    }
)


def equilibrium(case: Case, game: PopulationGame, mfg: MeanFieldGame) -> Float[np.ndarray, "H S A"]:
    """An MFG-NE of the induced game, exact up to what `mean_field.exploitability` says."""
    if isinstance(game, KinkGame):
        # Everything is an equilibrium of it; this is the one that the others do not forgive.
        return game.equilibrium
    solution = mean_field.solve(mfg, num_iterations=20_000, tolerance=1e-8, **case.solver)
    return np.asarray(solution.policy, np.float64)


def measured_symmetry(game: PopulationGame) -> Symmetry:
    """`symmetry`, with moduli in closed form where a search would only find what it can."""
    sym = symmetry(game)
    assert sym.lipschitz is not None  # population games have moduli
    if sym.lipschitz.exact:
        return sym
    if isinstance(game, KinkGame):
        return replace(sym, lipschitz=game.moduli)
    if isinstance(game, Congestion):
        return replace(sym, lipschitz=_with_closed_forms(game, sym))
    return sym


def _with_closed_forms(game: Congestion, sym: Symmetry) -> Any:
    known = game.constants()
    assert sym.lipschitz is not None
    return replace(
        sym.lipschitz,
        **{name: getattr(known, name) for name in ("K_s", "K_a", "K_mu", "L_s", "L_a", "L_mu")},
        # Transitions are free of the crowd, so their spread is exact; the rewards' is at most
        # half their range.
        reward_spread=(sym.reward_range.upper - sym.reward_range.lower) / 2,
        exact=True,
    )
