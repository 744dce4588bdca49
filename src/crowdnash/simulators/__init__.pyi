from .contract import Simulator as Simulator
from .contract import SimulatorError as SimulatorError
from .game import as_game as as_game
