from . import games as games
from . import mean_field as mean_field
from . import simulators as simulators
from .approximate_symmetry.against_groups import symmetry_against_groups as symmetry_against_groups
from .approximate_symmetry.bounds import NashBound as NashBound
from .approximate_symmetry.bounds import nash_bound as nash_bound
from .approximate_symmetry.measurement import Symmetry as Symmetry
from .approximate_symmetry.measurement import symmetry as symmetry
from .approximate_symmetry.play.estimate import (
    symmetry_from_trajectories as symmetry_from_trajectories,
)
from .certificates.by_label import LabelGains as LabelGains
from .certificates.certificate import exploitability as exploitability
from .certificates.origin import Origin as Origin
from .certificates.ppo_deviations import LearningProgress as LearningProgress
from .certificates.q_learning import OptimisticQLearning as OptimisticQLearning
from .certificates.result import Exploitability as Exploitability
from .certificates.result import FrozenGains as FrozenGains
from .certificates.result import Influence as Influence
from .certificates.result import OwnInfluence as OwnInfluence
from .certificates.target import solve as solve
from .games.base import DynamicGame as DynamicGame
from .games.base import GameError as GameError
from .games.base import PopulationGame as PopulationGame
from .games.base import TabularGame as TabularGame
from .interval import Interval as Interval
from .learners.driver import SolveResult as SolveResult
from .learners.driver import solve_together as solve_together
from .learners.mirror_descent import EpochMetrics as EpochMetrics
from .learners.mirror_descent import PolicyMirrorDescent as PolicyMirrorDescent
from .learners.ppo.learner import PPO as PPO
from .learners.ppo.learner import PPOMetrics as PPOMetrics
from .learners.temporal_difference import td_learning as td_learning
from .mean_field.induced import induced_game as induced_game
from .mean_field.induced_from_queries import (
    induced_game_from_queries as induced_game_from_queries,
)
from .policies.base import Policy as Policy
from .policies.features import FeaturePolicy as FeaturePolicy
from .policies.mixture import PolicyMixture as PolicyMixture
from .policies.neural import NeuralPolicy as NeuralPolicy
from .policies.plain import NumpyPolicy as NumpyPolicy
from .policies.tabular import TabularPolicy as TabularPolicy
from .simulation.check import check_game as check_game
from .simulation.kept_play import simulate as simulate
from .simulation.trajectories import MaskedTrajectories as MaskedTrajectories
from .simulation.trajectories import Trajectories as Trajectories

__version__: str
