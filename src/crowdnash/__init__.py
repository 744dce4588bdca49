"""crowdnash: Nash equilibria for crowds."""

from crowdnash import games
from crowdnash.game import DynamicGame, GameError, PopulationGame, TabularGame
from crowdnash.policy import Policy, TabularPolicy
from crowdnash.simulation import Trajectories, simulate

from crowdnash.temporal_difference import td_learning
from crowdnash.mirror_descent import PolicyMirrorDescent, solve

__version__ = "0.1.0.dev0"
