"""How much of a lookup goes into one request."""

from __future__ import annotations

from typing import Any

#: Tokens of a text, estimated: one for each two characters, and a few for any text.
_CHARACTERS, _EXTRA = 2, 8


class BatchSize:
    """The most tokens or ids of a request; halved when a server rejects a request as too large."""

    def __init__(self, keys: int) -> None:
        self._most = keys

    def end(self, keys: Any, begin: int) -> int:  # noqa: ANN401 - a list or an array
        """Return the end of the batch that begins at a position; it has one key at least."""
        return begin + self._most

    def halve(self, batch: Any) -> None:  # noqa: ANN401 - a list or an array
        """Allow half of what a rejected request held."""
        self._most = len(batch) // 2


class TextBatchSize(BatchSize):
    """The most texts of a request, by their number and length."""

    def __init__(self, tokens: int) -> None:
        super().__init__(_CHARACTERS * tokens)

    def end(self, keys: list[str], begin: int) -> int:
        """Return the end of the batch that begins at a position; it has one text at least."""
        size = 0
        for end in range(begin, len(keys)):
            size += _size(keys[end])
            if size > self._most and end > begin:
                return end
        return len(keys)

    def halve(self, batch: list[str]) -> None:
        """Allow half of what a rejected request held."""
        self._most = sum(map(_size, batch)) // 2


def _size(text: str) -> int:
    return len(text) + _EXTRA
