"""Arguments and results of a lookup, for servers and local files alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smallfry.errors import InputError, OutOfVocabularyError, shorten
from smallfry.offsets import offsets_of
from smallfry.pooling import POOLS, Pool, finish_bags, to_float16
from smallfry.table import Table

Oov = Literal["zero", "mean", "error", "skip"]
OOVS: tuple[Oov, ...] = ("zero", "mean", "error", "skip")

Dtype = Literal["float32", "float16"]
DTYPES: tuple[Dtype, ...] = ("float32", "float16")

Tokens = Sequence[str] | Sequence[Sequence[str]]


class ModelVersion(NamedTuple):
    """The model that vectors come from: its name, the digest of its content, and its dim."""

    model: str
    digest: str
    dim: int


class DecodedRows(NamedTuple):
    """Rows of one model: float32 [n, dim], whether each was found, and the model's version."""

    vectors: NDArray[np.float32]
    found: NDArray[np.bool_]
    version: ModelVersion

    def take(self, index: NDArray[np.int64]) -> DecodedRows:
        """Return the rows at `index`."""
        return DecodedRows(self.vectors[index], self.found[index], self.version)


@dataclass(frozen=True, eq=False, init=False)
class Lookup:
    """The result of a lookup.

    Attributes
    ----------
    vectors : ndarray of float32 or float16, shape [n, dim]
        One row for each token, or for each inner list of a pooled lookup.
    found : ndarray of bool, shape [n]
        Whether the token is in the vocabulary; of a pooled list, whether any of its tokens is.
    offsets : ndarray of int64, shape [lists + 1], or None
        Start of each inner list in the concatenated tokens, and the end of the last one.
    model : str
        The model's name.
    digest : str
        Digest of the model's content. Vectors with the same digest come from the same file.
    """

    vectors: NDArray[Any]
    found: NDArray[np.bool_]
    offsets: NDArray[np.int64] | None
    model: str
    digest: str

    def __init__(
        self,
        vectors: NDArray[Any],
        found: NDArray[np.bool_],
        offsets: NDArray[np.int64] | None,
        model: str,
        digest: str,
    ) -> None:
        fields = self.__dict__  # a quarter of the time of the generated calls of object.__setattr__
        fields["vectors"], fields["found"], fields["offsets"] = vectors, found, offsets
        fields["model"], fields["digest"] = model, digest


class Query(NamedTuple):
    """The validated arguments of a lookup, with the tokens of all lists concatenated."""

    tokens: list[str]
    offsets: NDArray[np.int64] | None
    oov: Oov
    pool: Pool | None
    dtype: Dtype

    def finish(self, rows: DecodedRows) -> Lookup:
        """Return the result, given the rows of the tokens."""
        vectors, found, version = rows
        if self.oov == "error" and not found.all():
            unknown = (self.tokens[i] for i in np.flatnonzero(~found).tolist())
            raise OutOfVocabularyError(list(dict.fromkeys(unknown)))
        if self.pool is not None and self.offsets is not None:
            table = Table(vectors, vectors.shape[1], 32, "float", None, float(np.abs(vectors).max(initial=0)))
            ids = np.where(found, np.arange(len(found)), -1)
            fill = vectors[found.argmin()] if self.oov == "mean" and not found.all() else None
            sums, skip = table.bag(ids, self.offsets[:-1]), self.oov == "skip"
            vectors, found = finish_bags(sums, ids, self.offsets, self.pool, fill=fill, skip=skip)
        return Lookup(as_dtype(vectors, self.dtype), found, self.offsets, version.model, version.digest)


def make_query(tokens: Tokens, oov: Oov, pool: Pool | None, dtype: Dtype) -> Query:
    """Validate the arguments of a lookup."""
    if oov not in OOVS:
        raise _choice_error("oov", oov, OOVS)
    check_dtype(dtype)
    if isinstance(tokens, (str, bytes)):
        raise TypeError(f"tokens is {tokens!r}; please give a list of tokens: [{tokens!r}]")
    flat: list[Any] = list(tokens)
    offsets = None
    if flat and isinstance(flat[0], (list, tuple)):
        for i, inner in enumerate(flat):
            if not isinstance(inner, (list, tuple)):
                raise TypeError(f"tokens[{i}] is {type(inner).__name__} among lists; expected lists only")
        offsets = offsets_of([len(inner) for inner in flat])
        flat = list(chain.from_iterable(flat))
    try:
        "".join(flat)  # the fastest check of all types
    except TypeError:
        i, kind = next((i, type(token)) for i, token in enumerate(flat) if not isinstance(token, str))
        raise TypeError(f"token {i} is {kind.__name__}, expected str") from None
    if pool is not None:
        if pool not in POOLS:
            raise _choice_error("pool", pool, POOLS)
        if offsets is None and flat:
            raise InputError(
                f"pool={pool!r} returns one vector for each inner list; please give lists of tokens"
            )
        offsets = offsets_of([]) if offsets is None else offsets
    elif oov == "skip":
        raise InputError('oov="skip" omits unknown tokens from a pool; please give pool="mean" or "sum" too')
    return Query(flat, offsets, oov, pool, dtype)


def check_texts(texts: Sequence[str]) -> list[str]:
    """Return texts as a list, or raise TypeError or InputError; only Unicode text has tokens."""
    if isinstance(texts, (str, bytes)):
        raise TypeError(f"texts is {shorten(texts)}; please give a list of texts: [{shorten(texts)}]")
    checked = list(texts)
    for i, text in enumerate(checked):
        if not isinstance(text, str):
            raise TypeError(f"texts[{i}] is {type(text).__name__}, expected str")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"texts[{i}] has a lone surrogate at character {error.start}, expected Unicode text"
            ) from None
    return checked


def check_ids(ids: ArrayLike) -> NDArray[np.uint32]:
    """Return row numbers as uint32, or raise InputError."""
    array = np.asarray(ids)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise InputError(f"ids are {array.dtype} of shape {list(array.shape)}, expected integers, [n]")
    if array.size and (array.min() < 0 or array.max() > 0xFFFFFFFF):
        bad = array.min() if array.min() < 0 else array.max()
        raise InputError(f"ids contain {bad}, expected row numbers from 0 to 4,294,967,295")
    return array.astype(np.uint32)


def as_dtype(vectors: NDArray[np.float32], dtype: Dtype) -> NDArray[Any]:
    """Return vectors in the requested dtype; InputError if a value exceeds float16."""
    return vectors if dtype == "float32" else to_float16(vectors)


def check_dtype(dtype: str) -> None:
    """Raise InputError for another dtype than those of `DTYPES`."""
    if dtype not in DTYPES:
        raise _choice_error("dtype", dtype, DTYPES)


def _choice_error(name: str, value: str, choices: Sequence[str]) -> InputError:
    return InputError(f"{name} is {value!r}, expected one of {', '.join(choices)}")
