"""crowdnash: Nash equilibria for crowds."""

from crowdnash import games, mean_field
from crowdnash.approximate_symmetry import Symmetry, symmetry
from crowdnash.bounds import NashBound, nash_bound
from crowdnash.certificate import exploitability
from crowdnash.conformance import check_game
from crowdnash.exploitability_result import Exploitability, OwnInfluence
from crowdnash.game import DynamicGame, GameError, PopulationGame, TabularGame
from crowdnash.group_counts import symmetry_against_groups
from crowdnash.interval import Interval
from crowdnash.learned_best_response import model_free_best_response, model_free_best_responses
from crowdnash.learning import NeuralSolveResult, SolveResult, solve, solve_together
from crowdnash.mirror_descent import EpochMetrics, PolicyMirrorDescent
from crowdnash.neural_policy import NeuralPolicy
from crowdnash.policy import Policy, TabularPolicy
from crowdnash.ppo import PPO, PPOMetrics
from crowdnash.query_symmetrization import induced_game_from_queries
from crowdnash.simulation import Trajectories, simulate
from crowdnash.symmetrization import induced_game
from crowdnash.symmetry_from_play import symmetry_from_trajectories
from crowdnash.temporal_difference import td_learning

__version__ = "0.1.0"

__all__ = [
    "PPO",
    "DynamicGame",
    "EpochMetrics",
    "Exploitability",
    "GameError",
    "Interval",
    "NashBound",
    "NeuralPolicy",
    "NeuralSolveResult",
    "OwnInfluence",
    "PPOMetrics",
    "Policy",
    "PolicyMirrorDescent",
    "PopulationGame",
    "SolveResult",
    "Symmetry",
    "TabularGame",
    "TabularPolicy",
    "Trajectories",
    "check_game",
    "exploitability",
    "games",
    "induced_game",
    "induced_game_from_queries",
    "mean_field",
    "model_free_best_response",
    "model_free_best_responses",
    "nash_bound",
    "simulate",
    "solve",
    "solve_together",
    "symmetry",
    "symmetry_against_groups",
    "symmetry_from_trajectories",
    "td_learning",
]
