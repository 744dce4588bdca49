"""The frame of a self-contained HTML page: cards, tables, pictures, style, script."""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from crowdnash.interval import Interval
from crowdnash.reports.chart import Picture
from crowdnash.reports.plotly import content, page_data

_SCRIPTS = ("agents.js", "report.js")


def document(
    title: str,
    sections: Iterable[str],
    pictures: Iterable[Picture] = (),
    agents: Mapping[str, Any] | None = None,
) -> str:
    """Return the page with this title and these parts, which are HTML.

    Args:
        title: of the page.
        sections: its parts, in order.
        pictures: those in it; their charts go into the page as data.
        agents: the table of the agents (`AgentGains.content`), or None.
    """
    figures = {
        picture.name: {
            "title": picture.title,
            "choice_name": picture.choice_name,
            "charts": [content(chart) for chart in picture.charts],
        }
        for picture in pictures
        if picture.charts
    }
    script = "\n" + '"use strict";\n' + "\n".join(_asset(name).decode() for name in _SCRIPTS)
    library = _asset("plotly-cartesian.min.js.gz")
    return _TEMPLATE.format(
        title=escape(title),
        style=_asset("report.css").decode(),
        allowed=f"{_source(script.encode())} {_source(gzip.decompress(library))}",
        body="\n".join(sections),
        data=page_data({"figures": figures, "agents": agents}),
        library=base64.b64encode(library).decode(),
        script=script,
    )


def _asset(name: str) -> bytes:
    return (files("crowdnash.reports") / "assets" / name).read_bytes()


def _source(script: bytes) -> str:
    """A script as a page's policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'"


def number(value: float, digits: int = 3) -> str:
    """Return a number with so many decimals, a real minus sign, and no minus before zero."""
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0.0 else text.replace("-", "−")


def interval(ends: Interval) -> str:
    """Return an interval, or the one number that it is."""
    low, high = (number(end) for end in ends)
    between = " to " if low.startswith("−") else "\u2009–\u2009"
    return high if ends.lower == ends.upper else low + between + high


def cards(figures: Iterable[tuple[str, str]]) -> str:
    """Return a row of cards: a figure, which is HTML, and what it is, which is text."""
    inner = "".join(
        f'<div class="card"><div class="figure">{figure}</div>'
        f'<div class="what">{escape(what)}</div></div>'
        for figure, what in figures
    )
    return f'<div class="cards">{inner}</div>'


def table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, name: str, numeric: bool = False
) -> str:
    """Return a table that scrolls sideways where it is too wide.

    Args:
        heads: text, one a column.
        rows: HTML, one a cell.
        name: what the table is, for readers who do not see it.
        numeric: whether all columns but the first hold numbers.
    """
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in heads)
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    kind = ' class="numbers"' if numeric else ""
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(name)}">'
        f"<table{kind}><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def settings_table(settings: Iterable[tuple[str, object]]) -> str:
    """Return a table of settings and their values."""
    rows = [(f"<code>{escape(name)}</code>", escape(str(value))) for name, value in settings]
    return table(("setting", "value"), rows, name="settings")


def figure(picture: Picture, content: bytes) -> str:
    """Return a picture with its caption; `content` is its SVG file, which goes into the page."""
    charts = picture.name if picture.charts else ""
    return image(picture.caption, content, note=picture.still_note, charts=charts)


def image(
    caption: str,
    content: bytes,
    kind: str = "image/svg+xml",
    *,
    note: str = "",
    charts: str = "",
) -> str:
    """Return a figure: an image file, which goes into the page, and its caption.

    Args:
        caption: what it shows.
        content: the file.
        kind: its media type.
        note: for readers who see the image itself, without scripts.
        charts: the name of the charts that stand in for it, if any.
    """
    # As an image, an SVG keeps its internal names to itself and cannot run anything.
    data = base64.b64encode(content).decode()
    marked = f' data-charts="{escape(charts)}"' if charts else ""
    alone = f"<noscript> {escape(note)}</noscript>" if note else ""
    return (
        f'<figure><img alt="{escape(caption)}"{marked} src="data:{kind};base64,{data}">'
        f"<figcaption>{escape(caption)}{alone}</figcaption></figure>"
    )


# The page says itself that it may load nothing and run nothing but its own script and Plotly.
_TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src 'unsafe-inline'; script-src {allowed}; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
</main>
<script type="application/json" id="report-data">{data}</script>
<script type="text/plain" id="plotly">{library}</script>
<script>{script}</script>
</body>
</html>
"""
