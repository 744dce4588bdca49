"""Runs the notebooks of this folder again and saves what they print and draw.

    python examples/run_notebooks.py [NOTEBOOK ...]

The packages for it are in requirements-docs.txt.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent


def run(path: Path) -> None:
    """Execute one notebook and replace it."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute(cwd=FOLDER)
    # What changes from run to run and from machine to machine says nothing.
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells):
        cell.metadata = {}
        cell.id = f"cell-{number}"
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
            for output in cell.outputs:
                output.get("data", {}).pop("text/plain", None)
    nbformat.validate(notebook)
    nbformat.write(notebook, path)


def _joined(outputs: list) -> list:
    """Prints arrive in pieces; what follows one another becomes one."""
    found: list = []
    for output in outputs:
        if found and output.output_type == found[-1].output_type == "stream":
            found[-1].text += output.text
        else:
            found.append(output)
    return found


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(map(str, FOLDER.glob("*.ipynb"))):
        run(Path(name))
