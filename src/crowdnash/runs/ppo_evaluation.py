"""How a neural policy does when all agents play it, as a run keeps it.

Axes: M trajectories, H steps, N agents, n agents examined.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from crowdnash.certificates.certificate import exploitability
from crowdnash.certificates.ppo_deviations import best_response_learner, evenly_spread
from crowdnash.files import read_arrays, read_json, write_arrays, write_json
from crowdnash.games.base import DynamicGame, GameError
from crowdnash.games.checks import named
from crowdnash.interval import Interval
from crowdnash.policies.neural import NeuralPolicy
from crowdnash.runs.directory import RunDirectory
from crowdnash.runs.ppo_config import PPOConfig
from crowdnash.simulation.neural import actions_of_all

_FORMAT = 1


@dataclass(frozen=True)
class ExploitabilityFromBelow:
    """What some agents were seen to gain by deviating alone, in units of total reward (Def. 2).

    Attributes:
        agents: the agents examined, [n].
        gain: of each one's learned deviation, [n].
        standard_error: of `gain`, [n].
        value: total reward of each under the policy, [n].
        maximum: the largest exploitability of any agent is at least this, at `confidence`.
        mean: the same for the mean over the agents examined.
    """

    agents: Int[np.ndarray, " n"]
    gain: Float[np.ndarray, " n"]
    standard_error: Float[np.ndarray, " n"]
    value: Float[np.ndarray, " n"]
    maximum: float
    mean: float


@dataclass(frozen=True)
class PPOEvaluation:
    """The evaluation of a run's final policy, as saved in its directory.

    Attributes:
        game: name of the game.
        num_agents: N.
        horizon: H, steps.
        epoch: number of epochs behind the policy.
        num_trajectories: M, plays of all agents.
        confidence: coverage of intervals.
        mean_return: interval for the mean over agents of the total reward.
        statistics: the game's own figures, means over steps and trajectories.
        exploitability: what deviations gain, or None where that was not measured.
        seconds: time the evaluation took.
    """

    game: str
    num_agents: int
    horizon: int
    epoch: int
    num_trajectories: int
    confidence: float
    mean_return: Interval
    statistics: Mapping[str, float]
    exploitability: ExploitabilityFromBelow | None
    seconds: float

    def summary(self) -> dict[str, Any]:
        """Return the numbers, ready for JSON."""
        found = self.exploitability
        below = found and {
            "agents": found.agents.tolist(),
            "gain": found.gain.tolist(),
            "standard_error": found.standard_error.tolist(),
            "value": found.value.tolist(),
            "maximum": found.maximum,
            "mean": found.mean,
        }
        return {
            "format": _FORMAT,
            "learner": PPOConfig.learner_name,
            "game": self.game,
            "num_agents": self.num_agents,
            "horizon": self.horizon,
            "epoch": self.epoch,
            "num_trajectories": self.num_trajectories,
            "confidence": self.confidence,
            "mean_return": list(self.mean_return),
            "statistics": dict(self.statistics),
            "exploitability_from_below": below,
            "seconds": self.seconds,
        }

    def save(self, directory: RunDirectory) -> None:
        """Write it into the run."""
        write_json(directory.evaluation, self.summary())

    @classmethod
    def load(cls, directory: RunDirectory) -> PPOEvaluation:
        """Read what `save` wrote.

        Raises:
            ValueError: the file is missing or damaged; the message names it.
        """
        stored = read_json(directory.evaluation)
        try:
            if stored.pop("format") != _FORMAT or stored.pop("learner") != PPOConfig.learner_name:
                raise ValueError("it has another format")
            below = stored.pop("exploitability_from_below")
            if below is not None:
                arrays = ("gain", "standard_error", "value")
                below = ExploitabilityFromBelow(
                    agents=np.asarray(below["agents"], np.int64),
                    **{name: np.asarray(below[name], np.float64) for name in arrays},
                    maximum=float(below["maximum"]),
                    mean=float(below["mean"]),
                )
            stored["mean_return"] = Interval(*stored["mean_return"])
            return cls(exploitability=below, **stored)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{directory.evaluation} is damaged: {error}") from None


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


def evaluate_neural_policy(
    game: DynamicGame, policy: NeuralPolicy, config: PPOConfig, epoch: int, key: PRNGKeyArray
) -> tuple[PPOEvaluation, Episode]:
    """Play the policy, and let some agents learn to deviate from it if the config says so.

    Raises:
        GameError: the game pays something that is not a finite number.
    """
    began = time.monotonic()
    play_key, deviate_key = jax.random.split(key)
    keys = jax.random.split(play_key, config.num_evaluation_trajectories)
    played = [jax.device_get(_episode(game, policy, k)) for k in keys]
    for _, unpaid, _, _ in played:
        _refuse_bad_reward(game, unpaid)
    returns = [float(mean_return) for mean_return, _, _, _ in played]
    _, _, statistics, snapshots = played[0]
    below = None
    if config.best_response_agents:
        below = _from_below(game, policy, config, deviate_key)
    count = len(returns)
    quantile = scipy.stats.t.ppf(0.5 + config.confidence / 2, count - 1)
    wide = quantile * np.std(returns, ddof=1) / count**0.5
    middle = float(np.mean(returns))
    evaluation = PPOEvaluation(
        game=config.game,
        num_agents=game.num_agents,
        horizon=game.horizon,
        epoch=epoch,
        num_trajectories=count,
        confidence=config.confidence,
        mean_return=Interval(middle - float(wide), middle + float(wide)),
        statistics={name: float(np.mean([one[2][name] for one in played])) for name in statistics},
        exploitability=below,
        seconds=time.monotonic() - began,
    )
    return evaluation, Episode(statistics, snapshots)


def _from_below(
    game: DynamicGame, policy: NeuralPolicy, config: PPOConfig, key: PRNGKeyArray
) -> ExploitabilityFromBelow:
    found = exploitability(
        game,
        policy,
        key=key,
        agents=evenly_spread(game.num_agents, config.best_response_agents),
        num_trajectories=max(config.num_evaluation_trajectories, 2),
        confidence=config.confidence,
        method="learned",
        learner=best_response_learner(game, num_epochs=config.best_response_epochs),
    )
    return ExploitabilityFromBelow(
        agents=np.asarray(found.agents),
        gain=found.lower,
        standard_error=found.standard_error,
        value=found.value,
        maximum=float(found.maximum.lower),
        mean=float(found.mean.lower),
    )


@eqx.filter_jit
def _episode(
    game: DynamicGame, policy: NeuralPolicy, key: PRNGKeyArray
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
