"""Static embedding models: matrix, tokenizer and pooling from a directory."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import InputError, NonFiniteError
from smallfry.progress import Progress
from smallfry.readers.formats.tensors import open_stored, read_vector
from smallfry.readers.input.stream import InputStream
from smallfry.readers.options import ReadOptions
from smallfry.readers.records import pack
from smallfry.readers.report import ReadReport
from smallfry.readers.source import VectorSource
from smallfry.readers.static_layout import StaticLayout, find_layout
from smallfry.text.convert import ConvertedTokenizer, convert
from smallfry.text.model import Pooling, TextModel
from smallfry.vocabulary import PackedTokens


class StaticModel(NamedTuple):
    """The parts of a static embedding model; see `open_static_model`."""

    source: VectorSource
    """The matrix, without tokens."""
    tokens: PackedTokens | None
    """The token of each row; None if token ids are not row numbers."""
    text: TextModel
    tokenizer: Path
    """The file of the tokenizer."""


def open_static_model(
    directory: str | os.PathLike[str], *, progress: Progress | None = None, **reading: object
) -> StaticModel:
    """Open the directory of a model2vec, sentence-transformers or wordllama model.

    Parameters
    ----------
    directory : path
    progress : callable, optional
        Called with ``"tokenizer"``, and as by `smallfry.readers.open_vectors`.
    reading
        Options of `smallfry.readers.open_vectors`, none of which applies.

    Raises
    ------
    InputError
        The directory has another layout, its parts contradict each other, its tokenizer has a feature that
        smallfry does not reproduce, the ``tokenizers`` package is missing, or an option is set.
    OSError
        A file cannot be read.
    """
    unread = [name for name, value in reading.items() if value != getattr(ReadOptions, name, None)]
    if unread:
        raise InputError(
            f"{unread[0]} is set, but {os.fspath(directory)} is the directory of a static embedding model, "
            "which is read whole. Please omit it."
        )
    layout = find_layout(directory)
    tokenizer = _convert(layout.tokenizer, progress)
    count = len(tokenizer.tokens)
    with ExitStack() as stack:
        stream = InputStream(layout.weights, progress)
        stack.callback(stream.close)
        records = open_stored(stream, layout.tensor)
        mapping, weights = _mapping(layout, count, records.rows), _weights(layout, count)
        fits = count == records.rows if layout.format == "model2vec" else count <= records.rows
        if mapping is None and not fits:
            raise InputError(
                f"Number of tokens ({count:,}) of {layout.tokenizer} does not match number of rows "
                f"({records.rows:,}) of {layout.weights}. Please download both again."
            )
        source = VectorSource(
            stream, records, ReadReport(layout.format), ReadOptions(), None, stack.pop_all()
        )
    source.name = f"{Path(os.path.abspath(directory)).name}/{layout.weights.name}"
    source.report.declared_rows = records.rows
    ids_are_rows = mapping is None and count == records.rows
    tokens = pack([token.encode() for token in tokenizer.tokens]) if ids_are_rows else None
    tensors = tokenizer.tensors._replace(token_rows=mapping, token_weights=weights)
    return StaticModel(source, tokens, TextModel(tensors, _pooling(layout, tokenizer)), layout.tokenizer)


def _convert(path: Path, progress: Progress | None) -> ConvertedTokenizer:
    if progress is not None:
        progress("tokenizer", 0, 1)
    try:
        tokenizer = convert(path.read_bytes())
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if progress is not None:
        progress("tokenizer", 1, 1)
    return tokenizer


def _pooling(layout: StaticLayout, tokenizer: ConvertedTokenizer) -> Pooling:
    count, length = len(tokenizer.tokens), layout.max_length
    if layout.format != "model2vec":
        truncated = tokenizer.max_length if layout.format == "sentence-transformers" else None
        return Pooling(count, truncated, normalize=layout.normalize)
    characters = None if length is None else length * tokenizer.median_length
    return Pooling(count, length, characters, tokenizer.unknown, layout.normalize)


def _mapping(layout: StaticLayout, count: int, rows: int) -> NDArray[np.uint32] | None:
    mapping = _of_tokens(layout, "mapping", count)
    if mapping is None:
        return None
    if mapping.dtype.kind not in "iu":
        raise InputError(f"{layout.weights}: mapping is {mapping.dtype}, expected integers.")
    wrong = np.flatnonzero((mapping < 0) | (mapping >= rows))
    if len(wrong):
        raise InputError(
            f"{layout.weights}: mapping gives token {wrong[0]} the row {mapping[wrong[0]]}, and there are "
            f"{rows:,} rows. Please download it again."
        )
    return mapping.astype(np.uint32)


def _weights(layout: StaticLayout, count: int) -> NDArray[np.float32] | None:
    weights = _of_tokens(layout, "weights", count)
    if weights is None:
        return None
    with np.errstate(over="ignore"):
        factors = weights.astype(np.float32)
    wrong = np.flatnonzero(~np.isfinite(factors))
    if len(wrong):
        raise NonFiniteError(
            f"{layout.weights}: weight of token {wrong[0]} is {weights[wrong[0]]}, not a finite number."
        )
    return factors


def _of_tokens(layout: StaticLayout, name: str, count: int) -> NDArray[Any] | None:
    """Return a vector with a value for each token; None if the model has none."""
    if layout.tensor != "embeddings":
        return None
    values = read_vector(layout.weights, name)
    if values is not None and len(values) != count:
        raise InputError(
            f"{layout.weights}: {name} has {len(values):,} values, and {layout.tokenizer} has {count:,} "
            "tokens. Please download both again."
        )
    return values
