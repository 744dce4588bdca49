"""crowdnash: Nash equilibria for crowds."""

from crowdnash import games, mean_field
from crowdnash.approximate_symmetry.against_groups import symmetry_against_groups
from crowdnash.approximate_symmetry.bounds import NashBound, nash_bound
from crowdnash.approximate_symmetry.measurement import Symmetry, symmetry
from crowdnash.approximate_symmetry.play.estimate import symmetry_from_trajectories
from crowdnash.certificates.certificate import exploitability
from crowdnash.certificates.q_deviations import model_free_best_response, model_free_best_responses
from crowdnash.certificates.result import Exploitability, OwnInfluence
from crowdnash.games.base import DynamicGame, GameError, PopulationGame, TabularGame
from crowdnash.games.conformance.check import check_game
from crowdnash.interval import Interval
from crowdnash.learners.driver import NeuralSolveResult, SolveResult, solve, solve_together
from crowdnash.learners.mirror_descent import EpochMetrics, PolicyMirrorDescent
from crowdnash.learners.ppo.learner import PPO, PPOMetrics
from crowdnash.learners.temporal_difference import td_learning
from crowdnash.mean_field.induced import induced_game
from crowdnash.mean_field.induced_from_queries import induced_game_from_queries
from crowdnash.policies.neural import NeuralPolicy
from crowdnash.policies.tabular import Policy, TabularPolicy
from crowdnash.simulation.rollouts import Trajectories, simulate

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
