"""The public surface, written down: a change of it must be meant.

`public_api.txt` has a line for every public name, with the parameters of functions and classes
and the members of classes. After a change that is meant, write it anew with

    python tests/project/test_public_api.py

and say in CHANGELOG.md what users have to change; see CONTRIBUTING.md for what a version number
promises.
"""

import inspect
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import crowdnash as cn

SURFACE = Path(__file__).with_name("public_api.txt")
MODULES = {
    "crowdnash": cn,
    "crowdnash.games": cn.games,
    "crowdnash.mean_field": cn.mean_field,
    "crowdnash.simulators": cn.simulators,
}


def surface() -> Iterator[str]:
    """A line for every public name."""
    for module_name, module in MODULES.items():
        for name in sorted(module.__all__):
            item = getattr(module, name)
            if inspect.ismodule(item):
                continue
            yield f"{module_name}.{name}{_parameters(item)}"
            if inspect.isclass(item):
                yield from (f"    .{member}" for member in _members(item))


def _parameters(item) -> str:
    if not callable(item):
        return ""
    try:
        signature = inspect.signature(item)
    except (ValueError, TypeError):
        return ""
    plain = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
    ]
    text = str(inspect.Signature(plain))
    # Functions as defaults show an address.
    return re.sub(r"<function (\S+) at 0x[0-9a-f]+>", r"\1", text)


def _members(item) -> Iterator[str]:
    """Public members that the class, or one of ours that it derives from, defines."""
    found = {}
    for base in reversed(item.__mro__):
        if not base.__module__.startswith("crowdnash"):
            continue
        for name, member in vars(base).items():
            if name.startswith("_"):
                continue
            plain = member.__func__ if isinstance(member, classmethod | staticmethod) else member
            if isinstance(plain, property):
                found[name] = name
            elif inspect.isfunction(inspect.unwrap(plain)) and callable(plain):
                found[name] = f"{name}{_parameters(inspect.unwrap(plain))}"
        for name in getattr(base, "__annotations__", {}):
            if not name.startswith("_"):
                found.setdefault(name, name)
    yield from (found[name] for name in sorted(found))


def test_the_public_surface_is_the_one_written_down():
    found, written = list(surface()), SURFACE.read_text().splitlines()
    missing = [line for line in written if line not in found]
    added = [line for line in found if line not in written]
    assert not missing, f"gone or changed; if that is meant, see the head of this file: {missing}"
    assert not added, f"new; if that is meant, see the head of this file: {added}"
    assert found == written


def test_all_names_exist_and_are_listed_once():
    for module in MODULES.values():
        assert len(set(module.__all__)) == len(module.__all__)
        for name in module.__all__:
            assert hasattr(module, name)


def test_the_version_is_written_once():
    assert metadata.version("crowdnash") == cn.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", cn.__version__)
    changes = (Path(__file__).parents[2] / "CHANGELOG.md").read_text()
    assert f"## [{cn.__version__}]" in changes or ".dev" in cn.__version__


if __name__ == "__main__":
    SURFACE.write_text("".join(f"{line}\n" for line in surface()))
