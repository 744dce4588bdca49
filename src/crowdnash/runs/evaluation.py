"""Measure policies in the N-player game and keep the result: certificate, returns, population flow.

The saved form is a JSON file for the numbers a person reads and an npz file for the arrays, so
that reports need neither the game nor any computation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int, Key

from crowdnash.certificates.certificate import exploitability
from crowdnash.files import read_arrays, read_json, write_arrays, write_json
from crowdnash.games.base import TabularGame
from crowdnash.interval import Interval
from crowdnash.policies.tabular import TabularPolicy
from crowdnash.runs.directory import RunDirectory
from crowdnash.simulation.rollouts import simulate

_FORMAT = 1

# Enough trajectories for smooth shares; agents x steps x trajectories stays within memory.
_FLOW_TRAJECTORIES = 64
_FLOW_DRAWS = 20_000_000


@dataclass(frozen=True)
class OwnInfluenceRecord:
    """What the frozen-population argument leaves out, measured for a few agents.

    Attributes:
        agents: the agents measured, [k].
        difference: gain of the agent's deviation when it is really played, minus its gain
            against frozen population paths, [k].
        standard_error: of `difference`, [k].
    """

    agents: Int[np.ndarray, " k"]
    difference: Float[np.ndarray, " k"]
    standard_error: Float[np.ndarray, " k"]


@dataclass(frozen=True)
class PolicyEvaluation:
    """How one policy does when all N agents play it (Def. 2).

    Attributes:
        maximum: interval for the largest exploitability over the agents (total reward).
        mean: interval for the mean exploitability over the agents.
        confidence: coverage of both intervals.
        method: how the certificate was computed.
        mean_return: total reward of an agent, mean over agents and trajectories.
        agents: the agents that were evaluated, [n].
        lower: gain that a known deviation achieves, per agent, [n].
        upper: gain that no deviation exceeds, per agent, [n].
        standard_error: of `lower`, per agent, [n].
        upper_standard_error: of `upper`, per agent, [n].
        flow: population shares of state-action pairs at each step, [H,S,A].
        own_influence: the measured own-influence term, or None where it was not measured.
    """

    maximum: Interval
    mean: Interval
    confidence: float
    method: str
    mean_return: float
    agents: Int[np.ndarray, " n"]
    lower: Float[np.ndarray, " n"]
    upper: Float[np.ndarray, " n"]
    standard_error: Float[np.ndarray, " n"]
    upper_standard_error: Float[np.ndarray, " n"]
    flow: Float[np.ndarray, "H S A"]
    own_influence: OwnInfluenceRecord | None


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of a run's policies, as saved in its directory.

    Attributes:
        game: name of the game.
        num_agents: N.
        horizon: H, steps.
        state_names: one name a state.
        action_names: one name an action.
        epoch: number of epochs behind the learned policies.
        num_trajectories: evaluation paths (as many planning paths again).
        seconds: time the evaluation took.
        policies: by name: "last" (last iterate), "average" (Algorithm 2's), "uniform".
    """

    game: str
    num_agents: int
    horizon: int
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    epoch: int
    num_trajectories: int
    seconds: float
    policies: Mapping[str, PolicyEvaluation]

    def summary(self) -> dict[str, Any]:
        """Return the numbers without the arrays, ready for JSON."""
        return {
            "format": _FORMAT,
            "game": self.game,
            "num_agents": self.num_agents,
            "horizon": self.horizon,
            "state_names": list(self.state_names),
            "action_names": list(self.action_names),
            "epoch": self.epoch,
            "num_trajectories": self.num_trajectories,
            "seconds": self.seconds,
            "policies": {name: _summary(policy) for name, policy in self.policies.items()},
        }

    def save(self, directory: RunDirectory) -> None:
        """Write the arrays, then the numbers, each atomically.

        Raises:
            OSError: they cannot be written.
        """
        arrays: dict[str, np.ndarray] = {}
        for name, policy in self.policies.items():
            for field in _ARRAYS:
                arrays[f"{name}_{field}"] = getattr(policy, field)
            if policy.own_influence is not None:
                for field in _OWN_INFLUENCE_ARRAYS:
                    arrays[f"{name}_own_influence_{field}"] = getattr(policy.own_influence, field)
        write_arrays(directory.evaluation_arrays, arrays)
        write_json(directory.evaluation, self.summary())

    @classmethod
    def load(cls, directory: RunDirectory) -> Evaluation:
        """Read a saved evaluation.

        Raises:
            ValueError: a file is missing, damaged, or not an evaluation.
        """
        summary = read_json(directory.evaluation)
        arrays = read_arrays(directory.evaluation_arrays)
        try:
            if summary["format"] != _FORMAT:
                raise ValueError(f"{directory.evaluation} has format {summary['format']!r}")
            return cls(
                game=summary["game"],
                num_agents=summary["num_agents"],
                horizon=summary["horizon"],
                state_names=tuple(summary["state_names"]),
                action_names=tuple(summary["action_names"]),
                epoch=summary["epoch"],
                num_trajectories=summary["num_trajectories"],
                seconds=summary["seconds"],
                policies={
                    name: _restore(name, numbers, arrays)
                    for name, numbers in summary["policies"].items()
                },
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{directory.evaluation} and {directory.evaluation_arrays.name} are not one "
                f"evaluation ({type(error).__name__}: {error})"
            ) from None


def evaluate_policy(
    game: TabularGame,
    policy: TabularPolicy,
    *,
    key: Key[jax.Array, ""],
    num_trajectories: int,
    confidence: float,
    own_influence_agents: int,
) -> PolicyEvaluation:
    """Certify `policy`, played by all agents of `game`, and measure its returns and flow.

    Args:
        game: the game.
        policy: the policy.
        key: random key; the same key for two policies pairs their random draws.
        num_trajectories: evaluation paths.
        confidence: coverage of the intervals, in (0, 1).
        own_influence_agents: how many agents' own influence is measured; 0 for none.

    Raises:
        ValueError: see `exploitability`.
    """
    certificate_key, flow_key = jax.random.split(key)
    certificate = exploitability(
        game,
        policy,
        key=certificate_key,
        num_trajectories=num_trajectories,
        confidence=confidence,
        own_influence_agents=own_influence_agents,
    )
    draws_a_trajectory = game.num_agents * game.horizon
    trajectories = simulate(
        game,
        policy,
        key=flow_key,
        num_trajectories=max(1, min(_FLOW_TRAJECTORIES, _FLOW_DRAWS // draws_a_trajectory)),
    )
    own = certificate.own_influence
    return PolicyEvaluation(
        maximum=certificate.maximum,
        mean=certificate.mean,
        confidence=certificate.confidence,
        method=certificate.method,
        mean_return=float(np.asarray(trajectories.rewards, np.float64).sum(1).mean()),
        agents=np.asarray(certificate.agents),
        lower=np.asarray(certificate.lower),
        upper=np.asarray(certificate.upper),
        standard_error=np.asarray(certificate.standard_error),
        upper_standard_error=np.asarray(certificate.upper_standard_error),
        flow=population_shares(
            np.asarray(trajectories.states),
            np.asarray(trajectories.actions),
            game.num_states,
            game.num_actions,
        ),
        own_influence=None
        if own is None
        else OwnInfluenceRecord(
            agents=np.asarray(own.agents),
            difference=np.asarray(own.difference),
            standard_error=np.asarray(own.standard_error),
        ),
    )


def population_shares(
    states: Int[np.ndarray, "M H N"],
    actions: Int[np.ndarray, "M H N"],
    num_states: int,
    num_actions: int,
) -> Float[np.ndarray, "H S A"]:
    """Return the share of agents in each state-action pair at each step, over all trajectories."""
    pairs = states.astype(np.int64) * num_actions + actions
    num_pairs = num_states * num_actions
    counts = [
        np.bincount(pairs[:, step].ravel(), minlength=num_pairs) for step in range(pairs.shape[1])
    ]
    shares = np.stack(counts) / (pairs.shape[0] * pairs.shape[2])
    return shares.reshape(-1, num_states, num_actions).astype(np.float32)


_ARRAYS = ("agents", "lower", "upper", "standard_error", "upper_standard_error", "flow")
_OWN_INFLUENCE_ARRAYS = ("agents", "difference", "standard_error")


def _summary(policy: PolicyEvaluation) -> dict[str, Any]:
    own = policy.own_influence
    return {
        "maximum": _bounds(policy.maximum),
        "mean": _bounds(policy.mean),
        "confidence": policy.confidence,
        "method": policy.method,
        "mean_return": policy.mean_return,
        "num_agents_evaluated": len(policy.agents),
        "own_influence": None
        if own is None or not len(own.agents)
        else {
            "num_agents": len(own.agents),
            "largest_difference": float(np.abs(own.difference).max()),
            "largest_standard_error": float(own.standard_error.max()),
        },
    }


def _bounds(interval: Interval) -> dict[str, float]:
    return {"lower": float(interval.lower), "upper": float(interval.upper)}


def _restore(
    name: str, numbers: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> PolicyEvaluation:
    own_influence = None
    if f"{name}_own_influence_agents" in arrays:
        own_influence = OwnInfluenceRecord(
            **{field: arrays[f"{name}_own_influence_{field}"] for field in _OWN_INFLUENCE_ARRAYS}
        )
    return PolicyEvaluation(
        maximum=Interval(**numbers["maximum"]),
        mean=Interval(**numbers["mean"]),
        confidence=numbers["confidence"],
        method=numbers["method"],
        mean_return=numbers["mean_return"],
        own_influence=own_influence,
        **{field: arrays[f"{name}_{field}"] for field in _ARRAYS},
    )
