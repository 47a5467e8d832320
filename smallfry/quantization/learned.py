"""Compress with a learned codebook, around the mean, in a rotated basis, or with a scale for each row.

A second way to the same `Table`: the same bytes a value, decoded by the same kernels, with less error.
`smallfry.compress.quantize` comes here for any option that is not the default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smallfry import kernels
from smallfry.errors import InputError
from smallfry.quantization import codebooks, rotation
from smallfry.quantization.chunks import Matrix, MatrixChunks, Progress, scan
from smallfry.quantization.rotation import Rotation
from smallfry.table import NBITS, Table

CODEBOOKS = ("uniform", "lloyd", "grouped")

_SAMPLE_VALUES = 1 << 22


@dataclass(frozen=True)
class Options:
    """How to compress, beside the number of bits.

    Attributes
    ----------
    codebook : str
        ``"uniform"``, ``"lloyd"`` (the best levels for single values) or ``"grouped"`` (the best values of
        each byte, at 1, 2 and 4 bits).
    center : bool
        Subtract the mean row, which is added after decoding.
    rotate : str or None
        Rotate the columns: ``"orthogonal"``, ``"hadamard"``, or ``"principal"`` with a grouped codebook.
        Vectors stay in the rotated basis, where every dot product and distance is as before.
    row_scale : bool
        Give each row a scale of its own, two bytes.
    seed : int
        Of the rotation and of the sample that the codebook is fitted to.
    """

    codebook: str = "uniform"
    center: bool = False
    rotate: str | None = None
    row_scale: bool = False
    seed: int = 0

    @property
    def plain(self) -> bool:
        """Whether this is the default: uniform levels over the matrix as it is."""
        return self.codebook == "uniform" and not (self.center or self.rotate or self.row_scale)

    @property
    def keywords(self) -> dict[str, Any]:
        """The options as arguments of `smallfry.compress.quantize`."""
        return asdict(self)

    @property
    def by_levels(self) -> bool:
        """Whether levels are uniform, and so found at any size of the values, and the same for all rows."""
        return self.codebook == "uniform" and not self.row_scale

    @property
    def widths(self) -> tuple[int, ...]:
        """The numbers of bits that go with the options, the fewest first."""
        if self.plain:
            return NBITS
        return {"lloyd": (1, 2, 4, 8), "grouped": (1, 2, 4)}.get(self.codebook, NBITS[:-1])

    def check(self, nbit: int) -> None:
        """Raise InputError where the options do not go together or with `nbit`."""
        if self.codebook not in CODEBOOKS:
            raise InputError(f"codebook is {self.codebook!r}, expected one of {', '.join(CODEBOOKS)}")
        if self.rotate is not None and self.rotate not in rotation.KINDS:
            raise InputError(f"rotate is {self.rotate!r}, expected one of {', '.join(rotation.KINDS)}")
        if self.rotate == "principal" and self.codebook != "grouped":
            raise InputError(
                "rotate='principal' is made for codebook='grouped'. With other codebooks use 'orthogonal'."
            )
        if not self.plain and nbit == 32:
            raise InputError(
                "32 bits keep every value as it is. Choose fewer bits, or leave the options out."
            )
        if nbit not in self.widths:
            widths = ", ".join(map(str, self.widths))
            raise InputError(f"a {self.codebook} codebook is learned at {widths} bits, not at {nbit}")


def learn(
    source: NDArray[np.floating[Any]] | MatrixChunks,
    nbit: int,
    options: Options,
    uniform: Callable[[MatrixChunks], Table],
    progress: Progress | None = None,
) -> Table:
    """Compress a matrix with `options`.

    Parameters
    ----------
    source : ndarray of any float dtype, shape [rows, dim], or MatrixChunks
    nbit : int
    options : Options
    uniform : callable
        Compresses by uniform levels, for that codebook.
    progress : callable, optional
        The stages are "scan", "mean", "fit", "encode" and "measure", for uniform levels also "clip".

    Returns
    -------
    Table
    """
    matrix = Matrix(source, progress)
    facts = _scan(matrix, options)
    group = 8 // nbit if options.codebook == "grouped" else 1
    changed = _Changed(Matrix(source), facts, _rotation(matrix.dim, facts, options, group), options)
    if options.codebook == "uniform":
        table = _place_mean_rows(uniform(changed), facts.zero)
    else:
        table = _encode(changed, nbit, _fit(changed, nbit, options, progress), options.codebook, progress)
    table = _times(table, changed.unit)
    table = replace(
        table,
        mean=changed.mean,
        row_scale=changed.scale,
        rotation=changed.rotation,
        zero_rows=np.flatnonzero(facts.zero).astype(np.uint32),
    )
    return replace(table, frobenius_error=_error(matrix, changed, table))


@dataclass(frozen=True)
class _Scan:
    """What one look at every value found."""

    zero: NDArray[np.bool_]
    mean: NDArray[np.float64]
    gram: NDArray[np.float64] | None
    sample: NDArray[np.float32]

    def covariance(self, center: bool) -> NDArray[np.float64]:
        assert self.gram is not None
        shift = np.outer(self.mean, self.mean) * max(1, int((~self.zero).sum()))
        return self.gram - shift if center else self.gram


class _Changed:
    """The matrix as it is coded: rotated, less the mean, each row over its scale. Zero rows are zeros."""

    def __init__(self, matrix: Matrix, scan: _Scan, rotation: Rotation | None, options: Options) -> None:
        self._matrix, self._zero = matrix, scan.zero
        self.shape = matrix.rows, matrix.dim
        self.rotation = rotation
        mean = scan.mean.astype(np.float32)[None]
        self.mean = self.rotated(mean)[0] if options.center else None
        self.scale = np.zeros(matrix.rows, np.float16) if options.row_scale else None
        centred = self._centred(scan.sample)
        # What is learned is learned at a size whose squares neither overflow nor vanish.
        self.unit = float(_lengths(centred).mean()) if centred.any() and not options.by_levels else 1.0
        self.sample = self._scaled(centred)[0]

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        for first, given in self._matrix.chunks("encode"):
            part = slice(first, first + len(given))
            rows, scale = self._scaled(self._centred(given))
            rows[self._zero[part]] = 0
            if self.scale is not None:
                self.scale[part] = np.where(self._zero[part], 0, scale)
            yield rows

    def rotated(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return rows if self.rotation is None else self.rotation.apply(rows)

    def _centred(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.rotated(rows) - (0 if self.mean is None else self.mean)

    def _scaled(self, rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
        if self.scale is None:
            return (rows / self.unit).astype(np.float32), np.ones(len(rows), np.float16)
        limits = np.finfo(np.float16)
        relative = np.clip(_lengths(rows) / self.unit, limits.smallest_subnormal, limits.max)
        scale = relative.astype(np.float16)
        return (rows / (scale.astype(np.float64) * self.unit)[:, None]).astype(np.float32), scale


def _scan(matrix: Matrix, options: Options) -> _Scan:
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
    return _Scan(zero, total / max(1, int((~zero).sum())), gram, drawn_rows)


def _rotation(dim: int, scan: _Scan, options: Options, group: int) -> Rotation | None:
    if options.rotate is None:
        return None
    if options.rotate == "principal":
        return rotation.principal(scan.covariance(options.center), group, options.seed)
    return Rotation(options.rotate, options.seed, dim)


def _fit(changed: _Changed, nbit: int, options: Options, progress: Progress | None) -> NDArray[np.float32]:
    if options.codebook == "lloyd":
        return codebooks.lloyd_max(changed.sample, 2**nbit).astype(np.float32)

    def report(done: int, total: int) -> None:
        if progress is not None:
            progress("fit", done, total)

    return codebooks.grouped(changed.sample, 8 // nbit, options.seed, report)


def _encode(
    changed: _Changed, nbit: int, levels: NDArray[np.float32], kind: str, progress: Progress | None
) -> Table:
    rows, dim = changed.shape
    codes = np.empty((rows, -(-dim * nbit // 8)), np.uint8)
    edges = (levels[1:] + levels[:-1]) / 2 if kind == "lloyd" else None
    clip, start = 0.0, 0
    for chunk in changed:
        end = start + len(chunk)
        if edges is None:
            codes[start:end] = codebooks.encode(chunk, levels)
        else:
            codes[start:end] = kernels.pack(np.searchsorted(edges, chunk).astype(np.uint16), nbit)
        clip, start = max(clip, float(np.abs(chunk).max())), end
        if progress is not None:
            progress("encode", start, rows)
    return Table(codes, dim, nbit, kind, levels, clip)


def _place_mean_rows(table: Table, zero: NDArray[np.bool_]) -> Table:
    """Give rows that equal the mean, which are no zero rows of the matrix, the code nearest to zero."""
    mean_rows = table.zero_rows[~zero[table.zero_rows]]
    if not len(mean_rows) or table.codebook is None:
        return table
    nearest = np.abs(table.codebook).argmin()
    codes = table.codes.copy()
    codes[mean_rows] = kernels.pack(np.full((1, table.dim), nearest, np.uint16), table.nbit)
    return replace(table, codes=codes)


def _times(table: Table, factor: float) -> Table:
    """Return the table with all its levels times a factor."""
    if table.codebook is None or factor == 1.0:
        return table
    clip = table.clip * factor
    if table.kind == "uniform":
        return replace(table, codebook=codebooks.uniform_levels(clip, table.nbit), clip=clip)
    return replace(table, codebook=(table.codebook * np.float64(factor)).astype(np.float32), clip=clip)


def _error(matrix: Matrix, changed: _Changed, table: Table) -> float:
    lost = kept = 0.0
    for first, given in matrix.chunks("measure"):
        rows = changed.rotated(given)
        decoded = table.decode(np.arange(first, first + len(rows)))
        lost += float(np.square(rows - decoded, dtype=np.float64).sum())
        kept += float(np.square(rows, dtype=np.float64).sum())
    return (lost / kept) ** 0.5 if kept else 0.0


def _lengths(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(np.sqrt(np.square(rows, dtype=np.float64).mean(axis=1)))
