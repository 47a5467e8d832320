"""The bytes of an answer, in each of its four formats."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from service.errors import NotAcceptable
from service.http.negotiation import FORMATS, JSON, PACKED, RAW, SAFETENSORS
from service.http.response import Buffer, Headers, Reply
from service.models.model import Model
from smallfry.sfq.safetensors import build_header

#: Values of one piece of a JSON answer: what is written between two turns of the event loop.
JSON_PIECE = 1 << 17
#: Bytes of one piece of a large tensor. They are made while they are sent: what is not taken needs no memory.
PIECE = 1 << 20
#: Frames that a model remembers; they repeat with the size of the batch.
_FRAMES = 1024


@dataclass(frozen=True, slots=True)
class Pieces:
    """A tensor that is made piece by piece while it is sent.

    Attributes
    ----------
    shape : tuple of int
        Of all of it: [n, …].
    dtype : dtype
    make : callable
        Returns rows from one number to another.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    make: Callable[[int, int], NDArray[Any]]

    @property
    def nbytes(self) -> int:
        """Bytes of all of it."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __iter__(self) -> Iterator[memoryview]:
        step = max(1, PIECE * self.shape[0] // self.nbytes)
        for begin in range(0, self.shape[0], step):
            yield self.make(begin, min(begin + step, self.shape[0])).data


Tensor = tuple[str, NDArray[Any] | Pieces | None]


@dataclass(slots=True)
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

    def tensor(self) -> NDArray[Any] | Pieces:
        """Return the vectors, or what decodes them while they are sent: many of them, and none before."""
        if self.vectors is not None or not self.is_large():
            return self.decoded()
        dtype = np.dtype(self.dtype)

        def make(begin: int, end: int) -> NDArray[Any]:
            return self.model.decode(self.ids[begin:end], self.fill).astype(dtype, copy=False)

        return Pieces((len(self.ids), self.model.store.dim), dtype, make)

    def is_large(self) -> bool:
        """Say whether the vectors of all ids are too many to hold them until they are sent."""
        return 4 * len(self.ids) * self.model.store.dim > 2 * PIECE

    def codes(self) -> NDArray[np.uint8] | Pieces:
        """Return the packed rows, or what gathers them while they are sent."""
        table = self.model.store.table
        shape = len(self.ids), table.stride
        if math.prod(shape) <= 2 * PIECE:
            return table.gather_codes(self.ids)
        return Pieces(shape, np.dtype(np.uint8), lambda begin, end: table.gather_codes(self.ids[begin:end]))


class Frame(NamedTuple):
    """The header of a safetensors body and of its response, the same for every body of its shapes."""

    head: bytes
    headers: Headers
    length: int


class Prepared:
    """The parts of responses that depend only on the model.

    Attributes
    ----------
    packs_from : int
        From this number of rows, codes and codebook take fewer bytes than decoded rows.
    frames : dict
        Frames by format and shapes.
    """

    def __init__(self, model: Model) -> None:
        table = model.store.table
        self.digest_header = digest_header(model)
        self.json_head = orjson.dumps({"model": model.name, "dim": table.dim})[:-1] + b',"vectors":'
        self.packs_from = sys.maxsize
        if table.codebook is not None:
            self.packs_from = table.codebook.nbytes // (4 * table.dim - table.stride) + 1
        self.frames: dict[tuple[str | int, ...], Frame] = {}


def digest_header(model: Model) -> tuple[bytes, bytes]:
    """Return the header that identifies the content of a model."""
    return b"x-smallfry-digest", model.digest.encode()


def _prepared(model: Model) -> Prepared:
    prepared: Prepared | None = model.derived.get(Prepared)
    if prepared is None:
        prepared = model.derived[Prepared] = Prepared(model)
    return prepared


def encode(answer: Answer, formats: Sequence[str]) -> Reply:
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


def _json(answer: Answer) -> Reply:
    vectors = answer.tensor()
    tail = b',"found":' + _dumps(answer.found)
    if answer.offsets is not None:
        tail += b',"offsets":' + _dumps(answer.offsets)
    tail += b"}"
    head = _prepared(answer.model).json_head
    if math.prod(vectors.shape) > JSON_PIECE:
        return Reply(_headers(answer.model, JSON), _json_pieces(head, vectors, tail), None)
    assert isinstance(vectors, np.ndarray)
    body = b"".join((head, _dumps(vectors), tail))
    return Reply(_headers(answer.model, JSON, len(body)), (body,), len(body))


def _json_pieces(head: bytes, vectors: NDArray[Any] | Pieces, tail: bytes) -> Iterator[bytes]:
    count, dim = vectors.shape
    step = max(1, JSON_PIECE // dim)
    yield head
    for start in range(0, count, step):
        end = min(start + step, count)
        rows = _dumps(vectors.make(start, end) if isinstance(vectors, Pieces) else vectors[start:end])
        yield (b"[" if start == 0 else b",") + rows[1:-1]
    yield b"]" + tail


def _dumps(array: NDArray[Any]) -> bytes:
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    return orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY)


def _raw(answer: Answer) -> Reply:
    vectors = answer.tensor()
    headers = _headers(answer.model, RAW, vectors.nbytes)
    headers.append((b"x-smallfry-shape", b"%d,%d" % vectors.shape))
    headers.append((b"x-smallfry-dtype", answer.dtype.encode()))
    return Reply(headers, _chunks([vectors]), vectors.nbytes)


def _safetensors(answer: Answer) -> Reply:
    vectors, offsets = answer.tensor(), answer.offsets
    return _framed(
        answer.model,
        (SAFETENSORS, answer.dtype, vectors.shape[0], _count(offsets), len(answer.found)),
        (("offsets", offsets), ("vectors", vectors), ("found", answer.found)),
        lambda: _identify(answer.model),
    )


def _packed(answer: Answer) -> Reply:
    """Send the codes, or the vectors where these are fewer bytes than codes and codebook."""
    table, offsets, found = answer.model.store.table, answer.offsets, answer.found
    rows = len(answer.ids)
    if rows < _prepared(answer.model).packs_from:
        codes = replace(answer, dtype="float32", vectors=None).tensor()
        return _framed(
            answer.model,
            (PACKED, answer.dtype, rows, _count(offsets)),
            (("offsets", offsets), ("codes", codes), ("found", found)),
            lambda: _describe(answer, 32, "float"),
        )
    zeros = _zero_rows(answer) if answer.unknown or table.zero_rows.size else None
    plain = zeros is None and offsets is None and answer.fill is None and table.row_scale is None
    if plain and rows * table.stride <= 2 * PIECE:
        return _packed_plainly(answer)
    return _framed(
        answer.model,
        (PACKED, answer.dtype, rows, _count(offsets), _count(zeros), answer.fill is None),
        (
            ("offsets", offsets),
            ("codebook", table.codebook),
            ("mean", table.mean),
            ("fill", answer.fill),
            ("zero_rows", zeros),
            ("row_scale", None if table.row_scale is None else table.row_scale[answer.ids]),
            ("codes", answer.codes()),
            ("found", found),
        ),
        lambda: _describe(answer, table.nbit, table.kind),
    )


def _packed_plainly(answer: Answer) -> Reply:
    """Send codes where nothing but them and `found` differs between answers: most of them, in few steps."""
    model, table, rows = answer.model, answer.model.store.table, len(answer.ids)
    codes = np.empty((rows, table.stride), np.uint8)
    table.decoder.gather(answer.ids, codes)
    shared: list[tuple[str, NDArray[Any]]] = []
    for name, array in (("codebook", table.codebook), ("mean", table.mean)):
        if array is not None:
            shared.append((name, array))
    key = (PACKED, answer.dtype, rows)
    frame = _prepared(model).frames.get(key)
    if frame is None:
        present = [*shared, ("codes", codes), ("found", answer.found)]
        head = build_header(present, _describe(answer, table.nbit, table.kind))
        frame = _remember(model, key, head, len(head) + sum(array.nbytes for _, array in present))
    chunks: list[Buffer] = [frame.head, *[array.data for _, array in shared], codes.data, answer.found.data]
    return Reply(frame.headers.copy(), chunks, frame.length)


def _describe(answer: Answer, nbit: int, kind: str) -> dict[str, str]:
    table = answer.model.store.table
    return _identify(answer.model) | {
        "nbit": str(nbit),
        "dim": str(table.dim),
        "kind": kind,
        "clip": repr(table.clip),
        "dtype": answer.dtype,
    }


def _identify(model: Model) -> dict[str, str]:
    return {"model": model.name, "digest": model.digest}


def _count(array: NDArray[Any] | None) -> int:
    return -1 if array is None else len(array)


def _zero_rows(answer: Answer) -> NDArray[np.uint32] | None:
    """Return the positions in the answer that are exact zeros: zero rows, and unknown tokens with no fill."""
    zero_rows = answer.model.store.table.zero_rows
    zeros = ~answer.found if answer.fill is None else np.zeros(len(answer.ids), np.bool_)
    if zero_rows.size:
        nearest = np.minimum(zero_rows.searchsorted(answer.ids), zero_rows.size - 1)
        zeros |= zero_rows[nearest] == answer.ids
    positions = zeros.nonzero()[0].astype(np.uint32)
    return positions if positions.size else None


def _framed(
    model: Model,
    key: tuple[str | int, ...],
    tensors: Sequence[Tensor],
    metadata: Callable[[], dict[str, str]],
) -> Reply:
    """Put tensors, the widest dtype first, into a safetensors body.

    What stands before them is made once for each key, which decides their dtypes and shapes.
    """
    present = [(name, array) for name, array in tensors if array is not None]
    frame = _prepared(model).frames.get(key)
    if frame is None:
        head = build_header(present, metadata())
        frame = _remember(model, key, head, len(head) + sum(array.nbytes for _, array in present))
    return Reply(
        frame.headers.copy(), chain((frame.head,), _chunks([each for _, each in present])), frame.length
    )


def _chunks(tensors: Sequence[NDArray[Any] | Pieces]) -> Iterator[Buffer]:
    for tensor in tensors:
        if isinstance(tensor, Pieces):
            yield from tensor
        else:
            yield tensor.data


def _remember(model: Model, key: tuple[str | int, ...], head: bytes, length: int) -> Frame:
    frames = _prepared(model).frames
    if len(frames) >= _FRAMES:
        frames.clear()
    frame = frames[key] = Frame(head, _headers(model, str(key[0]), length), length)
    return frame


def _headers(model: Model, format: str, length: int | None = None) -> Headers:
    headers = [_CONTENT_TYPES[format], _VARY, _prepared(model).digest_header]
    if length is not None:
        headers.append((b"content-length", b"%d" % length))
    return headers


_VARY = (b"vary", b"accept")
_CONTENT_TYPES = {format: (b"content-type", format.encode()) for format in FORMATS}
_ENCODERS: dict[str, Callable[[Answer], Reply]] = {
    JSON: _json,
    RAW: _raw,
    SAFETENSORS: _safetensors,
    PACKED: _packed,
}
