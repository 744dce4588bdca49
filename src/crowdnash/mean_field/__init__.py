"""Mean-field games (Defs. 3 to 6, 9): the induced game, flows, exact values and solvers."""

from crowdnash.mean_field.estimation import estimate_mean_field_game
from crowdnash.mean_field.evaluation import (
    BestResponse,
    Evaluation,
    Laws,
    best_response,
    evaluate,
    exploitability,
    laws_at,
    population_flow,
    q_values,
    values,
)
from crowdnash.mean_field.game import MeanFieldGame
from crowdnash.mean_field.solvers import MeanFieldSolution, solve
from crowdnash.mean_field.tables import TabularMeanFieldGame

__all__ = [
    "BestResponse",
    "Evaluation",
    "Laws",
    "MeanFieldGame",
    "MeanFieldSolution",
    "TabularMeanFieldGame",
    "best_response",
    "estimate_mean_field_game",
    "evaluate",
    "exploitability",
    "laws_at",
    "population_flow",
    "q_values",
    "solve",
    "values",
]
