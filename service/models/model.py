"""A model: a store served under a name."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from time import perf_counter, time
from typing import Any

import numpy as np
from numpy.typing import NDArray

import smallfry.sfq.file
from service.models.examples import examples
from smallfry.sfq.file import SfqFile, stamp_of
from smallfry.store import Store

#: Factor that covers the rounding of values, and of means of them.
_ROUNDING = 1.01


@dataclass(frozen=True, eq=False)
class Model:
    """A memory-mapped file and the name it is served under.

    Attributes
    ----------
    loaded_at : float
        When the file was opened, in seconds since 1970.
    load_seconds : float
        How long opening it took.
    derived : dict
        Objects that other modules compute once from the model, by type.
    """

    name: str
    path: Path
    file: SfqFile = field(repr=False)
    store: Store = field(repr=False)
    loaded_at: float
    load_seconds: float
    derived: dict[type, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, name: str, path: Path) -> Model:
        """Map a file, and check its tokenizer; pages are read when a lookup first touches them."""
        started = perf_counter()
        file = smallfry.sfq.file.map(path)
        store = Store(file)
        if store.has_tokenizer:
            store.encoder()
        return cls(name, path, file, store, time(), perf_counter() - started)

    @property
    def digest(self) -> str:
        """SHA-256 that identifies the content."""
        return self.store.digest

    @property
    def modified_at(self) -> int:
        """When the file was last written, in seconds since 1970."""
        return self.file.stamp[-1] // 10**9

    def decode(self, ids: NDArray[np.int64], fill: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Return rows as float32 [n, dim]; id -1 becomes `fill`, or zeros if it is None."""
        return self.store.table.decode(ids, fill=self._zeros if fill is None else fill)

    @cached_property
    def examples(self) -> list[str]:
        """Tokens for examples; see `service.models.examples.examples`."""
        return examples(self.store)

    @cached_property
    def largest(self) -> float:
        """A bound of the absolute values, judged without decoding; infinity if there is none."""
        table = self.store.table
        if table.codebook is None or table.paging is not None:  # scales of paged tables are in every block
            return math.inf
        most = float(np.abs(table.codebook).max())
        if table.column_scale is not None:
            most *= float(np.abs(table.column_scale).max())
        if table.row_scale is not None:
            most *= float(np.abs(table.row_scale).max(initial=0))
        if table.mean is not None:
            most += float(np.abs(table.mean).max())
        return most * _ROUNDING

    def is_overwritten(self) -> bool:
        """Whether the mapped file itself was truncated or written to; False if it was replaced."""
        stamp = self._current_stamp()
        return stamp is not None and stamp[:2] == self.file.stamp[:2] and stamp != self.file.stamp

    def replacement(self) -> tuple[int, ...] | None:
        """Return the stamp of the file that has replaced the mapped one, or None."""
        stamp = self._current_stamp()
        return None if stamp is None or stamp[:2] == self.file.stamp[:2] else stamp

    def is_same(self, other: Model) -> bool:
        """Whether both have the same path and content."""
        return (self.path, self.digest) == (other.path, other.digest)

    def describe(self) -> dict[str, Any]:
        """Return the fields of ``GET /models/{name}``."""
        return {"name": self.name} | self.store.describe()

    @cached_property
    def _zeros(self) -> NDArray[np.float32]:
        return np.zeros(self.store.dim, np.float32)

    def _current_stamp(self) -> tuple[int, ...] | None:
        try:
            return stamp_of(self.path.stat())
        except OSError:
            return None
