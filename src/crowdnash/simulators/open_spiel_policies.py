"""Policies to OpenSpiel (2.0) and from it, so that each side can judge what the other learned.

Apart from `open_spiel_games`, which worker processes read without JAX.

Axes: N players or copies, H steps, S states, A actions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from crowdnash.checks import check_instance
from crowdnash.policies.base import Policy, check_policy
from crowdnash.policies.drawing import legal_share
from crowdnash.policies.tabular import TabularPolicy
from crowdnash.simulators.as_simulator import stepped_rows
from crowdnash.simulators.contract import library
from crowdnash.simulators.game import as_game
from crowdnash.simulators.open_spiel_games import MeanFieldCopies, SimultaneousGame
from crowdnash.simulators.shared_table import shared_table


def to_open_spiel(policy: Policy, sim: Any, *, agent: int | None = None) -> Any:
    """A policy as an `open_spiel.python.policy.Policy` (Lanctot et al. 2019), for its algorithms.

    A mean-field game's NashConv, distribution or value, say. Illegal actions have no part:
    probabilities are those of the legal ones divided by their sum.

    Args:
        policy: of the simulator's agents.
        sim: what `open_spiel` made of the game: copies in a mean-field game with tables, or the
            players of a simultaneous game.
        agent: whose part of the policy a mean-field game is told; None where all play alike.

    Raises:
        ImportError: OpenSpiel is not installed.
        ValueError: `sim` is none of the two, the policy does not fit it, or agents of a mean-field
            game play differently and `agent` does not say whose policy is meant.
    """
    module = library("open_spiel.python.policy", "open_spiel")
    check_instance("sim", sim, MeanFieldCopies, SimultaneousGame)
    if isinstance(sim, MeanFieldCopies):
        row = _table_rows(policy, sim, agent)
    elif agent is None:
        row = _player_rows(policy, sim)
    else:
        raise ValueError(f"agent is for mean-field games: {sim.name} asks every player by itself")

    class PolicyOfCrowdnash(module.Policy):
        """Asks a policy of crowdnash."""

        def action_probabilities(
            self, state: Any, player_id: int | None = None
        ) -> dict[int, float]:
            player = state.current_player() if player_id is None else player_id
            actions = state.legal_actions(player)
            if not actions:
                return {0: 1.0}
            legal = np.zeros(sim.num_actions, bool)
            legal[actions] = True
            probs = legal_share(np.asarray(row(state, player), np.float64), legal)
            return {action: float(probs[action] / probs.sum()) for action in actions}

    return PolicyOfCrowdnash(sim.game, list(range(sim.game.num_players())))


def _table_rows(policy: Policy, sim: MeanFieldCopies, agent: int | None) -> Callable[..., Any]:
    _check_places(sim)
    table = shared_table(policy, as_game(sim), agent)

    def row(state: Any, player: int) -> Any:
        step, place = sim.place_of(state)
        return table[step, place]

    return row


def _player_rows(policy: Policy, sim: SimultaneousGame) -> Callable[..., Any]:
    check_policy(as_game(sim), policy)
    rows = stepped_rows(policy)

    def row(state: Any, player: int) -> Any:
        return rows(sim.seen(state), sim.step_of(state))[player]

    return row


def from_open_spiel(policy: Any, sim: Any) -> TabularPolicy:
    """A mean-field policy of OpenSpiel (Lanctot et al. 2019), to be played by N copies.

    It is asked at every place that can be reached, with the distributions that it brings about
    itself; where nobody can be, all actions are alike.

    Args:
        policy: an `open_spiel.python.policy.Policy`, or anything else with its
            `action_probabilities(state)`.
        sim: what `open_spiel` made of the same game: copies in a mean-field game with tables.

    Returns:
        One table for all copies; play and certify it as any policy of this library.

    Raises:
        ImportError: OpenSpiel is not installed.
        ValueError: `policy` cannot be asked or gives no distribution, or `sim` is none of these.
    """
    check_instance("sim", sim, MeanFieldCopies)
    _check_places(sim)
    if not callable(getattr(policy, "action_probabilities", None)):
        raise ValueError(
            "policy must be one of OpenSpiel, with action_probabilities(state), not a "
            f"{type(policy).__name__}"
        )
    shape = (sim.horizon, sim.num_states, sim.num_actions)
    probs = np.full(shape, 1 / sim.num_actions)
    for state, row in _decisions(sim, policy):
        probs[sim.place_of(state)] = row
    return TabularPolicy.symmetric(probs, sim.num_agents)


def _check_places(sim: MeanFieldCopies) -> None:
    if sim.num_states is None:
        raise ValueError(
            f'{sim.name}: observations must read "(x, t)", so that there are places for tables'
        )


_Layer = dict[str, tuple[Any, float]]
"""States by what they read, each with its share of the population."""


def _decisions(sim: MeanFieldCopies, policy: Any) -> Iterator[tuple[Any, np.ndarray]]:
    """All states in which a decision can be due, step by step, and what the policy does there."""
    layer: _Layer = {"": (sim.game.new_initial_state(), 1.0)}
    while layer := _to_decisions(layer):
        following: _Layer = {}
        for state, share in layer.values():
            row = np.zeros(sim.num_actions)
            for action, prob in policy.action_probabilities(state).items():
                row[action] = prob
            yield state, row
            for action in state.legal_actions():  # deviators come where nobody else does
                _put(following, state.child(action), share * float(row[action]))
        layer = following


def _put(layer: _Layer, state: Any, share: float) -> None:
    """Add a share of the population; states that read alike are one, as OpenSpiel has it."""
    first, before = layer.get(str(state), (state, 0.0))
    layer[str(state)] = (first, before + share)


def _to_decisions(layer: _Layer) -> _Layer:
    """On to the next decisions: every outcome of chance, and the population where it is told."""
    node = library("pyspiel", "open_spiel").PlayerId.MEAN_FIELD
    while True:
        if any(state.is_chance_node() for state, _ in layer.values()):
            following: _Layer = {}
            for state, share in layer.values():
                if not state.is_chance_node():
                    _put(following, state, share)
                    continue
                for outcome, prob in state.chance_outcomes():
                    _put(following, state.child(outcome), share * prob)
            layer = following
            continue
        waiting = [state for state, _ in layer.values() if state.current_player() == node]
        if not waiting:
            return {text: one for text, one in layer.items() if not one[0].is_terminal()}
        shares = {text: share for text, (_, share) in layer.items()}
        told = [shares.get(text, 0.0) for text in waiting[0].distribution_support()]
        for state in waiting:
            state.update_distribution(told)
        layer = {str(state): (state, share) for state, share in layer.values()}
