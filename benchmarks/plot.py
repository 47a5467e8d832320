"""The comparisons as one SVG, legible on light and on dark pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from comparison import Comparison

_WIDTH, _ROW, _TOP, _BOTTOM = 860, 26, 46, 30
_LEFT, _RIGHT = 400, 84
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #57606a }
.peer { fill: #6e7781 }
.title { font-size: 15px; font-weight: 600 }
.grid { stroke: #8c959f; stroke-opacity: 0.3 }
.bar { fill: #2f81f7 }
.spread { stroke: #57606a; stroke-width: 1.5 }
.target { stroke: #d29922; stroke-width: 3 }
@media (prefers-color-scheme: dark) {
  text { fill: #c9d1d9 }
  .peer { fill: #8b949e }
  .spread { stroke: #c9d1d9 }
}
"""


def draw(comparisons: Sequence[Comparison]) -> str:
    """Return a picture of how many times faster the labelled rows are, on a logarithmic axis.

    Each has a bar for the median, a line from the lowest to the highest round, and a mark for the target.
    A label reads ``what | against``.
    """
    rows = [row for row in comparisons if row.label]
    top = max([10.0, *(row.figure.highest for row in rows)])
    decades = math.ceil(math.log10(top))
    height = _TOP + _ROW * len(rows) + _BOTTOM

    def x(value: float) -> float:
        return _LEFT + max(0.0, math.log10(value)) / decades * (_WIDTH - _LEFT - _RIGHT)

    parts = [_text(12, 22, "How many times faster than …", "start", "title"), *_key()]
    for value in (10**power * step for power in range(decades + 1) for step in (1, 2, 5)):
        if value <= 10**decades:
            parts.append(_line(x(value), _TOP, x(value), height - _BOTTOM, "grid"))
            if value < 10 or value in (10, 100, 1000, 10_000):
                parts.append(_text(x(value), height - _BOTTOM + 18, f"{value}×", "middle"))
    for i, row in enumerate(rows):
        y = _TOP + _ROW * (i + 0.5)
        what, _, against = row.label.partition(" | ")
        name = f'{escape(what)} <tspan class="peer">· {escape(against)}</tspan>'
        parts.append(f'<text x="{_LEFT - 10}" y="{y + 4:.1f}" text-anchor="end">{name}</text>')
        figure = row.figure
        size = f'x="{_LEFT}" y="{y - 8:.1f}" width="{x(figure.median) - _LEFT:.1f}" height="16" rx="2"'
        parts.append(f'<rect class="bar" {size}/>')
        parts.append(_line(x(figure.lowest), y, x(figure.highest), y, "spread"))
        parts.append(_line(x(row.target), y - 11, x(row.target), y + 11, "target"))
        end = max(x(figure.highest), x(row.target)) + 8
        parts.append(_text(end, y + 4, f"{figure.median:.{0 if figure.median >= 20 else 1}f}×", "start"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
        f'height="{height}" role="img"><title>Speed beside other ways to do the same</title>'
        f"<style>{_STYLE}</style>{''.join(parts)}</svg>\n"
    )


def _key() -> list[str]:
    y, x = 18, _LEFT
    return [
        _line(x, y - 9, x, y + 9, "target"),
        _text(x + 8, y + 4, "target", "start"),
        _line(x + 76, y, x + 104, y, "spread"),
        _text(x + 112, y + 4, "lowest to highest round", "start"),
    ]


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    name = f' class="{kind}"' if kind else ""
    return f'<text{name} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
