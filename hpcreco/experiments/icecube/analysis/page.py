"""A report as one HTML file: pictures inside, tables as tables."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
img { max-width: 100%; height: auto } figure { margin: 0 } figcaption { color: #555 }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: 13px }
th, td { padding: .15rem .6rem; text-align: right; white-space: nowrap }
th { border-bottom: 1px solid #999; font-weight: 600 } td:first-child, th:first-child { text-align: left }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem }
dt { color: #555 } dd { margin: 0; overflow-wrap: anywhere }
"""


def page(title: str, heading: Mapping[str, object], sections: Sequence[tuple[str, str]]) -> str:
    """The page's text; sections are (title, HTML)."""
    facts = "".join(
        f"<dt>{html.escape(key)}</dt><dd>{html.escape(str(value))}</dd>" for key, value in heading.items()
    )
    body = "".join(f"<h2>{html.escape(name)}</h2>\n{content}\n" for name, content in sections)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
        f"<body><h1>{html.escape(title)}</h1><dl>{facts}</dl>\n{body}</body></html>\n"
    )


def png(figure: Figure, dpi: int) -> bytes:
    """The figure as a PNG file's content."""
    target = io.BytesIO()
    figure.savefig(target, dpi=dpi, format="png")
    return target.getvalue()


def image(content: bytes, caption: str) -> str:
    """A PNG inside the page."""
    text = base64.b64encode(content).decode()
    said = html.escape(caption)
    return f'<figure><img alt="{said}" src="data:image/png;base64,{text}"><figcaption>{said}</figcaption></figure>'


def table(rows: Sequence[Mapping[str, object]], most: int = 60) -> str:
    """Rows as a table; long ones are cut, the CSV has all."""
    if not rows:
        return ""
    names = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{html.escape(name.replace('_', ' '))}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{shown(row.get(n, ''))}</td>" for n in names) + "</tr>" for row in rows[:most]
    )
    more = f"<p>{len(rows) - most} more rows in the CSV file.</p>" if len(rows) > most else ""
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>{more}'


def shown(value: object) -> str:
    """A cell's text."""
    return html.escape(f"{value:.4g}" if isinstance(value, float) else str(value))
