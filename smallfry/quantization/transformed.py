"""Compress with a trellis code, around the mean, in the principal basis, or with a scale for each row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smallfry import kernels
from smallfry.progress import Progress
from smallfry.quantization import trellis
from smallfry.quantization.chunks import Matrix, MatrixChunks, scan
from smallfry.quantization.levels import quantize_plain, uniform_levels
from smallfry.quantization.options import Options
from smallfry.quantization.rotation import principal
from smallfry.table import Table, check_trellis

_SAMPLE_VALUES = 1 << 22


def quantize_transformed(
    source: NDArray[np.floating[Any]] | MatrixChunks, nbit: int, options: Options, progress: Progress | None
) -> Table:
    """Compress a matrix with transforms or a trellis code."""
    matrix = Matrix(source, progress)
    if options.codebook_kind == "trellis":
        check_trellis(2**options.trellis_state_bits, matrix.dim, nbit)
    statistics = _statistics(matrix, options)
    transformed = _TransformedMatrix(Matrix(source), statistics, options)
    if options.codebook_kind == "trellis":
        table = _encode_trellis(transformed, nbit, options, progress)
    else:
        table = quantize_plain(transformed, nbit, options, progress)
        table = _scaled_levels(_encode_mean_rows(table, statistics.zero), transformed.unit)
    table = replace(
        table,
        mean=transformed.mean,
        row_scale=transformed.scale,
        rotation=transformed.rotation,
        zero_rows=np.flatnonzero(statistics.zero).astype(np.uint32),
    )
    return replace(table, frobenius_error=_error(matrix, transformed, table))


@dataclass(frozen=True)
class _Statistics:
    """Zero rows, mean and a sample of the other rows, and for a rotation the Gram matrix."""

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

    def __init__(self, matrix: Matrix, statistics: _Statistics, options: Options) -> None:
        self._matrix, self._zero = matrix, statistics.zero
        self.shape = matrix.rows, matrix.dim
        self.rotation = None
        if options.rotate:
            self.rotation = principal(statistics.covariance(options.center), options.seed)
        mean = statistics.mean.astype(np.float32)[None]
        self.mean = self.rotated(mean)[0] if options.center else None
        self.scale = np.zeros(matrix.rows, np.float16) if options.row_scale else None
        centered = self._centered(statistics.sample)
        # A power of two near the length of rows, so that squares neither overflow nor underflow.
        self.unit = float(np.exp2(np.rint(np.log2(_lengths(centered).mean())))) if centered.any() else 1.0
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
        if self.rotation is None:
            return rows
        # In float64, so that the rounded products depend on neither the chunk nor the threads.
        return (rows.astype(np.float64) @ self.rotation.astype(np.float64)).astype(np.float32)

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
    gram = np.zeros((dim, dim)) if options.rotate else None
    sample = []
    for first, chunk in matrix.chunks("mean"):
        for start in range(0, len(chunk), matrix.block_rows):
            block = chunk[start : start + matrix.block_rows].astype(np.float64)
            total += block.sum(axis=0)
            if gram is not None:
                gram += block.T @ block
        drawn = chosen[slice(*np.searchsorted(chosen, [first, first + len(chunk)]))]
        sample.append(chunk[drawn[~zero[drawn]] - first])
    drawn_rows = np.concatenate(sample)
    if not len(drawn_rows):
        drawn_rows = np.zeros((1, dim), np.float32)
    return _Statistics(zero, total / max(1, int((~zero).sum())), gram, drawn_rows)


def _encode_trellis(
    transformed: _TransformedMatrix, nbit: int, options: Options, progress: Progress | None
) -> Table:
    rows, dim = transformed.shape
    column_scale = np.sqrt(np.square(transformed.sample, dtype=np.float64).mean(axis=0)).astype(np.float32)
    codebook = trellis.learn(
        transformed.sample, column_scale, nbit, options.trellis_state_bits, options.seed, progress
    )
    codes = np.empty((rows, -(-dim * nbit // 8)), np.uint8)
    clip, start = 0.0, 0
    for chunk in transformed:
        end = start + len(chunk)
        codes[start:end] = trellis.encode(chunk, codebook, column_scale, nbit)
        clip, start = max(clip, float(np.abs(chunk).max())), end
        if progress is not None:
            progress("encode", start, rows)
    unit = transformed.unit
    scale = (column_scale * np.float64(unit)).astype(np.float32)
    return Table(codes, dim, nbit, "trellis", codebook, clip * unit, column_scale=scale)


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
        return replace(table, codebook=uniform_levels(clip, table.nbit), clip=clip)
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
