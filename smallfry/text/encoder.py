"""Texts to vectors with the tokenizer and the rows of a mapped file."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smallfry import kernels
from smallfry.errors import InputError
from smallfry.table import Table
from smallfry.text import settings
from smallfry.text.model import TextModel


class Encoder:
    """Encodes texts: splits each into tokens, and pools the rows of its tokens.

    Vectors are those of the library that made the model, of the compressed rows. Thread-safe; large batches
    run without the GIL. `Store.encoder` returns one.

    Parameters
    ----------
    table : Table
    text : TextModel

    Attributes
    ----------
    dim : int
        Values in a vector.
    tokens : int
        Number of token ids.
    max_tokens : int or None
        Tokens after which a text is cut.

    Raises
    ------
    TokenizerError
        The tokenizer of the file is damaged.

    Examples
    --------
    >>> import smallfry
    >>> encoder = smallfry.open("potion.sfq").encoder()
    >>> encoder.encode(["a sentence", "another"]).shape
    (2, 256)
    """

    def __init__(self, table: Table, text: TextModel) -> None:
        pooling = text.pooling
        self.dim = table.dim
        self.tokens = pooling.tokens
        self.max_tokens = pooling.max_tokens
        self._limits = pooling.max_characters, pooling.max_tokens, pooling.skip
        self._tokenizer = kernels.Tokenizer(settings.load(text), text.present())
        self._encoder = kernels.Encoder(
            self._tokenizer,
            table.decoder,
            text.tensors.token_rows,
            text.tensors.token_weights,
            pooling.tokens,
            *self._limits,
            pooling.normalize,
        )

    def encode(self, texts: str | Sequence[str], *, threads: int | None = None) -> NDArray[np.float32]:
        """Return the vectors of texts, float32 ``[n, dim]``; of a single str, ``[dim]``.

        A text without tokens gets zeros.

        Parameters
        ----------
        texts : str or sequence of str, length n
        threads : int, optional
            Maximum number of threads; small batches use one. See `smallfry.kernels.default_threads`.

        Raises
        ------
        InputError
            A text has a lone surrogate, which UTF-8 cannot encode.
        TypeError
            An element is not a str.
        """
        if isinstance(texts, str):
            vector: NDArray[np.float32] = self.encode_counts([texts], threads=threads)[0][0]
            return vector
        return self.encode_counts(texts, threads=threads)[0]

    def encode_counts(
        self, texts: Sequence[str], *, threads: int | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the vectors of texts and the number of tokens of each, int64 ``[n]``; see `encode`."""
        vectors = np.empty((len(texts), self.dim), np.float32)
        counts = self._encoder.encode(texts, vectors, self._threads(threads))
        return vectors, counts

    def tokenize(self, texts: str | Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, without those that its vector leaves out."""
        ids, offsets = self.token_ids([texts] if isinstance(texts, str) else texts)
        return [ids[begin:end].tolist() for begin, end in pairwise(offsets.tolist())]

    def token_ids(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the token ids of all texts, and where those of each begin.

        Returns
        -------
        ids : ndarray of int64, shape [n]
        offsets : ndarray of int64, shape [texts + 1]
        """
        if isinstance(texts, str):
            raise TypeError("texts is one str, expected a list of str")
        ids: NDArray[np.int64]
        offsets: NDArray[np.int64]
        ids, offsets = self._tokenizer.tokenize(texts, *self._limits)
        return ids, offsets

    def pool(self, ids: ArrayLike, offsets: ArrayLike, *, threads: int | None = None) -> NDArray[np.float32]:
        """Return the vectors of texts whose token ids are known, float32 ``[texts, dim]``.

        Parameters
        ----------
        ids : array of int64, shape [n]
        offsets : array of int64, shape [texts + 1]
            Text i has the tokens ``ids[offsets[i]:offsets[i + 1]]``.
        threads : int, optional
            See `encode`.

        Raises
        ------
        IndexError
            An id is out of range.
        InputError
            The offsets decrease, or exceed `ids`.
        """
        flat = np.ascontiguousarray(ids, np.int64)
        bounds = np.ascontiguousarray(offsets, np.int64)
        if flat.ndim != 1 or bounds.ndim != 1 or not len(bounds):
            raise InputError(
                f"ids have shape {list(flat.shape)} and offsets {list(bounds.shape)}, expected [n] and "
                "[texts + 1]."
            )
        vectors = np.empty((len(bounds) - 1, self.dim), np.float32)
        self._encoder.pool(flat, bounds, vectors, self._threads(threads))
        return vectors

    @staticmethod
    def _threads(threads: int | None) -> int:
        return kernels.default_threads() if threads is None else max(1, threads)
