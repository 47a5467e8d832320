"""Measurements as a table, as JSON, and as a recommendation."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from smallfry.errors import InputError
from smallfry.evaluation.words import Score


@dataclass(frozen=True)
class Fidelity:
    """Measurements of one compressed table against its original."""

    name: str
    nbit: int
    coding: str  # the compression method, without the bit width
    codebook_kind: str
    nbytes: int  # of codes, codebook, and other tensors that decoding needs
    clip: float  # bound of uniform levels
    frobenius_error: float  # see `smallfry.evaluation.geometry.Geometry`
    snr_db: float
    lloyd_max_snr_db: float | None  # of the best scalar quantizer of these values at this width
    rate_distortion_snr_db: float  # the upper bound for independent Gaussian values at this width
    eigenspace_overlap: float
    pip_loss: float
    fit_error: float
    knn_overlap: float  # share of nearest neighbors kept
    similarity: list[Score] = field(default_factory=list)
    analogies: list[Score] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """Measurements of several compressed tables and their original."""

    original: str  # its name
    rows: int
    dim: int
    compressed: list[Fidelity]
    similarity: list[Score] = field(default_factory=list)  # of the original
    analogies: list[Score] = field(default_factory=list)
    recommended: str | None = None  # name of the smallest table within the requested loss

    def to_json(self) -> str:
        """Return the report as JSON; infinite and undefined numbers are null."""
        return json.dumps(_finite(dataclasses.asdict(self)), indent=2, ensure_ascii=False)

    def to_text(self) -> str:
        """Return the report as text tables."""
        parts = [f"{self.original}: {self.rows:,} × {self.dim}", align(self.geometry_rows())]
        for title, rows in (
            ("Word similarity (Spearman)", self.score_rows("similarity")),
            ("Analogies (3CosAdd accuracy)", self.score_rows("analogies")),
        ):
            if rows:
                parts.append(f"{title}\n{align(rows)}")
        return "\n\n".join(parts)

    def geometry_rows(self) -> list[list[str]]:
        """Return a header and one row of cells for each compressed table."""
        measures = ["eigenspace", "PIP loss", "fit error", "k-NN"]
        rows = [["", "bits", "MB", "error", "SNR dB", "to Lloyd–Max", "to R(D)", *measures]]
        for f in self.compressed:
            scalar = None if f.lloyd_max_snr_db is None else f.lloyd_max_snr_db - f.snr_db
            rows.append(
                [f.name, str(f.nbit), f"{f.nbytes / 1e6:.2f}", f"{f.frobenius_error:.4f}", _db(f.snr_db)]
                + [_db(scalar), _db(f.rate_distortion_snr_db - f.snr_db)]
                + [f"{v:.4f}" for v in (f.eigenspace_overlap, f.pip_loss, f.fit_error, f.knn_overlap)]
            )
        return rows

    def score_rows(self, field: str) -> list[list[str]]:
        """Return a header, one row of cells for each set of `field`, and means; nothing without sets."""
        originals: list[Score] = getattr(self, field)
        if not originals:
            return []
        columns = [originals] + [getattr(f, field) for f in self.compressed]
        rows = [["", "found", "original"] + [f.name for f in self.compressed]]
        for i, score in enumerate(originals):
            cells = [_score(column[i].value) for column in columns]
            rows.append([score.name, f"{score.found:,}/{score.total:,}", *cells])
        found, total = sum(s.found for s in originals), sum(s.total for s in originals)
        rows.append(["mean", f"{found:,}/{total:,}"] + [_score(mean(column)) for column in columns])
        if field == "analogies":
            rows.append(["all questions", ""] + [_score(overall(column)) for column in columns])
        return rows


MEASURES: dict[str, Callable[[Report, Fidelity], float]] = {
    "similarity": lambda report, f: 100 * (mean(report.similarity) - mean(f.similarity)),
    "analogies": lambda report, f: 100 * (overall(report.analogies) - overall(f.analogies)),
    "eigenspace": lambda report, f: 100 * (1 - f.eigenspace_overlap),
    "neighbors": lambda report, f: 100 * (1 - f.knn_overlap),
    "error": lambda report, f: 100 * f.frobenius_error,
}
"""Loss by name, in percentage points, for `recommend`."""


def recommend(report: Report, max_loss: float, measure: str) -> Fidelity | None:
    """Return the smallest table whose loss is at most `max_loss`, or None.

    Parameters
    ----------
    max_loss : float
        In percentage points.
    measure : str
        One of `MEASURES`.
    """
    if measure not in MEASURES:
        raise InputError(f"measure is {measure!r}, expected one of {', '.join(MEASURES)}")
    if measure in ("similarity", "analogies") and not getattr(report, measure):
        raise InputError(f"{measure} was not measured. Give test files for it, or choose another measure.")
    within = [f for f in report.compressed if MEASURES[measure](report, f) <= max_loss]
    return min(within, key=lambda f: (f.nbytes, MEASURES[measure](report, f)), default=None)


def mean(scores: Sequence[Score]) -> float:
    """Return the mean over the sets that have a value; NaN if none has."""
    values = [score.value for score in scores if not math.isnan(score.value)]
    return sum(values) / len(values) if values else math.nan


def overall(scores: Sequence[Score]) -> float:
    """Return the mean over all questions found; NaN if there are none."""
    found = sum(score.found for score in scores)
    return sum(s.value * s.found for s in scores if s.found) / found if found else math.nan


def align(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as text: the first column left-aligned, the others right-aligned."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = (
        "  ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def _db(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.2f}"


def _score(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _finite(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
