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
from smallfry.quantization.chunks import Matrix, squared_norms
from smallfry.quantization.levels import LevelEncoder, fit_levels, uniform_levels
from smallfry.quantization.options import Options
from smallfry.quantization.rotation import principal
from smallfry.table import Table, check_trellis

_SAMPLE_VALUES = 1 << 22
_HALF = np.finfo(np.float16)


class TransformedEncoder:
    """Encodes a matrix with transforms or a trellis code, and measures the error of the decoded rows."""

    def __init__(self, matrix: Matrix, nbit: int, options: Options, progress: Progress | None) -> None:
        if options.codebook_kind == "trellis":
            check_trellis(2**options.trellis_state_bits, matrix.dim, nbit)
        self._transform = transform = _Transform(matrix, _statistics(matrix, options), options)
        self._encoder: LevelEncoder
        if options.codebook_kind == "trellis":
            self._encoder = _TrellisEncoder(transform.sample, nbit, options, progress)
        else:
            source = Matrix(_TransformedMatrix(matrix, transform), progress)
            self._encoder = fit_levels(source, nbit, options)
        self._decoded = self._with_transforms()
        self._lost = self._kept = 0.0

    @property
    def table(self) -> Table:
        """The table, of no rows."""
        error = (self._lost / self._kept) ** 0.5 if self._kept else 0.0
        return replace(self._with_transforms(), frobenius_error=error)

    def encode(
        self, first: int, chunk: NDArray[np.float32]
    ) -> tuple[NDArray[Any], NDArray[np.float16] | None, NDArray[np.bool_]]:
        """Return codes, scales and whether each row is listed as one of zeros."""
        turned, rows, scale, norms = self._transform.apply(first, chunk)
        zero = norms == 0
        codes = self._encode(first, rows, zero)
        decoded = replace(
            self._decoded, codes=codes, row_scale=scale, zero_rows=np.flatnonzero(zero).astype(np.uint32)
        )
        self._lost += float(squared_norms(turned, decoded.decode()).sum())
        self._kept += float(norms.sum())
        return codes, scale, zero

    def _encode(self, first: int, rows: NDArray[np.float32], zero: NDArray[np.bool_]) -> NDArray[Any]:
        if self._transform.mean is None or self._encoder.table.codebook_kind == "trellis":
            return self._encoder.encode(first, rows, zero)
        # Rows that equal the mean are zeros now, which have no code: they get the level nearest to 0.
        table, flat = self._encoder.table, squared_norms(rows) == 0
        assert table.codebook is not None
        codes = self._encoder.encode(first, rows, flat)
        nearest = np.abs(table.codebook).argmin()
        codes[flat & ~zero] = kernels.pack(np.full((1, table.dim), nearest, np.uint16), table.nbit)
        return codes

    def _with_transforms(self) -> Table:
        scale = np.empty(0, np.float16) if self._transform.scales_rows else None
        table = _scaled_levels(self._encoder.table, self._transform.unit)
        return replace(table, mean=self._transform.mean, rotation=self._transform.rotation, row_scale=scale)


@dataclass(frozen=True)
class _Statistics:
    """A sample of the rows other than zeros; to center or rotate their number, mean and Gram matrix."""

    count: int
    mean: NDArray[np.float64]
    gram: NDArray[np.float64] | None
    sample: NDArray[np.float32]

    def covariance(self, center: bool) -> NDArray[np.float64]:
        assert self.gram is not None
        shift = np.outer(self.mean, self.mean) * max(1, self.count)
        return self.gram - shift if center else self.gram


class _Transform:
    """Rotates rows, subtracts the mean, and divides each by its scale. Zero rows stay zeros."""

    def __init__(self, matrix: Matrix, statistics: _Statistics, options: Options) -> None:
        self._matrix = matrix
        self.rotation = None
        if options.rotate:
            self.rotation = principal(statistics.covariance(options.center), options.seed)
        mean = statistics.mean.astype(np.float32)[None]
        self.mean = self._rotated(mean)[0] if options.center else None
        self.scales_rows = options.row_scale
        centered = self._centered(self._rotated(statistics.sample))
        norms = squared_norms(centered)
        lengths = np.sqrt(norms / centered.shape[1])
        # A power of two near the length of rows, so that squares neither overflow nor underflow.
        self.unit = float(np.exp2(np.rint(np.log2(lengths.mean())))) if centered.any() else 1.0
        self.sample = self._scaled(centered, norms)[0]

    def apply(
        self, first: int, chunk: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float16] | None, NDArray[np.float64]]:
        """Return rotated rows; those to encode; their scales; and the squared lengths of the chunk's rows.

        Raises NonFiniteError for a row that is not finite.
        """
        norms = self._matrix.squared_norms(chunk, range(first, first + len(chunk)))
        turned = self._rotated(chunk)
        centered = self._centered(turned)
        rows, scale = self._scaled(centered, norms if centered is chunk else squared_norms(centered))
        if self.mean is not None:
            rows[norms == 0] = 0
        if scale is not None:
            scale[norms == 0] = 0
        return turned, rows, scale, norms

    def _rotated(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.rotation is None:
            return rows
        # In float64, so that the rounded products depend on neither the chunk nor the threads.
        return (rows.astype(np.float64) @ self.rotation.astype(np.float64)).astype(np.float32)

    def _centered(self, turned: NDArray[np.float32]) -> NDArray[np.float32]:
        return turned if self.mean is None else turned - self.mean

    def _scaled(
        self, rows: NDArray[np.float32], norms: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float16] | None]:
        scale, divisors = None, np.full(len(rows), self.unit)
        if self.scales_rows:
            relative = np.sqrt(norms / rows.shape[1]) / self.unit
            scale = np.clip(relative, _HALF.smallest_subnormal, _HALF.max).astype(np.float16)
            divisors *= scale
        scaled = np.empty_like(rows)
        kernels.divide_rows(rows, divisors, scaled, kernels.default_threads())
        return scaled, scale


class _TransformedMatrix:
    """The rows that are encoded, as chunks of a matrix."""

    def __init__(self, matrix: Matrix, transform: _Transform) -> None:
        self.shape = matrix.rows, matrix.dim
        self._matrix, self._transform = matrix.silent(), transform

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        for first, chunk in self._matrix.chunks("clip"):
            yield self._transform.apply(first, chunk)[1]


class _TrellisEncoder:
    """Values learned from a sample, each selected by more bits than its own."""

    lists_zero_rows = True

    def __init__(
        self, sample: NDArray[np.float32], nbit: int, options: Options, progress: Progress | None
    ) -> None:
        dim = sample.shape[1]
        scale = np.sqrt(np.square(sample, dtype=np.float64).mean(axis=0)).astype(np.float32)
        codebook = trellis.learn(sample, scale, nbit, options.trellis_state_bits, options.seed, progress)
        codes = np.empty((0, -(-dim * nbit // 8)), np.uint8)
        self._codebook, self._column_scale = codebook, scale
        self.table = Table(codes, dim, nbit, "trellis", codebook, 0.0, column_scale=scale)

    def encode(self, first: int, rows: NDArray[np.float32], zero: NDArray[np.bool_]) -> NDArray[np.uint8]:
        clip = max(self.table.clip, float(rows.max()), -float(rows.min()))
        self.table = replace(self.table, clip=clip)
        return trellis.encode(rows, self._codebook, self._column_scale, self.table.nbit)


def _statistics(matrix: Matrix, options: Options) -> _Statistics:
    rows, dim = matrix.rows, matrix.dim
    drawn = min(rows, -(-_SAMPLE_VALUES // dim))
    chosen = np.sort(np.random.default_rng(options.seed).choice(rows, drawn, replace=False))
    if not (options.center or options.rotate):
        numbers = chosen.tolist()
        at_random = matrix.rows_at(numbers)
        if at_random is not None:
            zero = matrix.squared_norms(at_random, numbers) == 0
            return _Statistics(0, np.zeros(dim), None, _some(at_random[~zero]))
    count = 0
    total = np.zeros(dim)
    gram = np.zeros((dim, dim)) if options.rotate else None
    sample = []
    for first, chunk in matrix.chunks("scan"):
        zero = matrix.squared_norms(chunk, range(first, first + len(chunk))) == 0
        count += len(zero) - int(zero.sum())
        if options.center or gram is not None:
            for start in range(0, len(chunk), matrix.block_rows):
                block = chunk[start : start + matrix.block_rows].astype(np.float64)
                total += block.sum(axis=0)
                if gram is not None:
                    gram += block.T @ block
        at = chosen[slice(*np.searchsorted(chosen, [first, first + len(chunk)]))] - first
        sample.append(chunk[at[~zero[at]]])
    return _Statistics(count, total / max(1, count), gram, _some(np.concatenate(sample)))


def _some(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the rows, or one of zeros if there are none."""
    return rows if len(rows) else np.zeros((1, rows.shape[1]), np.float32)


def _scaled_levels(table: Table, factor: float) -> Table:
    """Multiply all levels of a table by a factor."""
    if table.codebook is None or factor == 1.0:
        return table
    clip = table.clip * factor
    if table.column_scale is not None:
        return replace(
            table, column_scale=(table.column_scale * np.float64(factor)).astype(np.float32), clip=clip
        )
    if table.codebook_kind == "uniform":
        return replace(table, codebook=uniform_levels(clip, table.nbit), clip=clip)
    return replace(table, codebook=(table.codebook * np.float64(factor)).astype(np.float32), clip=clip)
