"""The four formats of an answer: which one a request gets, and its bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray
from starlette.types import Send

from service.errors import NotAcceptable
from service.models import Model

JSON = "application/json"
RAW = "application/octet-stream"
SAFETENSORS = "application/vnd.safetensors"
PACKED = "application/vnd.smallfry.packed"
FORMATS = (JSON, RAW, SAFETENSORS, PACKED)

Buffer = bytes | memoryview
Headers = list[tuple[bytes, bytes]]

#: Values of one piece of a JSON answer: what is written between two turns of the event loop.
JSON_PIECE = 1 << 17
#: Answers up to this many bytes go out as one piece: copying them costs less than another turn.
_JOIN = 1 << 16
#: Headers of safetensors bodies that a model remembers: they repeat with the size of the batch.
_HEADS = 1024


@dataclass
class Answer:
    """The rows that a request asked for.

    Attributes
    ----------
    ids : ndarray of int64 [n]
        Their row numbers, -1 for unknown tokens.
    found : ndarray of bool [n], or [bags] where pooled
        Which of them are in the vocabulary; of a bag, whether any is.
    unknown : int
        How many tokens are not.
    offsets : ndarray of int64 [bags + 1], optional
        Where the inner lists of a nested request begin and end.
    vectors : ndarray of float32 or float16 [n, dim], or [bags, dim], optional
        The decoded rows; packed answers do without.
    fill : ndarray of float32 [dim], optional
        What unknown tokens get where that is not zero.
    dtype : str
        ``"float32"`` or ``"float16"``.
    pooled : bool
        Whether a vector stands for an inner list, not for a row.
    """

    model: Model
    ids: NDArray[np.int64]
    found: NDArray[np.bool_]
    unknown: int
    offsets: NDArray[np.int64] | None
    dtype: str
    vectors: NDArray[Any] | None = None
    fill: NDArray[np.float32] | None = None
    pooled: bool = False

    def decoded(self) -> NDArray[Any]:
        """Return the vectors, decoding them now where that has not happened."""
        if self.vectors is None:
            self.vectors = self.model.decode(self.ids, self.fill)
        return self.vectors


class Body(NamedTuple):
    """An encoded answer: its own headers, its pieces in order, and their length if that is known yet."""

    headers: Headers
    chunks: Iterable[Buffer]
    length: int | None


@lru_cache(maxsize=256)
def negotiate(accept: bytes | None) -> tuple[str, ...]:
    """Return the formats that an ``Accept`` header allows, the best first.

    Ordered by quality, then an exact type before a wildcard, then as the client listed them.

    Raises
    ------
    NotAcceptable
        None of the four is allowed.
    """
    if accept is None or not accept.strip():
        return (JSON,)
    ranges = []
    for position, item in enumerate(accept.decode("latin-1").lower().split(",")):
        name, *parameters = (part.strip() for part in item.split(";"))
        ranges.append((name, _quality(parameters), position))
    ranked = []
    for rank, format in enumerate(FORMATS):
        matches = [
            (specificity, quality, position)
            for name, quality, position in ranges
            if (specificity := _specificity(name, format)) is not None
        ]
        if matches:
            specificity, quality, position = max(matches, key=lambda match: match[0])
            if quality > 0:
                ranked.append((-quality, -specificity, position, rank, format))
    if not ranked:
        raise NotAcceptable(
            f"Accept is {accept.decode('latin-1')!r}; this route answers as {', '.join(FORMATS)}",
            param="Accept",
        )
    return tuple(format for *_, format in sorted(ranked))


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0


def _specificity(name: str, format: str) -> int | None:
    if name == format:
        return 2
    if name == "application/*":
        return 1
    return 0 if name == "*/*" else None


def encode(answer: Answer, formats: Sequence[str]) -> Body:
    """Encode an answer in the first format that can carry it.

    Raises
    ------
    NotAcceptable
        Only the packed format is allowed and the answer is pooled: sums of rows have no codes.
    """
    for format in formats:
        if not (answer.pooled and format == PACKED):
            return _ENCODERS[format](answer)
    raise NotAcceptable(
        f"pooled vectors cannot be given as {PACKED}: they are no rows of the table; accept {SAFETENSORS}",
        param="Accept",
    )


async def respond(send: Send, body: Body) -> None:
    """Send an encoded answer: small ones as one piece, large ones without joining them."""
    headers, chunks, length = body
    if length is not None:
        headers.append((b"content-length", b"%d" % length))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if length is not None and length <= _JOIN:
        await send({"type": "http.response.body", "body": b"".join(chunks)})
        return
    for chunk in chunks:
        data = chunk if isinstance(chunk, bytes) else _flat(chunk)
        await send({"type": "http.response.body", "body": data, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _flat(chunk: memoryview) -> memoryview:
    return np.asarray(chunk).reshape(-1).view(np.uint8).data


def _json(answer: Answer) -> Body:
    vectors = answer.decoded()
    if vectors.dtype != np.float32:
        vectors = vectors.astype(np.float32)
    tail = b',"found":' + _dumps(answer.found)
    if answer.offsets is not None:
        tail += b',"offsets":' + _dumps(answer.offsets)
    tail += b"}"
    if vectors.size > JSON_PIECE:
        return Body(_headers(answer, JSON), _json_pieces(answer.model.json_head, vectors, tail), None)
    pieces = (answer.model.json_head, _dumps(vectors), tail)
    return Body(_headers(answer, JSON), pieces, sum(map(len, pieces)))


def _json_pieces(head: bytes, vectors: NDArray[Any], tail: bytes) -> Iterator[bytes]:
    step = max(1, JSON_PIECE // vectors.shape[1])
    yield head
    for start in range(0, len(vectors), step):
        rows = _dumps(vectors[start : start + step])
        yield (b"[" if start == 0 else b",") + rows[1:-1]
    yield b"]" + tail


def _dumps(array: NDArray[Any]) -> bytes:
    return orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY)


def _raw(answer: Answer) -> Body:
    vectors = answer.decoded()
    headers = _headers(answer, RAW)
    headers.append((b"x-smallfry-shape", b"%d,%d" % vectors.shape))
    headers.append((b"x-smallfry-dtype", answer.dtype.encode()))
    return Body(headers, (vectors.data,), vectors.nbytes)


def _safetensors(answer: Answer) -> Body:
    tensors: list[tuple[str, NDArray[Any]]] = [("vectors", answer.decoded()), ("found", answer.found)]
    if answer.offsets is not None:
        tensors.insert(0, ("offsets", answer.offsets))
    model = answer.model
    return _tensors(answer, SAFETENSORS, tensors, lambda: _identity(model))


def _packed(answer: Answer) -> Body:
    """Send the codes, or the vectors where these are fewer bytes than codes and codebook."""
    model, table = answer.model, answer.model.store.table
    count = len(answer.ids)
    tensors: list[tuple[str, NDArray[Any]]] = []
    if answer.offsets is not None:
        tensors.append(("offsets", answer.offsets))
    codebook = table.codebook
    if codebook is None or count * (4 * table.dim - table.stride) <= codebook.nbytes:
        nbit, kind = 32, "float"
        tensors.append(("codes", model.decode(answer.ids, answer.fill)))
    else:
        nbit, kind = table.nbit, table.kind
        tensors.append(("codebook", codebook))
        if table.mean is not None:
            tensors.append(("mean", table.mean))
        if answer.fill is not None:
            tensors.append(("fill", answer.fill))
        zeros = _zero_rows(answer)
        if zeros is not None:
            tensors.append(("zero_rows", zeros))
        if table.row_scale is not None:
            tensors.append(("row_scale", table.row_scale[answer.ids]))
        tensors.append(("codes", table.gather_codes(answer.ids)))
    tensors.append(("found", answer.found))

    def metadata() -> dict[str, str]:
        return _identity(model) | {
            "nbit": str(nbit),
            "dim": str(table.dim),
            "kind": kind,
            "clip": repr(float(table.clip)),
            "dtype": answer.dtype,
        }

    return _tensors(answer, PACKED, tensors, metadata)


def _identity(model: Model) -> dict[str, str]:
    return {"model": model.name, "digest": model.digest}


def _zero_rows(answer: Answer) -> NDArray[np.uint32] | None:
    """Return the positions in the answer that are exact zeros: zero rows, and unknown tokens with no fill."""
    zero_rows = answer.model.store.table.zero_rows
    unfilled = answer.unknown and answer.fill is None
    if not zero_rows.size and not unfilled:
        return None
    zeros = np.zeros(len(answer.ids), np.bool_)
    if unfilled:
        np.logical_not(answer.found, out=zeros)
    if zero_rows.size:
        nearest = np.minimum(zero_rows.searchsorted(answer.ids), zero_rows.size - 1)
        zeros |= zero_rows[nearest] == answer.ids
    positions = np.flatnonzero(zeros).astype(np.uint32)
    return positions if positions.size else None


def _tensors(
    answer: Answer,
    format: str,
    tensors: list[tuple[str, NDArray[Any]]],
    metadata: Callable[[], dict[str, str]],
) -> Body:
    """Put tensors, the widest dtype first, into a safetensors body; its header is made once."""
    heads = answer.model.heads
    key = (format, answer.dtype, *[(name, array.shape) for name, array in tensors])
    head = heads.get(key)
    if head is None:
        if len(heads) >= _HEADS:
            heads.clear()
        head = heads[key] = safetensors_header(tensors, metadata())
    length = len(head) + sum([array.nbytes for _, array in tensors])
    return Body(_headers(answer, format), (head, *[array.data for _, array in tensors]), length)


_DTYPES = {"<i8": "I64", "<f4": "F32", "<u4": "U32", "<f2": "F16", "|u1": "U8", "|b1": "BOOL"}


def safetensors_header(tensors: Iterable[tuple[str, NDArray[Any]]], metadata: dict[str, str]) -> bytes:
    """Return the length and header of a safetensors body whose tensors follow in the order given."""
    header: dict[str, Any] = {"__metadata__": metadata}
    begin = 0
    for name, array in tensors:
        end = begin + array.nbytes
        header[name] = {"dtype": _DTYPES[array.dtype.str], "shape": array.shape, "data_offsets": (begin, end)}
        begin = end
    text = orjson.dumps(header)
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _headers(answer: Answer, format: str) -> Headers:
    return [_CONTENT_TYPES[format], _VARY, answer.model.digest_header]


_VARY = (b"vary", b"accept")
_CONTENT_TYPES = {format: (b"content-type", format.encode()) for format in FORMATS}
_ENCODERS: dict[str, Callable[[Answer], Body]] = {
    JSON: _json,
    RAW: _raw,
    SAFETENSORS: _safetensors,
    PACKED: _packed,
}
