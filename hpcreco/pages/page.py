"""A report as one HTML file: pictures inside, tables as tables, readable on a phone."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
:root { color-scheme: light }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 1.5rem auto; padding: 0 1rem; color: #222;
  background: #fff }
h1 { font-size: 1.5rem; line-height: 1.25; overflow-wrap: anywhere } h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem;
  border-top: 1px solid #ddd; padding-top: 1rem }
p { max-width: 48rem } .scroll { overflow-x: auto; max-width: 100% }
.pictures { display: flex; flex-wrap: wrap; gap: 1.5rem 2rem; align-items: flex-start }
figure { margin: 0; max-width: 100% } img { max-width: 100%; height: auto; display: block }
.panorama { width: 100% } .panorama img { min-width: 44rem }
figcaption { color: #444; font-size: .9rem; max-width: 44rem; margin-top: .3rem }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; margin: .5rem 0 1rem }
th, td { padding: .2rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #eee }
th { border-bottom: 1px solid #999; font-weight: 600 } td.text, th.text { text-align: left }
caption { text-align: left; font-weight: 600; padding: .3rem .6rem }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem }
dt { color: #555 } dd { margin: 0; overflow-wrap: anywhere }
nav { font-size: .9rem; margin: 1rem 0 } nav a { margin-right: 1rem; white-space: nowrap; display: inline-block }
a { color: #005a9c }
@media (max-width: 600px) { dl { grid-template-columns: 1fr } dd { margin-bottom: .4rem }
  th, td { padding: .2rem .4rem } .pictures > figure { width: 100% !important } }
"""

#: pixels; a wider picture keeps a readable size on a phone and scrolls instead
PANORAMA = 950


def page(title: str, heading: Mapping[str, object], sections: Sequence[tuple[str, str]]) -> str:
    """The page's text; sections are (title, HTML)."""
    facts = "".join(
        f"<dt>{html.escape(key)}</dt><dd>{html.escape(str(value))}</dd>" for key, value in heading.items()
    )
    links = "".join(f'<a href="#{_anchor(name)}">{html.escape(name)}</a>' for name, _ in sections)
    contents = f"<nav>{links}</nav>" if len(sections) > 2 else ""
    body = "".join(
        f'<h2 id="{_anchor(name)}">{html.escape(name)}</h2>\n{content}\n' for name, content in sections
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head>"
        f"<body><h1>{html.escape(title)}</h1><dl>{facts}</dl>\n{contents}\n{body}</body></html>\n"
    )


def _anchor(name: str) -> str:
    return re.sub(r"\W+", "-", name.lower()).strip("-")


def png(figure: Figure, dpi: int) -> bytes:
    """The figure as a PNG file's content."""
    target = io.BytesIO()
    figure.savefig(target, dpi=dpi, format="png")
    return target.getvalue()


def image(content: bytes, caption: str) -> str:
    """A PNG inside the page, never larger than it is."""
    width = int.from_bytes(content[16:20], "big")  # IHDR, the first chunk of every PNG
    text, said = base64.b64encode(content).decode(), html.escape(caption)
    shown = f'<img alt="{said}" width="{width}" src="data:image/png;base64,{text}">'
    if width > PANORAMA:
        return f'<figure class="panorama"><div class="scroll">{shown}</div><figcaption>{said}</figcaption></figure>'
    return f'<figure style="width:{width}px">{shown}<figcaption>{said}</figcaption></figure>'


def gallery(images: Sequence[str]) -> str:
    """Pictures side by side as far as there is room."""
    return f'<div class="pictures">{"".join(images)}</div>' if images else ""


def table(rows: Sequence[Mapping[str, object]], most: int = 60, title: str = "") -> str:
    """Rows as a table; long ones are cut, the CSV has all."""
    if not rows:
        return ""
    names = list(dict.fromkeys(name for row in rows for name in row))
    texts = {n for n in names if any(isinstance(row.get(n), str) and row[n] for row in rows)}
    kind = {n: ' class="text"' if n in texts else "" for n in names}
    head = "".join(f"<th{kind[n]}>{html.escape(n.replace('_', ' '))}</th>" for n in names)
    body = "".join(
        "<tr>" + "".join(f"<td{kind[n]}>{shown(row.get(n, ''))}</td>" for n in names) + "</tr>"
        for row in rows[:most]
    )
    named = f"<caption>{html.escape(title)}</caption>" if title else ""
    more = f"<p>{len(rows) - most} more rows in the CSV file.</p>" if len(rows) > most else ""
    return f'<div class="scroll"><table>{named}<tr>{head}</tr>{body}</table></div>{more}'


def shown(value: object) -> str:
    """A cell's text; what is unknown stays empty."""
    if value is None or (isinstance(value, float) and value != value):
        return ""
    return html.escape(f"{value:.4g}" if isinstance(value, float) else str(value))
