"""Play of simulators outside JAX: episodes side by side, one call of the policy a step.

The actions of all agents in all episodes are drawn together, from a NumPy table or by one compiled
call; simulators play in lanes (`simulators.lanes`). Trajectory m has the same seed and the same
random numbers however many are played, and side by side with whichever others.

Illegal actions are never played: a policy's probabilities are those that it gives to the legal
actions, divided by their sum (uniform over them where that is 0).

Axes: M trajectories, B lanes, H steps, N agents, A actions.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from crowdnash.games.base import is_distribution
from crowdnash.policies.base import Policy, row_error
from crowdnash.policies.drawing import draw_legal
from crowdnash.policies.features import table_rows
from crowdnash.simulation.neural import probabilities_of_all
from crowdnash.simulation.trajectories import MaskedTrajectories
from crowdnash.simulators.contract import SimulatorError, rebuilt
from crowdnash.simulators.game import OutsideGame
from crowdnash.simulators.lanes import Arrays, Lanes


class Situation(NamedTuple):
    """What a player is asked about: one step of B episodes.

    Attributes:
        observations: arrays [B,N,...]; 0 of those who are out.
        step: h.
        numbers: uniform random numbers in [0,1), to decide by.
        alive: who acts; actions of others are not looked at.
        legal: which actions there are; None where the simulator limits none.
    """

    observations: PyTree
    step: int
    numbers: Float[np.ndarray, "B N"]
    alive: Bool[np.ndarray, "B N"]
    legal: Bool[np.ndarray, "B N A"] | None


Player = Callable[[Situation], Int[np.ndarray, "B N"]]
"""Decides all agents' actions."""


class Episode(NamedTuple):
    """What happened at one step of a block of episodes, handed to `on_step`.

    `rows` are the trajectories' numbers [b], the first b lanes; arrays are [b,N,...] and are
    overwritten at the next step. `observations` and `legal` are what the agents acted on.
    """

    rows: slice
    step: int
    observations: PyTree
    actions: Int[np.ndarray, "b N"]
    rewards: Float[np.ndarray, "b N"]
    alive: Bool[np.ndarray, "b N"]
    legal: Bool[np.ndarray, "b N A"] | None


def policy_player(policy: Policy) -> Player:
    """All agents play `policy`.

    Raises:
        ValueError: when it is asked, and gives no distribution; the message names agent and step.
    """
    probabilities = policy_rows(policy)

    def choose(situation: Situation) -> np.ndarray:
        probs = probabilities(situation)
        return draw_legal(probs, situation.numbers, situation.legal)

    return choose


def policy_rows(policy: Policy) -> Callable[[Situation], Float[np.ndarray, "B N A"]]:
    """All agents' action probabilities: look-ups of a table, one compiled call of anything else."""
    rows = table_rows(policy)
    if rows is not None:

        def look_up(situation: Situation) -> np.ndarray:
            (states,) = jax.tree.leaves(situation.observations)
            return rows(states, situation.step)

        return look_up

    def ask(situation: Situation) -> np.ndarray:
        step = jnp.asarray(situation.step, jnp.int32)
        probs = np.asarray(_probabilities(policy, situation.observations, step))
        wrong = ~is_distribution(probs) & situation.alive
        if wrong.any():
            row, agent = (int(k) for k in np.argwhere(wrong)[0])
            raise row_error(probs[row, agent], agent, situation.step)
        return probs

    return ask


@eqx.filter_jit
def _probabilities(policy: Policy, observations: PyTree, step: Array) -> Array:
    return probabilities_of_all(policy, observations, step)


def play_outside(
    game: OutsideGame,
    player: Player,
    key: PRNGKeyArray,
    num_trajectories: int,
    on_step: Callable[[Episode], Any],
    on_end: Callable[[slice, PyTree], Any] | None = None,
) -> None:
    """Play episodes 0..M-1, in blocks of as many lanes as there are.

    Args:
        game: the simulator.
        player: decides the actions.
        key: decides every draw.
        num_trajectories: M.
        on_step: is handed what happened, after every step of every block.
        on_end: is handed a block's trajectories and what agents observe after the last step.

    Raises:
        SimulatorError: the simulator breaks its contract; names agent, step and seed.
        ValueError: as the player.
    """
    lanes = game.source.lanes(game.form, num_trajectories)
    with lanes.playing():
        for first in range(0, num_trajectories, lanes.count):
            rows = slice(first, min(first + lanes.count, num_trajectories))
            _play_block(game, lanes, player, key, rows, on_step, on_end)


def _play_block(
    game: OutsideGame,
    lanes: Lanes,
    player: Player,
    key: PRNGKeyArray,
    rows: slice,
    on_step: Callable[[Episode], Any],
    on_end: Callable[[slice, PyTree], Any] | None,
) -> None:
    """Play the episodes `rows` side by side, in the first lanes."""
    arrays, limited = lanes.arrays, game.form.limited
    count, size = rows.stop - rows.start, (game.horizon, game.num_agents)
    seeds, numbers = [], np.zeros((lanes.count, *size), np.float32)
    for lane, number in enumerate(range(rows.start, rows.stop)):
        seed, generator = episode_randomness(key, number)
        seeds.append(seed)
        numbers[lane] = generator.random(size, np.float32)
    lanes.begin(seeds)
    arrays.alive[count:], arrays.rewards[:] = False, 0
    _check(game, arrays, np.zeros((lanes.count, game.num_agents), bool), seeds, 0)
    for step in range(game.horizon):
        seen = tuple(x.copy() for x in arrays.observations)
        alive, legal = arrays.alive.copy(), arrays.legal.copy() if limited else None
        if not alive.all():  # what those who are out observe may be anything
            for array in seen:
                array[~alive] = 0
        arrays.rewards[:] = 0
        active = np.flatnonzero(alive.any(1))
        if active.size:
            observations = rebuilt(game.form.structure, list(seen))
            actions = player(Situation(observations, step, numbers[:, step], alive, legal))
            arrays.actions[:] = np.where(alive, actions, 0)
            lanes.advance(active.tolist())
            _check(game, arrays, alive, seeds, step + 1)
        on_step(
            Episode(
                rows,
                step,
                rebuilt(game.form.structure, [x[:count] for x in seen]),
                np.where(alive, arrays.actions, 0)[:count],
                arrays.rewards[:count],
                alive[:count],
                None if legal is None else legal[:count],
            )
        )
    if on_end is not None:
        end = [x[:count].copy() for x in arrays.observations]
        on_end(rows, rebuilt(game.form.structure, end))


def episode_randomness(key: PRNGKeyArray, number: int) -> tuple[int, np.random.Generator]:
    """The seed of episode `number`, below 2^31, and the generator of its agents' draws."""
    words = np.asarray(jax.random.key_data(key)).ravel()
    sequence = np.random.SeedSequence([*(int(word) for word in words), number])
    seed, draws = sequence.spawn(2)
    return int(seed.generate_state(1)[0] >> 1), np.random.default_rng(draws)


def _check(
    game: OutsideGame, arrays: Arrays, acted: np.ndarray, seeds: list[int], steps_done: int
) -> None:
    """Raise `SimulatorError` unless rewards, observations and legal actions are right."""

    def fail(wrong: np.ndarray, rule: str, step: int, value: np.ndarray = arrays.rewards) -> None:
        row, agent = (int(k) for k in np.argwhere(wrong)[0])
        raise SimulatorError(
            f"{game.name}: agent {agent} at step {step} of the episode with seed {seeds[row]}: "
            + rule.format(value[row, agent])
        )

    if (wrong := acted & ~np.isfinite(arrays.rewards)).any():
        fail(wrong, "reward must be a finite number, not {}", steps_done - 1)
    if (wrong := ~acted & (arrays.rewards != 0)).any():
        fail(wrong, "the reward of an agent that is out must be 0, not {}", steps_done - 1)
    alive = arrays.alive
    if game.num_states is not None:
        (states,) = arrays.observations
        if (wrong := alive & ((states < 0) | (states >= game.num_states))).any():
            rule = f"observes {{}}: must lie in 0..{game.num_states - 1}"
            fail(wrong, rule, max(steps_done - 1, 0), states)  # the step that returned them
    for array in arrays.observations:
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            wrong = ~np.isfinite(array).reshape(*alive.shape, -1).all(-1) & alive
            if wrong.any():
                fail(wrong, "observation must be finite numbers", steps_done)
    if game.form.limited and (wrong := alive & ~arrays.legal.any(-1)).any():
        fail(wrong, "an agent that is alive must have a legal action", steps_done)


class Recorder:
    """Keeps what happened, arrays [M,H,N,...], for `play_outside`'s `on_step`."""

    def __init__(self, game: OutsideGame, num_trajectories: int) -> None:
        shape = (num_trajectories, game.horizon, game.num_agents)
        self.observations = [
            np.zeros((*shape, *own), dtype)
            for own, dtype in zip(game.form.shapes, game.form.dtypes, strict=True)
        ]
        self.actions, self.rewards = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
        self.alive = np.zeros(shape, bool)
        self.legal = None
        if game.form.limited:
            self.legal = np.ones((*shape, game.num_actions), bool)
        self._structure = game.form.structure

    def __call__(self, episode: Episode) -> None:
        """Keep one step."""
        rows, step = episode.rows, episode.step
        leaves = jax.tree.leaves(episode.observations)
        for kept, seen in zip(self.observations, leaves, strict=True):
            kept[rows, step] = seen
        self.actions[rows, step], self.rewards[rows, step] = episode.actions, episode.rewards
        self.alive[rows, step] = episode.alive
        if self.legal is not None:
            self.legal[rows, step] = episode.legal

    def trajectories(self) -> MaskedTrajectories:
        """All of it."""
        states = rebuilt(self._structure, self.observations)
        return MaskedTrajectories(states, self.actions, self.rewards, self.alive, self.legal)


def simulate_outside(
    game: OutsideGame, policy: Policy, key: PRNGKeyArray, num_trajectories: int
) -> MaskedTrajectories:
    """`simulate` for a simulator outside JAX.

    Raises:
        SimulatorError: the simulator breaks its contract.
        ValueError: the policy gives no distribution.
    """
    recorder = Recorder(game, num_trajectories)
    play_outside(game, policy_player(policy), key, num_trajectories, recorder)
    return recorder.trajectories()
