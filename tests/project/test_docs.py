"""The Python on every page and in every notebook runs, and prints what the page shows.

`test_readme.py` does the same for the README, `test_reference.py` looks at the API reference.
"""

import contextlib
import functools
import io
import re
import shlex

import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pytest
import yaml

from crowdnash.cli import main
from pages import ROOT, blocks, cells, differs, run_and_compare

DOCS = ROOT / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if blocks(page))
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
RUNNABLE = {
    "index.md": 1,
    "simulators.md": 10,
    "tutorial.md": 13,
    "howto/black_box.md": 6,
    "howto/which_learner.md": 5,
    "howto/gpu.md": 1,
    "howto/large_games.md": 3,
    "howto/many_runs.md": 3,
    "howto/mean_field.md": 2,
    "howto/newcomers.md": 2,
    "howto/read_a_certificate.md": 7,
    "howto/write_a_game.md": 3,
}


def test_pages_with_python_are_those_that_were_written_with_it():
    found = {str(page.relative_to(DOCS)): len(blocks(page)) for page in PAGES}
    assert found.items() >= RUNNABLE.items()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_every_block_is_seen(page):
    """A fence in another form would not be run."""
    fences = re.findall(r"^ *(?:`{3,}|~{3,}) *(?:py|python)\b.*$", page.read_text(), re.MULTILINE)
    assert fences == ["```python"] * len(blocks(page))


def commands() -> list[str]:
    """Every call of crowdnash in a shell block of the README and the pages."""
    found = []
    for page in (ROOT / "README.md", *sorted(DOCS.rglob("*.md"))):
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL):
            joined = re.sub(r"\\\n\s*", "", block)
            found += re.findall(r"^crowdnash .*?(?= *#|$)", joined, re.MULTILINE)
    return found


@functools.cache
def flags_of(*command: str) -> set[str]:
    """The flags that `crowdnash COMMAND... --help` lists."""
    with contextlib.redirect_stdout(io.StringIO()) as shown, pytest.raises(SystemExit):
        main([*command, "--help"])
    return set(re.findall(r"--[a-z][a-z0-9-]*", shown.getvalue()))


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_shell_blocks_use_flags_that_there_are(command):
    _, name, *rest = shlex.split(command)
    if name in ("games", "completion"):
        assert not any(word.startswith("-") for word in rest) or "--json" in rest
        return
    with_game = name in ("solve", "symmetry", "mean-field")
    game = [word for word in rest[:1] if with_game and not word.startswith("-")]
    used = {word.split("=")[0] for word in rest if word.startswith("--")} - {"--help"}
    neural = ["--identity", "none"] if "--identity" in used else []
    assert used <= flags_of(name, *game, *(neural if game else []))


def test_there_are_shell_blocks():
    assert len(commands()) > 15


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_page_runs_and_prints_what_it_shows(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_and_compare(blocks(page), str(page.relative_to(ROOT)))
    plt.close("all")
    for drawn in tmp_path.glob("*.png"):
        assert_same_picture(drawn, DOCS / "assets" / drawn.name)


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_notebook_runs_and_prints_what_it_shows(notebook, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_and_compare(cells(notebook), notebook.name)
    plt.close("all")


def assert_same_picture(drawn, stored):
    """Up to a few points that moved; fonts come with matplotlib, so letters do not."""
    one, other = (matplotlib.image.imread(path)[..., :3] for path in (drawn, stored))
    assert one.shape == other.shape, stored.name
    assert np.abs(one - other).mean() < 0.005, f"{stored.name} is out of date: run tests/pages.py"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_notebook_is_small_and_shows_its_outputs(notebook):
    assert notebook.stat().st_size < 300_000
    text = notebook.read_text()
    assert '"image/png"' in text
    assert any(cell.shown for cell in cells(notebook))
    assert '"output_type": "error"' not in text
    assert "/home/" not in text
    assert "/tmp/" not in text


class Loader(yaml.SafeLoader):
    """Reads `mkdocs.yml`, whose tags for Python objects do not matter here."""


Loader.add_multi_constructor("!", lambda loader, suffix, node: None)
Loader.add_multi_constructor("tag:", lambda loader, suffix, node: None)


def in_navigation(entry) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    parts = entry.values() if isinstance(entry, dict) else entry
    return [page for part in parts for page in in_navigation(part)]


def test_navigation_shows_every_page_and_notebook():
    config = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)
    shown = in_navigation(config["nav"])
    written = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    written |= {f"examples/{notebook.stem}.md" for notebook in NOTEBOOKS}
    assert written == set(shown)
    assert len(shown) == len(set(shown))


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.name)
def test_links_and_pictures_are_there(page):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            generated = ROOT / "examples" / target.rpartition("/")[2].replace(".md", ".ipynb")
            assert (page.parent / target).exists() or generated.exists(), f"{page.name}: {target}"


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("gain 0.69", "gain 0.69", True),
        ("gain 0.69", "gain 0.70", True),
        ("gain 0.69", "gain 0.71", False),
        ("gain 0.69", "loss 0.69", False),
        ("gain -0.00", "gain  0.00", True),
        ("1.23e-04", "1.24e-04", True),
        ("1.23e-04", "1.23e-05", False),
        ("7 agents", "8 agents", False),
        ("a\nb", "a", False),
    ],
)
def test_comparison_allows_rounding_and_nothing_else(shown, printed, same):
    assert (differs(shown, printed) is None) == same
