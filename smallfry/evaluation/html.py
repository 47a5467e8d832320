"""The report as one self-contained HTML page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from smallfry.evaluation import plot
from smallfry.evaluation.report import Fidelity, Report, mean, overall

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
body { color: #1e293b; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem }
td, th { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #e2e8f0 }
td:first-child, th:first-child { text-align: left; white-space: nowrap }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(28rem, 1fr)); gap: 1rem }
.scroll { overflow-x: auto } figure { margin: 0; max-width: 40rem }
svg { width: 100%; font-size: 12px; fill: #475569 }
figcaption span { display: inline-block; margin-right: 1rem; font-size: .85rem }
figcaption i { display: inline-block; width: .8rem; height: .8rem; margin-right: .35rem; border-radius: 2px }
.grid { stroke: #e2e8f0 } .advice { background: #ecfdf5; padding: .6rem 1rem; border-radius: 6px }
"""


def page(
    report: Report, edges: NDArray[np.float64], counts: NDArray[np.int64], advice: str | None = None
) -> str:
    """Return the report as HTML with inline plots, a histogram of the values and a recommendation."""
    title = escape(f"Fidelity of {report.original}")
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>",
        f"<h1>{title}</h1><p>{report.rows:,} × {report.dim}</p>",
        "" if advice is None else f"<p class=advice>{escape(advice)}</p>",
        _table(report.geometry_rows()),
        f"<div class=plots>{_ratio_plot(report)}{_clip_plot(report, edges, counts)}</div>",
    ]
    for field, heading in (
        ("similarity", "Word similarity (Spearman)"),
        ("analogies", "Analogies (3CosAdd)"),
    ):
        rows = report.score_rows(field)
        if rows:
            parts.append(f"<h2>{heading}</h2>{_score_plot(report, field)}{_table(rows)}")
    return "\n".join(parts) + "\n"


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    lines = ["".join(f"<th>{escape(cell)}</th>" for cell in head)]
    lines += ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in body]
    return f"<div class=scroll><table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table></div>"


def _ratio_plot(report: Report) -> str:
    """Plot the signal-to-noise ratio against bits: one line for each coding, and the two bounds."""
    widths, codings, by_key = _grid(report)
    any_at = {f.nbit: f for f in report.compressed}
    series = [
        plot.Series(c, [by_key[c, n].snr_db if (c, n) in by_key else math.nan for n in widths])
        for c in codings
    ]
    scalar = [any_at[n].lloyd_max_snr_db for n in widths]
    series += [
        plot.Series("best scalar", [math.nan if v is None else v for v in scalar], dashed=True),
        plot.Series("Gaussian bound", [any_at[n].rate_distortion_snr_db for n in widths], dashed=True),
    ]
    return plot.lines(widths, series, "bits a value", "signal-to-noise ratio, dB (20 dB: error 0.1)")


def _clip_plot(report: Report, edges: NDArray[np.float64], counts: NDArray[np.int64]) -> str:
    marks = [(f"clip at {f.name}", f.clip) for f in report.compressed if f.codebook_kind == "uniform"]
    return plot.histogram(edges.tolist(), counts.tolist(), marks, "value")


def _score_plot(report: Report, field: str) -> str:
    """Plot the pooled score against bits: one color for each coding, and one for the original."""
    pool = mean if field == "similarity" else overall
    widths, codings, by_key = _grid(report)
    series = [plot.Series("original", [pool(getattr(report, field))] * len(widths))]
    for coding in codings:
        found = (by_key.get((coding, nbit)) for nbit in widths)
        series.append(
            plot.Series(coding, [math.nan if f is None else pool(getattr(f, field)) for f in found])
        )
    label = "mean correlation" if field == "similarity" else "accuracy over all questions"
    return plot.bars([f"{nbit} bits" for nbit in widths], series, label)


def _grid(report: Report) -> tuple[list[int], list[str], dict[tuple[str, int], Fidelity]]:
    """Return the bit widths, the codings, and the measurement of each (coding, width) pair."""
    codings = list(dict.fromkeys(f.coding for f in report.compressed))
    by_key = {(f.coding, f.nbit): f for f in report.compressed}
    return sorted({f.nbit for f in report.compressed}), codings, by_key
