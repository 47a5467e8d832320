"""The words of a matrix's rows, read in sequence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import InputError
from smallfry.readers.records import join_tokens, pack, slice_tokens
from smallfry.vocabulary import PackedTokens

NO_WORD = b"\xff"
"""Token of a row that has no word; it is not valid UTF-8, so the row is unnamed."""


class WordList:
    """The words of a matrix's rows, read in sequence.

    Parameters
    ----------
    name : str
        Name of the list in messages.
    blocks : iterator of PackedTokens
        All words, in blocks of any size; each block fills its `buf`.
    neighbor : bool
        Whether the list was found next to the matrix, so that messages say how to decline it.
    """

    def __init__(self, name: str, blocks: Iterator[PackedTokens], *, neighbor: bool = False) -> None:
        self._name = name
        self._blocks = blocks
        self._neighbor = neighbor
        self._rest = pack([])
        self._taken = 0

    def take(self, count: int) -> PackedTokens:
        """Return the next `count` words; raise InputError if the list ends before."""
        parts, held = [self._rest], len(self._rest.offsets) - 1
        with declinable(self._neighbor):
            while held < count:
                block = next(self._blocks, None)
                if block is None:
                    raise wrong_count(self._name, f"{self._taken + held}", f"more than {self._taken + held}")
                parts.append(block)
                held += len(block.offsets) - 1
        words = join_tokens(parts) if len(parts) > 1 else parts[0]
        self._rest = slice_tokens(words, count, held)
        self._taken += count
        return slice_tokens(words, 0, count)

    def take_all(self) -> PackedTokens:
        """Return all words that are left."""
        return join_tokens([self._rest, *self._blocks])

    def finish(self) -> None:
        """Raise InputError unless all words were taken."""
        with declinable(self._neighbor):
            if any(len(words.offsets) > 1 for words in chain([self._rest], self._blocks)):
                raise wrong_count(self._name, f"more than {self._taken}", f"{self._taken}")


def have_words(tokens: PackedTokens) -> NDArray[np.bool_]:
    """Return whether each token is another than `NO_WORD`."""
    named = np.ones(len(tokens.offsets) - 1, np.bool_)
    single = np.flatnonzero(np.diff(tokens.offsets) == len(NO_WORD))
    named[single] = tokens.buf[tokens.offsets[single]] != NO_WORD[0]
    return named


@contextmanager
def declinable(neighbor: bool) -> Iterator[None]:
    """Add to an InputError how to decline a list that was found next to the matrix."""
    try:
        yield
    except InputError as error:
        if not neighbor:
            raise
        raise type(error)(
            f"{error} The file is next to the matrix, so its words are read: pass --words FILE (words=) "
            "for another list, or --no-words (words=False)."
        ) from None


def wrong_count(name: str, words: str, rows: str) -> InputError:
    """Return the error of a list with another number of words than the matrix has rows."""
    return InputError(
        f"Number of words ({words}) does not match number of vectors ({rows}): {name}. "
        "Please give one word a line, in the order of the vectors."
    )
