"""What every learner is: hyperparameters as fields, a state of arrays, and one step an epoch.

`solve`, the runs on disk, their evaluation, the report and the command line speak to this protocol
and to no learner by name. A new learner is one file, and one line in `learners.registry`.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, UInt32

from crowdnash.games.base import DynamicGame
from crowdnash.games.checks import fingerprint
from crowdnash.policies.base import Policy
from crowdnash.simulation.devices import ALONE, Devices


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """What one epoch did, in Python numbers; a learner adds fields of its own.

    Every field is a column of a run's metrics; a field `statistics` holds the game's own figures
    by name, a column each.

    Attributes:
        epoch: the epoch's number, from 0.
        mean_return: total reward of an agent, mean over agents and trajectories, under the policy
            that the epoch began with.
        agent_steps: steps that agents took, all together.
        seconds: wall time.
    """

    epoch: int
    mean_return: float
    agent_steps: int
    seconds: float


@runtime_checkable
class State(Protocol):
    """What a learner's state has at least; all of it is arrays, enough to continue exactly.

    `epoch` counts the epochs done; `fingerprint` is `game_fingerprint` of the game it is for.
    """

    @property
    def epoch(self) -> Int[Array, ""]:
        """Epochs done."""
        ...

    @property
    def fingerprint(self) -> UInt32[Array, " 8"]:
        """Of the game."""
        ...


StateT = TypeVar("StateT", bound=State)
MetricsT = TypeVar("MetricsT", bound=Metrics)
PolicyT = TypeVar("PolicyT", bound=Policy)


class Learner(eqx.Module, Generic[StateT, MetricsT, PolicyT]):
    """A method that learns a policy of any game that suits it, epoch by epoch.

    Its fields are its hyperparameters: the command line's flags and a run's stored settings are
    read from them, and their help from the class's docstring (`Args:`).
    """

    metrics_class: ClassVar[type[Metrics]] = Metrics
    """The class of what `step` returns, for the names of its columns."""

    num_epochs: eqx.AbstractVar[int]

    @classmethod
    @abc.abstractmethod
    def presets(cls) -> Mapping[str, "Callable[..., Learner[StateT, MetricsT, PolicyT]]"]:
        """Functions that make a learner, by name; the first is the command line's default."""

    @abc.abstractmethod
    def check_suits(self, game: DynamicGame) -> None:
        """Raise `ValueError` unless the learner can learn this game."""

    @abc.abstractmethod
    def init(self, game: DynamicGame, *, key: PRNGKeyArray) -> StateT:
        """The state before epoch 0.

        Raises:
            ValueError: the game does not suit the learner.
        """

    @abc.abstractmethod
    def step(self, game: DynamicGame, state: StateT) -> tuple[StateT, MetricsT]:
        """One epoch.

        Raises:
            GameError: the game breaks its contract.
        """

    @abc.abstractmethod
    def policies(self, game: DynamicGame, state: StateT) -> dict[str, PolicyT]:
        """The policies learned so far, the recommended one first; "last" is among them."""

    def pinned(self) -> "Learner[StateT, MetricsT, PolicyT]":
        """The same learner with every setting written out whose default follows `num_epochs`.

        A run keeps this one, so that more epochs than planned change nothing about those before.
        """
        return self

    def summary(self) -> str:
        """The learner and what it learns, in a few words for a title."""
        return type(self).__name__


class StackedLearner(Learner[StateT, MetricsT, PolicyT]):
    """A learner that can step several runs of equal shapes as one program."""

    @property
    def steps_together(self) -> bool:
        """Whether it does with these settings; else runs follow one another."""
        return True

    @abc.abstractmethod
    def step_together(
        self, games: DynamicGame, states: StateT
    ) -> tuple[StateT, tuple[MetricsT, ...]]:
        """`step` for R runs at once: every array of both has a leading axis R.

        Raises:
            GameError: as `step`.
        """


class SharedLearner(Learner[StateT, MetricsT, PolicyT]):
    """A learner whose epochs several devices can share."""

    @abc.abstractmethod
    def shared(
        self, game: DynamicGame, state: StateT, mesh: Any
    ) -> tuple[Devices, DynamicGame, StateT]:
        """The devices of a mesh, or those that "auto" chooses, and both where they need them.

        Raises:
            ValueError: the mesh does not suit the learner or the game.
        """

    @abc.abstractmethod
    def step(
        self, game: DynamicGame, state: StateT, devices: Devices = ALONE
    ) -> tuple[StateT, MetricsT]:
        """One epoch, on devices that `shared` returned with the game and the first state.

        Raises:
            GameError: the game breaks its contract.
        """


def game_fingerprint(game: DynamicGame) -> UInt32[Array, " 8"]:
    """By which a state knows its game: a digest of its class, sizes and arrays."""
    words = np.frombuffer(bytes.fromhex(fingerprint(game)), ">u4")
    return jnp.asarray(words, jnp.uint32)


def metrics_row(metrics: Metrics) -> dict[str, Any]:
    """The metrics by column name."""
    row = {item.name: getattr(metrics, item.name) for item in dataclasses.fields(metrics)}
    return row | dict(row.pop("statistics", {}))


def metrics_columns(learner: Learner[Any, Any, Any], statistics: Sequence[str]) -> tuple[str, ...]:
    """All columns of a learner's metrics, on a game with these statistics.

    Raises:
        ValueError: the game calls one of its statistics as the learner calls a metric.
    """
    own = [item.name for item in dataclasses.fields(learner.metrics_class)]
    if "statistics" not in own:
        return tuple(own)
    own.remove("statistics")
    for name in statistics:
        if name in own:
            raise ValueError(
                f"a statistic must not be called {name!r}, as a metric of the learner's is"
            )
    return (*own, *statistics)
