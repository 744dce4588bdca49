"""The scripts of `examples/simulators`: ten lines of a user at most; they run where they can."""

import ast
import runpy
import warnings

import numpy as np
import pytest

from pages import ROOT

SCRIPTS = sorted((ROOT / "examples" / "simulators").glob("*.py"))
MOST = 10
LONGER = {"mesa_civil_violence": 22}
"""Mesa's models have rules where others have actions: what each means has to be said."""


def user_lines(text: str) -> int:
    """Lines of code: without blank ones, the docstring, and the two imports that all have."""
    tree = ast.parse(text)
    known = {"jax", "crowdnash"}
    lines: set[int] = set()
    for node in tree.body[1:]:
        if isinstance(node, ast.Import) and {alias.name for alias in node.names} <= known:
            continue
        lines |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def test_there_is_one_for_every_adapter():
    adapters = {"gymnasium", "jaxmarl", "mesa", "mfglib", "open_spiel", "pettingzoo"}
    texts = [script.read_text() for script in SCRIPTS]
    used = {name for name in adapters if any(f"cn.simulators.{name}(" in text for text in texts)}
    assert used == adapters


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_user_writes_ten_lines(script):
    assert user_lines(script.read_text()) <= LONGER.get(script.stem, MOST)


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_it_runs_where_its_library_is(script):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other libraries' own
            left = runpy.run_path(str(script))
    except (ImportError, ModuleNotFoundError) as error:
        pytest.skip(str(error))
    assert np.isfinite(left["result"].history[-1].mean_return)
