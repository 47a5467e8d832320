"""Response bodies of a lookup, in each of the four formats."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from service.errors import NotAcceptable
from service.http.request import FORMATS
from service.http.response import Buffer, Headers, Response, header_lines
from service.models.model import Model
from service.routes.result import CHUNK, Chunks, LookupResult, spans
from smallfry.kernels import format_json
from smallfry.media_types import JSON, PACKED, RAW, SAFETENSORS
from smallfry.sfq.safetensors import build_header

#: Values per chunk of a JSON body, which takes a millisecond at most: the event loop runs between chunks.
JSON_CHUNK = 1 << 15
#: Frames cached per model; the batch size decides which of them is used.
_FRAMES = 1024

Tensor = tuple[str, NDArray[Any] | Chunks | None]


class Frame(NamedTuple):
    """The header of a safetensors body and of its response, the same for every body of its shapes."""

    head: bytes
    headers: Headers
    lines: bytes
    length: int

    def respond(self, chunks: Iterable[Buffer]) -> Response:
        """Return the response with a body of these chunks, the first of which is `head`."""
        return Response(self.headers.copy(), chunks, self.length, lines=self.lines)


class Prepared:
    """The parts of responses that depend only on the model.

    Attributes
    ----------
    shared : list of (str, ndarray)
        The tensors that are the same in every packed response.
    shared_data : bytes
        Their bytes.
    packs_from : int
        From this number of rows, codes and what they share take fewer bytes than decoded rows.
    packs_at_once : range
        Numbers of rows whose packed form is one array of bytes: codes without row scales.
    frames : dict
        Frames by format and shapes.
    """

    def __init__(self, model: Model) -> None:
        table = model.store.table
        self.digest_header = digest_header(model)
        self.json_head = orjson.dumps({"model": model.name, "dim": table.dim})[:-1] + b',"vectors":'
        shared = (("codebook", table.codebook), ("mean", table.mean), ("column_scale", table.column_scale))
        self.shared = [(name, array) for name, array in shared if array is not None]
        self.shared_data = b"".join([array.data for _, array in self.shared])
        self.packs_from = sys.maxsize
        saved = 4 * table.dim - table.stride - 2 * table.has_row_scale
        if table.codebook is not None and saved > 0:
            self.packs_from = len(self.shared_data) // saved + 1
        most = 0 if table.has_row_scale else CHUNK // max(1, table.stride)
        self.packs_at_once = range(self.packs_from, most + 1)
        self.frames: dict[tuple[str | int, ...], Frame] = {}


def digest_header(model: Model) -> tuple[bytes, bytes]:
    """Return the header that identifies the content of a model."""
    return b"x-smallfry-digest", model.digest.encode()


def _prepared(model: Model) -> Prepared:
    prepared: Prepared | None = model.derived.get(Prepared)
    if prepared is None:
        prepared = model.derived[Prepared] = Prepared(model)
    return prepared


def encode(result: LookupResult, formats: Sequence[str]) -> Response:
    """Encode a result in the first format that can represent it.

    Raises
    ------
    NotAcceptable
        Only the packed format is acceptable and the result is pooled: sums of rows have no codes.
    """
    for format in formats:
        if result.pool is None or format != PACKED:
            return _ENCODERS[format](result)
    raise NotAcceptable(
        f"pooled vectors have no {PACKED} form, as they are not rows of the table; accept {SAFETENSORS}",
        param="Accept",
    )


def _json(result: LookupResult) -> Response:
    vectors = result.tensor()
    head = _prepared(result.model).json_head
    if math.prod(vectors.shape) > JSON_CHUNK:
        return Response(_headers(result.model, JSON), _json_chunks(head, vectors, result), None)
    assert isinstance(vectors, np.ndarray)
    body = b"".join((head, b"[", _json_rows(vectors)[:-1], b"]", _json_tail(result)))
    return Response(_headers(result.model, JSON, len(body)), (body,), len(body))


def _json_tail(result: LookupResult) -> bytes:
    tail = b',"found":' + _dumps(result.found)
    if result.offsets is not None:
        tail += b',"offsets":' + _dumps(result.offsets)
    return tail + b"}"


def _json_chunks(head: bytes, vectors: NDArray[Any] | Chunks, result: LookupResult) -> Iterator[Buffer]:
    count, dim = vectors.shape
    step = max(1, JSON_CHUNK // dim)
    yield head + b"["
    for start, end in spans(count, step):
        # The array is not kept until the next chunk is generated.
        rows = _json_rows(vectors.make(start, end) if isinstance(vectors, Chunks) else vectors[start:end])
        yield rows if end < count else rows[:-1]
    yield b"]" + _json_tail(result)


def _json_rows(vectors: NDArray[Any]) -> memoryview:
    """Return vectors as JSON arrays, a comma after each."""
    return format_json(np.ascontiguousarray(vectors, np.float32))[0].data


def _dumps(array: NDArray[Any]) -> bytes:
    return orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY)


def _raw(result: LookupResult) -> Response:
    vectors = result.tensor()
    headers = _headers(result.model, RAW, vectors.nbytes)
    headers.append((b"x-smallfry-shape", b"%d,%d" % vectors.shape))
    headers.append((b"x-smallfry-dtype", result.dtype.encode()))
    return Response(headers, _chunks([vectors]), vectors.nbytes)


def _safetensors(result: LookupResult) -> Response:
    vectors, offsets = result.tensor(), result.offsets
    return _framed(
        result.model,
        (SAFETENSORS, result.dtype, vectors.shape[0], _count(offsets), len(result.found)),
        (("offsets", offsets), ("vectors", vectors), ("found", result.found)),
        lambda: _identify(result.model),
    )


def _packed(result: LookupResult) -> Response:
    """Send the codes, or the vectors if these take fewer bytes."""
    table, offsets, found = result.model.store.table, result.offsets, result.found
    rows, prepared = len(result.ids), _prepared(result.model)
    if rows < prepared.packs_from:
        codes = replace(result, dtype="float32", vectors=None).tensor()
        return _framed(
            result.model,
            (PACKED, result.dtype, rows, _count(offsets)),
            (("offsets", offsets), ("codes", codes), ("found", found)),
            lambda: _describe(result.model, result.dtype, 32, "float"),
        )
    scale = table.scales(result.ids) if table.has_row_scale else None
    zeros = _zero_rows(result, scale) if result.unknown or table.zero_rows.size or table.paging else None
    return _framed(
        result.model,
        (PACKED, result.dtype, rows, _count(offsets), _count(zeros), result.fill is None),
        (
            ("offsets", offsets),
            *prepared.shared,
            ("fill", result.fill),
            ("zero_rows", zeros),
            ("row_scale", scale),
            ("codes", result.codes()),
            ("found", found),
        ),
        lambda: _describe(result.model, result.dtype, table.nbit, table.codebook_kind),
    )


def pack_known(model: Model, ids: NDArray[np.int64]) -> Response | None:
    """Return the packed response for known tokens or ids, in float32, in fewer steps than `encode`.

    Returns None if a token is unknown, a row is zeros, rows have scales, or for few or many rows.
    """
    prepared, table, rows = _prepared(model), model.store.table, len(ids)
    content = table.decoder.gather_known(ids) if rows in prepared.packs_at_once else None
    if content is None:
        return None
    key = (PACKED, "float32", rows)
    frame = prepared.frames.get(key)
    if frame is None:
        codes, found = np.empty((rows, table.stride), np.uint8), np.empty(rows, np.bool_)
        tensors: list[tuple[str, NDArray[Any]]] = [*prepared.shared, ("codes", codes), ("found", found)]
        metadata = _describe(model, "float32", table.nbit, table.codebook_kind)
        frame = _cache_frame(model, key, tensors, metadata)
    return frame.respond((frame.head, prepared.shared_data, content))


def _describe(model: Model, dtype: str, nbit: int, kind: str) -> dict[str, str]:
    table = model.store.table
    return _identify(model) | {
        "nbit": str(nbit),
        "dim": str(table.dim),
        "codebook_kind": kind,
        "clip": repr(table.clip),
        "dtype": dtype,
    }


def _identify(model: Model) -> dict[str, str]:
    return {"model": model.name, "digest": model.digest}


def _count(array: NDArray[Any] | None) -> int:
    return -1 if array is None else len(array)


def _zero_rows(result: LookupResult, scale: NDArray[np.float16] | None) -> NDArray[np.uint32] | None:
    """Return the positions of exact zeros: zero rows, and unknown tokens without a fill."""
    table = result.model.store.table
    zero_rows = table.zero_rows
    zeros = ~result.found if result.fill is None else np.zeros(len(result.ids), np.bool_)
    if zero_rows.size:
        nearest = np.minimum(zero_rows.searchsorted(result.ids), zero_rows.size - 1)
        zeros |= zero_rows[nearest] == result.ids
    if table.paging is not None and scale is not None:
        zeros |= (scale == 0) & (result.ids >= 0)
    positions = zeros.nonzero()[0].astype(np.uint32)
    return positions if positions.size else None


def _framed(
    model: Model,
    key: tuple[str | int, ...],
    tensors: Sequence[Tensor],
    metadata: Callable[[], dict[str, str]],
) -> Response:
    """Put tensors, the widest dtype first, into a safetensors body.

    The header is built once for each key, which decides the dtypes and shapes.
    """
    present = [(name, array) for name, array in tensors if array is not None]
    frame = _prepared(model).frames.get(key)
    if frame is None:
        frame = _cache_frame(model, key, present, metadata())
    return frame.respond(chain((frame.head,), _chunks([each for _, each in present])))


def _chunks(tensors: Sequence[NDArray[Any] | Chunks]) -> Iterator[Buffer]:
    for tensor in tensors:
        if isinstance(tensor, Chunks):
            yield from tensor
        else:
            yield tensor.data


def _cache_frame(
    model: Model,
    key: tuple[str | int, ...],
    tensors: Sequence[tuple[str, NDArray[Any] | Chunks]],
    metadata: dict[str, str],
) -> Frame:
    frames = _prepared(model).frames
    if len(frames) >= _FRAMES:
        frames.clear()
    head = build_header(tensors, metadata)
    length = len(head) + sum(tensor.nbytes for _, tensor in tensors)
    headers = _headers(model, str(key[0]), length)
    frame = frames[key] = Frame(head, headers, header_lines(headers), length)
    return frame


def _headers(model: Model, format: str, length: int | None = None) -> Headers:
    headers = [_CONTENT_TYPES[format], _VARY, _prepared(model).digest_header]
    if length is not None:
        headers.append((b"content-length", b"%d" % length))
    return headers


_VARY = (b"vary", b"accept")
_CONTENT_TYPES = {format: (b"content-type", format.encode()) for format in FORMATS}
_ENCODERS: dict[str, Callable[[LookupResult], Response]] = {
    JSON: _json,
    RAW: _raw,
    SAFETENSORS: _safetensors,
    PACKED: _packed,
}
