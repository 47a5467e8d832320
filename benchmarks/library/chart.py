"""Speed and memory of alternatives as SVG files, legible on light and on dark pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.common.comparison import Comparison
from smallfry.evaluation.plot import line, rect, svg, text

_WIDTH, _ROW, _TOP, _BOTTOM = 860, 26, 46, 30
_LEFT, _RIGHT = 400, 84
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #57606a }
.title { font-size: 15px; font-weight: 600 }
.grid { stroke: #8c959f; stroke-opacity: 0.3 }
.bar { fill: #2f81f7 }
.other { fill: #8c959f }
.spread { stroke: #57606a; stroke-width: 1.5 }
.target { stroke: #d29922; stroke-width: 3 }
@media (prefers-color-scheme: dark) {
  text { fill: #c9d1d9 }
  .spread { stroke: #c9d1d9 }
}
"""


def draw(comparisons: Sequence[Comparison]) -> str:
    """Return a chart of how many times faster the labelled rows are, on a logarithmic axis.

    Each has a bar for the median, a line from the lowest to the highest round, and a mark for the target.
    """
    rows = [row for row in comparisons if row.label]
    decades = math.ceil(math.log10(max([10.0, *(row.measured.highest for row in rows)])))
    height = _TOP + _ROW * len(rows) + _BOTTOM

    def x(value: float) -> float:
        return _LEFT + max(0.0, math.log10(value)) / decades * (_WIDTH - _LEFT - _RIGHT)

    parts = [
        "<title>Speed against alternatives</title>",
        f"<style>{_STYLE}</style>",
        text(12, 22, "How many times faster than …", "start", 'class="title"'),
        *_key(),
    ]
    for value in (10**power * step for power in range(decades + 1) for step in (1, 2, 5)):
        if value <= 10**decades:
            parts.append(line(x(value), _TOP, x(value), height - _BOTTOM, 'class="grid"'))
            if value < 10 or math.log10(value).is_integer():
                parts.append(text(x(value), height - _BOTTOM + 18, f"{value}×", "middle"))
    for i, row in enumerate(rows):
        y = _TOP + _ROW * (i + 0.5)
        measured = row.measured
        parts += [
            text(_LEFT - 10, y + 4, row.label.replace(" | ", " · "), "end"),
            rect(_LEFT, y - 8, x(measured.median) - _LEFT, 16, 'class="bar" rx="2"'),
            line(x(measured.lowest), y, x(measured.highest), y, 'class="spread"'),
            line(x(row.target), y - 11, x(row.target), y + 11, 'class="target"'),
        ]
        end = max(x(measured.highest), x(row.target)) + 8
        parts.append(text(end, y + 4, f"{measured.median:.{0 if measured.median >= 20 else 1}f}×", "start"))
    return _file(parts, height)


@dataclass(frozen=True)
class MemoryBar:
    """The MB that a table takes in one and in many processes."""

    label: str
    ours: bool
    one: float
    many: float


def draw_memory(title: str, processes: int, rows: Sequence[MemoryBar]) -> str:
    """Return a chart with a bar for many processes over one for one process, on a linear axis."""
    height = _TOP + 2 * _ROW * len(rows)
    scale = (_WIDTH - _LEFT + 100 - 2 * _RIGHT) / max(row.many for row in rows)
    left = _LEFT - 100
    parts = [
        f"<title>{title}</title>",
        f"<style>{_STYLE}</style>",
        text(12, 22, title, "start", 'class="title"'),
    ]
    for i, row in enumerate(rows):
        y, color = _TOP + 2 * _ROW * i, "bar" if row.ours else "other"
        parts.append(text(left - 10, y + 23, row.label, "end"))
        for value, name, top in ((row.many, f"{processes} processes", y), (row.one, "1 process", y + 19)):
            width = max(1.0, value * scale)
            parts.append(rect(left, top + 3, width, 16, f'class="{color}" rx="2"'))
            parts.append(text(left + width + 8, top + 15, f"{value:,.0f} MB · {name}", "start"))
    return _file(parts, height)


def _file(parts: list[str], height: float) -> str:
    size = f'xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}"'
    return svg(parts, _WIDTH, height, size) + "\n"


def _key() -> list[str]:
    x, y = _LEFT, 18
    return [
        line(x, y - 9, x, y + 9, 'class="target"'),
        text(x + 8, y + 4, "target", "start"),
        line(x + 76, y, x + 104, y, 'class="spread"'),
        text(x + 112, y + 4, "lowest to highest round", "start"),
    ]
