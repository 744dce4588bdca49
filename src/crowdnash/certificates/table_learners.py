"""How single agents learn tables of deviations from what happens to themselves, outside JAX.

By fitted sweeps over all that was seen (`fitted_tables`), or by optimistic Q-learning, one episode
after the other (`q_learning`). An agent that is out is in a state of its own, numbered S.

Axes: E episodes of a round, B lanes, H steps, S states, A actions, C candidates.
"""

import abc
from typing import final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from crowdnash.certificates.fitted_tables import (
    OWN,
    OwnPlay,
    actions_to_explore,
    recommended_actions,
)
from crowdnash.certificates.q_learning import Episode as OwnEpisodes
from crowdnash.certificates.q_learning import (
    OptimisticQLearning,
    QTables,
    actions_to_try,
    bonus_factor,
    greedy_actions,
    q_update,
)
from crowdnash.policies.drawing import draw_legal
from crowdnash.simulation.outside import Episode, Situation
from crowdnash.simulators.game import OutsideGame

CAUTIONS = (0.5, 2.0)
_HOPE = 0.5
_MOST_TRIES, _TRIES = 0.5, 2.0
"""Of an agent's steps at most half, and about two an episode, try any legal action."""


class TableLearner(abc.ABC):
    """One agent: what happened to it, and what it wants to try."""

    def __init__(self, game: OutsideGame, agent: int) -> None:
        assert game.num_states is not None  # the plan has seen to it
        self.agent, self._num_states, self._horizon = agent, game.num_states, game.horizon
        shape = (game.horizon, game.num_states, game.num_actions)
        self._policy = np.zeros(shape)
        self._legal = np.full(shape, not game.form.limited)
        self._tries = np.full(shape[:2], OWN)
        self._share = 0.0
        self._rounds: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def begin(self, num_trajectories: int) -> None:
        """Make room for a round."""
        shape = (num_trajectories, self._horizon)
        states = np.full(shape, self._num_states)
        self._rounds.append((states, np.zeros(shape, np.int64), np.zeros(shape)))

    def act(self, situation: Situation, probs: Float[np.ndarray, "B A"]) -> np.ndarray:
        """What it does at a step; remembers what it could have done."""
        (states,) = jax.tree.leaves(situation.observations)
        own, alive = states[:, self.agent], situation.alive[:, self.agent]
        legal = None if situation.legal is None else situation.legal[:, self.agent]
        self._policy[situation.step, own[alive]] = probs[alive]
        if legal is not None:
            np.logical_or.at(self._legal, (situation.step, own[alive]), legal[alive])
        number, share, planned = situation.numbers[:, self.agent], self._share, self._tries
        planned = planned[situation.step, own]
        if share == 0:
            return where_legal(planned, legal, draw_legal(probs, number, legal))
        # One number says whether to try anything, and what remains of it is as good as new.
        tries = number < share
        rest = np.where(tries, number / share, (number - share) / (1 - share))
        anything = draw_legal(np.ones_like(probs), rest, legal)
        return np.where(
            tries, anything, where_legal(planned, legal, draw_legal(probs, rest, legal))
        )

    def note(self, episode: Episode) -> None:
        """Keep what happened at a step."""
        states, actions, rewards = self._rounds[-1]
        (seen,) = jax.tree.leaves(episode.observations)
        place, alive = (episode.rows, episode.step), episode.alive[:, self.agent]
        states[place] = np.where(alive, seen[:, self.agent], self._num_states)
        actions[place] = np.where(alive, episode.actions[:, self.agent], 0)
        rewards[place] = episode.rewards[:, self.agent]

    @abc.abstractmethod
    def plan(self) -> None:
        """Learn from the last round, and decide what to try in the next."""

    @abc.abstractmethod
    def candidates(self) -> Int[np.ndarray, "C H S"]:
        """What might be better than the policy."""


def where_legal(
    actions: Int[np.ndarray, " B"],
    legal: Bool[np.ndarray, "B A"] | None,
    instead: Int[np.ndarray, " B"],
) -> Int[np.ndarray, " B"]:
    """`actions`, and `instead` where they are `OWN` or illegal."""
    may = actions != OWN
    if legal is not None:
        may &= legal[np.arange(len(actions)), actions]
    return np.where(may, actions, instead)


@final
class FittedLearner(TableLearner):
    """Sweeps backwards over all rounds, with hope to try and with caution to recommend."""

    def __init__(self, game: OutsideGame, agent: int) -> None:
        super().__init__(game, agent)
        self._share = _MOST_TRIES

    def plan(self) -> None:
        """See `TableLearner.plan`."""
        self._tries = actions_to_explore(self._play(), _HOPE)
        self._share = min(_MOST_TRIES, _TRIES / self._horizon)

    def candidates(self) -> Int[np.ndarray, "C H S"]:
        """By state, more or less cautiously, and blindly."""
        play = self._play()
        tables = [recommended_actions(play, caution) for caution in CAUTIONS]
        blind = recommended_actions(play.without_states(), CAUTIONS[0])
        return np.stack([*tables, np.broadcast_to(blind, tables[0].shape)])

    def _play(self) -> OwnPlay:
        """All rounds."""
        states, actions, rewards = (np.concatenate(x) for x in zip(*self._rounds, strict=True))
        return OwnPlay(states, actions, rewards, self._policy, self._legal)


@final
class QLearner(TableLearner):
    """Optimistic Q-learning (Jin et al. 2018): what is played always looks best so far.

    Rewards are scaled by the range that is declared, or by that of the first round.
    """

    def __init__(self, game: OutsideGame, agent: int, settings: OptimisticQLearning) -> None:
        super().__init__(game, agent)
        shape = (game.horizon, self._num_states + 1, game.num_actions)
        self._tables = QTables.start(*shape)
        self._factor = bonus_factor(settings.bonus_scale, *shape, settings.num_episodes)
        self._range = settings.reward_range

    def plan(self) -> None:
        """See `TableLearner.plan`."""
        states, actions, rewards = self._rounds.pop()
        if self._range is None:
            self._range = (float(rewards.min()), float(rewards.max()))
        low, high = self._range
        scaled = (rewards - low) / (high - low or 1.0)
        own = (states.astype(np.int32), actions.astype(np.int32), scaled.astype(np.float32))
        tables = _learn(self._tables, OwnEpisodes(*(jnp.asarray(x) for x in own)), self._factor)
        self._tables = _without_illegal(tables, self._known_to_be_illegal())
        self._tries = np.asarray(actions_to_try(self._tables))[:, :-1]

    def candidates(self) -> Int[np.ndarray, "C H S"]:
        """The actions of highest value, the policy's own where the agent never came."""
        best = np.asarray(greedy_actions(self._tables.values))[:, :-1]
        came = np.asarray(self._tables.visits)[:, :-1].any(-1)
        return np.where(came, best, OWN)[None]

    def _known_to_be_illegal(self) -> Bool[np.ndarray, "H S A"]:
        """In states that it met; nobody who is out can do anything but nothing, action 0."""
        met = self._legal.any(-1, keepdims=True)
        out = np.ones((self._horizon, 1, self._legal.shape[-1]), bool)
        out[..., 0] = False
        return np.concatenate([met & ~self._legal, out], axis=1)


@eqx.filter_jit
def _learn(tables: QTables, episodes: OwnEpisodes, factor: Float[Array, ""] | float) -> QTables:
    """One episode after the other."""

    def one(tables: QTables, episode: OwnEpisodes) -> tuple[QTables, None]:
        return q_update(tables, episode, jnp.asarray(factor, jnp.float32)), None

    return jax.lax.scan(one, tables, episodes)[0]


def _without_illegal(tables: QTables, illegal: Bool[np.ndarray, "H S A"]) -> QTables:
    never = jnp.asarray(illegal)
    optimistic, values = (jnp.where(never, -jnp.inf, x) for x in (tables.optimistic, tables.values))
    return QTables(optimistic, values, tables.visits)
