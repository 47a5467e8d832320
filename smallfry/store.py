"""The store: vectors of tokens from a memory-mapped ``.sfq`` file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, Literal, TypeAlias, cast, get_args

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from smallfry import neighbors
from smallfry.errors import InputError, NoVocabularyError, OutOfVocabularyError, StoreClosedError
from smallfry.neighbors import Neighbor
from smallfry.sfq import file as sfq
from smallfry.table import Table
from smallfry.vocabulary import Vocabulary

Oov = Literal["zero", "mean", "error"]

Key: TypeAlias = str | int | NDArray[np.floating[Any]]
"""A token, a row number or a vector ``[dim]``."""

Keys: TypeAlias = Key | Iterable[Key | tuple[Key, float]]

_DICT_SAMPLE = 1000
_MEAN_VALUES = 1 << 18  # decoded at a time


def open(path: str | os.PathLike[str], *, oov: Oov = "zero", unk: str | None = None) -> Store:
    """Map a ``.sfq`` file and return its store.

    Parameters
    ----------
    path : path
        A ``.sfq`` file. The time to open it does not depend on its size.
    oov : {"zero", "mean", "error"}
        Result for an unknown token: a vector of zeros, the mean of all rows, or an error.
    unk : str, optional
        Instead of `oov`: a token of the vocabulary whose vector unknown tokens get.

    Raises
    ------
    SfqError
        The file violates a rule of the format, which the class names.
    InputError
        `oov` has another value, or `unk` is not in the vocabulary.
    OSError
        The file cannot be opened.

    Examples
    --------
    >>> import smallfry
    >>> store = smallfry.open("glove.sfq")
    >>> vectors, found = store.lookup(["list", "string", "no-such-word"])
    >>> vectors.shape, found.tolist()
    ((3, 300), [True, True, False])
    """
    return Store(sfq.map(path), oov=oov, unk=unk)


class Store:
    """A memory-mapped table with its vocabulary.

    A store is thread-safe and can be used after a fork: all threads and processes share the same pages.
    Returned arrays are copies and outlive the store.

    Parameters
    ----------
    file : SfqFile
        Returned by `smallfry.sfq.file.map`.
    oov, unk
        See `open`.

    Attributes
    ----------
    path : Path
        Path of the file.
    metadata : dict of str to str
        Metadata of the file.
    digest : str
        SHA-256 that identifies the content.
    oov : str
        Default policy for unknown tokens.
    unk : str or None
        Token whose vector unknown tokens get, if any.
    """

    def __init__(self, file: sfq.SfqFile, *, oov: Oov = "zero", unk: str | None = None) -> None:
        self.path = file.path
        self.metadata = file.header.metadata
        self.digest = file.header.digest
        self.oov = _policy(oov)
        self.unk = unk
        self._table: Table | None = file.table
        self._vocabulary = file.vocabulary
        self._unk_row = self._find_unk()

    @property
    def table(self) -> Table:
        """The packed matrix."""
        table = self._table  # read once: another thread can close the store
        if table is None:
            raise self._closed()
        return table

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The tokens of the rows; None if the file has none."""
        vocabulary = self._vocabulary
        if self._table is None:
            raise self._closed()
        return vocabulary

    @property
    def dim(self) -> int:
        """Values in a vector."""
        return self.table.dim

    @property
    def nbit(self) -> int:
        """Bits a value."""
        return self.table.nbit

    @property
    def nbytes(self) -> dict[str, int]:
        """Mapped bytes by part, 0 for an absent part, and their ``total``."""
        tokens = dict.fromkeys(("tokens", "token_offsets", "token_index"), 0)
        if self.vocabulary is not None:
            tokens = self.vocabulary.nbytes
        parts = self.table.nbytes | tokens
        return parts | {"total": sum(parts.values())}

    @cached_property
    def baseline_nbytes(self) -> dict[str, int]:
        """Bytes of a ``float32`` matrix and of a ``dict`` from token to row, and their ``total``.

        The dict is estimated as CPython 3.11 and later lay it out: a hash table of the least power of two
        whose 2/3 hold the tokens; 1, 2 or 4 bytes a slot (up to 2**7, 2**15, more slots) and 16 bytes an
        entry; for each token, ``sys.getsizeof`` of as many ASCII characters as it has bytes, rounded up to
        the allocator's 16 bytes (the mean of 1,000 tokens spread over the rows), and 32 bytes for its row
        number. The tokens are not read.
        """
        float32 = 4 * len(self) * self.dim
        mapping = 0 if self.vocabulary is None else _dict_nbytes(self.vocabulary)
        return {"float32": float32, "dict": mapping, "total": float32 + mapping}

    def describe(self) -> dict[str, Any]:
        """Return the shape, encoding, error, digest, size and metadata of the table, ready for JSON."""
        table = self.table
        return {
            "rows": table.rows,
            "dim": table.dim,
            "nbit": table.nbit,
            "codebook": table.codebook_kind,
            "clip": float(table.clip),
            "frobenius_error": float(table.frobenius_error),
            "has_vocabulary": self.vocabulary is not None,
            "digest": self.digest,
            "bytes": self.nbytes,
            "metadata": dict(self.metadata),
        }

    def describe_size(self) -> dict[str, Any]:
        """Return the size of the store next to a float32 matrix and a dict of the same, ready for JSON."""
        return {
            "rows": len(self),
            "dim": self.dim,
            "nbit": self.nbit,
            "bytes": self.nbytes,
            "float32_bytes": self.baseline_nbytes["float32"],
            "dict_bytes": self.baseline_nbytes["dict"],
        }

    @cached_property
    def mean(self) -> NDArray[np.float32]:
        """The mean of all decoded rows, float32 ``[dim]``; the first use reads the whole table.

        It is summed in float64 in row order, in blocks of at most 262,144 values.
        """
        for _ in self.compute_mean():
            pass
        mean: NDArray[np.float32] = self.__dict__["mean"]
        return mean

    @property
    def has_mean(self) -> bool:
        """Whether `mean` is computed."""
        return "mean" in self.__dict__

    def compute_mean(self) -> Iterator[int]:
        """Compute `mean` in parts of a millisecond; yield the number of rows read after each."""
        total = np.zeros(self.dim)
        step = max(1, _MEAN_VALUES // self.dim)
        for start in range(0, len(self), step):
            end = min(start + step, len(self))
            total += self.table.decode(np.arange(start, end)).sum(axis=0, dtype=np.float64)
            yield end
        self.__dict__["mean"] = (total / len(self)).astype(np.float32)

    def unrotated(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return vectors of this store, float32 ``[n, dim]``, in the basis of the compressed matrix.

        Lookups return vectors in the rotated basis, which preserves dot products and distances. Without a
        rotation, `vectors` are returned unchanged.
        """
        rotation = self.table.rotation
        return vectors if rotation is None else rotation.undo(vectors)

    def lookup(
        self, tokens: Sequence[str], *, oov: Oov | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the vectors of tokens.

        Parameters
        ----------
        tokens : sequence of str, length n
            Any strings, any number of times.
        oov : {"zero", "mean", "error"}, optional
            Policy for unknown tokens, instead of that of the store.

        Returns
        -------
        vectors : ndarray of float32, shape [n, dim]
        found : ndarray of bool, shape [n]
            False for a token that is not in the vocabulary, whatever vector it got.

        Raises
        ------
        OutOfVocabularyError
            Tokens are unknown and the policy is ``"error"``.
        NoVocabularyError
            The file has no vocabulary.
        TypeError
            `tokens` is a single string, or has elements that are not strings.
        """
        ids = self.find(tokens)
        found = ids >= 0
        if bool(found.all()):
            return self.table.decode(ids), found
        if _policy(oov or self.oov) == "error" and (oov is not None or self.unk is None):
            unknown = dict.fromkeys(tokens[position] for position in np.flatnonzero(~found).tolist())
            raise OutOfVocabularyError(list(unknown))
        return self.table.decode(ids, fill=self.fill(oov)), found

    def fill(self, oov: Oov | None = None) -> NDArray[np.float32]:
        """Return the vector of unknown tokens, float32 ``[dim]``; zeros under ``"error"``."""
        if oov is None and self._unk_row is not None:
            return self.table.decode([self._unk_row]).reshape(self.dim)
        if _policy(oov or self.oov) == "mean":
            return self.mean
        return np.zeros(self.dim, np.float32)

    def find(self, tokens: Sequence[str]) -> NDArray[np.int64]:
        """Return the row numbers of tokens, int64 ``[n]``; -1 for a token that is not in the vocabulary."""
        return self._known_vocabulary().find(tokens)

    def rows(self, ids: ArrayLike) -> NDArray[np.float32]:
        """Return rows by number, float32 ``[n, dim]``.

        Raises
        ------
        IndexError
            An id is out of range; the message has it and the number of rows.
        """
        return self.table.decode(ids)

    def neighbors(
        self, query: str | int | ArrayLike, k: int = 10, *, threads: int | None = None
    ) -> list[Neighbor]:
        """Return the exact nearest rows to a query by cosine; see `smallfry.neighbors.nearest`.

        Parameters
        ----------
        query : str, int or array of float [dim]
            A token, a row number or a vector. The row of a token or number is not among its neighbors.
        k : int
            Number of neighbors; fewer are returned if the table has fewer rows.
        threads : int, optional
            Maximum number of threads; small tables use one. See `smallfry.kernels.default_threads`.

        Raises
        ------
        OutOfVocabularyError
            The token is not in the vocabulary.
        IndexError
            The row number is out of range.
        InputError
            The query has the wrong shape, is not finite or all zeros, or `k` is below 1.

        Examples
        --------
        >>> [neighbor.token for neighbor in store.neighbors("list", 3)]
        ['sorted', 'of', 'separated']
        """
        row = int(self._known_rows([query])[0]) if isinstance(query, str | int | np.integer) else None
        vector = query if row is None else self.rows([row])[0]
        ids, scores = neighbors.nearest(self.table, vector, k, exclude=row, threads=threads)
        tokens = [None] * len(ids) if self.vocabulary is None else self.vocabulary.select(ids)
        return [
            Neighbor(token, row, score)
            for token, row, score in zip(tokens, ids.tolist(), scores.tolist(), strict=True)
        ]

    def most_similar(
        self, positive: Keys | None = None, negative: Keys | None = None, topn: int = 10
    ) -> list[tuple[str, float]]:
        """Return the tokens nearest to a sum of unit vectors, as gensim's ``KeyedVectors.most_similar``.

        Unlike `neighbors`, it takes several tokens and returns pairs of token and cosine.

        Parameters
        ----------
        positive, negative : str, int or array of float [dim], or a list of them, optional
            Tokens, row numbers and vectors. Those of `positive` have weight 1 and those of `negative` -1; a
            tuple ``(key, weight)`` has its own. Vectors are added as they are, in the basis of the rows.
        topn : int
            Number of tokens. Tokens and rows of the query are left out.

        Raises
        ------
        OutOfVocabularyError
            A token is not in the vocabulary.
        IndexError
            A row number is out of range.
        InputError
            A vector has the wrong shape, or the sum is not finite or all zeros.

        Examples
        --------
        >>> store.most_similar(positive=["king", "woman"], negative=["man"], topn=1)
        [('queen', 0.7118193507194519)]
        """
        if topn < 1:
            return []
        query, excluded = np.zeros(self.dim), set()
        for key, weight in (*_weighted(positive, 1.0), *_weighted(negative, -1.0)):
            if not isinstance(key, np.ndarray):
                row = int(self._known_rows([key])[0])
                excluded.add(row)
                key = _unit(self.rows([row])[0])
            elif key.shape != query.shape:
                raise InputError(f"a vector of the query has shape {list(key.shape)}, expected [{self.dim}]")
            query += weight * key
        ids, cosines = neighbors.nearest(self.table, query, topn + len(excluded))
        others = ~np.isin(ids, list(excluded))
        tokens = self._known_vocabulary().select(ids[others][:topn])
        return list(zip(tokens, cosines[others][:topn].tolist(), strict=True))

    def similarity(self, w1: str | int, w2: str | int) -> float:
        """Return the cosine of the vectors of two tokens or row numbers; 0 if one is all zeros.

        Raises
        ------
        OutOfVocabularyError
            A token is not in the vocabulary.
        """
        return float(_unit(self[w1]) @ _unit(self[w2]))

    def codes(self, ids: ArrayLike) -> NDArray[np.uint8]:
        """Return packed rows by number, uint8 ``[n, stride]``; zero bytes for id -1."""
        return self.table.gather_codes(ids)

    def token(self, row: int) -> str:
        """Return the token of a row."""
        return self._known_vocabulary().token(row)

    def __getitem__(self, keys: str | int | Sequence[str | int]) -> NDArray[np.float32]:
        """Return the vector of a token, float32 ``[dim]``, or those of a list of tokens, ``[n, dim]``.

        Row numbers may stand for tokens. A token that is not in the vocabulary is an `OutOfVocabularyError`,
        which is a `KeyError`; `lookup` has other policies.
        """
        if isinstance(keys, str | int | np.integer):
            vector: NDArray[np.float32] = self.rows(self._known_rows([keys]))[0]
            return vector
        return self.rows(self._known_rows(keys))

    def __array__(
        self, dtype: DTypeLike | None = None, copy: bool | None = None
    ) -> NDArray[np.floating[Any]]:
        """Return all decoded rows, float32 ``[rows, dim]``, in the basis of `rows`; always a new array."""
        if copy is False:
            raise ValueError("the rows of a store are packed, so an array of them is always a copy")
        rows: NDArray[np.floating[Any]] = self.table.decode()
        return rows if dtype is None else rows.astype(dtype, copy=False)

    def __contains__(self, token: object) -> bool:
        return token in self._known_vocabulary()

    def __len__(self) -> int:
        return self.table.rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._known_vocabulary())

    def __repr__(self) -> str:
        if self._table is None:
            return f"<Store {self.path} closed>"
        return f"<Store {self.path} rows={len(self)} dim={self.dim} nbit={self.nbit}>"

    def close(self) -> None:
        """Release the map, which is unmapped with the last array over it. Later use of the store raises."""
        self._table = self._vocabulary = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _known_vocabulary(self) -> Vocabulary:
        vocabulary = self.vocabulary
        if vocabulary is None:
            raise NoVocabularyError(
                f"{self.path} has no vocabulary, only {len(self)} row numbers. "
                "Use rows(ids), or compress it with a word list (--words)."
            )
        return vocabulary

    def _known_rows(self, keys: Sequence[str | int | np.integer[Any]]) -> NDArray[np.int64]:
        """Return the row numbers of tokens; row numbers stay."""
        if isinstance(keys, bytes):
            raise TypeError("the key is bytes, expected a str")
        keys = list(keys)
        tokens = [key for key in keys if not isinstance(key, int | np.integer)]
        found = self.find(tokens).tolist() if tokens else []
        unknown = [token for token, row in zip(tokens, found, strict=True) if row < 0]
        if unknown:
            raise OutOfVocabularyError(list(dict.fromkeys(unknown)))
        rest = iter(found)
        return np.array([key if isinstance(key, int | np.integer) else next(rest) for key in keys], np.int64)

    def _closed(self) -> StoreClosedError:
        return StoreClosedError(f"the store of {self.path} is closed. Open it again with smallfry.open.")

    def _find_unk(self) -> int | None:
        if self.unk is None:
            return None
        if self.oov != "zero":
            raise InputError(f"oov={self.oov!r} and unk={self.unk!r} exclude each other. Please pass one.")
        row = int(self.find([self.unk])[0])
        if row < 0:
            raise InputError(f"unk={self.unk!r} is not in the vocabulary of {self.path}.")
        return row


def _weighted(keys: Keys | None, weight: float) -> list[tuple[Key, float]]:
    if keys is None:
        return []
    if isinstance(keys, str | int | np.integer) or (
        isinstance(keys, np.ndarray) and keys.ndim == 1 and keys.dtype.kind == "f"
    ):
        keys = [keys]
    return [key if isinstance(key, tuple) else (key, weight) for key in keys]


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float64]:
    length = np.sqrt(np.square(vector, dtype=np.float64).sum())
    return vector.astype(np.float64) / (length or 1.0)


def _policy(oov: str) -> Oov:
    if oov not in get_args(Oov):
        raise InputError(f"oov is {oov!r}, expected 'zero', 'mean' or 'error'.")
    return cast(Oov, oov)


def _dict_nbytes(vocabulary: Vocabulary) -> int:
    rows = len(vocabulary)
    slots = 8
    while 2 * slots // 3 < rows:
        slots *= 2
    slot_bytes = 1 if slots <= 2**7 else 2 if slots <= 2**15 else 4
    lengths = vocabulary.lengths(np.arange(0, rows, -(-rows // _DICT_SAMPLE)))
    token_bytes = float((-(-(sys.getsizeof("") + lengths) // 16) * 16).mean())
    return slots * slot_bytes + 2 * slots // 3 * 16 + round(rows * (token_bytes + 32))
