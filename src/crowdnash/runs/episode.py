"""Plays of a game that is only a simulator: what agents earn, and one episode for pictures.

Axes: M plays, H steps, N agents.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from crowdnash.files import read_arrays, write_arrays
from crowdnash.games.base import DynamicGame, GameError
from crowdnash.games.checks import named
from crowdnash.policies.base import Policy
from crowdnash.runs.directory import RunDirectory
from crowdnash.simulation.neural import actions_of_all


@dataclass(frozen=True)
class Episode:
    """One episode of a policy: `statistics` [H] and `snapshots` [H,...] by name."""

    statistics: Mapping[str, Float[np.ndarray, " H"]]
    snapshots: Mapping[str, np.ndarray]

    def save(self, directory: RunDirectory) -> None:
        """Write it into the run."""
        arrays = {f"statistic {name}": x for name, x in self.statistics.items()}
        arrays |= {f"snapshot {name}": x for name, x in self.snapshots.items()}
        write_arrays(directory.episode, {name: np.asarray(x) for name, x in arrays.items()})

    @classmethod
    def load(cls, directory: RunDirectory) -> Episode:
        """Read what `save` wrote.

        Raises:
            ValueError: the file is missing or damaged.
        """
        arrays = read_arrays(directory.episode)

        def called(kind: str) -> dict[str, np.ndarray]:
            return {n.removeprefix(kind): x for n, x in arrays.items() if n.startswith(kind)}

        return cls(called("statistic "), called("snapshot "))


class Plays(NamedTuple):
    """Of M plays of all agents: mean returns [M], the game's figures, the first play, the pace.

    `statistics` are means over steps and plays; `seconds` is the time of an agent-step, without
    the first play, which compiles.
    """

    returns: Float[np.ndarray, " M"]
    statistics: dict[str, float]
    episode: Episode
    seconds: float


def play_episodes(game: DynamicGame, policy: Policy, key: PRNGKeyArray, num_plays: int) -> Plays:
    """Let all agents play the policy.

    Raises:
        GameError: the game pays something that is not a finite number.
    """
    played, began = [], 0.0
    for one in jax.random.split(key, num_plays):
        played.append(jax.device_get(_episode(game, policy, one)))
        _refuse_bad_reward(game, played[-1][1])
        began = began or time.perf_counter()
    seconds = time.perf_counter() - began
    _, _, statistics, snapshots = played[0]
    return Plays(
        returns=np.asarray([one[0] for one in played], np.float64),
        statistics={name: float(np.mean([one[2][name] for one in played])) for name in statistics},
        episode=Episode(statistics, snapshots),
        seconds=seconds / (game.num_agents * game.horizon * max(num_plays - 1, 1)),
    )


@eqx.filter_jit
def _episode(
    game: DynamicGame, policy: Policy, key: PRNGKeyArray
) -> tuple[Float[Array, ""], Bool[Array, "H N"], dict[str, Array], dict[str, Array]]:
    """One play of all agents: mean return, whose reward was no finite number, and what was seen.

    Statistics and snapshots are of every step.
    """
    reset_key, draw_key, step_key = jax.random.split(key, 3)

    def advance(state: Any, step: Array) -> tuple[Any, tuple]:
        seen = jax.tree.map(lambda x: x[None], game.observe(state))
        numbers = jax.random.uniform(jax.random.fold_in(draw_key, step), (1, game.num_agents))
        figures = (game.statistics(state), game.snapshot(state))
        action = actions_of_all(policy, seen, step, numbers)[0]
        state, reward = game.step(state, action, jax.random.fold_in(step_key, step))
        return state, (reward.mean(), ~jnp.isfinite(reward), *figures)

    steps = jnp.arange(game.horizon, dtype=jnp.int32)
    _, (reward, *seen) = jax.lax.scan(advance, game.reset(reset_key), steps)
    return reward.sum(), *seen


def _refuse_bad_reward(game: DynamicGame, unpaid: Bool[np.ndarray, "H N"]) -> None:
    if unpaid.any():
        step, agent = (int(k) for k in np.argwhere(unpaid)[0])
        raise GameError(
            f"{named(game)}: agent {agent} at step {step}: reward must be a finite number"
        )
