"""The vectors of the tokens that are asked for most, kept on the client."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from smallfry.client.lookup import Content, Vectors

ENTRY_BYTES = 300
"""What an entry takes beside its vector and its token: the objects, and their place in the dictionary."""


class Known(NamedTuple):
    """What the cache holds of the tokens asked for.

    Attributes
    ----------
    content : Content
        What all of them come from.
    rows : list of bytes or None
        The float32 vector of each token; empty for one that the vocabulary does not have, None for one that
        the cache does not know.
    """

    content: Content
    rows: list[bytes | None]

    def missing(self, tokens: Sequence[str]) -> list[str]:
        """Return the tokens that the cache does not know."""
        return [token for token, row in zip(tokens, self.rows, strict=True) if row is None]

    def merge(self, fresh: Vectors | None) -> Vectors:
        """Return the vectors of all tokens, given those of the missing ones."""
        count, dim = len(self.rows), self.content.dim
        vectors, found = np.zeros((count, dim), np.float32), np.zeros(count, np.bool_)
        found[[i for i, row in enumerate(self.rows) if row]] = True
        vectors[found] = np.frombuffer(b"".join(filter(None, self.rows)), np.float32).reshape(-1, dim)
        if fresh is not None:
            asked = [i for i, row in enumerate(self.rows) if row is None]
            vectors[asked], found[asked] = fresh.vectors, fresh.found
        return Vectors(vectors, found, self.content)


class TokenCache:
    """The most recently used tokens within a number of bytes.

    Parameters
    ----------
    nbytes : int
        At most this much is kept.
    seconds : float
        How long vectors are given without a word from the server that its model is still the same.
    """

    def __init__(self, nbytes: int, seconds: float) -> None:
        self._limit = nbytes
        self._seconds = seconds
        self._lock = threading.Lock()
        self.clear()

    def get(self, model: str | None, tokens: Sequence[str]) -> Known | None:
        """Return what the cache holds of a model, under the name by which it is asked for.

        None where nothing is held, or nothing that may still be used.
        """
        with self._lock:
            content, confirmed = self._contents.get(model, (None, 0.0))
            if content is None or time.monotonic() - confirmed > self._seconds:
                return None
            rows = []
            for token in tokens:
                row = self._rows.get((model, token))
                if row is not None:
                    self._rows.move_to_end((model, token))
                rows.append(row)
            return Known(content, rows)

    def put(self, model: str | None, tokens: Sequence[str], fresh: Vectors) -> None:
        """Keep the vectors of tokens. Where the model's content has changed, what was kept goes first."""
        width = fresh.vectors.shape[1] * 4
        raw = fresh.vectors.tobytes()
        with self._lock:
            if self._contents.get(model, (fresh.content,))[0] != fresh.content:
                self._forget()
            self._contents[model] = (fresh.content, time.monotonic())
            for i, (token, found) in enumerate(zip(tokens, fresh.found.tolist(), strict=True)):
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
            self._forget()

    def _forget(self) -> None:
        self._rows: OrderedDict[tuple[str | None, str], bytes] = OrderedDict()
        self._contents: dict[str | None, tuple[Content, float]] = {}
        self._size = 0


def _entry_size(token: str, row: bytes) -> int:
    return ENTRY_BYTES + len(token) + len(row)
