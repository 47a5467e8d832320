"""The four formats of an answer: which one a request gets, and its bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from service.errors import NotAcceptable
from service.models import Model

JSON = "application/json"
RAW = "application/octet-stream"
SAFETENSORS = "application/vnd.safetensors"
PACKED = "application/vnd.smallfry.packed"
FORMATS = (JSON, RAW, SAFETENSORS, PACKED)

Chunk = bytes | memoryview
Headers = list[tuple[bytes, bytes]]

#: Values of one piece of a JSON answer: what is written between two turns of the event loop.
JSON_PIECE = 1 << 17


@dataclass
class Answer:
    """The rows that a request asked for.

    Attributes
    ----------
    ids : ndarray of int64 [n]
        Their row numbers, -1 for unknown tokens.
    found : ndarray of bool [n], or [bags] where pooled
        Which of them are in the vocabulary; of a bag, whether any is.
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
    offsets: NDArray[np.int64] | None
    vectors: NDArray[Any] | None
    fill: NDArray[np.float32] | None
    dtype: str
    pooled: bool = False

    def decoded(self) -> NDArray[Any]:
        """Return the vectors, decoding them now where that has not happened."""
        if self.vectors is None:
            fill = self.model.zeros if self.fill is None else self.fill
            self.vectors = self.model.store.table.decode(self.ids, fill=fill)
        return self.vectors


class Body(NamedTuple):
    """An encoded answer: its own headers, and its pieces in order; `length` is None where it is streamed."""

    headers: Headers
    chunks: Sequence[Chunk] | Callable[[], Iterator[bytes]]
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


def _json(answer: Answer) -> Body:
    vectors = answer.decoded()
    if vectors.dtype != np.float32:
        vectors = vectors.astype(np.float32)
    tail = b',"found":' + _dumps(answer.found)
    if answer.offsets is not None:
        tail += b',"offsets":' + _dumps(answer.offsets)
    tail += b"}"
    if vectors.size <= JSON_PIECE:
        body = b"".join((answer.model.json_head, _dumps(vectors), tail))
        return Body(_headers(answer, JSON), (body,), len(body))

    def pieces() -> Iterator[bytes]:
        step = max(1, JSON_PIECE // vectors.shape[1])
        yield answer.model.json_head
        for start in range(0, len(vectors), step):
            rows = _dumps(vectors[start : start + step])
            yield (b"[" if start == 0 else b",") + rows[1:-1]
        yield b"]" + tail

    return Body(_headers(answer, JSON), pieces, None)


def _dumps(array: NDArray[Any]) -> bytes:
    return orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY)


def _raw(answer: Answer) -> Body:
    vectors = answer.decoded()
    headers = _headers(answer, RAW)
    headers.append((b"x-smallfry-shape", b"%d,%d" % vectors.shape))
    headers.append((b"x-smallfry-dtype", answer.dtype.encode()))
    return Body(headers, (_bytes(vectors),), vectors.nbytes)


def _safetensors(answer: Answer) -> Body:
    tensors: dict[str, NDArray[Any]] = {}
    if answer.offsets is not None:
        tensors["offsets"] = answer.offsets
    tensors["vectors"] = answer.decoded()
    tensors["found"] = answer.found
    model = answer.model
    return _tensors(answer, SAFETENSORS, tensors, (("model", model.name), ("digest", model.digest)))


def _packed(answer: Answer) -> Body:
    """Send the codes, or the decoded rows where these are fewer bytes than codes and codebook."""
    table, model, count = answer.model.store.table, answer.model, len(answer.ids)
    tensors: dict[str, NDArray[Any]] = {}
    if answer.offsets is not None:
        tensors["offsets"] = answer.offsets
    if table.codebook is None or count * (4 * table.dim - table.stride) <= table.codebook.nbytes:
        nbit, kind = "32", "float"
        tensors["codes"] = answer.model.store.table.decode(answer.ids, fill=_fill(answer))
    else:
        nbit, kind = str(table.nbit), table.kind
        codes = table.gather_codes(answer.ids)
        tensors["codebook"] = table.codebook
        if table.mean is not None:
            tensors["mean"] = table.mean
        if answer.fill is not None:
            tensors["fill"] = answer.fill
        zeros = _zero_rows(answer)
        if zeros.size:
            tensors["zero_rows"] = zeros
        if table.row_scale is not None:
            tensors["row_scale"] = table.row_scale[answer.ids]
        tensors["codes"] = codes
    tensors["found"] = answer.found
    metadata = (
        ("model", model.name),
        ("digest", model.digest),
        ("nbit", nbit),
        ("dim", str(table.dim)),
        ("kind", kind),
        ("clip", repr(float(table.clip))),
        ("dtype", answer.dtype),
    )
    return _tensors(answer, PACKED, tensors, metadata)


def _fill(answer: Answer) -> NDArray[np.float32]:
    return answer.model.zeros if answer.fill is None else answer.fill


def _zero_rows(answer: Answer) -> NDArray[np.uint32]:
    """Return the positions in the answer that are exact zeros: zero rows, and unknown tokens with no fill."""
    zero_rows = answer.model.store.table.zero_rows
    zeros = ~answer.found if answer.fill is None else np.zeros(len(answer.ids), np.bool_)
    if zero_rows.size:
        zeros |= np.isin(answer.ids, zero_rows)
    return np.flatnonzero(zeros).astype(np.uint32)


def _tensors(
    answer: Answer,
    format: str,
    tensors: dict[str, NDArray[Any]],
    metadata: tuple[tuple[str, str], ...],
) -> Body:
    specification = tuple((name, array.dtype.str, array.shape) for name, array in tensors.items())
    chunks: list[Chunk] = [safetensors_header(specification, metadata)]
    chunks += [_bytes(array) for array in tensors.values()]
    return Body(_headers(answer, format), chunks, sum(map(len, chunks)))


_DTYPES = {"<i8": "I64", "<f4": "F32", "<u4": "U32", "<f2": "F16", "|u1": "U8", "|b1": "BOOL"}


@lru_cache(maxsize=512)
def safetensors_header(
    tensors: tuple[tuple[str, str, tuple[int, ...]], ...], metadata: tuple[tuple[str, str], ...]
) -> bytes:
    """Return the length and header of a safetensors body whose tensors follow in the order given.

    Parameters
    ----------
    tensors : tuple of (name, NumPy dtype string, shape)
        The widest dtype first, so that each tensor is aligned.
    metadata : tuple of (key, value)
        What ``__metadata__`` holds.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    begin = 0
    for name, dtype, shape in tensors:
        end = begin + int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        header[name] = {"dtype": _DTYPES[dtype], "shape": shape, "data_offsets": (begin, end)}
        begin = end
    text = orjson.dumps(header)
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _bytes(array: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _headers(answer: Answer, format: str) -> Headers:
    return [(b"content-type", format.encode()), (b"vary", b"accept"), answer.model.digest_header]


_ENCODERS: dict[str, Callable[[Answer], Body]] = {
    JSON: _json,
    RAW: _raw,
    SAFETENSORS: _safetensors,
    PACKED: _packed,
}
