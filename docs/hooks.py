"""Shows the notebooks of `examples/` as pages of the site, with what they print and draw."""

import base64
import json
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

_TERMINAL_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page, its pictures and the notebook itself for every notebook."""
    for notebook in sorted((Path(config.docs_dir).parent / "examples").glob("*.ipynb")):
        text, pictures = _page(notebook)
        files.append(File.generated(config, f"examples/{notebook.stem}.md", content=text))
        files.append(
            File.generated(config, f"examples/{notebook.name}", abs_src_path=str(notebook))
        )
        for name, data in pictures.items():
            files.append(File.generated(config, f"examples/{name}", content=data))
    return files


def on_config(config: MkDocsConfig) -> None:
    """Rebuild when a notebook changes (`mkdocs serve`)."""
    config.watch.append(str(Path(config.docs_dir).parent / "examples"))


def _page(notebook: Path) -> tuple[str, dict[str, bytes]]:
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in json.loads(notebook.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            if output["output_type"] == "stream":
                text = _TERMINAL_COLOURS.sub("", "".join(output["text"]))
                parts.append(f"```text\n{text.rstrip()}\n```")
            elif "image/png" in output.get("data", {}):
                name = f"{notebook.stem}_{len(pictures)}.png"
                pictures[name] = base64.b64decode(output["data"]["image/png"])
                parts.append(f"![What the code above draws]({name})")
            elif "text/plain" in output.get("data", {}):
                text = "".join(output["data"]["text/plain"])
                parts.append(f"```text\n{text.rstrip()}\n```")
    head, *rest = parts
    link = f"*A notebook: [{notebook.name}]({notebook.name}), with the outputs shown here.*"
    return "\n\n".join([head, link, *rest]) + "\n", pictures
