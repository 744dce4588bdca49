"""`solve`: run any of the library's learners to its end."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, overload

from jaxtyping import PRNGKeyArray

from crowdnash.game import DynamicGame
from crowdnash.mirror_descent import EpochMetrics, MirrorDescentState, PolicyMirrorDescent
from crowdnash.neural_policy import NeuralPolicy
from crowdnash.policy import TabularPolicy
from crowdnash.ppo import PPO, PPOMetrics, PPOState


@dataclass(frozen=True)
class SolveResult:
    """What policy mirror descent found.

    `policy` is Algorithm 2's average of all iterates, `last_policy` the last one; `history` has
    one `EpochMetrics` for every epoch run by this call; `state` continues the run.
    """

    policy: TabularPolicy
    last_policy: TabularPolicy
    history: tuple[EpochMetrics, ...]
    state: MirrorDescentState


@dataclass(frozen=True)
class NeuralSolveResult:
    """What PPO found: the last `policy` (PPO has no average), and as in `SolveResult`."""

    policy: NeuralPolicy
    history: tuple[PPOMetrics, ...]
    state: PPOState

    @property
    def last_policy(self) -> NeuralPolicy:
        """The same as `policy`."""
        return self.policy


@overload
def solve(
    game: DynamicGame,
    learner: PolicyMirrorDescent,
    *,
    key: PRNGKeyArray,
    state: MirrorDescentState | None = None,
    callback: Callable[[MirrorDescentState, EpochMetrics], Any] | None = None,
) -> SolveResult: ...
@overload
def solve(
    game: DynamicGame,
    learner: PPO,
    *,
    key: PRNGKeyArray,
    state: PPOState | None = None,
    callback: Callable[[PPOState, PPOMetrics], Any] | None = None,
) -> NeuralSolveResult: ...
def solve(
    game: DynamicGame,
    learner: Any,
    *,
    key: PRNGKeyArray,
    state: Any = None,
    callback: Callable[[Any, Any], Any] | None = None,
) -> SolveResult | NeuralSolveResult:
    """Learn an approximate Nash policy of `game` from simulated play alone.

    **Arguments:** `learner` a `PolicyMirrorDescent` (tables) or a `PPO` (networks); `key` decides
    every draw; `state` continues an earlier run (its key then counts, not `key`);
    `callback(state, metrics)` is called after every epoch. Nothing is printed or saved, and
    nothing is compiled a second time for the same shapes.

    **Raises:** `ValueError` if the learner does not suit the game; `GameError` if the game breaks
    its contract.
    """
    if state is None:
        state = learner.init(game, key=key)
    history = []
    while int(state.epoch) < learner.num_epochs:
        state, metrics = learner.step(game, state)
        history.append(metrics)
        if callback is not None:
            callback(state, metrics)
    if isinstance(learner, PPO):
        return NeuralSolveResult(learner.policy(game, state), tuple(history), state)
    return SolveResult(
        learner.average_policy(state), learner.last_policy(state), tuple(history), state
    )
