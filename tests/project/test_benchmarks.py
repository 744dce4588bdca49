"""`make bench` makes the tables that the documentation quotes."""

import re

from pages import ROOT

BY_REPRODUCE = {"taxi", "theory"}


def bench() -> str:
    """The recipe of `make bench`."""
    return re.search(r"^bench:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]


def test_every_quoted_table_is_measured_by_make_bench():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    text = "".join(page.read_text() for page in pages)
    quoted = set(re.findall(r"results/([a-z_]+)\.md", text))
    kept = {path.stem for path in (ROOT / "benchmarks" / "results").glob("*.md")}
    assert len(quoted) >= 5
    assert quoted <= kept
    measured = set(re.findall(r"benchmarks/([a-z_]+)\.py", bench()))
    assert kept <= measured | BY_REPRODUCE
    assert "crowdnash reproduce all" in bench()


def test_make_bench_runs_what_there_is():
    for name in re.findall(r"benchmarks/([a-z_]+)\.py", bench()):
        assert f'"{name}' in (ROOT / "benchmarks" / f"{name}.py").read_text(), "its results' name"
