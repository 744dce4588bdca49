"""The API reference is complete: every public name is in it, with what a reader needs to use it."""

import inspect
import re
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

import crowdnash as cn
from crowdnash import games, mean_field, simulators
from pages import ROOT

MODULES = {
    "crowdnash": cn,
    "crowdnash.games": games,
    "crowdnash.mean_field": mean_field,
    "crowdnash.simulators": simulators,
}
LISTED = [
    name
    for page in sorted((ROOT / "docs" / "reference").glob("*.md"))
    for name in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)
]

# What an author writes about one agent. The library calls it, with traced arguments and as often
# as it likes; `check_game` and the simulator say what is wrong with the results.
WRITTEN_BY_AUTHORS = {
    "DynamicGame": {"reset", "step", "observe", "statistics", "snapshot"},
    "TabularGame": {"law", "joint_law"},
    "PopulationGame": {"transition", "reward", "contribution"},
    "Policy": {"probabilities"},
    "Simulator": {"reset", "step"},
    "MeanFieldGame": {"laws"},
}
# Methods that only read arrays, and so have nothing to complain of.
CANNOT_FAIL = {
    "crowdnash.PolicyMirrorDescent.policies",
    "crowdnash.PolicyMirrorDescent.presets",
    "crowdnash.PolicyMirrorDescent.summary",
    "crowdnash.NeuralPolicy.all_probabilities",
    "crowdnash.PPO.pinned",
    "crowdnash.PPO.policies",
    "crowdnash.PPO.presets",
    "crowdnash.PPO.summary",
    "crowdnash.games.Taxi.apply",
    "crowdnash.games.Taxi.draw_events",
    "crowdnash.games.Taxi.jam_probability",
    "crowdnash.games.Taxi.zone_of",
    "crowdnash.games.Taxi.zone_shares",
    "crowdnash.games.names",
    "crowdnash.games.tabular_names",
}
# Plumbing, conventions and our own; the rest implements the paper or other work and says what.
NOT_FROM_THE_PAPER = {
    "crowdnash.EpochMetrics",
    "crowdnash.GameError",
    "crowdnash.NumpyPolicy",
    "crowdnash.Interval",
    "crowdnash.MaskedTrajectories",
    "crowdnash.NeuralPolicy",
    "crowdnash.PPOMetrics",
    "crowdnash.Trajectories",
    "crowdnash.check_game",
    "crowdnash.games.lookup",
    "crowdnash.games.names",
    "crowdnash.games.tabular_names",
    "crowdnash.simulate",
    "crowdnash.simulators.Simulator",
    "crowdnash.simulators.SimulatorError",
    "crowdnash.simulators.Workers",
    "crowdnash.simulators.as_game",
    "crowdnash.simulators.gymnasium",
    "crowdnash.simulators.mesa",
    "crowdnash.simulators.pettingzoo",
    "crowdnash.simulators.to_pettingzoo",
    "crowdnash.solve",
    "crowdnash.solve_together",
}
_SOURCE = re.compile(
    r"\b(Defs?\.|Definition|Theorem|Lemma|Algorithms?|Example|Section|Appendix|Fig|Table) ?\d"
    r"|\b[A-E]\.\d|\bA-(SIS|RPS|Taxi)\b|et al\.|\b(19|20)\d\d\b|\(paper"
)
_ERRORS = re.compile(r"\*\*Raises:\*\*|^\s*Raises:|\bRaises? `|raises nothing", re.MULTILINE)


def public_names() -> Iterator[tuple[str, Any]]:
    for module, content in MODULES.items():
        for name in content.__all__:
            if not isinstance(getattr(content, name), types.ModuleType):
                yield f"{module}.{name}", getattr(content, name)


class Called(NamedTuple):
    """A function or method; `overrides` if it is an author's part of a game, or one of its kind."""

    path: str
    function: Callable
    documentation: str
    overrides: bool


def members(path: str, cls: type) -> Iterator[tuple[str, Any, type]]:
    """Public members that this library defines in the class itself."""
    for name, member in vars(cls).items():
        if not name.startswith("_"):
            yield f"{path}.{name}", member, cls


def called() -> Iterator[Called]:
    for path, found in public_names():
        if not inspect.isclass(found):
            yield Called(path, found, inspect.getdoc(found) or "", overrides=False)
            continue
        for place, member, cls in members(path, found):
            function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
            function = inspect.unwrap(getattr(function, "__wrapped__", function))
            if not inspect.isfunction(function):
                continue
            name = place.rpartition(".")[2]
            written = any(name in WRITTEN_BY_AUTHORS.get(base.__name__, ()) for base in cls.__mro__)
            documentation = inspect.getdoc(getattr(cls, name)) or ""
            yield Called(place, function, documentation, overrides=written)


NAMES = dict(public_names())
CALLED = {one.path: one for one in called()}


def test_reference_lists_every_public_name_once():
    assert sorted(LISTED) == sorted(NAMES)


def test_what_is_looked_at_is_not_empty():
    assert len(NAMES) > 50
    assert {"crowdnash.solve", "crowdnash.TabularPolicy.load", "crowdnash.PPO.step"} <= set(CALLED)


@pytest.mark.parametrize("path", NAMES)
def test_public_name_has_a_docstring_of_its_own(path):
    own = NAMES[path].__doc__
    assert own, path
    # Records and dataclasses get a generated one: `Name(field, ...)`.
    assert not own.startswith(f"{path.rpartition('.')[2]}("), f"{path} has no docstring of its own"
    assert re.match(r"\S.*\S", own.splitlines()[0]), f"{path}: the first line says what it is"


@pytest.mark.parametrize("path", [path for path, found in NAMES.items() if inspect.isclass(found)])
def test_public_members_have_docstrings(path):
    for place, member, cls in members(path, NAMES[path]):
        if isinstance(member, property) or callable(member) or hasattr(member, "__wrapped__"):
            name = place.rpartition(".")[2]
            assert inspect.getdoc(getattr(cls, name)), f"{place} has no docstring"


@pytest.mark.parametrize("path", CALLED)
def test_every_parameter_and_result_is_annotated(path):
    one = CALLED[path]
    signature = inspect.signature(one.function)
    bare = [
        p.name
        for p in signature.parameters.values()
        if p.annotation is p.empty and p.name not in ("self", "cls")
    ]
    assert not bare, f"{path}: no annotation for {bare}"
    assert signature.return_annotation is not signature.empty, f"{path}: no return annotation"


@pytest.mark.parametrize("path", CALLED)
def test_errors_are_documented(path):
    one = CALLED[path]
    takes = [p for p in inspect.signature(one.function).parameters if p not in ("self", "cls")]
    says = _ERRORS.search(one.documentation)
    if path in CANNOT_FAIL:
        assert not says, f"{path} documents errors: take it off the list"
    elif takes and not one.overrides:
        assert says, f"{path}: nothing is said about errors"


@pytest.mark.parametrize("path", sorted(set(NAMES) - NOT_FROM_THE_PAPER))
def test_source_is_named(path):
    documentation = inspect.getdoc(NAMES[path]) or ""
    assert _SOURCE.search(documentation), f"{path}: which item of the paper, or what other source?"


@pytest.mark.parametrize("path", CALLED)
def test_arrays_without_a_shape_in_the_signature_are_described(path):
    one = CALLED[path]
    cls = NAMES.get(path.rpartition(".")[0])
    documentation = one.documentation + (inspect.getdoc(cls) or "" if cls else "")
    shapeless = {Any, np.ndarray, jax.Array, Sequence, "Any", "Array"}
    for name, p in inspect.signature(one.function).parameters.items():
        if p.annotation in shapeless and p.kind is not p.VAR_KEYWORD and not one.overrides:
            assert re.search(rf"\b{name}\b", documentation), f"{path}: {name} is not described"


def test_lists_of_exceptions_name_what_exists():
    assert set(NAMES) >= NOT_FROM_THE_PAPER
    assert set(CALLED) >= CANNOT_FAIL
