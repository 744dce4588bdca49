"""The frame of a self-contained HTML page: cards, tables, pictures, style."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """One picture of a report: its file name without suffix, what it shows, and itself."""

    name: str
    caption: str
    figure: Figure


def document(title: str, sections: Iterable[str]) -> str:
    """Return the page with this title and these parts, which are HTML."""
    return _TEMPLATE.format(title=escape(title), style=_STYLE, body="\n".join(sections))


def cards(figures: Iterable[tuple[str, str]]) -> str:
    """Return a row of cards: a figure, which is HTML, and what it is, which is text."""
    inner = "".join(
        f'<div class="card"><div class="figure">{figure}</div>'
        f'<div class="what">{escape(what)}</div></div>'
        for figure, what in figures
    )
    return f'<div class="cards">{inner}</div>'


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; the heads are text, the cells HTML."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in heads)
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"


def settings_table(settings: Iterable[tuple[str, object]]) -> str:
    """Return a table of settings and their values."""
    rows = [(f"<code>{escape(name)}</code>", escape(str(value))) for name, value in settings]
    return table(("setting", "value"), rows)


def figure(caption: str, content: bytes, kind: str = "image/svg+xml") -> str:
    """Return a picture with its caption; `content` is the file, inside the page."""
    # As an image, an SVG keeps its internal names to itself and cannot run anything.
    data = base64.b64encode(content).decode()
    return (
        f'<figure><img alt="{escape(caption)}" src="data:{kind};base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


_STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 860px; padding: 2.5rem 1.25rem 4rem; background: #fff;
  color: #222; font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.65rem; line-height: 1.25; margin: 0 0 1.25rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; padding-top: 1.25rem;
  border-top: 1px solid #e4e4e4; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(175px, 1fr)); gap: .75rem; }
.card { border: 1px solid #e2e6ea; border-radius: 8px; padding: .8rem 1rem; background: #f8fafc; }
.figure { font-size: 1.3rem; font-weight: 600; color: #2c5282;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
.what { font-size: .85rem; color: #555; }
.lead { font-size: 1.05rem; }
.note { color: #555; font-size: .9rem; }
table { border-collapse: collapse; width: 100%; font-size: .92rem;
  font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; border-bottom: 2px solid #cfd6dd; padding: .4rem .6rem; }
td { border-bottom: 1px solid #ececec; padding: .35rem .6rem; }
figure { margin: 1.75rem 0; }
figure img { width: 100%; height: auto; }
figcaption { color: #555; font-size: .9rem; margin-top: .35rem; }
code { font: .9em ui-monospace, SFMono-Regular, Menlo, monospace; }
@media print { .card, figure, table { break-inside: avoid; } }
"""

_TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""
