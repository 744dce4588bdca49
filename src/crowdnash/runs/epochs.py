"""The epochs of a run: on its devices, with certificates along the way, a row of metrics each."""

from __future__ import annotations

import time
from typing import Any

import jax

from crowdnash import interrupts
from crowdnash.certificates.certificate import exploitability
from crowdnash.certificates.target import Target, is_due
from crowdnash.games.base import DynamicGame, TabularGame
from crowdnash.learners.base import Learner, metrics_columns, metrics_row
from crowdnash.learners.driver import shared_step
from crowdnash.policies.base import Policy
from crowdnash.runs.config import RunConfig
from crowdnash.runs.evaluation import agents_to_draw, policy_title
from crowdnash.runs.hosts import Hosts
from crowdnash.runs.metrics_log import Row
from crowdnash.runs.training_loop import Observer
from crowdnash.simulation.devices import ALONE, Devices, at_home

EVALUATION_COLUMNS = (
    "exploitability_max_lower",
    "exploitability_max_upper",
    "exploitability_mean_lower",
    "exploitability_mean_upper",
    "evaluation_seconds",
)
"""Metrics columns of tabular games, empty for epochs without a certificate."""


class RunEpochs:
    """The epochs of a run: what every process of it does.

    Args:
        config: the settings.
        game: the game that they draw.
        mesh: the devices that share an epoch, see `crowdnash.solve`.
        hosts: the processes.
        observer: hears of certificates along the way.
    """

    def __init__(
        self, config: RunConfig, game: DynamicGame, mesh: Any, hosts: Hosts, observer: Observer
    ) -> None:
        self.config, self.game, self.hosts, self.observer = config, game, hosts, observer
        self.goal = _target(config)
        self.devices: Devices = ALONE
        self._mesh: Any = mesh
        self._share: Any = None

    def check(self, state: Any) -> None:
        """See that the devices suit, before anything is written; all processes do it together.

        Raises:
            ValueError: they do not suit the learner or the game.
        """
        if self._mesh is not None:
            with self.hosts.together("looking at the devices"):
                self._shared(state)

    def start(self, state: Any) -> Any:
        """The state where the epochs need it.

        Raises:
            ValueError: as `check`.
        """
        self.devices, state, self._share = self._shared(state)
        return state

    def _shared(self, state: Any) -> Any:
        return shared_step(self.game, self.config.learner, state, self._mesh)

    def step(self, state: Any, epoch: int) -> tuple[Any, Row]:
        """One epoch, and a certificate by the process that leads if it is due."""
        assert self._share is not None
        state, metrics = self._share(state)
        row: Row = metrics_row(metrics) | {"epoch": epoch}
        every = self.config.evaluation.evaluate_every
        if isinstance(self.game, TabularGame) and is_due(epoch, self.config.num_epochs, every):
            if self.hosts.count == 1:
                interrupts.check()
            home = at_home(state)  # by all processes, which may each hold a part
            if self.hosts.leads:
                name, policy = next(iter(self.config.learner.policies(self.game, home).items()))
                title = policy_title(name)
                self.observer.on_stage(f"certifying the {title} after epoch {epoch}")
                row |= self._certify(self.game, policy, epoch)
        return state, row

    def is_last(self, row: Row) -> bool:
        """Whether the target is reached."""
        upper = row.get("exploitability_max_upper")
        return (
            self.goal is not None and isinstance(upper, int | float) and upper <= self.goal.largest
        )

    def _certify(self, game: TabularGame, policy: Policy, epoch: int) -> Row:
        began, config, goal = time.monotonic(), self.config, self.goal
        settings = config.evaluation
        confidence = settings.confidence
        certificate = exploitability(
            game,
            policy,
            key=jax.random.fold_in(config.keys.evaluation, epoch),
            num_trajectories=settings.num_evaluation_trajectories,
            confidence=goal.confidence_of_a_look(config.num_epochs) if goal else confidence,
            own_influence_agents=0,
            agents=None if goal else agents_to_draw(game, settings),
        )
        return {
            "exploitability_max_lower": float(certificate.maximum.lower),
            "exploitability_max_upper": float(certificate.maximum.upper),
            "exploitability_mean_lower": float(certificate.mean.lower),
            "exploitability_mean_upper": float(certificate.mean.upper),
            "evaluation_seconds": time.monotonic() - began,
        }


def run_columns(learner: Learner[Any, Any, Any], game: DynamicGame) -> tuple[str, ...]:
    """All metrics columns of a run; `epoch` counts the epochs done, from 1.

    Raises:
        ValueError: the game calls one of its statistics as the learner calls a metric.
    """
    state = jax.eval_shape(lambda: game.reset(jax.random.key(0)))
    columns = metrics_columns(learner, list(jax.eval_shape(game.statistics, state)))
    return (*columns, *EVALUATION_COLUMNS) if isinstance(game, TabularGame) else columns


def _target(config: RunConfig) -> Target | None:
    settings = config.evaluation
    if settings.target == 0:
        return None
    return Target(
        settings.target,
        num_trajectories=settings.num_evaluation_trajectories,
        confidence=settings.confidence,
        check_every=settings.evaluate_every,
    )
