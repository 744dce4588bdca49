"""How many steps of a simulator a learned certificate may take, and what they are spent on."""

from collections.abc import Callable
from typing import NamedTuple

from crowdnash.certificates.estimated_game import LEAST_PLAYS
from crowdnash.certificates.ppo_deviations import (
    agent_steps_to_learn,
    best_response_learner,
)
from crowdnash.certificates.q_learning import OptimisticQLearning
from crowdnash.certificates.table_deviations import TableSearch, plays_of_tables
from crowdnash.checks import check_count
from crowdnash.games.base import DynamicGame
from crowdnash.games.checks import states_for_tables
from crowdnash.learners.ppo.learner import PPO
from crowdnash.policies.base import Policy
from crowdnash.simulators.game import OutsideGame

_BUDGET_STEPS = 100_000
_MEASURING = 0.4
"""Share of the budget for plays that judge deviations; the rest are plays to learn from."""

_MOST_VISITS = 2**22
"""Of agents and steps: what more of them would add to estimated laws is little."""

_MOST_EPOCHS, _LEAST_PLAYS = 150, 2
_MOST_ROUNDS, _EPISODES_A_ROUND = 50, 8
_MOST_ENTRIES = 2**22
"""Entries [H,S,A] of a table up to which it is tables that learn."""


class Plan(NamedTuple):
    """The learner of deviations, and the trajectories that each of them is measured on."""

    learner: PPO | TableSearch | OptimisticQLearning
    num_trajectories: int


class EstimatePlan(NamedTuple):
    """Plays to estimate laws from, who deviates then, and plays of each deviation."""

    num_plays: int
    num_deviators: int
    num_measured: int


def plan_estimate(
    game: DynamicGame,
    num_agents: int,
    num_trajectories: int,
    num_deviators: int,
    budget_steps: int | None,
) -> EstimatePlan:
    """Spend a budget of simulator steps on estimating laws and on measuring deviations.

    A game in JAX has no budget: it is played `num_trajectories` times for each of the two.

    Args:
        game: the simulator.
        num_agents: how many agents are examined.
        num_trajectories: the most to measure a deviation on.
        num_deviators: the most agents that really deviate.
        budget_steps: calls of `step` in all, None for 100,000.

    Raises:
        ValueError: the budget is too small.
    """
    deviators = min(num_deviators, num_agents)
    if not isinstance(game, OutsideGame):
        return EstimatePlan(max(num_trajectories, LEAST_PLAYS), deviators, num_trajectories)
    budget = _BUDGET_STEPS if budget_steps is None else budget_steps
    check_count("budget_steps", budget, 1)
    most, each = budget // game.horizon, deviators + 1 if deviators else 0
    measured = min(num_trajectories, int(_MEASURING * most / each)) if each else 2
    enough = max(LEAST_PLAYS, _MOST_VISITS // (game.num_agents * game.horizon))
    plays = min(most - measured * each, enough)
    if measured < _LEAST_PLAYS or plays < LEAST_PLAYS:
        least = max(LEAST_PLAYS / (1 - _MEASURING), _LEAST_PLAYS * each / _MEASURING)
        raise ValueError(
            f"budget_steps must be at least {(int(least) + 1) * game.horizon} for {deviators} "
            f"deviations and {game.horizon} steps a play, not {budget}"
        )
    return EstimatePlan(plays, deviators, measured)


def plan_outside(
    game: OutsideGame,
    policy: Policy,
    num_agents: int,
    num_trajectories: int,
    learner: object,
    budget_steps: int | None,
) -> Plan:
    """Spend a budget of simulator steps on learning and on measuring deviations.

    Tables learn where agents observe one integer each, networks elsewhere.

    Args:
        game: the simulator.
        policy: whose exploitability is measured.
        num_agents: how many agents are examined.
        num_trajectories: the most to measure a deviation on.
        learner: the learner, if its settings are given; then there is nothing to plan.
        budget_steps: calls of `step` in all, None for 100,000.

    Raises:
        ValueError: the budget is too small to play every deviation twice, or there is a learner
            beside it, or one of tables where agents do not observe one integer each.
    """
    if learner is not None:
        if budget_steps is not None:
            raise ValueError("budget_steps sets the learner's settings: it needs learner=None")
        assert isinstance(learner, PPO | OptimisticQLearning)  # checked where it came in
        if isinstance(learner, OptimisticQLearning):
            states_for_tables(game)
        return Plan(learner, num_trajectories)
    tables = _has_tables(game)

    def plays(rounds: int, each: int, measured: int) -> int:
        if tables:
            return plays_of_tables(game, num_agents, TableSearch(rounds, each), measured)
        settings = PPO(num_epochs=rounds, num_trajectories=each)
        steps = agent_steps_to_learn(game, policy, num_agents, settings, measured)
        return steps // (game.num_agents * game.horizon)

    each, measured = _spend(game, num_agents, num_trajectories, budget_steps, plays)
    if tables:
        rounds = max(1, min(_MOST_ROUNDS, each // _EPISODES_A_ROUND))
        return Plan(TableSearch(rounds, each // rounds), measured)
    epochs = max(1, min(_MOST_EPOCHS, int((2.5 * each) ** 0.5)))
    settings = best_response_learner(
        game, num_epochs=epochs, num_trajectories=max(1, each // epochs)
    )
    return Plan(settings, measured)


def _has_tables(game: OutsideGame) -> bool:
    states = game.num_states
    return states is not None and game.horizon * states * game.num_actions <= _MOST_ENTRIES


def _spend(
    game: OutsideGame,
    num_agents: int,
    num_trajectories: int,
    budget_steps: int | None,
    plays: Callable[[int, int, int], int],
) -> tuple[int, int]:
    """Episodes for each block of agents to learn from, and to measure each deviation on.

    `plays` counts the episodes of rounds, of episodes a round, and of episodes to measure.
    """
    budget = _BUDGET_STEPS if budget_steps is None else budget_steps
    check_count("budget_steps", budget, 1)
    most = budget // game.horizon
    measuring, learning = plays(0, 1, 1), plays(1, 1, 0)
    measured = min(num_trajectories, int(_MEASURING * most / measuring))
    least = (_LEAST_PLAYS * measuring + learning) * game.horizon
    if measured < _LEAST_PLAYS or most < _LEAST_PLAYS * measuring + learning:
        least = max(least, int(_LEAST_PLAYS * measuring * game.horizon / _MEASURING) + game.horizon)
        raise ValueError(
            f"budget_steps must be at least {least} for {num_agents} agents and {game.horizon} "
            f"steps a play, not {budget}"
        )
    return (most - measured * measuring) // learning, measured
