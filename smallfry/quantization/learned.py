"""Compress with a learned codebook, around the mean, in a rotated basis, or with a scale for each row.

The table has the same bytes per value and decodes with the same kernels as one of uniform levels, with a
smaller error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smallfry import kernels
from smallfry.progress import Progress
from smallfry.quantization import codebooks, rotation
from smallfry.quantization.chunks import Matrix, MatrixChunks, scan
from smallfry.quantization.levels import quantize_plain
from smallfry.quantization.options import Options
from smallfry.quantization.rotation import Rotation
from smallfry.table import Table

_SAMPLE_VALUES = 1 << 22


def quantize_learned(
    source: NDArray[np.floating[Any]] | MatrixChunks, nbit: int, options: Options, progress: Progress | None
) -> Table:
    """Compress a matrix with transforms or a learned codebook."""
    matrix = Matrix(source, progress)
    statistics = _statistics(matrix, options)
    transformed = _TransformedMatrix(
        Matrix(source), statistics, _rotation(matrix.dim, nbit, statistics, options), options
    )
    if options.codebook_kind == "uniform":
        table = quantize_plain(transformed, nbit, options, progress)
        table = _encode_mean_rows(table, statistics.zero)
    else:
        codebook = _fit(transformed, nbit, options, progress)
        table = _encode(transformed, nbit, codebook, options.codebook_kind, progress)
    table = replace(
        _scaled_levels(table, transformed.unit),
        mean=transformed.mean,
        row_scale=transformed.scale,
        rotation=transformed.rotation,
        zero_rows=np.flatnonzero(statistics.zero).astype(np.uint32),
    )
    return replace(table, frobenius_error=_error(matrix, transformed, table))


@dataclass(frozen=True)
class _Statistics:
    """Zero rows, mean and a sample of the other rows, and for a principal rotation the Gram matrix."""

    zero: NDArray[np.bool_]
    mean: NDArray[np.float64]
    gram: NDArray[np.float64] | None
    sample: NDArray[np.float32]

    def covariance(self, center: bool) -> NDArray[np.float64]:
        assert self.gram is not None
        shift = np.outer(self.mean, self.mean) * max(1, int((~self.zero).sum()))
        return self.gram - shift if center else self.gram


class _TransformedMatrix:
    """The matrix that is encoded: rotated, less the mean, each row over its scale. Zero rows stay zeros."""

    def __init__(
        self, matrix: Matrix, statistics: _Statistics, rotation: Rotation | None, options: Options
    ) -> None:
        self._matrix, self._zero = matrix, statistics.zero
        self.shape = matrix.rows, matrix.dim
        self.rotation = rotation
        mean = statistics.mean.astype(np.float32)[None]
        self.mean = self.rotated(mean)[0] if options.center else None
        self.scale = np.zeros(matrix.rows, np.float16) if options.row_scale else None
        centered = self._centered(statistics.sample)
        # Codebooks and row scales are learned in this unit, so that squares neither overflow nor underflow.
        learned = options.codebook_kind != "uniform" or options.row_scale
        self.unit = float(_lengths(centered).mean()) if learned and centered.any() else 1.0
        self.sample = self._scaled(centered)[0]

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        for first, chunk in self._matrix.chunks("encode"):
            part = slice(first, first + len(chunk))
            rows, scale = self._scaled(self._centered(chunk))
            rows[self._zero[part]] = 0
            if self.scale is not None:
                self.scale[part] = np.where(self._zero[part], 0, scale)
            yield rows

    def rotated(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return rows if self.rotation is None else self.rotation.apply(rows)

    def _centered(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.rotated(rows) - (0 if self.mean is None else self.mean)

    def _scaled(self, rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
        if self.scale is None:
            return (rows / self.unit).astype(np.float32), np.ones(len(rows), np.float16)
        limits = np.finfo(np.float16)
        relative = np.clip(_lengths(rows) / self.unit, limits.smallest_subnormal, limits.max)
        scale = relative.astype(np.float16)
        return (rows / (scale.astype(np.float64) * self.unit)[:, None]).astype(np.float32), scale


def _statistics(matrix: Matrix, options: Options) -> _Statistics:
    zero = scan(matrix, 0).zero.astype(np.bool_)
    rows, dim = matrix.rows, matrix.dim
    count = min(rows, -(-_SAMPLE_VALUES // dim))
    chosen = np.sort(np.random.default_rng(options.seed).choice(rows, count, replace=False))
    total = np.zeros(dim)
    gram = np.zeros((dim, dim)) if options.rotate == "principal" else None
    sample = []
    for first, chunk in matrix.chunks("mean"):
        total += chunk.sum(axis=0, dtype=np.float64)
        if gram is not None:
            wide = chunk.astype(np.float64)
            gram += wide.T @ wide
        drawn = chosen[slice(*np.searchsorted(chosen, [first, first + len(chunk)]))]
        sample.append(chunk[drawn[~zero[drawn]] - first])
    drawn_rows = np.concatenate(sample)
    if not len(drawn_rows):
        drawn_rows = np.zeros((1, dim), np.float32)
    return _Statistics(zero, total / max(1, int((~zero).sum())), gram, drawn_rows)


def _rotation(dim: int, nbit: int, statistics: _Statistics, options: Options) -> Rotation | None:
    if options.rotate is None:
        return None
    if options.rotate == "principal":
        return rotation.principal(statistics.covariance(options.center), 8 // nbit, options.seed)
    return Rotation(options.rotate, options.seed, dim)


def _fit(
    transformed: _TransformedMatrix, nbit: int, options: Options, progress: Progress | None
) -> NDArray[np.float32]:
    if options.codebook_kind == "lloyd":
        return codebooks.lloyd_max(transformed.sample, 2**nbit).astype(np.float32)
    return codebooks.grouped(transformed.sample, 8 // nbit, options.seed, progress)


def _encode(
    transformed: _TransformedMatrix,
    nbit: int,
    levels: NDArray[np.float32],
    kind: str,
    progress: Progress | None,
) -> Table:
    rows, dim = transformed.shape
    codes = np.empty((rows, -(-dim * nbit // 8)), np.uint8)
    edges = (levels[1:] + levels[:-1]) / 2 if kind == "lloyd" else None
    clip, start = 0.0, 0
    for chunk in transformed:
        end = start + len(chunk)
        if edges is None:
            codes[start:end] = codebooks.encode(chunk, levels)
        else:
            codes[start:end] = kernels.pack(np.searchsorted(edges, chunk).astype(np.uint16), nbit)
        clip, start = max(clip, float(np.abs(chunk).max())), end
        if progress is not None:
            progress("encode", start, rows)
    return Table(codes, dim, nbit, kind, levels, clip)


def _encode_mean_rows(table: Table, zero: NDArray[np.bool_]) -> Table:
    """Encode rows that equal the mean, zeros only once transformed, by the level nearest to 0."""
    mean_rows = table.zero_rows[~zero[table.zero_rows]]
    if not len(mean_rows) or table.codebook is None:
        return table
    nearest = np.abs(table.codebook).argmin()
    codes = table.codes.copy()
    codes[mean_rows] = kernels.pack(np.full((1, table.dim), nearest, np.uint16), table.nbit)
    return replace(table, codes=codes)


def _scaled_levels(table: Table, factor: float) -> Table:
    """Multiply all levels of a table by a factor."""
    if table.codebook is None or factor == 1.0:
        return table
    clip = table.clip * factor
    if table.codebook_kind == "uniform":
        return replace(table, codebook=codebooks.uniform_levels(clip, table.nbit), clip=clip)
    return replace(table, codebook=(table.codebook * np.float64(factor)).astype(np.float32), clip=clip)


def _error(matrix: Matrix, transformed: _TransformedMatrix, table: Table) -> float:
    lost = kept = 0.0
    for first, chunk in matrix.chunks("measure"):
        rows = transformed.rotated(chunk)
        decoded = table.decode(np.arange(first, first + len(rows)))
        lost += float(np.square(rows - decoded, dtype=np.float64).sum())
        kept += float(np.square(rows, dtype=np.float64).sum())
    return (lost / kept) ** 0.5 if kept else 0.0


def _lengths(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(np.sqrt(np.square(rows, dtype=np.float64).mean(axis=1)))
