"""Bulk lookups with Ray Data: a column of tokens to vectors or row numbers, on all nodes of a cluster."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
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
from smallfry.pooling import POOLS, Pool, finish_bags

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
    """Look up a column of a Ray dataset lazily: the work starts when the returned dataset is consumed.

    Each worker process maps the file on its node, so the workers of a node share one copy in the page cache.
    If a worker dies, Ray restarts it and repeats its blocks: no row is lost or duplicated.

    Parameters
    ----------
    dataset : ray.data.Dataset
    column : str
        Column of the tokens: a string or a list of strings in each row.
    vocabulary : path or str
        A ``.sfq`` file at the same path on every node; or ``http://host:port/models/NAME`` of a server, from
        which each node downloads it once.
    output : {"vectors", "ids"}
        Vectors, or int64 row numbers with -1 for an unknown token.
    output_column : str, optional
        Name of the new column, by default `output`.
    oov : {"zero", "mean", "error", "skip"}
        Unknown tokens become zeros or the mean of all rows, or end the job with an error; ``"skip"`` omits
        them from pools. Row numbers support ``"zero"`` and ``"error"``.
    pool : {"mean", "sum"}, optional
        Pool each list to one vector.
    dtype : {"float32", "float16"}
        Type of the vectors.
    batch_size : int
        Rows that a worker looks up at a time. It holds a vector per row, or per token for lists without
        `pool`.
    concurrency : int or (int, int), optional
        Number of workers, or minimum and maximum; by default one up to the capacity of the cluster. Each
        reserves a CPU; leave at least one for reading the dataset.
    api_key : str, optional
        API key of the server.
    cache : path, optional
        Folder of downloaded files on each node; see `smallfry.download.default_folder`.
    **options
        Further options of `ray.data.Dataset.map_batches`, such as ``num_cpus`` and ``resources`` of a worker.

    Returns
    -------
    ray.data.Dataset
        The columns of `dataset` and the new one. For a string: a vector ``[dim]`` or an id. For a list of n
        tokens: vectors ``[n, dim]``, a pooled vector ``[dim]`` or a list of n ids.

    Raises
    ------
    InputError
        An option is unknown or contradicts another; or the column is missing or has another type, as far as
        Ray knows the schema. Errors in workers end the job with an error of Ray that quotes the cause: the
        same errors, a row of another type, an unknown token under ``"error"``, or a file that is missing or
        different on a node.
    SfqError, OSError
        The file cannot be opened or downloaded on this node.
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
    location = os.fspath(vocabulary)
    location = model_url(location) if is_url(location) else os.path.abspath(location)
    source = _Source(location, api_key, None if cache is None else Path(os.path.abspath(cache)))
    with source.open() as store:
        store.find([])  # raises if the file has no vocabulary
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
    """The location of the vocabulary: a path on every node, or a URL."""

    location: str
    api_key: str | None = field(repr=False)
    cache: Path | None

    def open(self) -> smallfry.Store:
        """Map the vocabulary on this node."""
        if is_url(self.location):
            return smallfry.open(fetch([self.location], self.cache, api_key=self.api_key))
        return smallfry.open(self.location)


@dataclass(frozen=True)
class _Job:
    """The lookup that all workers run."""

    column: str
    output_column: str
    output: Output
    oov: Oov
    pool: Pool | None
    dtype: Dtype
    fill: NDArray[np.float32] | None = None
    """float32 ``[dim]`` for unknown tokens; None for zeros."""

    def check_columns(self, types: Mapping[str, object]) -> None:
        """Raise InputError if the columns, as far as their types are known, do not fit."""
        if self.column not in types:
            raise InputError(f"the dataset has no column {self.column!r}; its columns are {', '.join(types)}")
        if self.output_column in types:
            raise InputError(
                f"the dataset already has a column {self.output_column!r}. "
                "Please choose another output_column."
            )
        kind = _kind(types[self.column])
        if kind == "other":
            raise InputError(f"column {self.column!r} holds {types[self.column]}, expected {_KINDS}")
        if kind == "strings" and self.pool is not None:
            raise InputError(f"pool={self.pool!r} pools lists, but column {self.column!r} holds strings")


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
        raise InputError('pool and dtype apply to vectors; please use output="vectors", or omit them')
    if job.output == "ids" and job.oov not in ("zero", "error"):
        raise InputError(
            f'oov={job.oov!r} needs output="vectors"; unknown ids are -1, or an error with oov="error"'
        )
    if job.oov == "skip" and job.pool is None:
        raise InputError('oov="skip" omits unknown tokens from a pool; please also set pool="mean" or "sum"')
    return job


class _Lookup:
    """One worker: the mapped file and the lookup."""

    def __init__(self, source: _Source, digest: str, job: _Job) -> None:
        self._job = job
        self._store = source.open()
        if self._store.digest != digest:
            raise InputError(
                f"{source.location} has the digest {self._store.digest} on this node, but had {digest} when "
                "the job was created: all nodes need the same file. Please create the job again."
            )

    def __call__(self, batch: Any) -> Any:  # noqa: ANN401 - pyarrow has no types
        """Return the `pyarrow.Table` of a batch with its new column."""
        import pyarrow as pa

        self._job.check_columns(dict(zip(batch.schema.names, batch.schema.types, strict=True)))
        tokens, offsets = _tokens(self._job.column, batch.column(self._job.column).combine_chunks())
        ids = self._find(tokens)
        if offsets is not None and self._job.pool is not None:
            result = self._pooled(ids, offsets, self._job.pool)
        elif self._job.output == "vectors":
            result = self._vectors(ids, offsets)
        else:
            result = pa.array(ids)
            if offsets is not None:
                result = pa.LargeListArray.from_arrays(offsets, result)
        return batch.append_column(self._job.output_column, result)

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

    # One thread: Ray reserves one CPU per worker and starts a worker for each CPU.

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


def _kind(kind: object) -> Literal["strings", "lists", "other", "unknown"]:
    """Return the content of a column; "unknown" if its type does not define it."""
    import pyarrow as pa
    from ray.data.extensions import ArrowPythonObjectType

    if not isinstance(kind, pa.DataType) or pa.types.is_null(kind) or isinstance(kind, ArrowPythonObjectType):
        return "unknown"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        inner = kind.value_type
        return "lists" if pa.types.is_null(inner) or _is_strings(inner) else "other"
    return "strings" if _is_strings(kind) else "other"


def _is_strings(kind: Any) -> bool:  # noqa: ANN401
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _tokens(name: str, array: Any) -> tuple[Any, NDArray[np.int64] | None]:  # noqa: ANN401
    """Return all tokens as one array of large strings, and for lists their offsets ``[n + 1]``."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = _kind(array.type)
    if kind == "unknown" or array.null_count:
        _raise_invalid(name, array.to_pylist())
    offsets = None
    if kind == "lists":
        offsets = offsets_of(pc.list_value_length(array))
        rows, array = array, array.flatten()
        if array.null_count:
            _raise_invalid(name, rows.to_pylist())
    return array.cast(pa.large_string()), offsets


def _raise_invalid(name: str, rows: Sequence[object]) -> NoReturn:
    """Raise InputError for the first invalid row."""
    expected = list if isinstance(rows[0], list) else str
    for row, value in enumerate(rows):
        where = f"column {name!r}: row {row} of a batch of {len(rows)}"
        if not isinstance(value, expected):
            raise InputError(f"{where} is {value!r} ({type(value).__name__}), expected {_KINDS}, all alike")
        for position, token in enumerate(value if isinstance(value, list) else ()):
            if not isinstance(token, str):
                raise InputError(
                    f"{where} has {token!r} ({type(token).__name__}) at {position}, expected strings only"
                )
    raise InputError(
        f"column {name!r} holds Python objects, such as strings with a lone surrogate, expected {_KINDS}"
    )
