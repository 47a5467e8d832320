"""Charts as inline SVG: lines, grouped bars, histogram. Other charts use `text`, `line`, `rect` and `svg`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 12, 44
_COLORS = ("#2563eb", "#d97706", "#059669", "#be185d", "#7c3aed", "#64748b")


@dataclass(frozen=True)
class Series:
    """One line, or the bars of one color."""

    name: str
    values: Sequence[float]  # one for each position; NaN leaves a gap
    dashed: bool = False  # for a bound instead of a measurement


def lines(positions: Sequence[float], series: Sequence[Series], x_label: str, y_label: str) -> str:
    """Return a line chart with markers and equally spaced `positions`."""
    low, high = _range([v for s in series for v in s.values])
    frame = _Frame(low, high)
    parts = [frame.axes([f"{p:g}" for p in positions], x_label, y_label)]
    for i, one in enumerate(series):
        points = [
            (frame.slot(j, len(positions)), frame.y(v)) for j, v in enumerate(one.values) if math.isfinite(v)
        ]
        color = _COLORS[i % len(_COLORS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dash = ' stroke-dasharray="5 4"' if one.dashed else ""
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"{dash}/>')
        if not one.dashed:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{color}"/>' for x, y in points]
    return _figure(parts, [s.name for s in series])


def bars(labels: Sequence[str], series: Sequence[Series], y_label: str) -> str:
    """Return a bar chart with one group of bars for each label."""
    low, high = _range([0.0, *(v for s in series for v in s.values)])
    frame = _Frame(low, high)
    parts = [frame.axes(labels, "", y_label)]
    group = frame.width / max(1, len(labels))
    width = 0.8 * group / len(series)
    for i, one in enumerate(series):
        for j, value in enumerate(one.values):
            if math.isfinite(value):
                x = _LEFT + j * group + 0.1 * group + i * width
                parts.append(frame.bar(x, width, value, _COLORS[i % len(_COLORS)]))
    return _figure(parts, [s.name for s in series])


def histogram(
    edges: Sequence[float], counts: Sequence[int], marks: Sequence[tuple[str, float]], x_label: str
) -> str:
    """Return a histogram with vertical lines at plus and minus each mark."""
    frame = _Frame(0.0, float(max(counts)))
    span = edges[-1] - edges[0] or 1.0

    def x(value: float) -> float:
        return _LEFT + (value - edges[0]) / span * frame.width

    parts = [frame.axes([], x_label, "values")]
    for i, count in enumerate(counts):
        parts.append(frame.bar(x(edges[i]), x(edges[i + 1]) - x(edges[i]), count, "#94a3b8"))
    for value, anchor in ((edges[0], "start"), (0.0, "middle"), (edges[-1], "end")):
        parts.append(text(x(value), _HEIGHT - _BOTTOM + 16, f"{value:.3g}", anchor))
    for i, (_, mark) in enumerate(marks):
        for value in (-mark, mark):
            if edges[0] <= value <= edges[-1]:
                style = f'stroke="{_COLORS[i % len(_COLORS)]}" stroke-width="2"'
                parts.append(line(x(value), _TOP, x(value), _HEIGHT - _BOTTOM, style))
    return _figure(parts, [name for name, _ in marks])


class _Frame:
    """The plot area and its vertical scale."""

    width = _WIDTH - _LEFT - _RIGHT

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high if high > low else low + 1.0

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _BOTTOM - _TOP)

    def slot(self, index: int, count: int) -> float:
        return _LEFT + (index + 0.5) / count * self.width

    def bar(self, x: float, width: float, value: float, color: str) -> str:
        top, bottom = sorted((self.y(value), self.y(max(0.0, self.low))))
        return rect(x, top, max(width, 0.5), bottom - top, f'fill="{color}"')

    def axes(self, labels: Sequence[str], x_label: str, y_label: str) -> str:
        parts = []
        for value in _ticks(self.low, self.high):
            y = self.y(value)
            parts.append(line(_LEFT, y, _WIDTH - _RIGHT, y, 'class="grid"'))
            parts.append(text(_LEFT - 6, y + 4, _short(value), "end"))
        for i, label in enumerate(labels):
            parts.append(text(self.slot(i, len(labels)), _HEIGHT - _BOTTOM + 16, label, "middle"))
        parts.append(text(_LEFT + self.width / 2, _HEIGHT - 6, x_label, "middle"))
        turn = f"rotate(-90 14 {_HEIGHT / 2:.0f})"
        parts.append(f'<g transform="{turn}">{text(14, _HEIGHT / 2, y_label, "middle")}</g>')
        return "".join(parts)


def _figure(parts: Sequence[str], names: Sequence[str]) -> str:
    keys = "".join(
        f'<span><i style="background:{_COLORS[i % len(_COLORS)]}"></i>{escape(name)}</span>'
        for i, name in enumerate(names)
    )
    return f"<figure>{svg(parts, _WIDTH, _HEIGHT)}<figcaption>{keys}</figcaption></figure>"


def svg(parts: Sequence[str], width: float, height: float, attributes: str = "") -> str:
    """Return a picture of SVG elements."""
    box = f'viewBox="0 0 {width} {height}" role="img"'
    return f"<svg {box}{attributes and ' ' + attributes}>{''.join(parts)}</svg>"


def text(x: float, y: float, content: str, anchor: str, attributes: str = "") -> str:
    """Return a line of escaped text; `anchor` is ``start``, ``middle`` or ``end``."""
    position = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f"<text {position}{attributes and ' ' + attributes}>{escape(content)}</text>"


def line(x1: float, y1: float, x2: float, y2: float, attributes: str) -> str:
    """Return a straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {attributes}/>'


def rect(x: float, y: float, width: float, height: float, attributes: str) -> str:
    """Return a rectangle."""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" {attributes}/>'


def _short(value: float) -> str:
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if abs(value) >= 1e4 else f"{value:g}"


def _range(values: Sequence[float]) -> tuple[float, float]:
    finite = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
    return min(0.0, *finite), max(finite)


def _ticks(low: float, high: float) -> list[float]:
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (m * step) <= 6)
    first = math.ceil(low / step)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]
