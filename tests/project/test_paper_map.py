"""docs/paper_map.md names symbols that exist."""

import importlib
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "paper_map.md"
SYMBOLS = re.findall(r"\| `(crowdnash[\w.]*)` \|", PAGE.read_text())


def _resolve(path: str) -> object:
    parts = path.split(".")
    for split in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:split]))
        except ModuleNotFoundError:
            continue
        for name in parts[split:]:
            found = getattr(found, name)
        return found
    raise AssertionError(path)


def test_page_has_rows():
    assert len(SYMBOLS) >= 15


@pytest.mark.parametrize("path", SYMBOLS)
def test_symbol_exists_and_is_documented(path: str):
    assert getattr(_resolve(path), "__doc__", None)
