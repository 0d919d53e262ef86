"""HTML files that need nothing else, no script and no network: text, tables, and charts in SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

Scale = Literal["linear", "log"]

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:760px;margin:2rem auto;padding:0 1rem;color:#1c1917;background:#fff}
h1{font-size:1.4rem}h2{font-size:1.05rem;margin:2rem 0 .2rem}table{border-collapse:collapse;margin:.5rem 0 1rem}
td,th{padding:.1rem .9rem .1rem 0;text-align:right;font-variant-numeric:tabular-nums}
td:first-child,th:first-child{text-align:left}svg{width:100%;height:auto;font-size:11px}.grid{stroke:#e7e5e4}
.mid{text-anchor:middle}.end{text-anchor:end}.warning{background:#fef3c7;padding:.5rem .8rem}
.key{margin-right:1.2rem}.key i{display:inline-block;width:.8rem;height:.2rem;margin:0 .4rem .25rem 0}
"""

_WIDTH, _HEIGHT = 720, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 16, 44
_COLOURS = ("#1f6fb2", "#c2410c", "#15803d", "#6b7280")
_TICKS = 5
# Of a chart of intervals: the width for names, the length of the longest name, and the height of a row.
_NAMES, _MOST_CHARACTERS, _ROW = 200, 32, 28


@dataclass(frozen=True, slots=True)
class Line:
    """Points by x. A y of None is a gap."""

    name: str
    points: Sequence[tuple[float, float | None]]
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis. ``ticks`` are its labelled positions; None for round numbers."""

    name: str
    scale: Scale = "linear"
    ticks: Sequence[tuple[float, str]] | None = None


@dataclass(frozen=True, slots=True)
class _Range:
    """Maps values to pixels."""

    low: float
    high: float
    scale: Scale
    first: float
    last: float

    def pixel(self, value: float) -> float:
        low, high = self.low, self.high
        if self.scale == "log":
            value, low, high = math.log(max(value, low)), math.log(low), math.log(high)
        return self.first + (value - low) / (high - low) * (self.last - self.first)


def chart(title: str, x: Axis, y: Axis, lines: Sequence[Line]) -> str:
    """Return an ``<svg>``; a sentence if there is nothing to draw."""
    points = [(px, py) for line in lines for px, py in line.points if py is not None and math.isfinite(py)]
    if not points:
        return _nothing(title)
    bottom = _HEIGHT - _BOTTOM
    across = _range([px for px, _ in points], x.scale, _LEFT, _WIDTH - _RIGHT)
    up = _range([py for _, py in points], y.scale, bottom, _TOP)
    parts = [*_x_axis(x, across, bottom), *_y_axis(y, up)]
    for line, colour in zip(lines, _COLOURS):
        parts += _line(line, colour, across, up)
    keys = "".join(
        f'<span class="key"><i style="background:{colour}"></i>{escape(line.name)}</span>'
        for line, colour in zip(lines, _COLOURS)
    )
    return _svg(title, f"<p>{keys}</p>", bottom, parts)


def _svg(title: str, keys: str, bottom: float, parts: Sequence[str]) -> str:
    return (
        f'<h2>{escape(title)}</h2>{keys}<svg viewBox="0 0 {_WIDTH} {bottom + _BOTTOM:g}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )


def _nothing(title: str) -> str:
    return f"<h2>{escape(title)}</h2><p>There is nothing to draw.</p>"


def _range(values: Sequence[float], scale: Scale, first: float, last: float) -> _Range:
    if scale == "log":
        low = min((value for value in values if value > 0), default=1.0)
        return _Range(low, max(*values, low * 1.01), scale, first, last)
    low, high = min(0.0, *values), max(0.0, *values)
    return _Range(low, high if high > low else low + 1.0, scale, first, last)


def _ticks(axis: Axis, within: _Range) -> list[tuple[float, str]]:
    if axis.ticks is not None:
        return [(value, text) for value, text in axis.ticks if within.low <= value <= within.high]
    if within.scale == "log":
        powers = range(math.floor(math.log10(within.low)), math.ceil(math.log10(within.high)) + 1)
        steps = (1,) if len(powers) > _TICKS else (1, 2, 5)
        values = [step * 10.0**power for power in powers for step in steps]
        return [(value, f"{value:g}") for value in values if within.low <= value <= within.high]
    least = (within.high - within.low) / _TICKS
    power = 10.0 ** math.floor(math.log10(least))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * 0.999)
    numbers = range(math.ceil(within.low / step - 1e-9), math.floor(within.high / step + 1e-9) + 1)
    return [(step * number, f"{step * number:.6g}") for number in numbers]


def _x_axis(axis: Axis, across: _Range, bottom: float) -> list[str]:
    """Return the axis, with a mark at 0 if the axis contains it."""
    middle = (across.first + across.last) / 2
    parts = [f'<text x="{middle:g}" y="{bottom + 36:g}" class="mid">{escape(axis.name)}</text>']
    for value, text in _ticks(axis, across):
        at = across.pixel(value)
        is_zero = value == 0 and across.low < 0
        mark = 'stroke="#78716c" stroke-dasharray="3 3"' if is_zero else 'class="grid"'
        parts.append(f'<path d="M{at:.1f} {_TOP}V{bottom:g}" {mark}/>')
        parts.append(f'<text x="{at:.1f}" y="{bottom + 16:g}" class="mid">{escape(text)}</text>')
    return parts


def _y_axis(axis: Axis, up: _Range) -> list[str]:
    parts = [f'<text x="4" y="{_TOP - 4}">{escape(axis.name)}</text>']
    for value, text in _ticks(axis, up):
        at = up.pixel(value)
        parts.append(f'<path d="M{_LEFT} {at:.1f}H{_WIDTH - _RIGHT}" class="grid"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" class="end">{escape(text)}</text>')
    return parts


def _line(line: Line, colour: str, across: _Range, up: _Range) -> list[str]:
    """Return a path with gaps where values are missing, and dots if there are few points."""
    path, pen = [], "M"
    dots = []
    for x, y in line.points:
        if y is None or not math.isfinite(y):
            pen = "M"
            continue
        at = f"{across.pixel(x):.1f} {up.pixel(y):.1f}"
        path.append(pen + at)
        pen = "L"
        dots.append('<circle cx="{}" cy="{}" r="2.5" fill="{}"/>'.format(*at.split(), colour))
    dash = ' stroke-dasharray="5 4"' if line.dashed else ""
    drawn = f'<path d="{"".join(path)}" fill="none" stroke="{colour}" stroke-width="1.6"{dash}/>'
    return [drawn, *(dots if len(dots) <= 60 and not line.dashed else [])]


@dataclass(frozen=True, slots=True)
class Whisker:
    """An interval with a point in it; the point may be missing."""

    name: str
    low: float
    high: float
    point: float | None = None


def whiskers(title: str, axis: Axis, rows: Sequence[Whisker]) -> str:
    """Return an ``<svg>`` with a line for each interval, on a linear axis; a sentence if there are none.

    The axis extends slightly beyond the intervals.
    """
    if not rows:
        return _nothing(title)
    low, high = min(row.low for row in rows), max(row.high for row in rows)
    margin = 0.05 * (high - low) or 0.05
    across = _Range(low - margin, high + margin, "linear", _NAMES, _WIDTH - _RIGHT)
    bottom = _TOP + _ROW * len(rows)
    parts = _x_axis(axis, across, bottom)
    for index, row in enumerate(rows):
        up = _TOP + _ROW * (index + 0.5)
        left, right = across.pixel(row.low), across.pixel(row.high)
        name = row.name if len(row.name) <= _MOST_CHARACTERS else row.name[: _MOST_CHARACTERS - 1] + "…"
        parts.append(f'<text x="{_NAMES - 8}" y="{up + 4:.1f}" class="end">{escape(name)}</text>')
        parts.append(
            f'<path d="M{left:.1f} {up:.1f}H{right:.1f}M{left:.1f} {up - 4:.1f}v8M{right:.1f} {up - 4:.1f}v8" '
            f'stroke="{_COLOURS[0]}" stroke-width="1.6"/>'
        )
        if row.point is not None:
            parts.append(f'<circle cx="{across.pixel(row.point):.1f}" cy="{up:.1f}" r="3.5" fill="{_COLOURS[0]}"/>')
    return _svg(title, "", bottom, parts)


def document(title: str, parts: Sequence[str]) -> str:
    """Return a whole HTML file. ``parts`` are HTML."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def paragraph(text: str) -> str:
    """Return the text as a paragraph, with a capital and a full stop."""
    return f"<p>{escape(text[:1].upper() + text[1:])}.</p>"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
