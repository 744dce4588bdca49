"""Deviations that tables hold, learned from play of a simulator outside JAX alone (Def. 2).

For agents that observe one integer each. Some agents deviate and learn from what happens to
themselves (`fitted_tables`), while all others go on as they did. Of what each has learned, plays of
its own decide which table is kept, or whether it keeps to the policy: that gains 0.

Axes: K agents examined, M trajectories, B lanes, H steps, S states, A actions, C candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, PRNGKeyArray

from crowdnash.certificates.fitted_tables import (
    OWN,
    OwnPlay,
    actions_to_explore,
    recommended_actions,
)
from crowdnash.certificates.outside import Deviator, total_rewards_outside
from crowdnash.certificates.ppo_deviations import (
    FEW,
    DeviationGains,
    OnPlays,
    gains_alone,
)
from crowdnash.policies.base import Policy
from crowdnash.policies.drawing import draw_legal
from crowdnash.simulation.outside import Episode, Situation, play_outside, policy_rows
from crowdnash.simulators.game import OutsideGame

_CAUTIONS = (0.5, 2.0)
_CANDIDATES = len(_CAUTIONS) + 1
_HOPE = 0.5
_MOST_TRIES, _TRIES = 0.5, 2.0
"""Of an agent's steps at most half, and about two an episode, try any legal action."""


@dataclass(frozen=True)
class TableSearch:
    """How tables of deviations are learned: rounds of so many episodes, a new plan after each."""

    num_rounds: int
    num_trajectories: int


class TableDeviations(NamedTuple):
    """What K agents learned to do, `tables` [K,H,S]; `OWN` stands for the agent's own policy.

    `promise` [K] is the gain on the trajectories that chose them, not to be reported.
    """

    agents: Int[np.ndarray, " K"]
    tables: Int[np.ndarray, "K H S"]
    promise: Float[np.ndarray, " K"]


def plays_of_tables(game: OutsideGame, count: int, search: TableSearch, measured: int) -> int:
    """Episodes that are played while `count` agents learn and are judged."""
    blocks = -(-count // max(1, game.num_agents // FEW))
    judging = 1 + count * _CANDIDATES + 1 + count
    return blocks * search.num_rounds * search.num_trajectories + judging * measured


def learn_tables(
    game: OutsideGame,
    policy: Policy,
    agents: Int[np.ndarray, " K"],
    *,
    key: PRNGKeyArray,
    search: TableSearch,
    num_trajectories: int,
    on_plays: OnPlays,
) -> TableDeviations:
    """Let the agents learn to do better than `policy`, which all others play.

    As many at once as are few among N; what they learned is judged alone, by `num_trajectories`
    plays of each candidate.

    Raises:
        SimulatorError: the simulator breaks its contract.
    """
    learn_key, choose_key = jax.random.split(key)
    at_once = max(1, game.num_agents // FEW)
    learned: list[Int[np.ndarray, "C H S"]] = []
    for block, first in enumerate(range(0, len(agents), at_once)):
        learners = [_Learner(game, int(agent)) for agent in agents[first : first + at_once]]
        block_key = jax.random.fold_in(learn_key, block)
        for number in range(search.num_rounds):
            round_key = jax.random.fold_in(block_key, number)
            _play_round(game, policy, learners, round_key, search.num_trajectories)
            on_plays(search.num_trajectories)
        learned += [learner.candidates() for learner in learners]
    tables = np.stack(learned)
    promises, value = [np.zeros(len(agents))], None  # whoever keeps to the policy gains 0
    for candidate in range(_CANDIDATES):
        played = measure_table_deviations(
            game,
            policy,
            TableDeviations(agents, tables[:, candidate], promises[0]),
            key=choose_key,
            num_trajectories=num_trajectories,
            value=value,
            on_plays=on_plays,
        )
        value = played.value
        promises.append(played.gain.mean(1))
    best, everyone = np.argmax(promises, axis=0), np.arange(len(agents))
    all_tables = np.concatenate([np.full_like(tables[:, :1], OWN), tables], axis=1)
    return TableDeviations(agents, all_tables[everyone, best], np.max(promises, axis=0))


def measure_table_deviations(
    game: OutsideGame,
    policy: Policy,
    deviations: TableDeviations,
    *,
    key: PRNGKeyArray,
    num_trajectories: int,
    on_plays: OnPlays,
    value: Float[np.ndarray, "K M"] | None = None,
) -> DeviationGains:
    """Play each deviation alone on M trajectories, and nobody's with the same random draws.

    `value` are the returns when nobody deviates, where they are known for this key.

    Raises:
        SimulatorError: the simulator breaks its contract.
    """
    agents = deviations.agents

    def totals(k: int) -> Float[np.ndarray, "K M"]:
        one = None if k < 0 else table_deviator(int(agents[k]), deviations.tables[k])
        rewards = total_rewards_outside(game, policy, agents, key, num_trajectories, one)
        on_plays(num_trajectories)
        return rewards

    return gains_alone(game, agents, totals, value)


def table_deviator(agent: int, table: Int[np.ndarray, "H S"]) -> tuple[int, Deviator]:
    """An agent, and what its table does; its own policy where that is illegal."""

    def act(situation: Situation, drawn: np.ndarray) -> np.ndarray:
        (states,) = jax.tree.leaves(situation.observations)
        legal = None if situation.legal is None else situation.legal[:, agent]
        return _where_legal(table[situation.step, states[:, agent]], legal, drawn)

    return agent, act


def _where_legal(
    actions: Int[np.ndarray, " B"],
    legal: Bool[np.ndarray, "B A"] | None,
    instead: Int[np.ndarray, " B"],
) -> Int[np.ndarray, " B"]:
    """`actions`, and `instead` where they are `OWN` or illegal."""
    may = actions != OWN
    if legal is not None:
        may &= legal[np.arange(len(actions)), actions]
    return np.where(may, actions, instead)


def _play_round(
    game: OutsideGame,
    policy: Policy,
    learners: Sequence["_Learner"],
    key: PRNGKeyArray,
    num_trajectories: int,
) -> None:
    """Play by what the learners want to try, and let them plan anew."""
    rows = policy_rows(policy)

    def choose(situation: Situation) -> np.ndarray:
        probs = rows(situation)
        actions = draw_legal(probs, situation.numbers, situation.legal)
        for learner in learners:
            actions[:, learner.agent] = learner.act(situation, probs[:, learner.agent])
        return actions

    def on_step(episode: Episode) -> None:
        for learner in learners:
            learner.note(episode)

    for learner in learners:
        learner.begin(num_trajectories)
    play_outside(game, choose, key, num_trajectories, on_step)
    for learner in learners:
        learner.plan()


class _Learner:
    """One agent: what happened to it, and what it wants to try."""

    def __init__(self, game: OutsideGame, agent: int) -> None:
        assert game.num_states is not None  # the plan has seen to it
        self.agent, self._num_states, self._horizon = agent, game.num_states, game.horizon
        shape = (game.horizon, game.num_states, game.num_actions)
        self._policy = np.zeros(shape)
        self._legal = np.full(shape, not game.form.limited)
        self._tries = np.full(shape[:2], OWN)
        self._share = _MOST_TRIES
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
        # One number says whether to try anything, and what remains of it is as good as new.
        number, share = situation.numbers[:, self.agent], self._share
        tries = number < share
        rest = np.where(tries, number / share, (number - share) / (1 - share))
        anything = draw_legal(np.ones_like(probs), rest, legal)
        planned = self._tries[situation.step, own]
        planned = _where_legal(planned, legal, draw_legal(probs, rest, legal))
        return np.where(tries, anything, planned)

    def note(self, episode: Episode) -> None:
        """Keep what happened at a step."""
        states, actions, rewards = self._rounds[-1]
        (seen,) = jax.tree.leaves(episode.observations)
        place, alive = (episode.rows, episode.step), episode.alive[:, self.agent]
        states[place] = np.where(alive, seen[:, self.agent], self._num_states)
        actions[place] = np.where(alive, episode.actions[:, self.agent], 0)
        rewards[place] = episode.rewards[:, self.agent]

    def plan(self) -> None:
        """What to try in the next round."""
        self._tries = actions_to_explore(self._play(), _HOPE)
        self._share = min(_MOST_TRIES, _TRIES / self._horizon)

    def candidates(self) -> Int[np.ndarray, "C H S"]:
        """What might be better than the policy: by state, more or less cautiously, and blindly."""
        play = self._play()
        tables = [recommended_actions(play, caution) for caution in _CAUTIONS]
        blind = recommended_actions(play.without_states(), _CAUTIONS[0])
        return np.stack([*tables, np.broadcast_to(blind, tables[0].shape)])

    def _play(self) -> OwnPlay:
        """All rounds."""
        states, actions, rewards = (np.concatenate(x) for x in zip(*self._rounds, strict=True))
        return OwnPlay(states, actions, rewards, self._policy, self._legal)
