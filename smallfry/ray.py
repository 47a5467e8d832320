"""Bulk lookups: a column of tokens to vectors or row numbers, on every node of a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

import smallfry
from smallfry.client.lookup import DTYPES, OOVS, Dtype, Oov, as_dtype
from smallfry.download import fetch, is_url, model_url
from smallfry.errors import InputError, OutOfVocabularyError
from smallfry.offsets import offsets_of
from smallfry.table import POOLS, Pool, finish_bags

if TYPE_CHECKING:
    from ray.data import Dataset

Output = Literal["vectors", "ids"]
OUTPUTS: tuple[Output, ...] = ("vectors", "ids")

_KINDS = "strings or lists of strings"


def lookup(
    dataset: Dataset,
    column: str,
    vocabulary: str | os.PathLike[str],
    *,
    output: Output = "vectors",
    output_column: str | None = None,
    oov: Oov = "zero",
    pool: Pool | None = None,
    dtype: Dtype = "float32",
    batch_size: int = 4096,
    concurrency: int | tuple[int, int] | None = None,
    api_key: str | None = None,
    cache: str | os.PathLike[str] | None = None,
    **options: Any,  # noqa: ANN401 - whatever map_batches takes
) -> Dataset:
    """Look up a column of a Ray dataset; the work begins when the dataset that is returned is used.

    Each worker process maps the file of its node, so that all on a node share one copy in the page cache. A
    worker that dies is started anew and its blocks are looked up again: no row is lost, none comes twice.

    Parameters
    ----------
    dataset : ray.data.Dataset
    column : str
        Where the tokens are: a string, or a list of strings, in each row.
    vocabulary : path or str
        A ``.sfq`` file, which every node sees under this path; or ``http://host:port/models/NAME`` of an
        instance of the server, from which each node fetches it once.
    output : {"vectors", "ids"}
        Vectors, or row numbers in int64 with -1 for an unknown token.
    output_column : str, optional
        Name of the new column, by default that of `output`.
    oov : {"zero", "mean", "error", "skip"}
        What an unknown token gets: zeros, the mean of all rows, or an error that ends the job; in pools,
        ``"skip"`` leaves it out. Row numbers go with ``"zero"`` and ``"error"``.
    pool : {"mean", "sum"}, optional
        Makes one vector of each list.
    dtype : {"float32", "float16"}
        Of the vectors.
    batch_size : int
        Rows that a worker looks up at a time. It holds this many vectors; without `pool`, as many as the
        lists of this many rows have tokens.
    concurrency : int or (int, int), optional
        How many workers, or the fewest and the most; by default from one to as many as the cluster has
        room for. Each holds a processor; leave one at least for what reads the dataset.
    api_key : str, optional
        What the instance wants to be shown.
    cache : path, optional
        The folder of fetched files on each node; see `smallfry.download.default_folder`.
    **options
        Other options of `ray.data.Dataset.map_batches`, such as ``num_cpus`` and ``resources`` of a worker.

    Returns
    -------
    ray.data.Dataset
        All columns of `dataset`, and the new one. For a string: a vector ``[dim]``, or an id. For a list of n
        tokens: vectors ``[n, dim]``, a pooled vector ``[dim]``, or a list of n ids.

    Raises
    ------
    InputError
        An option is none of those there are, or does not go with the others; the column is missing or holds
        something else, as far as Ray knows the columns before the job begins. What the workers find wrong
        ends the job with Ray's error, which quotes ours: that, a row with another value, an unknown token
        under ``"error"``, a file that is missing on a node or is not the one that was there at first.
    SfqError, OSError
        The file cannot be opened, or fetched, here.
    ImportError
        Ray Data is not installed.

    Examples
    --------
    >>> import ray, smallfry.ray
    >>> corpus = ray.data.from_items([{"word": "list"}, {"word": "no-such-word"}])
    >>> smallfry.ray.lookup(corpus, "word", "glove.sfq", output="ids").take_all()
    [{'word': 'list', 'ids': 30}, {'word': 'no-such-word', 'ids': -1}]
    """
    strategy = _workers(concurrency)
    job = _check_job(_Job(column, output_column or output, output, oov, pool, dtype))
    schema = dataset.schema(fetch_if_missing=False)
    if schema is not None:
        job.check_columns(dict(zip(schema.names, schema.types, strict=True)))
    source = _Source.of(os.fspath(vocabulary), api_key, cache)
    with source.open() as store:
        store.find([])  # raises where the file has no vocabulary
        if oov == "mean":
            job = replace(job, fill=store.fill("mean"))
        digest = store.digest
    return dataset.map_batches(
        _Lookup,
        fn_constructor_args=(source, digest, job),
        batch_size=batch_size,
        batch_format="pyarrow",
        compute=strategy,
        udf_modifying_row_count=False,
        **options,
    )


def _workers(concurrency: int | tuple[int, int] | None) -> Any:  # noqa: ANN401 - a class of Ray
    try:
        from ray.data import ActorPoolStrategy
    except ImportError as error:
        raise ImportError(
            f"{error}: bulk lookups need Ray Data. Please install it: pip install 'smallfry[ray]'"
        ) from error
    if isinstance(concurrency, tuple):
        return ActorPoolStrategy(min_size=concurrency[0], max_size=concurrency[1])
    return ActorPoolStrategy(size=concurrency)


@dataclass(frozen=True)
class _Source:
    """Where the vocabulary is: a path on every node, or an instance of the server."""

    place: str
    api_key: str | None = field(repr=False)
    cache: Path | None

    @classmethod
    def of(cls, place: str, api_key: str | None, cache: str | os.PathLike[str] | None) -> _Source:
        return cls(
            model_url(place) if is_url(place) else os.path.abspath(place),
            api_key,
            None if cache is None else Path(os.path.abspath(cache)),
        )

    def open(self) -> smallfry.Store:
        """Map the vocabulary on the node that this process runs on."""
        if is_url(self.place):
            return smallfry.open(fetch([self.place], self.cache, api_key=self.api_key))
        return smallfry.open(self.place)


@dataclass(frozen=True)
class _Job:
    """What to make of which column; the same for all workers."""

    column: str
    output_column: str
    output: Output
    oov: Oov
    pool: Pool | None
    dtype: Dtype
    fill: NDArray[np.float32] | None = None
    """float32 ``[dim]``, what an unknown token gets where that is not zeros."""

    def check_columns(self, types: Mapping[str, object]) -> None:
        """Raise InputError where the columns, as far as their types are known, are not those expected."""
        if self.column not in types:
            raise InputError(f"there is no column {self.column!r}; the dataset has {', '.join(types)}")
        if self.output_column in types:
            raise InputError(
                f"there is a column {self.output_column!r} already. "
                "Please give another name as output_column."
            )
        kind = _kind(types[self.column])
        if kind == "other":
            raise InputError(f"column {self.column!r} holds {types[self.column]}, expected {_KINDS}")
        if kind == "strings" and self.pool is not None:
            raise InputError(
                f"pool={self.pool!r} makes one vector of each list, but column {self.column!r} holds strings"
            )


def _check_job(job: _Job) -> _Job:
    for name, value, choices in (
        ("output", job.output, OUTPUTS),
        ("oov", job.oov, OOVS),
        ("pool", job.pool, (None, *POOLS)),
        ("dtype", job.dtype, DTYPES),
    ):
        if value not in choices:
            raise InputError(f"{name} is {value!r}, expected one of {', '.join(map(str, choices))}")
    if job.output == "ids" and (job.pool, job.dtype) != (None, "float32"):
        raise InputError('pool and dtype are of vectors; please ask for output="vectors", or leave them out')
    if job.output == "ids" and job.oov not in ("zero", "error"):
        raise InputError(f'oov={job.oov!r} makes vectors; unknown ids are -1, or refused by oov="error"')
    if job.oov == "skip" and job.pool is None:
        raise InputError(
            'oov="skip" leaves unknown tokens out of a pool; please give pool="mean" or "sum" too'
        )
    return job


class _Lookup:
    """One worker: the mapped file, and what to do with each batch."""

    def __init__(self, source: _Source, digest: str, job: _Job) -> None:
        self._job = job
        self._store = source.open()
        if self._store.digest != digest:
            raise InputError(
                f"{source.place} has the digest {self._store.digest} on this node, and had {digest} when the "
                "job was made: one job needs one file. Please make the job again."
            )

    def __call__(self, batch: Any) -> Any:  # noqa: ANN401 - pyarrow has no types
        """Return a batch, a `pyarrow.Table`, with its new column."""
        self._job.check_columns(dict(zip(batch.schema.names, batch.schema.types, strict=True)))
        tokens, offsets = _tokens(self._job.column, batch.column(self._job.column).combine_chunks())
        ids = self._find(tokens)
        if offsets is not None and self._job.pool is not None:
            answer = self._pooled(ids, offsets, self._job.pool)
        elif self._job.output == "vectors":
            answer = self._vectors(ids, offsets)
        else:
            answer = _listed(ids, offsets)
        return batch.append_column(self._job.output_column, answer)

    def _find(self, tokens: Any) -> NDArray[np.int64]:  # noqa: ANN401
        if not len(tokens):
            return np.empty(0, np.int64)
        _, offsets, utf8 = tokens.buffers()
        bounds = np.frombuffer(offsets, np.int64)[tokens.offset : tokens.offset + len(tokens) + 1]
        vocabulary = self._store.vocabulary
        assert vocabulary is not None
        ids = vocabulary.find_utf8(b"" if utf8 is None else memoryview(utf8), bounds)
        if self._job.oov == "error" and (ids < 0).any():
            raise OutOfVocabularyError(tokens.take(np.flatnonzero(ids < 0)).unique().to_pylist())
        return ids

    # One thread: Ray gives a worker one processor and starts as many workers as there are.

    def _pooled(self, ids: NDArray[np.int64], offsets: NDArray[np.int64], pool: Pool) -> Any:  # noqa: ANN401
        from ray.data.extensions import ArrowTensorArray

        sums = self._store.table.bag(ids, offsets[:-1], "sum", threads=1)
        vectors, _ = finish_bags(sums, ids, offsets, pool, fill=self._job.fill, skip=self._job.oov == "skip")
        return ArrowTensorArray.from_numpy(as_dtype(vectors, self._job.dtype))

    def _vectors(self, ids: NDArray[np.int64], offsets: NDArray[np.int64] | None) -> Any:  # noqa: ANN401
        from ray.data.extensions import ArrowTensorArray, ArrowVariableShapedTensorArray

        store = self._store
        fill = np.zeros(store.dim, np.float32) if self._job.fill is None else self._job.fill
        vectors = as_dtype(store.table.decode(ids, fill=fill, threads=1), self._job.dtype)
        if offsets is None:
            return ArrowTensorArray.from_numpy(vectors)
        lists = [vectors[a:b] for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]
        return ArrowVariableShapedTensorArray.from_numpy(lists)


def _listed(ids: NDArray[np.int64], offsets: NDArray[np.int64] | None) -> Any:  # noqa: ANN401
    import pyarrow as pa

    return pa.array(ids) if offsets is None else pa.LargeListArray.from_arrays(offsets, pa.array(ids))


def _kind(kind: object) -> Literal["strings", "lists", "other", "unknown"]:
    """Tell what a column holds; "unknown" where its type does not say."""
    import pyarrow as pa

    if not isinstance(kind, pa.DataType) or pa.types.is_null(kind) or _is_objects(kind):
        return "unknown"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        inner = kind.value_type
        return "lists" if pa.types.is_null(inner) or _is_strings(inner) else "other"
    return "strings" if _is_strings(kind) else "other"


def _is_strings(kind: Any) -> bool:  # noqa: ANN401
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_objects(kind: Any) -> bool:  # noqa: ANN401
    from ray.data.extensions import ArrowPythonObjectType

    return isinstance(kind, ArrowPythonObjectType)


def _tokens(name: str, array: Any) -> tuple[Any, NDArray[np.int64] | None]:  # noqa: ANN401
    """Return all tokens as one array of large strings and, of lists, where each begins and the last ends."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = _kind(array.type)
    if kind == "unknown" or array.null_count:
        _refuse(name, array.to_pylist())
    offsets = None
    if kind == "lists":
        offsets = offsets_of(pc.list_value_length(array))
        rows, array = array, array.flatten()
        if array.null_count:
            _refuse(name, rows.to_pylist())
    return array.cast(pa.large_string()), offsets


def _refuse(name: str, rows: Sequence[object]) -> NoReturn:
    """Name the first row that cannot be looked up."""
    expected = list if isinstance(rows[0], list) else str
    for row, value in enumerate(rows):
        place = f"column {name!r}: row {row} of a batch of {len(rows)}"
        if not isinstance(value, expected):
            raise InputError(f"{place} is {value!r} ({type(value).__name__}), expected {_KINDS}, all alike")
        _refuse_tokens(place, value if isinstance(value, list) else ())
    raise InputError(
        f"column {name!r} holds Python objects, as strings with half of a surrogate pair are, "
        f"expected {_KINDS}"
    )


def _refuse_tokens(place: str, tokens: Iterable[object]) -> None:
    for position, token in enumerate(tokens):
        if not isinstance(token, str):
            raise InputError(
                f"{place} has {token!r} ({type(token).__name__}) at {position}, expected strings only"
            )
