"""`solve`: run a learner to its end, or until a certificate says that its policy is good enough."""

import dataclasses
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from crowdnash.certificates.certificate import exploitability
from crowdnash.certificates.result import Exploitability
from crowdnash.checks import check_count, check_number
from crowdnash.games.base import DynamicGame, TabularGame
from crowdnash.interval import Interval
from crowdnash.learners import driver
from crowdnash.learners.base import Learner, MetricsT, PolicyT, StateT
from crowdnash.policies.base import Policy
from crowdnash.simulators.contract import Simulator

CHECK_EVERY = 20
"""Epochs from one certificate to the next."""

_LOOK_STREAM = 0x7A26E7  # of the certificates' draws: keeps them apart from the learner's


@dataclass(frozen=True)
class Target:
    """How good a policy must be, and how that is found out.

    Looking again and again would find a lucky certificate in the end. So the certificates of all
    looks share the error probability: with K looks to come at most, each holds at confidence
    1 - (1 - confidence) / K.

    Attributes:
        largest: the largest exploitability's upper end is to be at most this, in reward units.
        num_trajectories: population paths of each certificate.
        confidence: with which the policy at the end is as good as it is said to be.
        check_every: epochs from one look to the next.
    """

    largest: float | int
    num_trajectories: int = 128
    confidence: float = 0.95
    check_every: int = CHECK_EVERY

    def __post_init__(self) -> None:
        check_number("target", self.largest, above=0.0)
        check_count("check_every", self.check_every, 1)

    def confidence_of_a_look(self, num_epochs: int) -> float:
        """Of each certificate, so that all of them together hold at `confidence`."""
        return 1 - (1 - self.confidence) / math.ceil(num_epochs / self.check_every)

    def certificate(
        self, game: DynamicGame, policy: Policy, key: PRNGKeyArray, epoch: int, num_epochs: int
    ) -> Exploitability:
        """Certify a policy on fresh play, for one of the looks of a run.

        Raises:
            ValueError, GameError: as `exploitability`.
        """
        return exploitability(
            game,
            policy,
            key=jax.random.fold_in(jax.random.fold_in(key, _LOOK_STREAM), epoch),
            num_trajectories=self.num_trajectories,
            confidence=self.confidence_of_a_look(num_epochs),
        )

    def is_reached(self, maximum: Interval) -> bool:
        """Whether a largest exploitability in this interval is low enough."""
        return maximum.upper <= self.largest


def solve(
    game: DynamicGame | Simulator,
    learner: Learner[StateT, MetricsT, PolicyT],
    *,
    key: PRNGKeyArray,
    state: StateT | None = None,
    callback: Callable[[StateT, MetricsT], Any] | None = None,
    target: float | int | Target | None = None,
    mesh: Mesh | str | None = None,
) -> driver.SolveResult[StateT, MetricsT, PolicyT]:
    """Learn an approximate Nash policy of `game` from simulated play alone.

    Nothing is printed or saved, and nothing is compiled a second time for the same shapes.

    Args:
        game: the game, or a simulator outside JAX.
        learner: a `PolicyMirrorDescent` (tables, or functions of the agents' parameters), a `PPO`
            (networks) or another `Learner`.
        key: decides every draw.
        state: continues an earlier run of the same game (its key then counts, not `key`).
        callback: `callback(state, metrics)` is called after every epoch.
        target: stop as soon as the recommended policy's largest exploitability (Def. 2) is
            certified, on fresh play every few epochs, to be at most this, in reward units. Needs a
            `TabularGame`: elsewhere there is no upper end. A warning says what was reached if the
            target was not.
        mesh: the devices that share an epoch: a mesh of axis "trajectories" (each device plays some
            of them; statistics are summed once an epoch, `PPO`'s gradients a minibatch) or, for
            `PolicyMirrorDescent`, "agents" (each plays some of them; one sum a step makes the
            aggregate, and tables of single agents lie with them) or both; "auto" chooses by N, the
            trajectories, the devices and the tables' size, and `result.devices` says what. None:
            the default device. A state that `callback` gets lies on them.

    Returns:
        The policies, the metrics of every epoch, the state and, with a target, the certificate.

    Raises:
        ValueError: the learner does not suit the game, or `state` is of another learner or game,
            or has more epochs behind it than the learner's `num_epochs`; `target` is not above 0,
            or the game cannot be certified from above; `mesh` has another axis, or does not suit
            the learner or the game.
        GameError: the game breaks its contract.
        SimulatorError: the simulator breaks its contract; names agent, step and seed.
    """
    if target is None:
        return driver.solve(game, learner, key=key, state=state, callback=callback, mesh=mesh)
    goal = target if isinstance(target, Target) else Target(target)
    if not isinstance(game, TabularGame):
        raise ValueError(
            f"target needs a TabularGame, whose laws can be queried; {type(game).__name__} is only "
            "a simulator: it has certificates from below, none from above"
        )
    latest: Exploitability | None = None

    def good_enough(now: StateT) -> bool:
        nonlocal latest
        epoch = int(now.epoch)
        if not is_due(epoch, learner.num_epochs, goal.check_every):
            return False
        policy = next(iter(learner.policies(game, now).values()))
        latest = goal.certificate(game, policy, key, epoch, learner.num_epochs)
        return goal.is_reached(latest.maximum)

    result = driver.solve(
        game, learner, key=key, state=state, callback=callback, stop=good_enough, mesh=mesh
    )
    if latest is not None and not goal.is_reached(latest.maximum):
        warnings.warn(missed(goal, latest.maximum, int(result.state.epoch)), stacklevel=2)
    return dataclasses.replace(result, certificate=latest)


def is_due(epoch: int, num_epochs: int, every: int) -> bool:
    """Whether to certify after `epoch` of so many epochs; `every` 0: after the last one alone."""
    return epoch == num_epochs or (every > 0 and epoch % every == 0)


def missed(target: Target, maximum: Interval, epochs: int) -> str:
    """What was reached instead of the target, in words."""
    return (
        f"target {target.largest:g} was not reached in {epochs} epochs: the largest exploitability "
        f"lies between {maximum.lower:.3g} and {maximum.upper:.3g}"
    )
