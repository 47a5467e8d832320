"""The words to keep of an input: `keep` of `smallfry.readers.open_vectors`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from smallfry import kernels
from smallfry.errors import InputError, shorten
from smallfry.readers.listing import cut
from smallfry.readers.options import ReadOptions
from smallfry.readers.records import RecordChunk, select_tokens
from smallfry.readers.report import ReadReport
from smallfry.readers.words.open import open_words
from smallfry.vocabulary import PackedTokens, Vocabulary

_EXAMPLES = 3


class KeptWords:
    """Selects the rows of some words, and notes which words were found.

    Parameters
    ----------
    name : str
        Name of the words in messages.
    words : Vocabulary
    """

    def __init__(self, name: str, words: Vocabulary) -> None:
        if not len(words):
            raise InputError(f"{name} has no words, expected one or more to keep.")
        self._name = name
        self._words = words
        self._found = np.zeros(len(words), np.bool_)

    def select(self, chunk: RecordChunk, report: ReadReport) -> RecordChunk:
        """Return the rows of `chunk` whose token is one of the words."""
        if chunk.tokens is None:
            raise InputError(
                f"{self._name} has words to keep, but the vectors have no words. "
                "Please give them with words= (--words)."
            )
        ids = self._words.find_utf8(*chunk.tokens)
        kept = ids >= 0
        self._found[ids[kept]] = True
        report.left_out += len(kept) - int(kept.sum())
        return chunk.select(kept)

    def finish(self, source: str, report: ReadReport) -> None:
        """Report the words that were not found in `source`; raise InputError if none was found."""
        missing = np.flatnonzero(~self._found)
        examples = ", ".join(shorten(self._words.token(row)) for row in missing[:_EXAMPLES].tolist())
        examples += ", …" if len(missing) > _EXAMPLES else ""
        if len(missing) == len(self._words):
            raise InputError(
                f"{cut(source, 100)} has none of the {len(missing):,} words of {self._name}: {examples}. "
                "Please check their spelling and case."
            )
        report.missing_words, report.missing_examples = len(missing), examples

    def in_order(self, tokens: PackedTokens) -> tuple[PackedTokens, NDArray[np.int64]]:
        """Return unique tokens in the order of the words, and the position of each in `tokens`."""
        ids = self._words.find_utf8(*tokens)
        present = np.zeros(len(self._words), np.bool_)
        present[ids] = True
        words = PackedTokens(self._words.tokens, self._words.offsets.astype(np.int64))
        return select_tokens(words, present), np.argsort(ids)


def read_keep(keep: str | os.PathLike[str] | Iterable[str], options: ReadOptions) -> KeptWords:
    """Return the words of a word list or an iterable; duplicates are ignored."""
    if not isinstance(keep, str | os.PathLike):
        return KeptWords("keep", Vocabulary.build(dict.fromkeys(keep)))
    name = cut(os.path.basename(keep), 100)
    with ExitStack() as stack:
        words = open_words(keep, None, replace(options, words=keep), ReadReport(""), stack).take_all()
    try:
        vocabulary = Vocabulary.build(select_tokens(words, kernels.TokenSet().add(*words)))
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    return KeptWords(name, vocabulary)
