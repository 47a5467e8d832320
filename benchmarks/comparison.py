"""One row of the table: what smallfry took beside what a peer took, the target, and whether it is met."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rounds import Timing

_HEADINGS = ("what", "against", "target", "measured", "lowest-highest", "took", "limit", "verdict")


@dataclass(frozen=True)
class Figure:
    """The median of several rounds, with the lowest and the highest."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Figure:
        """Sum up one number a round."""
        return cls(statistics.median(rounds), min(rounds), max(rounds))

    @classmethod
    def quotient(cls, above: Sequence[float], below: Sequence[float]) -> Figure:
        """Sum up the quotients of rounds that took turns."""
        return cls.of([a / b for a, b in zip(above, below, strict=True)])


@dataclass(frozen=True)
class Comparison:
    """A figure beside its target.

    Attributes
    ----------
    group : str
        What ``--only`` selects.
    what, against : str
        Both sides.
    figure : Figure
        In `unit`.
    target : float
    at_least : bool
        Whether the target is a floor; otherwise it is a ceiling.
    unit : str
        ``"x"`` for quotients.
    took : str
        What smallfry's side took, in its own unit.
    limit : str
        What moving the bytes alone would take.
    label : str
        Name in the plot; rows without one are not in it.
    """

    group: str
    what: str
    against: str
    figure: Figure
    target: float
    at_least: bool = True
    unit: str = "x"
    took: str = ""
    limit: str = ""
    label: str = ""

    @property
    def met(self) -> bool:
        """Whether the median meets the target."""
        median = self.figure.median
        return median >= self.target if self.at_least else median <= self.target

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return asdict(self) | {"met": self.met}


def faster(ours: Timing, theirs: Timing) -> Figure:
    """Return how many times as long the other side's median request took, round by round."""
    return Figure.quotient(theirs.typical, ours.typical)


def counted(count: int, noun: str) -> str:
    """Return ``1 bit``, ``2 bits``."""
    return f"{count} {noun}{'s' * (count != 1)}"


def print_comparisons(comparisons: Sequence[Comparison]) -> None:
    """Print a table in Markdown, aligned."""
    lines = [_HEADINGS, *map(_cells, comparisons)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, tuple("-" * width for width in widths))
    for line in lines:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")


def _cells(row: Comparison) -> tuple[str, ...]:
    sign = "≥" if row.at_least else "≤"
    spread = f"{_number(row.figure.lowest)}-{_number(row.figure.highest)}"
    return (
        row.what,
        row.against,
        f"{sign} {row.target:g} {row.unit}",
        f"{_number(row.figure.median)} {row.unit}",
        spread,
        row.took,
        row.limit,
        "ok" if row.met else "MISSED",
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
