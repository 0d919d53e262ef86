"""An HTML file, and tables in it."""

from collections.abc import Sequence
from html import escape

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:760px;margin:2rem auto;padding:0 1rem;color:#1c1917;background:#fff}
h1{font-size:1.4rem}h2{font-size:1.05rem;margin:2rem 0 .2rem}table{border-collapse:collapse;margin:.5rem 0 1rem}
td,th{padding:.1rem .9rem .1rem 0;text-align:right;font-variant-numeric:tabular-nums}
td:first-child,th:first-child{text-align:left}svg{width:100%;height:auto;font-size:11px}.grid{stroke:#e7e5e4}
.mid{text-anchor:middle}.end{text-anchor:end}.warning{background:#fef3c7;padding:.5rem .8rem}
.key{margin-right:1.2rem}.key i{display:inline-block;width:.8rem;height:.2rem;margin:0 .4rem .25rem 0}
"""


def document(title: str, parts: Sequence[str]) -> str:
    """Return a whole HTML file. ``parts`` are HTML."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
