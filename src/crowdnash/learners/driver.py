"""`solve`: run any of the library's learners to its end; `solve_together`: several runs at once."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, overload

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from crowdnash.games.base import DynamicGame
from crowdnash.learners.mirror_descent import EpochMetrics, MirrorDescentState, PolicyMirrorDescent
from crowdnash.learners.ppo.learner import PPO, PPOMetrics, PPOState
from crowdnash.policies.neural import NeuralPolicy
from crowdnash.policies.tabular import TabularPolicy


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

    **Raises:** `ValueError` if the learner does not suit the game, or `state` is of another learner
    or another game; `GameError` if the game breaks its contract.
    """
    if not isinstance(learner, PPO | PolicyMirrorDescent):
        raise ValueError(
            f"learner must be a PolicyMirrorDescent or a PPO, not a {type(learner).__name__}"
        )
    if state is None:
        state = learner.init(game, key=key)
    else:
        _check_state(game, learner, state)
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


def solve_together(
    games: Sequence[DynamicGame],
    learner: PolicyMirrorDescent,
    *,
    keys: Sequence[PRNGKeyArray],
    callback: Callable[[int, MirrorDescentState, EpochMetrics], Any] | None = None,
) -> tuple[SolveResult, ...]:
    """Learn R games at once: seeds of one experiment, or a sweep over agents' parameters.

    Runs whose arrays have the same shapes are one vectorised program (`jax.vmap`), which a GPU
    fills better; others follow one another. The results are those of R calls of `solve`, up to
    rounding.

    **Arguments:** `games` of one class, horizon and number of agents; `keys` one for each;
    `callback(run, state, metrics)` is called for every run after each of its epochs.

    **Returns:** one result for each game, in order.

    **Raises:** `ValueError` if there are no games or not as many keys; else as `solve`.
    """
    if not games or len(games) != len(keys):
        raise ValueError(
            f"games and keys must be equally many, at least 1, not {len(games)} and {len(keys)}"
        )
    states = [learner.init(game, key=key) for game, key in zip(games, keys, strict=True)]
    history: list[list[EpochMetrics]] = [[] for _ in games]

    def hear(run: int, state: MirrorDescentState, metrics: EpochMetrics) -> None:
        history[run].append(metrics)
        if callback is not None:
            callback(run, state, metrics)

    if len(games) > 1 and len({_form((g, s)) for g, s in zip(games, states, strict=True)}) == 1:
        states = _learn_stacked(games, learner, states, hear)
    else:
        for run, (game, state) in enumerate(zip(games, states, strict=True)):
            for _ in range(learner.num_epochs):
                state, metrics = learner.step(game, state)
                hear(run, state, metrics)
            states[run] = state
    return tuple(
        SolveResult(learner.average_policy(state), learner.last_policy(state), tuple(told), state)
        for state, told in zip(states, history, strict=True)
    )


def _learn_stacked(
    games: Sequence[DynamicGame],
    learner: PolicyMirrorDescent,
    states: Sequence[MirrorDescentState],
    hear: Callable[[int, MirrorDescentState, EpochMetrics], Any],
) -> list[MirrorDescentState]:
    all_games, all_states = (
        jax.tree_util.tree_map(lambda *arrays: jnp.stack(arrays), *runs) for runs in (games, states)
    )
    found = list(states)
    for _ in range(learner.num_epochs):
        all_states, metrics = learner.step_together(all_games, all_states)
        for run, told in enumerate(metrics):
            found[run] = jax.tree_util.tree_map(lambda x, k=run: x[k], all_states)
            hear(run, found[run], told)
    return found


def _form(tree: Any) -> tuple[Any, ...]:
    """What must be equal for two runs to be one program."""
    leaves, structure = jax.tree_util.tree_flatten(tree)
    return structure, *((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)


def _check_state(game: DynamicGame, learner: Any, state: Any) -> None:
    """Raise `ValueError` unless `state` has the form of what the learner makes of the game."""
    start = learner.init(game, key=jax.random.key(0))
    if type(state) is not type(start):
        raise ValueError(f"state must be a {type(start).__name__}, not a {type(state).__name__}")
    # The kind of key may be another: it goes on as it began.
    start = dataclasses.replace(start, key=state.key, key_impl=state.key_impl)
    if _form(state) == _form(start):
        return
    wanted, given = (
        {jax.tree_util.keystr(path): jnp.shape(leaf) for path, leaf in leaves}
        for leaves in map(jax.tree_util.tree_leaves_with_path, (start, state))
    )
    for name, shape in wanted.items():
        if given.get(name) != shape:
            raise ValueError(
                "state must be of the same learner and game: of these, "
                f"state{name} has shape {shape}, not {given.get(name, 'none')}"
            )
    raise ValueError("state must be of the same learner and game, and is of others")
