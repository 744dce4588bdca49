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
from jaxtyping import Float, Int, PRNGKeyArray

from crowdnash.certificates.fitted_tables import OWN
from crowdnash.certificates.outside import Deviator, total_rewards_outside
from crowdnash.certificates.ppo_deviations import (
    FEW,
    DeviationGains,
    OnPlays,
    gains_alone,
)
from crowdnash.certificates.q_learning import OptimisticQLearning
from crowdnash.certificates.table_learners import (
    CAUTIONS,
    FittedLearner,
    QLearner,
    TableLearner,
    where_legal,
)
from crowdnash.policies.base import Policy
from crowdnash.policies.drawing import draw_legal
from crowdnash.simulation.outside import Episode, Situation, play_outside, policy_rows
from crowdnash.simulators.game import OutsideGame

_MAX_BATCH = 32
"""Episodes of a round of Q-learning, which play the same table."""


@dataclass(frozen=True)
class TableSearch:
    """How tables of deviations are learned: rounds of so many episodes, a new plan after each."""

    num_rounds: int
    num_trajectories: int


Search = TableSearch | OptimisticQLearning
"""What learns tables: fitted sweeps, or Q-learning episode by episode."""


class TableDeviations(NamedTuple):
    """What K agents learned to do, `tables` [K,H,S]; `OWN` stands for the agent's own policy.

    `promise` [K] is the gain on the trajectories that chose them, not to be reported.
    """

    agents: Int[np.ndarray, " K"]
    tables: Int[np.ndarray, "K H S"]
    promise: Float[np.ndarray, " K"]


def plays_of_tables(game: OutsideGame, count: int, search: Search, measured: int) -> int:
    """Episodes that are played while `count` agents learn and are judged."""
    blocks = -(-count // max(1, game.num_agents // FEW))
    candidates = len(CAUTIONS) + 1 if isinstance(search, TableSearch) else 1
    judging = 1 + count * candidates + 1 + count
    return blocks * sum(_rounds(search)) + judging * measured


def _rounds(search: Search) -> list[int]:
    """How many episodes each round has."""
    if isinstance(search, TableSearch):
        return [search.num_trajectories] * search.num_rounds
    size = min(search.batch_size or _MAX_BATCH, search.num_episodes)
    whole, rest = divmod(search.num_episodes, size)
    return [size] * whole + [rest] * (rest > 0)


def _learner(game: OutsideGame, agent: int, search: Search) -> TableLearner:
    if isinstance(search, TableSearch):
        return FittedLearner(game, agent)
    return QLearner(game, agent, search)


def learn_tables(
    game: OutsideGame,
    policy: Policy,
    agents: Int[np.ndarray, " K"],
    *,
    key: PRNGKeyArray,
    search: Search,
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
        learners = [_learner(game, int(k), search) for k in agents[first : first + at_once]]
        block_key = jax.random.fold_in(learn_key, block)
        for number, episodes in enumerate(_rounds(search)):
            round_key = jax.random.fold_in(block_key, number)
            _play_round(game, policy, learners, round_key, episodes)
            on_plays(episodes)
        learned += [learner.candidates() for learner in learners]
    tables = np.stack(learned)
    promises, value = [np.zeros(len(agents))], None  # whoever keeps to the policy gains 0
    for candidate in range(tables.shape[1]):
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
        return where_legal(table[situation.step, states[:, agent]], legal, drawn)

    return agent, act


def _play_round(
    game: OutsideGame,
    policy: Policy,
    learners: Sequence[TableLearner],
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
