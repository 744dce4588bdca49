"""A single agent's best response against frozen others, learned from nothing but simulated play.

For a game that is only a simulator the certificate cannot be computed: nobody knows the laws. What
can be done is what the paper did with a UCB-type learner: let one agent deviate, learn, freeze
what it learned, and play it. Its gain is a lower bound on E^i (Def. 2), with a confidence
interval; no upper bound comes out of samples alone.

The learner is optimistic Q-learning (see `optimistic_q_learning`); the others play on as before and
feel what the agent does.

The others' states are hidden from the agent, so that its problem is a Markov decision process
only in the limit of many agents. For a few agents the learned policy may fall short of the best
memoryless one; its measured gain is a valid lower bound nonetheless.

Axes: N agents, H steps, S states, A actions, K learning episodes, B episodes of one round.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt32

from crowdnash.certificates.q_learning import (
    Episode,
    QTables,
    actions_to_try,
    bonus_factor,
    greedy_actions,
    q_update,
)
from crowdnash.games.base import DynamicGame, GameError, TabularGame
from crowdnash.games.checks import named, states_for_tables
from crowdnash.interval import Interval
from crowdnash.policies.tabular import Policy, check_policy
from crowdnash.simulation.faults import explain_fault
from crowdnash.simulation.layout import AgentLayout
from crowdnash.simulation.rollouts import MAX_LANES, chunk_size, policy_layout, simulate_chunk
from crowdnash.simulation.samplers import ActionSampler, action_sampler
from crowdnash.simulation.trajectories import Chunk, Trajectories, in_order

_OWN_POLICY = -1
_MAX_BATCH = 32
_CURVE_POINTS = 64
_RANGE_TOLERANCE = 1e-5


@dataclass(frozen=True)
class LearningCurve:
    """Mean total reward of the learning agent between two points of its learning, [C].

    `num_episodes` counts the episodes up to and including each point's; `mean_return` is in the
    game's units. Exploring costs return: the curve ends below `BestResponse.best_response_value`.
    """

    num_episodes: Int[np.ndarray, " C"]
    mean_return: Float[np.ndarray, " C"]


@dataclass(frozen=True)
class BestResponse:
    """What one agent gains with the policy it learned, in units of total reward (Def. 2).

    `policy` [H,S,A] is deterministic (one action of probability 1; action 0 where `visits`
    [H,S,A], the learner's own visits, are all 0). It gains `gain` over the agent's own `value`,
    with `standard_error`; `interval` covers its true gain at `confidence`, so that
    `interval.lower` is a lower confidence bound on the agent's exploitability. There is no upper
    bound. `gain` may be negative, the exploitability may not: then nothing better was found.

    `reward_range` is the range that scaled the rewards while learning.
    """

    agent: int
    policy: Float[np.ndarray, "H S A"]
    gain: float
    standard_error: float
    interval: Interval
    confidence: float
    value: float
    num_episodes: int
    num_evaluation_episodes: int
    learning_curve: LearningCurve
    visits: Int[np.ndarray, "H S A"]
    reward_range: tuple[float, float]

    @property
    def best_response_value(self) -> float:
        """Total reward of the learned policy."""
        return self.value + self.gain


def model_free_best_response(
    game: DynamicGame,
    policy: Policy,
    *,
    agent: int,
    key: PRNGKeyArray,
    num_episodes: int = 20_000,
    num_evaluation_episodes: int = 10_000,
    bonus_scale: float = 0.01,
    reward_range: tuple[float, float] | None = None,
    batch_size: int | None = None,
    confidence: float = 0.95,
) -> BestResponse:
    """Learn how `agent` best responds to `policy` from simulation alone, and measure its gain.

    The others play `policy` throughout; they feel what the agent does. The learned policy and
    the agent's own are judged on fresh trajectories and the same random draws. What it gains is a
    lower bound on Def. 2's exploitability.

    **Arguments:**

    - `game` any game with `num_states` whose agents observe integers in 0..S-1;
    - `agent` index in 0..N-1;
    - `num_episodes` K >= 1 to learn from, `num_evaluation_episodes` >= 2 to judge on (each is
      simulated twice, with and without the deviation);
    - `bonus_scale` c >= 0 of the exploration bonus. Theory wants a constant above 1, for which
      the bonus exceeds every value until millions of visits; in practice 0.01 explores enough
      (0.003 to 0.03 do about as well). Larger is slower and surer; 0 leaves exploration to the
      optimistic start alone;
    - `reward_range` (lowest, highest) reward of one step. Default: the game's own declaration,
      else the agent's range in a short pilot run (a reward outside that estimate is no error);
    - `batch_size` B episodes of a round; default at most 32, fewer for large N;
    - `confidence` in (0,1) of the interval.

    **Raises:** `ValueError` if an argument is out of range, the policy does not fit the game, the
    game does not say `num_states` or shows its agents something else than an integer each, or a
    reward leaves the declared range; `GameError` if the game pays a NaN, a transition is not a
    distribution, or an observation leaves 0..S-1.
    """
    num_states = _check_game(game, policy)
    _check_numbers(game, agent, num_episodes, num_evaluation_episodes, bonus_scale, confidence)
    size = _batch_size(game, batch_size, num_episodes)
    layout = policy_layout(policy, game.num_agents)
    place = Seat(jnp.asarray(agent, jnp.int32), layout.place[agent])
    setting = _Setting(game, action_sampler(policy, layout), layout, place, num_states)
    learning, evaluation, pilot = jax.random.split(key, 3)
    pilot_numbers = jnp.arange(
        chunk_size(game.num_agents, num_evaluation_episodes), dtype=jnp.uint32
    )
    rewards = _reward_range(setting, reward_range, pilot, pilot_numbers)
    tables, curve = _learn(setting, learning, num_episodes, size, bonus_scale, rewards)
    actions = greedy_actions(tables.values)
    value, gains = _paired_gains(setting, actions, evaluation, num_evaluation_episodes, rewards)
    gain, error = float(gains.mean()), float(gains.std(ddof=1) / math.sqrt(len(gains)))
    wide = float(scipy.stats.t.ppf((1 + confidence) / 2, len(gains) - 1)) * error
    return BestResponse(
        agent=int(agent),
        policy=np.asarray(jax.nn.one_hot(actions, game.num_actions)),
        gain=gain,
        standard_error=error,
        interval=Interval(gain - wide, gain + wide),
        confidence=confidence,
        value=value,
        num_episodes=num_episodes,
        num_evaluation_episodes=num_evaluation_episodes,
        learning_curve=curve,
        visits=np.asarray(tables.visits),
        reward_range=(rewards.lowest, rewards.highest),
    )


def model_free_best_responses(
    game: DynamicGame, policy: Policy, *, agents: Sequence[int], key: PRNGKeyArray, **options: Any
) -> tuple[BestResponse, ...]:
    """`model_free_best_response` for several agents in turn; only the first call compiles.

    Lower bounds on Def. 2's exploitability; each is the one that the agent gets alone with the
    same `key`. Every interval covers at its `confidence` on its own: for n agents jointly ask for
    `1 - (1 - confidence) / n`.

    **Raises:** as `model_free_best_response`; `ValueError` if `agents` is empty.
    """
    if len(agents) == 0:
        raise ValueError(f"agents must name at least one agent: {agents!r}")
    return tuple(
        model_free_best_response(game, policy, agent=agent, key=key, **options) for agent in agents
    )


# --- playing ------------------------------------------------------------------------------------


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

    def always(self, action: int) -> Int[Array, "H S"]:
        """One action at every step and state."""
        return jnp.full((self.game.horizon, self.num_states), action, jnp.int32)

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

    def explain(self, actions: Array, key: PRNGKeyArray, numbers: Array) -> None:
        """Raise `GameError` for the fault in this play."""
        chunk = _play(self, actions, key, numbers)
        played = Trajectories(*jax.device_get(in_order(self.game, self.layout, chunk)))
        explain_fault(self.game, played)


@eqx.filter_jit
def _play(setting: _Setting, actions: Array, key: PRNGKeyArray, numbers: Array) -> Chunk:
    return setting.play(actions, key, numbers)


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
        game = setting.game
        worst = lowest if lowest < self.lowest - slack else highest
        error = GameError if self.declared_by == "the game" else ValueError
        raise error(
            f"{named(game)}: agent {int(setting.seat.agent)} was paid "
            f"{worst}, outside the reward range [{self.lowest}, {self.highest}] declared by "
            f"{self.declared_by}"
        )


# --- the stages ---------------------------------------------------------------------------------


def _reward_range(
    setting: _Setting,
    given: tuple[float, float] | None,
    key: PRNGKeyArray,
    numbers: UInt32[Array, " B"],
) -> _Scale:
    if given is not None:
        ends = np.asarray(given, np.float64)
        if ends.shape != (2,) or not np.isfinite(ends).all() or not ends[0] < ends[1]:
            raise ValueError(f"reward_range must be (lowest, highest), lowest < highest: {given!r}")
        lowest, highest = ends.tolist()
        return _Scale(lowest, highest, "the argument reward_range")
    declared = setting.game.reward_range if isinstance(setting.game, TabularGame) else None
    if declared is not None:
        return _Scale(float(declared[0]), float(declared[1]), "the game")
    lows, highs = [], []
    # The agent's own policy may leave actions untried: let it also play each of them throughout.
    for action in (_OWN_POLICY, *range(setting.game.num_actions)):
        actions = setting.always(action)
        fault, _, least, most = _returns(setting, actions, key, numbers)
        if fault:
            setting.explain(actions, key, numbers)
        lows.append(float(least))
        highs.append(float(most))
    return _Scale(min(lows), max(highs), "")


class _Progress(eqx.Module):
    """Learning so far: the tables, the next round, and what to report of the rounds done."""

    tables: QTables
    round: Int[Array, ""]
    fault: Bool[Array, ""]
    returns: Float[Array, ""]
    lowest: Float[Array, ""]
    highest: Float[Array, ""]


def _learn(
    setting: _Setting,
    key: PRNGKeyArray,
    num_episodes: int,
    size: int,
    bonus_scale: float,
    scale: _Scale,
) -> tuple[QTables, LearningCurve]:
    game = setting.game
    rounds = -(-num_episodes // size)
    ends = np.unique(np.linspace(0, rounds, min(rounds, _CURVE_POINTS) + 1).round().astype(int))[1:]
    shape = (game.horizon, setting.num_states, game.num_actions)
    factor = bonus_factor(bonus_scale, *shape, num_episodes)
    options = [jnp.asarray(x, jnp.float32) for x in (factor, scale.lowest, scale.width)]
    offsets = jnp.arange(size, dtype=jnp.uint32)
    tables, done, means = QTables.start(*shape), 0, []
    for end in ends:
        # As arrays: Python integers would be compiled in.
        limits = [jnp.asarray(x, jnp.int32) for x in (done, end, num_episodes)]
        progress = _rounds(setting, tables, *limits, key, offsets, *options)
        if progress.fault:
            numbers = offsets + progress.round.astype(jnp.uint32) * jnp.uint32(size)
            setting.explain(actions_to_try(progress.tables), key, numbers)
        scale.check(setting, float(progress.lowest), float(progress.highest))
        played = min(int(end) * size, num_episodes) - done * size
        means.append(float(progress.returns) / played)
        tables, done = progress.tables, int(end)
    return tables, LearningCurve(np.minimum(ends * size, num_episodes), np.asarray(means))


@eqx.filter_jit
def _rounds(
    setting: _Setting,
    tables: QTables,
    first: Int[Array, ""],
    last: Int[Array, ""],
    num_episodes: Int[Array, ""],
    key: PRNGKeyArray,
    offsets: UInt32[Array, " B"],
    factor: Array,
    lowest: Array,
    width: Array,
) -> _Progress:
    """Rounds first..last-1; stops before learning from a faulty one."""
    size = offsets.shape[0]

    def go_on(now: _Progress) -> Array:
        return (now.round < last) & ~now.fault

    def one_round(now: _Progress) -> _Progress:
        numbers = offsets + now.round.astype(jnp.uint32) * jnp.uint32(size)
        chunk = setting.play(actions_to_try(now.tables), key, numbers)
        own, fault = setting.own(chunk), setting.faulty(chunk)
        active = (numbers < num_episodes) & ~fault
        scaled = own._replace(rewards=(own.rewards - lowest) / width)

        def learn(tables: QTables, episode: tuple) -> tuple[QTables, None]:
            data, on = episode
            learned = q_update(tables, data, factor)
            keep = lambda new, old: jnp.where(on, new, old)  # noqa: E731
            return jax.tree_util.tree_map(keep, learned, tables), None

        learned, _ = jax.lax.scan(learn, now.tables, (scaled, active))
        counted = active[:, None]
        return _Progress(
            learned,
            now.round + jnp.where(fault, 0, 1),
            fault,
            now.returns + jnp.where(counted, own.rewards, 0).sum(),
            jnp.minimum(now.lowest, jnp.where(counted, own.rewards, jnp.inf).min()),
            jnp.maximum(now.highest, jnp.where(counted, own.rewards, -jnp.inf).max()),
        )

    start = _Progress(
        tables,
        first,
        jnp.asarray(False),
        jnp.zeros((), jnp.float32),
        jnp.full((), jnp.inf, jnp.float32),
        jnp.full((), -jnp.inf, jnp.float32),
    )
    return jax.lax.while_loop(go_on, one_round, start)


@eqx.filter_jit
def _returns(
    setting: _Setting, actions: Array, key: PRNGKeyArray, numbers: Array
) -> tuple[Array, Array, Array, Array]:
    """Fault, the agent's returns [B], and its lowest and highest reward."""
    chunk = setting.play(actions, key, numbers)
    rewards = setting.own(chunk).rewards
    return setting.faulty(chunk), rewards.sum(1), rewards.min(), rewards.max()


def _paired_gains(
    setting: _Setting, actions: Array, key: PRNGKeyArray, num_episodes: int, scale: _Scale
) -> tuple[float, np.ndarray]:
    """The agent's own mean return, and per trajectory what deviating gains on equal draws."""
    size = chunk_size(setting.game.num_agents, num_episodes)
    own_policy = setting.always(_OWN_POLICY)
    parts: list[list[np.ndarray]] = [[], []]
    for first in range(0, num_episodes, size):
        numbers = jnp.arange(first, first + size, dtype=jnp.uint32)
        for chosen, part in zip((own_policy, actions), parts, strict=True):
            fault, returns, lowest, highest = _returns(setting, chosen, key, numbers)
            if fault:
                setting.explain(chosen, key, numbers)
            scale.check(setting, float(lowest), float(highest))
            part.append(np.asarray(returns, np.float64))
    stays, leaves = (np.concatenate(x)[:num_episodes] for x in parts)
    return float(stays.mean()), leaves - stays


# --- arguments ----------------------------------------------------------------------------------


def _check_game(game: DynamicGame, policy: Policy) -> int:
    """Raise `ValueError` unless the policy fits the game; return S."""
    if not isinstance(game, DynamicGame):
        raise ValueError(f"game must be a DynamicGame, not {type(game).__name__}")
    num_states = states_for_tables(game)
    check_policy(game, policy)
    return num_states


def _check_numbers(
    game: DynamicGame,
    agent: Any,
    num_episodes: int,
    num_evaluation_episodes: int,
    bonus_scale: float,
    confidence: float,
) -> None:
    if isinstance(agent, bool) or not isinstance(agent, int | np.integer):
        raise ValueError(f"agent must be an integer, not {agent!r}")
    if not 0 <= agent < game.num_agents:
        raise ValueError(f"agent must lie in 0..{game.num_agents - 1}, not {agent}")
    if num_episodes < 1:
        raise ValueError(f"num_episodes must be at least 1, not {num_episodes}")
    if num_evaluation_episodes < 2:
        raise ValueError(
            f"num_evaluation_episodes must be at least 2, not {num_evaluation_episodes}"
        )
    if not (bonus_scale >= 0 and math.isfinite(bonus_scale)):
        raise ValueError(f"bonus_scale must be a finite number >= 0, not {bonus_scale}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), not {confidence}")


def _batch_size(game: DynamicGame, given: int | None, num_episodes: int) -> int:
    if given is not None and given < 1:
        raise ValueError(f"batch_size must be at least 1, not {given}")
    size = given or max(1, min(_MAX_BATCH, MAX_LANES // game.num_agents))
    return min(size, num_episodes)
