"""The store: vectors of tokens from a memory-mapped ``.sfq`` file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, TypeAlias, cast, get_args

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from smallfry import neighbors
from smallfry.errors import InputError, NoVocabularyError, OutOfVocabularyError
from smallfry.neighbors import Neighbor
from smallfry.open_file import OpenFile
from smallfry.pages import Prefetch
from smallfry.sfq import file as sfq
from smallfry.vocabulary import Vocabulary

Oov = Literal["zero", "mean", "error"]

Key: TypeAlias = str | int | NDArray[np.floating[Any]]
"""A token, a row number or a vector ``[dim]``."""

Keys: TypeAlias = Key | Iterable[Key | tuple[Key, float]]


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


class Store(OpenFile):
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
    oov : str
        Default policy for unknown tokens.
    unk : str or None
        Token whose vector unknown tokens get, if any.
    """

    def __init__(self, file: sfq.SfqFile, *, oov: Oov = "zero", unk: str | None = None) -> None:
        super().__init__(file)
        self.oov = _policy(oov)
        self.unk = unk
        self._unk_row = self._find_unk()

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

    def gather(self, ids: Any, out: Any = None, *, threads: int | None = None) -> Any:  # noqa: ANN401
        """Write rows by number into memory of the caller, and return it.

        Arrays are of NumPy, of torch, or of any library with DLPack, and C-contiguous in host memory; rows
        for a CUDA tensor of torch are decoded on its device, see `smallfry.nn.DeviceTable`.

        Parameters
        ----------
        ids : array of int32 or int64, shape [*shape]
            Row numbers. If the table has heads, the last axis is the head, and its ids are local to it.
        out : array of float32, float16 or bfloat16, shape [*shape, dim], optional
            Values are rounded to nearest even; those beyond float16 become infinite. uint16 receives the
            bits of bfloat16. By default a new NumPy array of float32.
        threads : int, optional
            Maximum number of threads; small batches use one. See `smallfry.kernels.default_threads`.

        Returns
        -------
        array, shape [*shape, dim]
            `out`.

        Raises
        ------
        IndexError
            An id is out of range; the message has the first one, its position and the number of rows. `out`
            is unchanged.
        InputError
            An array has a wrong dtype or shape, is not contiguous, read-only or on a device, or they overlap.

        Examples
        --------
        >>> out = torch.empty(ids.shape + (store.dim,), dtype=torch.bfloat16)
        >>> store.gather(ids, out=out)
        """
        table = self.table
        if getattr(out, "is_cuda", False):
            from smallfry.nn.device_table import gather_to_device

            return gather_to_device(self, ids, out, threads)
        return table.gather(ids, out, threads=threads)

    def prefetch(self, ids: Any) -> Prefetch:  # noqa: ANN401
        """Start to read rows that are not in memory, and return without waiting for them.

        The pages of the rows are each read once, by read-ahead (``MADV_WILLNEED``) without the GIL. `gather`
        needs no prefetch; after one it waits for fewer pages. For rows in memory, this costs more than
        `gather`.

        Parameters
        ----------
        ids : array of int32 or int64, shape [*shape]
            As for `gather`.

        Returns
        -------
        Prefetch
            Has the number of distinct ``pages``, and ``resident()``, how many of them are in memory now.

        Raises
        ------
        IndexError
            An id is out of range; the message has the first one, its position and the number of rows.
        InputError
            The ids have the wrong dtype or shape, are not C-contiguous or on a device.
        """
        return self.table.prefetch(ids, self.path)

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

    def __iter__(self) -> Iterator[str]:
        return iter(self._known_vocabulary())

    def __repr__(self) -> str:
        if self._table is None:
            return f"<Store {self.path} closed>"
        return f"<Store {self.path} rows={len(self)} dim={self.dim} nbit={self.nbit}>"

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _known_vocabulary(self) -> Vocabulary:
        vocabulary = self.vocabulary
        if vocabulary is None:
            raise NoVocabularyError(
                f"{self.path} has no vocabulary, only {len(self)} row numbers. "
                "Use rows(ids) (--ids), or compress it with a word list (--words)."
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
