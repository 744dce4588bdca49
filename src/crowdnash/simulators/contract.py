"""What a simulator outside JAX is: a stateful object that plays one step for all N agents at once.

Nothing here or in `lanes` imports JAX: worker processes read these two modules, perhaps in another
interpreter than the one that learns.

Axes: N agents, A actions, S states.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import random
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from crowdnash.checks import check_count, shown


class SimulatorError(ValueError):
    """A simulator broke its contract; the message names it, the agent, the step and the seed."""


@runtime_checkable
class Simulator(Protocol):
    """A game of N agents that is played by stepping it; any object with these members.

    Observations are an array with leading axis N, or a dictionary or tuple of such arrays. An
    episode has `horizon` steps. Agents may end before, and may enter late: who is not alive at a
    step is given action 0, earns 0, and what it observes is not looked at.

    Optional members: `num_states`, S, where every agent observes one integer of 0..S-1 (tables need
    it); `agent_features` [N,d], what tells agents apart; `name`; `legal()` and `alive()`, what
    `step` returns under these names, asked after `reset` (by default everything, everybody);
    `spawn()`, another independent copy (by default `copy.deepcopy`); `close()`.

    Attributes:
        num_agents: N >= 2.
        num_actions: A >= 1, the largest number of actions that an agent has.
        horizon: H >= 1.
    """

    num_agents: int
    num_actions: int
    horizon: int

    def reset(self, seed: int) -> Any:
        """Begin an episode and return what the agents observe.

        Args:
            seed: of the episode, 0 <= seed < 2^31. The global generators of `random` and NumPy are
                seeded by it too.
        """
        ...

    def step(self, actions: np.ndarray) -> tuple[Any, Any, Any, Any]:
        """Play one step.

        Args:
            actions: [N], integers.

        Returns:
            What the agents observe now; their rewards [N] for this step; who acts at the next step,
            bool [N]; and which actions they have then, bool [N,A], or None for all. Every agent
            that is alive has a legal action.
        """
        ...


class Form(NamedTuple):
    """What a simulator's observations look like, and whether it limits actions.

    Attributes:
        structure: a dictionary, tuple or number that says where each array belongs.
        shapes: of the arrays, without the leading axis N.
        dtypes: int32, float32 or bool, by name.
        limited: whether `step` says which actions are legal.
    """

    structure: Any
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    limited: bool


def library(module: str, package: str | None = None) -> Any:
    """A module of another library, imported when it is needed.

    Raises:
        ImportError: it is not installed; the message says how it is.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        name = package or module
        raise ImportError(f"{name} is not installed: pip install {name}") from error


def simulator_name(sim: Any) -> str:
    """What messages call a simulator."""
    return str(getattr(sim, "name", "") or type(sim).__name__)


def check_simulator_sizes(sim: Any) -> None:
    """Raise `ValueError` unless N, A, H and S are numbers that a simulator may have."""
    missing = [
        name
        for name in ("num_agents", "num_actions", "horizon", "reset", "step")
        if not hasattr(sim, name)
    ]
    if missing:
        raise ValueError(f"a simulator must have {', '.join(missing)}; {shown(sim)} has not")
    for name, least in (("num_agents", 2), ("num_actions", 1), ("horizon", 1)):
        check_count(f"{simulator_name(sim)}.{name}", getattr(sim, name), least)
    if getattr(sim, "num_states", None) is not None:
        check_count(f"{simulator_name(sim)}.num_states", sim.num_states, 1)


def arrays_of(observations: Any) -> list[np.ndarray]:
    """The arrays in observations, dictionaries in the order of their keys (as JAX has it)."""
    if isinstance(observations, dict):
        return [leaf for key in sorted(observations) for leaf in arrays_of(observations[key])]
    if isinstance(observations, tuple | list):
        return [leaf for part in observations for leaf in arrays_of(part)]
    return [np.asarray(observations)]


def structure_of(observations: Any) -> Any:
    """Observations with every array replaced by its number in `arrays_of`."""
    numbers = iter(range(len(arrays_of(observations))))

    def numbered(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: numbered(part[key]) for key in sorted(part)}
        if isinstance(part, tuple | list):
            return tuple(numbered(one) for one in part)
        return next(numbers)

    return numbered(observations)


def rebuilt(structure: Any, arrays: list[Any]) -> Any:
    """Arrays put back where `structure_of` found them."""
    if isinstance(structure, dict):
        return {key: rebuilt(part, arrays) for key, part in structure.items()}
    if isinstance(structure, tuple):
        return tuple(rebuilt(part, arrays) for part in structure)
    return arrays[structure]


def form_of(sim: Any) -> Form:
    """Play the first step of one episode and see what comes.

    Raises:
        ValueError: a size is none that a simulator may have.
        SimulatorError: what `reset` or `step` return is not what they should.
    """
    check_simulator_sizes(sim)
    name, n = simulator_name(sim), sim.num_agents
    with kept_generators():
        generators = Generators()
        generators.begin(0)
        observations = called(sim, "reset", 0, 0, lambda: sim.reset(0))
        arrays = arrays_of(observations)
        for array in arrays:
            if array.shape[:1] != (n,) or array.dtype.kind not in "biuf":
                raise SimulatorError(
                    f"{name}: reset must return arrays of numbers with leading axis N={n}, not "
                    f"{array.dtype} of shape {list(array.shape)}"
                )
        if getattr(sim, "num_states", None) is not None and (
            len(arrays) != 1 or arrays[0].ndim != 1 or arrays[0].dtype.kind not in "iu"
        ):
            raise SimulatorError(
                f"{name}: with num_states, reset must return one integer an agent, [{n}], not "
                f"{arrays[0].dtype} of shape {list(arrays[0].shape)}"
            )
        legal = sim.legal() if hasattr(sim, "legal") else None
        actions = np.zeros(n, np.int32)
        if legal is not None:
            actions = np.asarray(legal, bool).argmax(-1).astype(np.int32)
        generators.leave()
        generators.resume(0)
        returned = called(sim, "step", 0, 0, lambda: sim.step(actions))
    limited = legal is not None or (len(returned) == 4 and returned[3] is not None)
    kinds = {"i": "int32", "u": "int32", "b": "bool", "f": "float32"}
    return Form(
        structure_of(observations),
        tuple(array.shape[1:] for array in arrays),
        tuple(kinds[array.dtype.kind] for array in arrays),
        limited,
    )


def called(sim: Any, method: str, step: int, seed: int, call: Any) -> Any:
    """What a call of the simulator returns; what it raises becomes a `SimulatorError`."""
    try:
        returned = call()
    except SimulatorError:
        raise
    except Exception as error:
        raise SimulatorError(
            f"{simulator_name(sim)}: {method} at step {step} of the episode with seed {seed} "
            f"raised {type(error).__name__}: {error}"
        ) from error
    if method == "step" and not (isinstance(returned, tuple) and len(returned) == 4):
        raise SimulatorError(
            f"{simulator_name(sim)}: step must return (observations, rewards, alive, legal), not "
            f"{shown(returned)} (step {step}, seed {seed})"
        )
    return returned


def spawned(sim: Any) -> Any | None:
    """An independent copy of a simulator, None where there can be none."""
    try:
        return sim.spawn() if hasattr(sim, "spawn") else copy.deepcopy(sim)
    except Exception:  # open files, C objects, locks: then episodes follow one another
        return None


class Generators:
    """The global generators of `random` and NumPy as one lane has them: seeded once an episode.

    NumPy's are this lane's own, put in place of the global ones before every call. Python's has no
    such handle, and is seeded at every step: that costs less than to save and restore it. Both so
    that episodes may be played side by side in one process, and in any order.
    """

    def __init__(self) -> None:
        self._bits = np.random.MT19937(0)
        self._state: Any = None
        self._seed = 0

    def begin(self, seed: int) -> None:
        """Before `reset`: begin an episode."""
        self._seed = seed
        if _SWAPS:
            _GLOBAL.set_bit_generator(self._bits)
        np.random.seed(seed)  # noqa: NPY002 (simulators draw from this one)
        _seed_python(seed)

    def resume(self, step: int) -> None:
        """Before `step`: go on with it."""
        if _SWAPS:
            _GLOBAL.set_bit_generator(self._bits)  # forgets a normal number that was left over
        else:
            np.random.set_state((*self._state[:3], 0, 0.0))  # noqa: NPY002
        _seed_python((self._seed * 1_000_003 + (step + 1) * 7_919) % 2**32)

    def leave(self) -> None:
        """After either: keep where NumPy's stands, where it is not this lane's anyway."""
        if not _SWAPS:
            self._state = np.random.get_state()  # noqa: NPY002


_GLOBAL: Any = np.random
_SWAPS = hasattr(np.random, "set_bit_generator")  # NumPy 1.24 or newer
_PYTHON: Any = random.random.__self__  # type: ignore[attr-defined]  # the generator of `random`
_SEED = type(_PYTHON).__mro__[1].seed  # without `random.seed`, which takes three times as long


def _seed_python(seed: int) -> None:
    _SEED(_PYTHON, seed)
    _PYTHON.gauss_next = None


@contextlib.contextmanager
def kept_generators() -> Iterator[None]:
    """Put the global generators back at the end of a `with` block."""
    kept = (random.getstate(), np.random.get_state(legacy=False))  # noqa: NPY002
    bits = _GLOBAL.get_bit_generator() if _SWAPS else None
    try:
        yield
    finally:
        random.setstate(kept[0])
        if _SWAPS:
            _GLOBAL.set_bit_generator(bits)
        np.random.set_state(kept[1])  # noqa: NPY002
