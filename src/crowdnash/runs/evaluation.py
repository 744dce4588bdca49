"""Measure policies in the N-player game and keep the result: certificates, returns, flows.

A game whose laws can be queried gets two-sided certificates and population flows; one that is only
a simulator gets plays with the game's own figures, and lower bounds from a few agents that learn to
deviate, if they are asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jaxtyping import Float, Int, Key

from crowdnash.certificates.certificate import exploitability, method_for
from crowdnash.certificates.ppo_deviations import (
    agent_steps_to_learn,
    best_response_learner,
    evenly_spread,
)
from crowdnash.certificates.result import Exploitability
from crowdnash.files import read_arrays, write_arrays
from crowdnash.games.base import DynamicGame, TabularGame
from crowdnash.interval import Interval
from crowdnash.policies.base import Policy
from crowdnash.policies.tabular import TabularPolicy
from crowdnash.runs.config import RunConfig
from crowdnash.runs.directory import RunDirectory
from crowdnash.runs.episode import Episode, Plays, play_episodes
from crowdnash.runs.seal import read_sealed, write_sealed
from crowdnash.runs.sections import EvaluationSettings
from crowdnash.simulation.kept_play import simulate

# Enough trajectories for smooth shares; agents x steps x trajectories stays within memory.
_FLOW_TRAJECTORIES = 64
_FLOW_DRAWS = 20_000_000
_FEW_AGENTS = 4

_TITLES = {"last": "last iterate", "average": "average policy", "uniform": "uniform policy"}


@dataclass(frozen=True)
class PolicyEvaluation:
    """How one policy does when all N agents play it.

    Attributes:
        exploitability: what single agents could gain by deviating (Def. 2), or None where that was
            not measured.
        mean_return: interval for the mean over agents of the total reward.
        flow: population shares of state-action pairs at each step, [H,S,A]; None for a simulator.
        statistics: the game's own figures, means over steps and plays.
    """

    exploitability: Exploitability | None
    mean_return: Interval
    flow: Float[np.ndarray, "H S A"] | None
    statistics: Mapping[str, float]


class LowerBoundCost(NamedTuple):
    """What it would take to let `agents` agents learn to deviate, on the machine that measured."""

    agents: int
    agent_steps: int
    seconds: float

    def advice(self, path: Path) -> str:
        """What is not known of the run at `path`, what it would cost to know, and how to ask."""
        return (
            "How exploitable the policy is was not measured: the game is only a simulator, where "
            "single agents must learn how to deviate, which bounds their gains from below. For "
            f"{self.agents} agents that takes about {self.agent_steps:.2g} agent-steps, "
            f"{max(self.seconds / 60, 0.1):.2g} minutes on this machine: crowdnash evaluate {path} "
            f"--best-response-agents {self.agents}"
        )


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of a run's policies, as saved in its directory.

    Attributes:
        game: name of the game.
        num_agents: N.
        horizon: H, steps.
        state_names: one name a state; none for a simulator.
        action_names: one name an action; none for a simulator.
        epoch: number of epochs behind the learned policies.
        num_trajectories: evaluation paths (as many planning paths again), or plays.
        confidence: coverage of the intervals.
        seconds: time the evaluation took.
        policies: by name, the recommended one first; for tabular games the uniform policy last.
        lower_bound_cost: what a certificate would cost where there is none.
    """

    game: str
    num_agents: int
    horizon: int
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    epoch: int
    num_trajectories: int
    confidence: float
    seconds: float
    policies: Mapping[str, PolicyEvaluation]
    lower_bound_cost: LowerBoundCost | None = None

    @property
    def recommended(self) -> str:
        """The name of the policy to use."""
        return next(iter(self.policies))

    def summary(self) -> dict[str, Any]:
        """Return the numbers without the arrays, ready for JSON."""
        return self._content() | {
            "policies": {
                name: _numbers(one)
                | {"exploitability": one.exploitability and one.exploitability.numbers()}
                for name, one in self.policies.items()
            }
        }

    def _content(self) -> dict[str, Any]:
        content = {name: value for name, value in vars(self).items() if name != "policies"}
        cost = self.lower_bound_cost
        return content | {
            "state_names": list(self.state_names),
            "action_names": list(self.action_names),
            "lower_bound_cost": cost and cost._asdict(),
        }

    def save(self, directory: RunDirectory) -> None:
        """Write certificates and flows, then evaluation.json with a digest over all of them.

        A report of the run is removed: it spoke of an older evaluation.

        Raises:
            OSError: they cannot be written.
        """
        directory.report.unlink(missing_ok=True)
        stored = directory.policies, *directory.path.glob("*policy.npz")
        files = [*stored, directory.episode] if directory.episode.exists() else [*stored]
        for old in directory.path.glob("certificate-*"):
            if old.stem.removeprefix("certificate-") not in self.policies:
                old.unlink()
        for name, one in self.policies.items():
            path = directory.certificate(name)
            if one.exploitability is None:
                path.unlink(missing_ok=True)
                continue
            one.exploitability.save(path)
            files += [path, path.with_suffix(".npz")]
        flows = {name: one.flow for name, one in self.policies.items() if one.flow is not None}
        write_arrays(directory.evaluation_arrays, flows)
        numbers = {
            name: _numbers(one) | {"certificate": one.exploitability is not None}
            for name, one in self.policies.items()
        }
        content = self._content() | {"policies": numbers}
        write_sealed(directory, content, [*files, directory.evaluation_arrays])

    @classmethod
    def load(cls, directory: RunDirectory) -> Evaluation:
        """Read a saved evaluation.

        Raises:
            ValueError: a file is missing, damaged, or not of this evaluation; the message says how
                to make it anew.
        """
        stored = read_sealed(directory)
        flows = read_arrays(directory.evaluation_arrays)
        del stored["format"]
        try:
            policies = {
                name: PolicyEvaluation(
                    exploitability=Exploitability.load(directory.certificate(name))
                    if one["certificate"]
                    else None,
                    mean_return=Interval(**one["mean_return"]),
                    flow=flows.get(name),
                    statistics=one["statistics"],
                )
                for name, one in stored.pop("policies").items()
            }
            cost = stored.pop("lower_bound_cost")
            names = {name: tuple(stored.pop(name)) for name in ("state_names", "action_names")}
            return cls(
                policies=policies,
                lower_bound_cost=cost and LowerBoundCost(**cost),
                **names,
                **stored,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{directory.evaluation} is damaged: {error!r}") from None


def _numbers(one: PolicyEvaluation) -> dict[str, Any]:
    ends = {"lower": float(one.mean_return.lower), "upper": float(one.mean_return.upper)}
    return {"mean_return": ends, "statistics": dict(one.statistics)}


def policy_title(name: str) -> str:
    """A policy in words."""
    return _TITLES.get(name, f"policy {name!r}")


class Measured(NamedTuple):
    """An evaluation, and for a simulator one episode of the recommended policy."""

    evaluation: Evaluation
    episode: Episode | None


def evaluate_policies(
    game: DynamicGame,
    policies: Mapping[str, Policy],
    config: RunConfig,
    *,
    epoch: int,
    key: Key[jax.Array, ""],
    on_stage: Callable[[str], object] = lambda _: None,
) -> Measured:
    """Certify policies that all agents of `game` play, and measure what they earn.

    Args:
        game: the game.
        policies: by name, the recommended one first.
        config: the run's settings, which say how.
        epoch: the epochs behind the policies.
        key: random key; all policies see the same draws.
        on_stage: receives what is being done, in words.

    Raises:
        ValueError: see `exploitability`.
        GameError: the game pays something that is not a finite number.
    """
    began, settings = time.monotonic(), config.evaluation
    plays = None
    some = next(iter(policies.values()))
    evaluations: dict[str, PolicyEvaluation] = {}
    if isinstance(game, TabularGame):
        policies = {**policies, "uniform": uniform_like(game, some)}
    for name, policy in policies.items():
        title = policy_title(name)
        on_stage(f"{'certifying' if config.is_tabular else 'evaluating'} the {title}")
        if isinstance(game, TabularGame):
            # Epoch 0 is never evaluated on the way, so these draws are used nowhere else.
            own = 0 if name == "uniform" else settings.own_influence_agents
            here = jax.random.fold_in(key, 0)
            evaluations[name] = _evaluate_tabular(game, policy, config, here, own)
        else:
            evaluations[name], played = _evaluate_simulated(game, policy, config, key)
            plays = plays or played
    cost = None
    if plays is not None and not settings.best_response_agents:
        cost = _cost_of_lower_bound(game, some, config, plays.seconds)
    evaluation = Evaluation(
        game=config.game,
        num_agents=game.num_agents,
        horizon=game.horizon,
        state_names=tuple(getattr(game, "state_names", ())),
        action_names=tuple(getattr(game, "action_names", ())),
        epoch=epoch,
        num_trajectories=settings.num_evaluation_trajectories,
        confidence=settings.confidence,
        seconds=time.monotonic() - began,
        policies=evaluations,
        lower_bound_cost=cost,
    )
    return Measured(evaluation, plays and plays.episode)


def uniform_like(game: TabularGame, policy: Policy) -> TabularPolicy:
    """The uniform policy; in a table's own shape, so that what is compiled for one serves both."""
    if not isinstance(policy, TabularPolicy):
        return TabularPolicy.uniform(game)
    probs = jnp.full_like(policy.probs, 1.0 / policy.probs.shape[-1])
    return TabularPolicy.grouped(probs, policy.groups)


def _evaluate_tabular(
    game: TabularGame,
    policy: Policy,
    config: RunConfig,
    key: Key[jax.Array, ""],
    own_influence_agents: int,
) -> PolicyEvaluation:
    certificate_key, flow_key = jax.random.split(key)
    certificate = exploitability(
        game,
        policy,
        key=certificate_key,
        num_trajectories=config.evaluation.num_evaluation_trajectories,
        confidence=config.evaluation.confidence,
        own_influence_agents=own_influence_agents,
        agents=agents_to_draw(game, config.evaluation),
    )
    most = _FLOW_DRAWS // (game.num_agents * game.horizon)
    trajectories = simulate(
        game, policy, key=flow_key, num_trajectories=max(2, min(_FLOW_TRAJECTORIES, most))
    )
    returns = np.asarray(trajectories.rewards, np.float64).sum(1).mean(1)
    return PolicyEvaluation(
        exploitability=certificate,
        mean_return=_interval(returns, config.evaluation.confidence),
        flow=population_shares(
            np.asarray(trajectories.states),
            np.asarray(trajectories.actions),
            game.num_states,
            game.num_actions,
        ),
        statistics={},
    )


def agents_to_draw(game: TabularGame, settings: EvaluationSettings) -> int | None:
    """How many random agents to examine; None for all: none were asked for, or all are exact."""
    return settings.agents if settings.agents and method_for(game) == "paths" else None


def _evaluate_simulated(
    game: DynamicGame, policy: Policy, config: RunConfig, key: Key[jax.Array, ""]
) -> tuple[PolicyEvaluation, Plays]:
    settings = config.evaluation
    play_key, deviate_key = jax.random.split(key)
    plays = play_episodes(game, policy, play_key, settings.num_evaluation_trajectories)
    certificate = None
    if settings.best_response_agents:
        certificate = exploitability(
            game,
            policy,
            key=deviate_key,
            agents=evenly_spread(game.num_agents, settings.best_response_agents),
            num_trajectories=settings.num_evaluation_trajectories,
            confidence=settings.confidence,
            method="learned",
            learner=best_response_learner(game, num_epochs=settings.best_response_epochs),
        )
    interval = _interval(plays.returns, settings.confidence)
    return PolicyEvaluation(certificate, interval, None, plays.statistics), plays


def _cost_of_lower_bound(
    game: DynamicGame, policy: Policy, config: RunConfig, seconds: float
) -> LowerBoundCost:
    count = min(_FEW_AGENTS, game.num_agents)
    learner = best_response_learner(game, num_epochs=config.evaluation.best_response_epochs)
    plays = config.evaluation.num_evaluation_trajectories
    steps = agent_steps_to_learn(game, policy, count, learner, plays)
    return LowerBoundCost(count, steps, steps * seconds)


def _interval(returns: Float[np.ndarray, " M"], confidence: float) -> Interval:
    """Student's interval for the mean."""
    quantile = scipy.stats.t.ppf(0.5 + confidence / 2, len(returns) - 1)
    middle, wide = returns.mean(), quantile * returns.std(ddof=1) / len(returns) ** 0.5
    return Interval(float(middle - wide), float(middle + wide))


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
