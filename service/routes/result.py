"""The result of a lookup: rows, and vectors that are computed at once or while they are sent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.models.model import Model
from smallfry.pooling import Pool, finish_bags

#: Bytes per chunk of a large tensor: chunks are generated while they are sent, to bound the memory.
CHUNK = 3 << 16


@dataclass(frozen=True, slots=True)
class Chunks:
    """A tensor that is generated in chunks while it is sent.

    Attributes
    ----------
    shape : tuple of int
        The whole shape: [n, …].
    dtype : dtype
    make : callable
        Returns the rows from a first to a last, exclusive.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    make: Callable[[int, int], NDArray[Any]]

    @property
    def nbytes(self) -> int:
        """Bytes of the whole tensor."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __iter__(self) -> Iterator[memoryview]:
        step = max(1, CHUNK * self.shape[0] // self.nbytes)
        for begin, end in spans(self.shape[0], step):
            yield self.make(begin, end).data


def spans(count: int, step: int) -> Iterator[tuple[int, int]]:
    """Divide a number of rows into parts: the first row of each, and the one after its last."""
    for begin in range(0, count, step):
        yield begin, min(begin + step, count)


@dataclass(slots=True)
class LookupResult:
    """The rows that a lookup found.

    Attributes
    ----------
    ids : ndarray of int64 [n]
        Row numbers, -1 for unknown tokens.
    found : ndarray of bool [n], or [bags] if pooled
        Which tokens are in the vocabulary; for a bag, whether any is.
    unknown : int
        The number of unknown tokens.
    offsets : ndarray of int64 [bags + 1], optional
        Bounds of the inner lists of a nested request.
    dtype : str
        ``"float32"`` or ``"float16"``.
    pool : {"mean", "sum"}, optional
        Each vector belongs to an inner list, not to a row.
    skip : bool
        Whether unknown tokens are left out of means.
    fill : ndarray of float32 [dim], optional
        The vector of unknown tokens, if not zeros.
    vectors : ndarray of float32 or float16 [n, dim], or [bags, dim], optional
        The result, if it is computed; packed responses need none.
    """

    model: Model
    ids: NDArray[np.int64]
    found: NDArray[np.bool_]
    unknown: int
    offsets: NDArray[np.int64] | None
    dtype: str
    pool: Pool | None = None
    skip: bool = False
    fill: NDArray[np.float32] | None = None
    vectors: NDArray[Any] | None = None

    @property
    def known(self) -> int:
        """The number of ids and known tokens."""
        return len(self.ids) - self.unknown

    def compute(self, begin: int, end: int) -> NDArray[np.float32]:
        """Return the vectors from a first to a last, exclusive, as float32."""
        if self.pool is None:
            return self.model.decode(self.ids[begin:end], self.fill)
        assert self.offsets is not None
        bounds = self.offsets[begin : end + 1]
        ids, bounds = self.ids[bounds[0] : bounds[-1]], bounds - bounds[0]
        sums = self.model.store.table.bag(ids, bounds[:-1], "sum")
        return finish_bags(sums, ids, bounds, self.pool, fill=self.fill, skip=self.skip)[0]

    def computed(self) -> NDArray[Any]:
        """Return the vectors; compute them first if necessary."""
        if self.vectors is None:
            self.vectors = self.compute(0, len(self.found))
        return self.vectors

    def tensor(self) -> NDArray[Any] | Chunks:
        """Return the vectors; many are computed while they are sent."""
        if not self.is_lazy():
            return self.computed()
        dtype = np.dtype(self.dtype)

        def make(begin: int, end: int) -> NDArray[Any]:
            return self.compute(begin, end).astype(dtype, copy=False)

        return Chunks((len(self.found), self.model.store.dim), dtype, make)

    def is_lazy(self) -> bool:
        """Say whether the vectors are too large to be held in memory until they are sent."""
        return self.vectors is None and 4 * len(self.found) * self.model.store.dim > CHUNK

    def fits_half(self) -> bool:
        """Say whether every value is known to fit float16, judged without computing it."""
        most = self.model.largest
        if self.pool == "sum" and self.offsets is not None:
            most *= int(np.diff(self.offsets).max(initial=1))
        return most < float(np.finfo(np.float16).max)

    def codes(self) -> NDArray[np.uint8] | Chunks:
        """Return the packed rows; many are gathered while they are sent."""
        table = self.model.store.table
        shape = len(self.ids), table.stride
        if math.prod(shape) <= CHUNK:
            return table.gather_codes(self.ids)
        return Chunks(shape, np.dtype(np.uint8), lambda begin, end: table.gather_codes(self.ids[begin:end]))


@dataclass(slots=True)
class TextResult(LookupResult):
    """The vectors of texts, which are pooled by the rules of their model.

    Attributes
    ----------
    counts : ndarray of int64 [n]
        The number of tokens of each text.
    make : callable
        Returns the vectors from a first to a last, exclusive.
    """

    counts: NDArray[np.int64] = field(kw_only=True)
    make: Callable[[int, int], NDArray[np.float32]] = field(kw_only=True)

    @property
    def known(self) -> int:
        """The number of tokens."""
        return int(self.counts.sum())

    def compute(self, begin: int, end: int) -> NDArray[np.float32]:
        """Return the vectors from a first to a last, exclusive, as float32."""
        return self.make(begin, end)

    def fits_half(self) -> bool:
        """Return False: tokens have weights, so that the values of the table are no bound."""
        return False
