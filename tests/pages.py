"""Documentation that runs: the Python blocks of a Markdown page, the code cells of a notebook.

A page's blocks run in order and share their names. A block of kind `text` right after one of
Python is what that block prints. The shown text must be what is printed, up to one unit in the last
digit of numbers with a decimal point: a sum in float32 may round differently on another processor.

`python tests/pages.py docs/tutorial.md` runs pages and writes into them what they print.
"""

import contextlib
import io
import json
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
_BLOCK = re.compile(r"```python\n(?P<code>.*?)```(?:\n+```text\n(?P<shown>.*?)```)?", re.DOTALL)
_NUMBER = re.compile(r"[-+−]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


@dataclass(frozen=True)
class Block:
    """Python, what the page says it prints (None: nothing is said), and the line it starts at."""

    code: str
    shown: str | None
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(found["code"], found["shown"], text[: found.start("code")].count("\n"))
        for found in _BLOCK.finditer(text)
    ]


def cells(notebook: Path) -> list[Block]:
    """The code cells, with the text that they are saved with."""
    found = []
    for place, cell in enumerate(json.loads(notebook.read_text())["cells"]):
        if cell["cell_type"] == "code":
            shown = "".join(
                "".join(output["text"])
                for output in cell["outputs"]
                if output["output_type"] == "stream"
            )
            found.append(Block("".join(cell["source"]), shown or None, place))
    return found


def run(block: Block, names: dict, where: str) -> str:
    """Execute one block; what it prints."""
    # Errors point at the line of the page.
    code = compile("\n" * block.line + block.code, where, "exec")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, names)
    return printed.getvalue()


def run_and_compare(found: list[Block], where: str, names: dict | None = None) -> dict:
    """Execute blocks in order and compare what they print with what is shown; their names."""
    names = {} if names is None else names
    for block in found:
        printed = run(block, names, where)
        if block.shown is not None:
            difference = differs(block.shown, printed)
            assert not difference, f"{where}, block at line {block.line + 1}: {difference}"
    return names


def differs(shown: str, printed: str) -> str | None:
    """Where the two texts say different things; None if they agree."""
    shown_lines, printed_lines = shown.strip().splitlines(), printed.strip().splitlines()
    if len(shown_lines) != len(printed_lines):
        return f"{len(shown_lines)} lines shown, {len(printed_lines)} printed:\n{printed}"
    for left, right in zip(shown_lines, printed_lines, strict=True):
        if not _same_line(left.rstrip(), right.rstrip()):
            return f"shown:\n{left}\nprinted:\n{right}"
    return None


def _same_line(shown: str, printed: str) -> bool:
    # Columns may shift by a digit or a sign; words and their order may not.
    if _NUMBER.sub("#", shown).split() != _NUMBER.sub("#", printed).split():
        return False
    pairs = zip(_NUMBER.findall(shown), _NUMBER.findall(printed), strict=True)
    return all(_same_number(left, right) for left, right in pairs)


def _same_number(shown: str, printed: str) -> bool:
    if "." not in shown:
        return shown == printed
    mantissa, _, exponent = shown.replace("−", "-").partition("e")
    unit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    return abs(float(shown.replace("−", "-")) - float(printed.replace("−", "-"))) < 1.01 * unit


def write_outputs(page: Path) -> None:
    """Put into the page's `text` blocks what its Python prints today."""
    names: dict = {}
    printed = iter([run(block, names, page.name) for block in blocks(page)])

    def filled(match: re.Match) -> str:
        output = next(printed)
        if match["shown"] is None:
            return match[0]
        head = match[0][: match.start("shown") - match.start()]
        return head + output.rstrip("\n") + "\n```"

    page.write_text(_BLOCK.sub(filled, page.read_text()))


def main(pages: list[str]) -> None:
    os.environ.setdefault("MPLBACKEND", "Agg")
    paths = [Path(page).resolve() for page in pages]
    for page in paths:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            write_outputs(page)
            for picture in Path(folder).glob("*.png"):
                if (ROOT / "docs" / "assets" / picture.name).exists():
                    (ROOT / "docs" / "assets" / picture.name).write_bytes(picture.read_bytes())


if __name__ == "__main__":
    main(sys.argv[1:])
