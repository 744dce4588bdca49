"""OpenSpiel's games as simulators (2.0): simultaneous ones, and mean-field ones played by copies.

Lanctot et al. (2019); the mean-field games are those of Perolat et al. (2022).
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from crowdnash.checks import check_count, check_instance
from crowdnash.simulators.contract import library

_NUMBERS = re.compile(r"\((-?\d+(?:, -?\d+)+)\)")


def open_spiel(
    game: Any, *, num_agents: int | None = None, parameters: dict[str, Any] | None = None
) -> SimultaneousGame | MeanFieldCopies:
    """A game of OpenSpiel (Lanctot et al. 2019) as a simulator.

    A simultaneous game has its own players; they observe its tensors and have its legal actions,
    and where not all act, the others have action 0 alone. A mean-field game is played by
    `num_agents` copies: at every mean-field node the population is what the copies do. Copies in a
    game whose observations read "(x, t)" observe the number of x, so that tables are possible.

    Args:
        game: its name, for `pyspiel.load_game`, or a game that is loaded.
        num_agents: N, of a mean-field game.
        parameters: of the game, with a name.

    Returns:
        The simulator. A step's reward is by how much `returns()` grows until the next decision,
        what is paid before the first decision included.

    Raises:
        ImportError: OpenSpiel is not installed.
        ValueError: the game is of neither kind, or `num_agents` does not suit it.
    """
    pyspiel = library("pyspiel", "open_spiel")
    if isinstance(game, str):
        game = pyspiel.load_game(game, parameters or {})
    check_instance("game", game, pyspiel.Game)
    name, dynamics = game.get_type().short_name, game.get_type().dynamics
    if dynamics == pyspiel.GameType.Dynamics.MEAN_FIELD:
        if game.num_players() != 1:
            raise ValueError(f"{name}: mean-field games of one population only")
        check_count("num_agents", num_agents, 2)
        return MeanFieldCopies(game, int(num_agents or 0))
    if dynamics != pyspiel.GameType.Dynamics.SIMULTANEOUS:
        raise ValueError(f"{name} must be a simultaneous or a mean-field game, not {dynamics}")
    if num_agents not in (None, game.num_players()):
        raise ValueError(f"{name} has {game.num_players()} players: num_agents is not {num_agents}")
    return SimultaneousGame(game)


def _advance_chance(state: Any, rng: np.random.Generator) -> None:
    """Draw at chance nodes until someone else is to act."""
    while state.is_chance_node():
        outcomes = state.chance_outcomes()
        # A plain loop: for the few outcomes that there are, `rng.choice` takes five times as long.
        left = rng.random() * sum(prob for _, prob in outcomes)
        outcome = outcomes[-1][0]
        for number, prob in outcomes:
            left -= prob
            if left < 0:
                outcome = number
                break
        state.apply_action(outcome)


class SimultaneousGame:
    """See `open_spiel`."""

    def __init__(self, game: Any) -> None:
        self.game, kind = game, game.get_type()
        self.name = kind.short_name
        self.num_agents, self.num_actions = game.num_players(), game.num_distinct_actions()
        self.horizon = game.max_game_length()
        self._tensor = "observation_tensor"
        if not kind.provides_observation_tensor:
            self._tensor = "information_state_tensor"
        self._width = int(np.prod(getattr(game, f"{self._tensor}_shape")()))

    def spawn(self) -> SimultaneousGame:
        """Another one."""
        return SimultaneousGame(self.game)

    def reset(self, seed: int) -> np.ndarray:
        """Begin an episode."""
        self._rng, self._paid = np.random.default_rng(seed), np.zeros(self.num_agents)
        self._state = self.game.new_initial_state()
        _advance_chance(self._state, self._rng)
        return self._see()

    def legal(self) -> np.ndarray:
        """Which actions the players have now."""
        state, legal = self._state, np.zeros((self.num_agents, self.num_actions), bool)
        for player in range(self.num_agents):
            acts = not state.is_terminal() and (
                state.is_simultaneous_node() or state.current_player() == player
            )
            legal[player, (state.legal_actions(player) if acts else []) or [0]] = True
        return legal

    def step(self, actions: np.ndarray) -> tuple[Any, Any, Any, Any]:
        """Play one step."""
        state = self._state
        if state.is_simultaneous_node():
            state.apply_actions([int(action) for action in actions])
        else:
            state.apply_action(int(actions[state.current_player()]))
        _advance_chance(state, self._rng)
        returns = np.asarray(state.returns())
        rewards, self._paid = returns - self._paid, returns
        alive = np.full(self.num_agents, not state.is_terminal())
        return self._see(), rewards, alive, self.legal()

    def seen(self, state: Any) -> np.ndarray:
        """What the players observe in a state of the game."""
        if state.is_terminal():
            return np.zeros((self.num_agents, self._width), np.float32)
        tensor = getattr(state, self._tensor)
        return np.array([tensor(player) for player in range(self.num_agents)], np.float32)

    def step_of(self, state: Any) -> int:
        """How many decisions were taken before a state; its history is played again."""
        again, actions, step = self.game.new_initial_state(), state.history(), 0
        while actions:
            if again.is_chance_node():
                again.apply_action(actions.pop(0))
                continue
            step += 1
            if again.is_simultaneous_node():
                again.apply_actions(actions[: self.num_agents])
                del actions[: self.num_agents]
            else:
                again.apply_action(actions.pop(0))
        return step

    def _see(self) -> np.ndarray:
        return self.seen(self._state)


class MeanFieldCopies:
    """See `open_spiel`."""

    def __init__(self, game: Any, num_agents: int) -> None:
        self.game, self.num_agents = game, num_agents
        self.name = game.get_type().short_name
        self.num_actions, self.horizon = game.num_distinct_actions(), game.max_game_length()
        self._places: dict[tuple[int, ...], int] | None = None
        self.num_states = None
        self.reset(0)
        first = self._copies[0].clone()
        first.apply_action(first.legal_actions()[0])
        _advance_chance(first, self._rng)
        if not first.is_terminal():
            places = [_place(text) for text in first.distribution_support()]
            if None not in places and _place(self._text(self._copies[0])) is not None:
                known = sorted({place for place in places if place is not None})
                self._places = {place: number for number, place in enumerate(known)}
                self.num_states = len(known)
                self._first_time = _numbers(self._text(self._copies[0]))[-1]

    def place_of(self, state: Any) -> tuple[int, int]:
        """Step and number of the place where a decision is due; there must be `num_states`."""
        *place, time = _numbers(self._text(state))
        return time - self._first_time, (self._places or {})[tuple(place)]

    def spawn(self) -> MeanFieldCopies:
        """Another one."""
        return MeanFieldCopies(self.game, self.num_agents)

    def reset(self, seed: int) -> np.ndarray:
        """Begin an episode."""
        self._rng = np.random.default_rng(seed)
        self._copies = [self.game.new_initial_state() for _ in range(self.num_agents)]
        self._paid = np.zeros(self.num_agents)
        self._to_decision()
        return self._see()

    def legal(self) -> np.ndarray:
        """Which actions the copies have now."""
        legal = np.zeros((self.num_agents, self.num_actions), bool)
        for k, state in enumerate(self._copies):
            legal[k, [0] if state.is_terminal() else state.legal_actions()] = True
        return legal

    def step(self, actions: np.ndarray) -> tuple[Any, Any, Any, Any]:
        """Play one step."""
        for state, action in zip(self._copies, actions, strict=True):
            if not state.is_terminal():
                state.apply_action(int(action))
        self._to_decision()
        returns = np.array([state.returns()[0] for state in self._copies])
        rewards, self._paid = returns - self._paid, returns
        alive = np.array([not state.is_terminal() for state in self._copies])
        return self._see(), rewards, alive, self.legal()

    def _to_decision(self) -> None:
        """Go on to the next decisions; at mean-field nodes, all copies together."""
        node = library("pyspiel", "open_spiel").PlayerId.MEAN_FIELD
        while True:
            for state in self._copies:
                _advance_chance(state, self._rng)
            waiting = [state for state in self._copies if state.current_player() == node]
            if not waiting:
                return
            support = waiting[0].distribution_support()
            number = {text: k for k, text in enumerate(support)}
            counts = np.zeros(len(support))
            for state in waiting:
                counts[number[str(state)]] += 1
            shares = (counts / len(waiting)).tolist()
            for state in waiting:
                state.update_distribution(shares)

    @staticmethod
    def _text(state: Any) -> str:
        return state.observation_string(0)

    def _see(self) -> np.ndarray:
        if self._places is not None:
            places = [_place(self._text(state)) for state in self._copies]
            return np.array([self._places.get(place or (), -1) for place in places])
        return np.array([state.observation_tensor(0) for state in self._copies], np.float32)


def _numbers(text: str) -> tuple[int, ...]:
    """The numbers of a text that begins "(x, ..., t)"; none of any other."""
    match = _NUMBERS.match(text)
    return () if match is None else tuple(int(k) for k in match[1].split(", "))


def _place(text: str) -> tuple[int, ...] | None:
    """x of a text that begins "(x, ..., t)"; None of any other."""
    return _numbers(text)[:-1] or None
