"""An agent's best response learned by optimistic Q-learning from simulated play alone (Def. 2).

As in the paper, one agent deviates, learns, and plays what it learned, while the others go on as
they did and feel what it does. For agents that observe one integer each; see `q_learning` for the
learner, and `ppo_deviations` for deviations of any other kind.

The others' states are hidden from the agent, so that its problem is a Markov decision process
only in the limit of many agents. For a few agents the learned policy may fall short of the best
memoryless one; its measured gain is a valid lower bound nonetheless.

Axes: N agents, M trajectories, H steps, S states, A actions, B episodes of one round.
"""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt32

from crowdnash.certificates.ppo_deviations import DeviationGains
from crowdnash.certificates.q_learning import (
    Episode,
    OptimisticQLearning,
    QTables,
    actions_to_try,
    bonus_factor,
    greedy_actions,
    q_update,
)
from crowdnash.games.base import DynamicGame, GameError, TabularGame
from crowdnash.games.checks import named, states_for_tables
from crowdnash.games.legal import legal_table, limits_actions
from crowdnash.policies.base import Policy
from crowdnash.simulation.faults import explain_fault
from crowdnash.simulation.layout import AgentLayout
from crowdnash.simulation.rollouts import chunk_size, policy_layout, simulate_chunk
from crowdnash.simulation.samplers import ActionSampler, action_sampler
from crowdnash.simulation.trajectories import Chunk, Trajectories, in_order
from crowdnash.tuning import tuning

_OWN_POLICY = -1
_MAX_BATCH = 32
_PILOT_TRAJECTORIES = 10_000
_STAGES = 16
_RANGE_TOLERANCE = 1e-5


class TableDeviation(NamedTuple):
    """What one agent learned to do: `actions` [H,S], 0 where its own `visits` [H,S,A] are 0.

    `reward_range` scaled the rewards while it learned.
    """

    actions: Int[np.ndarray, "H S"]
    visits: Int[np.ndarray, "H S A"]
    reward_range: tuple[float, float]


def learn_table(
    game: DynamicGame,
    policy: Policy,
    agent: int,
    *,
    key: PRNGKeyArray,
    learner: OptimisticQLearning,
) -> TableDeviation:
    """Let one agent learn to respond to `policy`, which all others play; only once compiled.

    Raises:
        ValueError: The game does not say `num_states`, its agents observe something else than an
            integer each, or a reward leaves the range that `learner` declares.
        GameError: The game pays a NaN or leaves its declared range, a transition is not a
            distribution, or an observation leaves 0..S-1.
    """
    setting = _Setting.of(game, policy, agent)
    learn_key, pilot_key = jax.random.split(key)
    scale = _reward_scale(setting, learner, pilot_key)
    tables = _learn(setting, learn_key, learner, scale)
    return TableDeviation(
        np.asarray(greedy_actions(tables.values)),
        np.asarray(tables.visits),
        (scale.lowest, scale.highest),
    )


def measure_tables(
    game: DynamicGame,
    policy: Policy,
    agents: Int[np.ndarray, " K"],
    actions: list[Int[np.ndarray, "H S"]],
    *,
    key: PRNGKeyArray,
    num_trajectories: int,
) -> DeviationGains:
    """Play each deviation alone on M trajectories, and nobody's with the same random draws.

    Raises:
        GameError: As `learn_table`.
    """
    size = chunk_size(game.num_agents, num_trajectories)
    chunks = [
        jnp.arange(first, first + size, dtype=jnp.uint32)
        for first in range(0, num_trajectories, size)
    ]

    def returns(setting: _Setting, table: Array) -> Float[np.ndarray, " M"]:
        parts = [setting.rewards(table, key, numbers).sum(1) for numbers in chunks]
        return np.concatenate(parts)[:num_trajectories].astype(np.float64)

    values, gains = [], []
    for agent, table in zip(agents, actions, strict=True):
        setting = _Setting.of(game, policy, int(agent))
        values.append(returns(setting, setting.always(_OWN_POLICY)))
        gains.append(returns(setting, jnp.asarray(table)) - values[-1])
    return DeviationGains(np.stack(values), np.stack(gains))


class Seat(NamedTuple):
    """The deviating agent: its index, and its flat place in the layout. Traced: no recompiling."""

    agent: Int[Array, ""]
    place: Int[Array, ""]


class OneAgentSampler(ActionSampler):
    """`base` for all agents but the one at flat place `place`, who plays `actions` [H,S].

    Where that is negative it follows `base` like the rest. One look-up a trajectory: unlike
    sampling from a table by comparisons, its cost is free of S.
    """

    base: ActionSampler
    place: Int[Array, ""]
    tables: Any

    def __init__(self, base: ActionSampler, actions: Int[Array, "H S"], place: Int[Array, ""]):
        self.base, self.place = base, place
        self.tables = (base.tables, actions)

    def draw(self, table: Any, states: Array, step: Array, numbers: Array) -> Array:
        """See `ActionSampler.draw`."""
        others = self.base.draw(table[0], states, step, numbers)
        own = table[1][states.reshape(states.shape[0], -1)[:, self.place]][:, None, None]
        places = jnp.arange(math.prod(states.shape[1:]), dtype=jnp.int32)
        deviates = (places.reshape(states.shape[1:]) == self.place) & (own >= 0)
        return jnp.where(deviates, own.astype(others.dtype), others)


class _Setting(eqx.Module):
    """The game, how everyone plays it, and who deviates."""

    game: DynamicGame
    sampler: ActionSampler
    layout: AgentLayout
    seat: Seat
    num_states: int = eqx.field(static=True)
    legal: Bool[Array, "H S A"] | None

    @classmethod
    def of(cls, game: DynamicGame, policy: Policy, agent: int) -> "_Setting":
        """All of it for one agent's deviation from `policy`."""
        layout = policy_layout(policy, game.num_agents)
        seat = Seat(jnp.asarray(agent, jnp.int32), layout.place[agent])
        states, legal = states_for_tables(game), None
        if limits_actions(game):
            assert isinstance(game, TabularGame)
            legal = legal_table(game, seat.agent[None])[0]
        return cls(game, action_sampler(policy, layout), layout, seat, states, legal)

    def always(self, action: int) -> Int[Array, "H S"]:
        """One action at every step and state; the agent's own policy where that is illegal."""
        actions = jnp.full((self.game.horizon, self.num_states), action, jnp.int32)
        if self.legal is None or action == _OWN_POLICY:
            return actions
        return jnp.where(self.legal[..., action], actions, _OWN_POLICY)

    def play(
        self, actions: Int[Array, "H S"], key: PRNGKeyArray, numbers: UInt32[Array, " B"]
    ) -> Chunk:
        """Simulate with the agent deviating to `actions`; those < 0 stand for its own policy."""
        sampler = OneAgentSampler(self.sampler, actions, self.seat.place)
        return simulate_chunk(self.game, sampler, self.layout, key, numbers)

    def own(self, chunk: Chunk) -> Episode:
        """The deviating agent's part of a chunk."""
        flat = (*chunk.pairs.shape[:2], -1)
        pairs, rewards = (
            x.reshape(flat)[..., self.seat.place] for x in (chunk.pairs, chunk.rewards)
        )
        index = pairs.astype(jnp.int32).T
        num_actions = self.game.num_actions
        return Episode(index // num_actions, index % num_actions, rewards.T)

    def faulty(self, chunk: Chunk) -> Bool[Array, ""]:
        """Whether anyone's reward is no number, as it is where the game breaks its contract."""
        return (self.layout.valid & ~jnp.isfinite(chunk.rewards)).any()

    def rewards(self, actions: Array, key: PRNGKeyArray, numbers: Array) -> np.ndarray:
        """The agent's rewards [B,H] when it plays `actions`; `GameError` if the game is faulty."""
        rewards, fault = _rewards(self, actions, key, numbers)
        if fault:
            self.explain(actions, key, numbers)
        return np.asarray(rewards)

    def explain(self, actions: Array, key: PRNGKeyArray, numbers: Array) -> None:
        """Raise `GameError` for the fault in this play."""
        chunk = _play(self, actions, key, numbers)
        played = Trajectories(*jax.device_get(in_order(self.game, self.layout, chunk)))
        explain_fault(self.game, played)


@eqx.filter_jit
def _play(setting: _Setting, actions: Array, key: PRNGKeyArray, numbers: Array) -> Chunk:
    return setting.play(actions, key, numbers)


@eqx.filter_jit
def _rewards(
    setting: _Setting, actions: Array, key: PRNGKeyArray, numbers: Array
) -> tuple[Array, Array]:
    chunk = setting.play(actions, key, numbers)
    return setting.own(chunk).rewards, setting.faulty(chunk)


class _Scale(NamedTuple):
    """The range that maps rewards to [0,1], and who declared it ("" if it is an estimate)."""

    lowest: float
    highest: float
    declared_by: str

    @property
    def width(self) -> float:
        """Units of reward; a range of one point counts as 1 wide."""
        return self.highest - self.lowest or 1.0

    def check(self, setting: _Setting, lowest: float, highest: float) -> None:
        """Raise if the agent's observed rewards leave a declared range."""
        slack = _RANGE_TOLERANCE * max(abs(self.lowest), abs(self.highest))
        inside = lowest >= self.lowest - slack and highest <= self.highest + slack
        if inside or not self.declared_by:
            return
        worst = lowest if lowest < self.lowest - slack else highest
        error = GameError if self.declared_by == "the game" else ValueError
        raise error(
            f"{named(setting.game)}: agent {int(setting.seat.agent)} was paid {worst}, outside the "
            f"reward range [{self.lowest}, {self.highest}] declared by {self.declared_by}"
        )


def _reward_scale(setting: _Setting, learner: OptimisticQLearning, key: PRNGKeyArray) -> _Scale:
    game = setting.game
    if learner.reward_range is not None:
        low, high = (float(end) for end in learner.reward_range)
        return _Scale(low, high, "the argument reward_range")
    declared = game.reward_range if isinstance(game, TabularGame) else None
    if declared is not None:
        return _Scale(float(declared[0]), float(declared[1]), "the game")
    numbers = jnp.arange(chunk_size(game.num_agents, _PILOT_TRAJECTORIES), dtype=jnp.uint32)
    # The agent's own policy may leave actions untried: let it also play each of them throughout.
    paid = [
        setting.rewards(setting.always(action), key, numbers)
        for action in (_OWN_POLICY, *range(game.num_actions))
    ]
    return _Scale(float(min(x.min() for x in paid)), float(max(x.max() for x in paid)), "")


class _Progress(eqx.Module):
    """Learning so far: the tables, the next round, and the rewards met in the rounds done."""

    tables: QTables
    round: Int[Array, ""]
    fault: Bool[Array, ""]
    lowest: Float[Array, ""]
    highest: Float[Array, ""]


def _learn(
    setting: _Setting, key: PRNGKeyArray, learner: OptimisticQLearning, scale: _Scale
) -> QTables:
    game, num_episodes = setting.game, learner.num_episodes
    size = learner.batch_size or max(1, min(_MAX_BATCH, tuning().lanes // game.num_agents))
    size = min(size, num_episodes)
    shape = (game.horizon, setting.num_states, game.num_actions)
    factor = bonus_factor(learner.bonus_scale, *shape, num_episodes)
    numbers = jnp.asarray([factor, scale.lowest, scale.width], jnp.float32)
    offsets = jnp.arange(size, dtype=jnp.uint32)
    tables, rounds = QTables.start(*shape, setting.legal), -(-num_episodes // size)
    at_once = max(1, rounds // _STAGES)
    for first in range(0, rounds, at_once):
        # As an array: Python integers would be compiled in.
        limits = jnp.asarray([first, min(first + at_once, rounds), num_episodes], jnp.int32)
        progress = _rounds(setting, tables, limits, key, offsets, numbers)
        if progress.fault:
            episodes = offsets + progress.round.astype(jnp.uint32) * jnp.uint32(size)
            setting.explain(actions_to_try(progress.tables), key, episodes)
        scale.check(setting, float(progress.lowest), float(progress.highest))
        tables = progress.tables
    return tables


@eqx.filter_jit
def _rounds(
    setting: _Setting,
    tables: QTables,
    limits: Int[Array, " 3"],
    key: PRNGKeyArray,
    offsets: UInt32[Array, " B"],
    numbers: Float[Array, " 3"],
) -> _Progress:
    """Rounds first..last-1; stops before learning from a faulty one."""
    first, last, num_episodes = limits
    factor, lowest, width = numbers
    size = offsets.shape[0]

    def go_on(now: _Progress) -> Array:
        return (now.round < last) & ~now.fault

    def one_round(now: _Progress) -> _Progress:
        episodes = offsets + now.round.astype(jnp.uint32) * jnp.uint32(size)
        chunk = setting.play(actions_to_try(now.tables), key, episodes)
        own, fault = setting.own(chunk), setting.faulty(chunk)
        active = (episodes < num_episodes) & ~fault
        scaled = own._replace(rewards=(own.rewards - lowest) / width)

        def learn(tables: QTables, episode: tuple) -> tuple[QTables, None]:
            data, on = episode
            after = q_update(tables, data, factor)
            return jax.tree.map(lambda new, old: jnp.where(on, new, old), after, tables), None

        learned, _ = jax.lax.scan(learn, now.tables, (scaled, active))
        counted = active[:, None]
        return _Progress(
            learned,
            now.round + jnp.where(fault, 0, 1),
            fault,
            jnp.minimum(now.lowest, jnp.where(counted, own.rewards, jnp.inf).min()),
            jnp.maximum(now.highest, jnp.where(counted, own.rewards, -jnp.inf).max()),
        )

    start = _Progress(
        tables,
        first,
        jnp.asarray(False),
        jnp.full((), jnp.inf, jnp.float32),
        jnp.full((), -jnp.inf, jnp.float32),
    )
    return jax.lax.while_loop(go_on, one_round, start)
