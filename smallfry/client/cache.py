"""LRU cache of token vectors."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from smallfry.client.lookup import DecodedRows, ModelVersion

ENTRY_BYTES = 300
"""Overhead of an entry in addition to its vector and token: objects and dictionary slot."""


class CachedRows(NamedTuple):
    """The cache's entries for the requested tokens, all from one version of the model."""

    version: ModelVersion
    rows: list[bytes | None]
    """The float32 vector of each token; empty for a token outside the vocabulary, None if not cached."""

    def missing(self, tokens: Sequence[str]) -> list[str]:
        """Return the tokens that are not cached."""
        return [token for token, row in zip(tokens, self.rows, strict=True) if row is None]

    def merge(self, fetched: DecodedRows | None) -> DecodedRows:
        """Return the vectors of all tokens, given those of the missing ones."""
        count, dim = len(self.rows), self.version.dim
        vectors, found = np.zeros((count, dim), np.float32), np.zeros(count, np.bool_)
        found[[i for i, row in enumerate(self.rows) if row]] = True
        vectors[found] = np.frombuffer(b"".join(filter(None, self.rows)), np.float32).reshape(-1, dim)
        if fetched is not None:
            missing = [i for i, row in enumerate(self.rows) if row is None]
            vectors[missing], found[missing] = fetched.vectors, fetched.found
        return DecodedRows(vectors, found, self.version)


class TokenCache:
    """The most recently used tokens, up to `nbytes`; valid for `seconds` after the last response."""

    def __init__(self, nbytes: int, seconds: float) -> None:
        self._limit = nbytes
        self._seconds = seconds
        self._lock = threading.Lock()
        self.clear()

    def get(self, model: str | None, tokens: Sequence[str]) -> CachedRows | None:
        """Return the entries for tokens of a model, None if there are none or they have expired."""
        with self._lock:
            version, confirmed = self._versions.get(model, (None, 0.0))
            if version is None or time.monotonic() - confirmed > self._seconds:
                return None
            rows = []
            for token in tokens:
                row = self._rows.get((model, token))
                if row is not None:
                    self._rows.move_to_end((model, token))
                rows.append(row)
            return CachedRows(version, rows)

    def put(self, model: str | None, tokens: Sequence[str], fetched: DecodedRows) -> None:
        """Add the vectors of tokens. A changed model version empties the cache first."""
        width = fetched.vectors.shape[1] * 4
        raw = fetched.vectors.tobytes()
        with self._lock:
            if self._versions.get(model, (fetched.version,))[0] != fetched.version:
                self._clear()
            self._versions[model] = (fetched.version, time.monotonic())
            for i, (token, found) in enumerate(zip(tokens, fetched.found.tolist(), strict=True)):
                row = raw[i * width : (i + 1) * width] if found else b""
                if (model, token) not in self._rows:
                    self._size += _entry_size(token, row)
                self._rows[model, token] = row
            while self._size > self._limit:
                (_, token), row = self._rows.popitem(last=False)
                self._size -= _entry_size(token, row)

    def clear(self) -> None:
        """Empty the cache."""
        with self._lock:
            self._clear()

    def _clear(self) -> None:
        self._rows: OrderedDict[tuple[str | None, str], bytes] = OrderedDict()
        self._versions: dict[str | None, tuple[ModelVersion, float]] = {}
        self._size = 0


def _entry_size(token: str, row: bytes) -> int:
    return ENTRY_BYTES + len(token) + len(row)
