"""`check_game` of games and of simulators outside JAX. Axes: N agents, A actions, H steps."""

import warnings
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from crowdnash.checks import check_key
from crowdnash.games.base import DynamicGame
from crowdnash.games.conformance.check import check_game as check_jax_game
from crowdnash.policies.drawing import draw_legal
from crowdnash.simulation.outside import Recorder, Situation, play_outside
from crowdnash.simulation.trajectories import MaskedTrajectories
from crowdnash.simulators.contract import Simulator
from crowdnash.simulators.game import OutsideGame, as_game

_EPISODES = 3


def check_game(game: DynamicGame | Simulator, *, key: PRNGKeyArray | None = None) -> None:
    """Raise unless `game` keeps the contract of its class (Def. 1).

    A `DynamicGame`: sizes; shapes and types of `reset`, `step` and `observe`, at every step; the
    same key gives the same outcome; rewards are finite. A `TabularGame` as well:
    `initial_distribution` and every transition are probabilities that sum to 1; rewards are
    finite and within `reward_range`; `legal` is bool [A] and leaves everybody an action;
    `joint_law` agrees with `law`; `state_names`, `action_names` and `agent_features` fit. A
    `PopulationGame` as well: `law` and `joint_law` agree with `transition` and `reward` at the
    others' mean contribution; `transition_in_aggregate` and `reward_in_aggregate` are true;
    relabelling the agents relabels the laws (where the arrays of `game.agents` are fields of the
    game). Laws are evaluated for all agents, states, actions and steps at about a dozen
    populations; for a very large game, for a sample of agents and steps.

    A simulator outside JAX is played for a few episodes of legal actions at random: shapes, finite
    rewards, states below `num_states`, an action for everybody alive, and nothing earned by the
    dead. That the same seed gives the same episode is not asked of it: a warning says where it
    does not.

    Passing is strong evidence, not a proof.

    Args:
        game: the game to check.
        key: decides the populations and the play (default `jax.random.key(0)`).

    Raises:
        ValueError: it is neither a game nor a simulator.
        GameError: in one line that names the game, the rule and, where they matter, agent, step,
            state and action.
        SimulatorError: in one line that names the simulator, agent, step and seed.
    """
    game = as_game(game)
    if not isinstance(game, OutsideGame):
        check_jax_game(game, key=key)
        return
    if key is not None:
        check_key("key", key)
    key = jax.random.key(0) if key is None else key
    if not _equal(_played(game, key), _played(game, key)):
        warnings.warn(
            f"{game.name}: the same seed gives different episodes, and results cannot be repeated: "
            "it draws from a generator that reset(seed) does not seed, or keeps something from one "
            "episode to the next (the global generators of random and NumPy are seeded here)",
            stacklevel=2,
        )


def _played(game: OutsideGame, key: PRNGKeyArray) -> MaskedTrajectories:
    """A few episodes of legal actions at random."""

    def choose(situation: Situation) -> np.ndarray:
        alike = np.ones((*situation.numbers.shape, game.num_actions), np.float32)
        return draw_legal(alike, situation.numbers, situation.legal)

    recorder = Recorder(game, _EPISODES)
    play_outside(game, choose, key, _EPISODES, recorder)
    return recorder.trajectories()


def _equal(one: MaskedTrajectories, other: MaskedTrajectories) -> bool:
    def arrays(played: MaskedTrajectories) -> list[Any]:
        return jax.tree.leaves((tuple(played), played.alive, played.legal))

    return all(np.array_equal(a, b) for a, b in zip(arrays(one), arrays(other), strict=True))
