"""`solve`: the loop over epochs; `solve_together`: several runs at once.

Here is the one loop over epochs outside a run directory; it knows the protocol `Learner` and no
learner by name. The public `crowdnash.solve` adds certificates to it (`certificates.target`).
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from crowdnash.checks import check_instance, check_key, shown
from crowdnash.games.base import DynamicGame
from crowdnash.games.checks import named
from crowdnash.learners.base import (
    Learner,
    MetricsT,
    PolicyT,
    SharedLearner,
    StackedLearner,
    StateT,
    game_fingerprint,
)
from crowdnash.simulation.devices import ALONE, Devices, at_home
from crowdnash.simulators.contract import Simulator
from crowdnash.simulators.game import as_game


@dataclass(frozen=True)
class SolveResult(Generic[StateT, MetricsT, PolicyT]):
    """What a learner learned.

    Attributes:
        policies: by name, the one that the learner recommends first: "last" is the last iterate,
            "average" (Algorithm 2) the mean of all of them.
        history: one record of metrics for every epoch run by this call.
        state: continues the run.
        certificate: of `policy`, an `Exploitability`, if it was learned to a target.
        devices: who shared the work; as text, what and why.
    """

    policies: Mapping[str, PolicyT]
    history: tuple[MetricsT, ...]
    state: StateT
    certificate: Any = None
    devices: Devices = ALONE

    @property
    def policy(self) -> PolicyT:
        """The policy to use: the first of `policies`."""
        return next(iter(self.policies.values()))

    @property
    def last_policy(self) -> PolicyT:
        """The last iterate."""
        return self.policies["last"]


def solve(
    game: DynamicGame | Simulator,
    learner: Learner[StateT, MetricsT, PolicyT],
    *,
    key: PRNGKeyArray,
    state: StateT | None = None,
    callback: Callable[[StateT, MetricsT], Any] | None = None,
    stop: Callable[[StateT], bool] | None = None,
    mesh: Any = None,
) -> SolveResult[StateT, MetricsT, PolicyT]:
    """The loop of `crowdnash.solve`, which says more.

    Args:
        game: the game.
        learner: the learner.
        key: decides every draw.
        state: continues an earlier run of the same game (its key then counts, not `key`).
        callback: `callback(state, metrics)` is called after every epoch.
        stop: asked after every epoch whether it was the last one.
        mesh: the devices that share the work, see `crowdnash.solve`.

    Returns:
        The policies, the metrics of every epoch, and the state.

    Raises:
        ValueError: the learner does not suit the game, or `state` is of another learner or game,
            or has more epochs behind it than the learner's `num_epochs`, or `mesh` suits neither.
        GameError: the game breaks its contract.
        SimulatorError: the simulator breaks its contract; names agent, step and seed.
    """
    game = as_game(game)
    check_instance("learner", learner, Learner)
    if state is None:
        check_key("key", key)
        state = learner.init(game, key=key)
    else:
        check_state(game, learner, state)
    devices, state, step = shared_step(game, learner, state, mesh)
    history = []
    while int(state.epoch) < learner.num_epochs:
        state, metrics = step(state)
        history.append(metrics)
        if callback is not None:
            callback(state, metrics)
        if stop is not None and stop(state):
            break
    state = at_home(state)
    return SolveResult(learner.policies(game, state), tuple(history), state, devices=devices)


Step = Callable[[StateT], tuple[StateT, MetricsT]]
"""One epoch."""


def shared_step(
    game: DynamicGame, learner: Learner[StateT, MetricsT, PolicyT], state: StateT, mesh: Any
) -> tuple[Devices, StateT, Step[StateT, MetricsT]]:
    """The devices of `mesh`, the state where they need it, and an epoch on them.

    Args:
        game: the game.
        learner: the learner.
        state: of the learner, anywhere.
        mesh: see `crowdnash.solve`.

    Raises:
        ValueError: the mesh does not suit the learner or the game.
    """
    if mesh is None:
        return ALONE, at_home(state), functools.partial(learner.step, game)
    if not isinstance(learner, SharedLearner):
        raise ValueError(f"mesh is not for {type(learner).__name__}: it learns on one device")
    devices, game, state = learner.shared(game, at_home(state), mesh)
    return devices, state, functools.partial(learner.step, game, devices=devices)


def solve_together(
    games: Sequence[DynamicGame],
    learner: Learner[StateT, MetricsT, PolicyT],
    *,
    keys: Sequence[PRNGKeyArray],
    callback: Callable[[int, StateT, MetricsT], Any] | None = None,
) -> tuple[SolveResult[StateT, MetricsT, PolicyT], ...]:
    """Learn R games at once: seeds of one experiment, or a sweep over agents' parameters.

    Policy mirror descent for tables on games whose arrays have the same shapes is one vectorised
    program (`jax.vmap`), which a GPU fills better; other runs follow one another. The results are
    those of R calls of `solve`, up to rounding.

    Args:
        games: of one class, horizon and number of agents.
        learner: as in `solve`.
        keys: one for each game.
        callback: `callback(run, state, metrics)` is called for every run after each of its epochs.

    Returns:
        One result for each game, in order.

    Raises:
        ValueError: there are no games or not as many keys; else as `solve`.
        GameError: as `solve`.
    """
    check_instance("learner", learner, Learner)
    for name, many in (("games", games), ("keys", keys)):
        if not hasattr(many, "__len__"):
            raise ValueError(f"{name} must be a sequence, not {shown(many)}")
    for game in games:
        check_instance("games", game, DynamicGame)
    for key in keys:
        check_key("keys", key)
    if not games or len(games) != len(keys):
        raise ValueError(
            f"games and keys must be equally many, at least 1, not {len(games)} and {len(keys)}"
        )

    def notify(run: int) -> Callable[[StateT, MetricsT], Any]:
        return lambda state, metrics: callback and callback(run, state, metrics)

    if isinstance(learner, StackedLearner) and learner.steps_together and len(games) > 1:
        states = [learner.init(game, key=key) for game, key in zip(games, keys, strict=True)]
        if len({_form(pair) for pair in zip(games, states, strict=True)}) == 1:
            return _solve_stacked(
                games, learner, states, [notify(run) for run in range(len(games))]
            )
    return tuple(
        solve(game, learner, key=key, callback=notify(run))
        for run, (game, key) in enumerate(zip(games, keys, strict=True))
    )


def _solve_stacked(
    games: Sequence[DynamicGame],
    learner: StackedLearner[StateT, MetricsT, PolicyT],
    states: list[StateT],
    callbacks: Sequence[Callable[[StateT, MetricsT], Any]],
) -> tuple[SolveResult[StateT, MetricsT, PolicyT], ...]:
    all_games, all_states = (
        jax.tree.map(lambda *arrays: jnp.stack(arrays), *runs) for runs in (games, states)
    )
    history: list[list[MetricsT]] = [[] for _ in games]
    for _ in range(learner.num_epochs):
        all_states, metrics = learner.step_together(all_games, all_states)
        for run, figures in enumerate(metrics):
            states[run] = jax.tree.map(lambda x, k=run: x[k], all_states)
            history[run].append(figures)
            callbacks[run](states[run], figures)
    return tuple(
        SolveResult(learner.policies(game, state), tuple(rows), state)
        for game, state, rows in zip(games, states, history, strict=True)
    )


def _form(tree: Any) -> tuple[Any, ...]:
    """What must be equal for two runs to be one program."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, *((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)


def check_state(game: DynamicGame, learner: Learner[Any, Any, Any], state: Any) -> None:
    """Make sure that `state` is of this learner and game, and not beyond its last epoch.

    Raises:
        ValueError: it is not; the message says what differs.
    """
    start = learner.init(game, key=jax.random.key(0))
    if type(state) is not type(start):
        raise ValueError(f"state must be a {type(start).__name__}, not a {type(state).__name__}")
    # The kind of key may be another: it goes on as it began.
    key = {name: getattr(state, name) for name in ("key", "key_impl") if hasattr(start, name)}
    start = dataclasses.replace(start, **key)
    if _form(state) != _form(start):
        expected, actual = (
            {jax.tree_util.keystr(path): jnp.shape(leaf) for path, leaf in leaves}
            for leaves in map(jax.tree_util.tree_leaves_with_path, (start, state))
        )
        for name, shape in expected.items():
            if actual.get(name) != shape:
                raise ValueError(
                    "state must be of the same learner and game: of these, "
                    f"state{name} has shape {shape}, not {actual.get(name, 'none')}"
                )
        raise ValueError("state must be of the same learner and game, and is of others")
    if not np.array_equal(np.asarray(state.fingerprint), game_fingerprint(game)):
        raise ValueError(
            f"state must be of this {named(game)}: it is of a game with other agents or settings"
        )
    if int(state.epoch) > learner.num_epochs:
        raise ValueError(
            f"num_epochs must be at least the {int(state.epoch)} epochs behind state, "
            f"not {learner.num_epochs}"
        )
