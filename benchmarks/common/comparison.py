"""Rows of the result table: a measurement next to its target, and whether it is met."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.common.timing import Timing

_HEADINGS = ("what", "against", "target", "measured", "lowest-highest", "took", "limit", "verdict")


@dataclass(frozen=True)
class Spread:
    """The median of several rounds, with the lowest and the highest."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Spread:
        """Summarize one number per round."""
        return cls(statistics.median(rounds), min(rounds), max(rounds))

    @classmethod
    def of_quotients(cls, numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
        """Summarize the quotients of two sides, round by round."""
        return cls.of([a / b for a, b in zip(numerators, denominators, strict=True)])


@dataclass(frozen=True)
class Comparison:
    """A measurement and its target.

    Attributes
    ----------
    group : str
        What ``--only`` selects.
    what, against : str
        Both sides.
    measured : Spread
        In `unit`.
    target : float
    at_least : bool
        Whether the target is a lower bound; otherwise it is an upper bound.
    unit : str
        ``"x"`` for quotients.
    took : str
        What smallfry's side took, in its own unit.
    limit : str
        The time of moving the bytes at the speed of a plain copy.
    label : str
        Name in the chart, ``what | against``; rows without one are left out there.
    """

    group: str
    what: str
    against: str
    measured: Spread
    target: float
    at_least: bool = True
    unit: str = "x"
    took: str = ""
    limit: str = ""
    label: str = ""

    @property
    def met(self) -> bool:
        """Whether the median meets the target."""
        median = self.measured.median
        return median >= self.target if self.at_least else median <= self.target

    def as_json(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        return asdict(self) | {"met": self.met}


def speedup(ours: Timing, theirs: Timing) -> Spread:
    """Return how many times as long the other side's median request took, round by round."""
    return Spread.of_quotients(theirs.round_medians, ours.round_medians)


def count_of(count: int, noun: str) -> str:
    """Return ``1 bit``, ``2 bits``."""
    return f"{count} {noun}{'s' * (count != 1)}"


def print_comparisons(comparisons: Sequence[Comparison]) -> None:
    """Print an aligned Markdown table."""
    lines = [_HEADINGS, *map(_cells, comparisons)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, tuple("-" * width for width in widths))
    for line in lines:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")


def _cells(row: Comparison) -> tuple[str, ...]:
    sign = "≥" if row.at_least else "≤"
    return (
        row.what,
        row.against,
        f"{sign} {row.target:g} {row.unit}",
        f"{_number(row.measured.median)} {row.unit}",
        f"{_number(row.measured.lowest)}-{_number(row.measured.highest)}",
        row.took,
        row.limit,
        "ok" if row.met else "MISSED",
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
