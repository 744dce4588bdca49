"""crowdnash: Nash equilibria for crowds."""

from crowdnash import games
from crowdnash.certificate import Exploitability, Interval, OwnInfluence, exploitability
from crowdnash.conformance import check_game
from crowdnash.game import DynamicGame, GameError, PopulationGame, TabularGame
from crowdnash.mirror_descent import EpochMetrics, PolicyMirrorDescent, SolveResult, solve
from crowdnash.policy import Policy, TabularPolicy
from crowdnash.simulation import Trajectories, simulate
from crowdnash.temporal_difference import td_learning

__version__ = "0.1.0.dev0"

__all__ = [
    "DynamicGame",
    "EpochMetrics",
    "Exploitability",
    "GameError",
    "Interval",
    "OwnInfluence",
    "Policy",
    "PolicyMirrorDescent",
    "PopulationGame",
    "SolveResult",
    "TabularGame",
    "TabularPolicy",
    "Trajectories",
    "check_game",
    "exploitability",
    "games",
    "simulate",
    "solve",
    "td_learning",
]
