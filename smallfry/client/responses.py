"""Decode the bodies of responses. The body is untrusted; nothing outside of it is read."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from smallfry import kernels
from smallfry.client.errors import (
    BY_STATUS,
    EXCERPT,
    GatewayTimeout,
    MalformedResponse,
    NotFound,
    StatusError,
    UnknownModel,
    excerpt,
)
from smallfry.client.lookup import DecodedRows, ModelVersion
from smallfry.client.transport.messages import Response
from smallfry.errors import InputError, shorten
from smallfry.media_types import JSON, PACKED, SAFETENSORS
from smallfry.sfq.safetensors import PREFIX, parse_entry, parse_header, tensor_dtype
from smallfry.table import MAX_DIM, Table, check_zero_rows

if TYPE_CHECKING:
    from smallfry.kernels.numpy.decode import Decoder

DIGEST_HEADER = "x-smallfry-digest"

MAX_HEADER = 1 << 16
"""Most bytes that the header of a body may take; a server's take a few hundred."""

MAX_BODY = 1 << 29
"""Limit for the body of a response with rows, in bytes, however many are requested."""

MAX_LISTS = 1 << 16
"""Limit for the number of lists and objects of a JSON body, in addition to the rows requested."""

_VALUE_BYTES = {PACKED: 4, SAFETENSORS: 4, JSON: 16}
"""Most bytes of a value by media type."""

_SHARED_BYTES = 1 << 20
"""Most bytes of what all rows of a response share: header, codebook, mean, column scales and fill."""

_NO_ROWS = np.empty(0, np.uint32)

_MAX_DATE = 64

_MARKUP = re.compile(r"(?is)<(script|style)\b.*?(?:</\1>|\Z)|<[^<>]*>")
"""An unclosed script ends with the text: otherwise each of many is searched to the end."""


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the tensors of a body are; bodies of one model with equally many rows have the same layout."""

    views: dict[str, Callable[[bytearray], NDArray[Any]]]
    """For each tensor, a function that returns it as a view of a body."""
    bools: tuple[tuple[str, int, int], ...]
    """Name, first byte and end of each tensor of truth values."""
    metadata: dict[str, str]
    size: int
    """Bytes of a body."""

    def zeros(self) -> dict[str, NDArray[Any]]:
        """Return the tensors of a body of zeros."""
        body = bytearray(self.size)
        return {name: view(body) for name, view in self.views.items()}


class EncodedRows(NamedTuple):
    """Rows of one model as the server sent them."""

    values: Decoder | NDArray[np.float32]
    """One row for each requested token or id: packed, or decoded by the server, ``[n, dim]``."""
    found: NDArray[np.bool_]
    fill: NDArray[np.float32] | None
    """Vector ``[dim]`` of rows that were not found; None if `values` already holds it."""
    version: ModelVersion
    is_finite: bool
    """Whether all rows are known to decode to finite values."""

    def decode(self, index: NDArray[np.int64] | None) -> DecodedRows:
        """Return all rows as float32, or those at `index`."""
        values, found, fill, version, is_finite = self
        known = found if index is None else found[index]
        if isinstance(values, np.ndarray):
            _check_finite(values)
            return DecodedRows(values if index is None else values[index], known, version)
        if fill is not None:
            _check_finite(fill)
            numbers = np.where(found, np.arange(len(found)), -1)
            index = numbers if index is None else numbers[index]
        vectors = np.empty((len(known), version.dim), np.float32)
        values.decode(index, vectors, fill, kernels.thread_count(None, vectors.nbytes))
        if not is_finite:
            _check_finite(vectors)
        return DecodedRows(vectors, known, version)


@lru_cache(maxsize=64)
def body_limit(count: int, accept: str) -> int:
    """Return the limit for the body of a response with `count` rows, in bytes."""
    return min(MAX_BODY, _SHARED_BYTES + count * MAX_DIM * _VALUE_BYTES[accept])


def read_rows(response: Response, count: int, accept: str, model: str | None) -> EncodedRows:
    """Decode the response to a lookup of `count` rows in the accepted format."""
    content_type = _media_type(response.headers.get(b"content-type", b""))
    if content_type != accept:
        raise MalformedResponse(
            f"the response to a lookup is {shorten(content_type)}, expected {accept}. "
            "Is this a smallfry server?"
        )
    try:
        rows = _READERS[accept](response, count)
        if model is not None and rows.version.model != model:
            raise ValueError(f"its rows are of the model {rows.version.model!r}, expected {model!r}")
    except InputError as error:
        raise MalformedResponse(f"the packed response cannot be decoded: {excerpt(error)}") from error
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise MalformedResponse(
            f"the response of type {content_type} cannot be decoded: {excerpt(reason)}"
        ) from error
    return rows


@lru_cache(maxsize=16)
def _media_type(content_type: bytes) -> str:
    return content_type.decode("latin-1").partition(";")[0].strip()


def read_json(response: Response) -> Any:  # noqa: ANN401 - any JSON value
    """Decode a JSON response."""
    try:
        return _load_json(response.body, MAX_LISTS)
    except ValueError as error:
        raise MalformedResponse(f"the response is not JSON: {error}. Is this a smallfry server?") from None


def read_layout(body: bytearray) -> Layout:
    """Read the header of a safetensors body, and check its truth values."""
    start = PREFIX + int.from_bytes(body[:PREFIX], "little")
    if not PREFIX < start <= MAX_HEADER or start > len(body):
        raise ValueError(f"its header declares {start - PREFIX} of {len(body)} bytes, {MAX_HEADER} at most")
    layout = _parse_layout(bytes(body[PREFIX:start]), len(body))
    for name, begin, end in layout.bools:
        if body[begin:end].translate(None, b"\0\1"):
            raise ValueError(f"{name} holds bytes other than 0 and 1")
    return layout


def status_error(response: Response, request: str) -> StatusError:
    """Return the exception for a response with a status other than 200; `request` is its method and URL."""
    error_class = BY_STATUS.get(response.status, StatusError)
    fields = _error_object(response)
    message = excerpt(fields["message"]) if fields else _foreign_message(response)
    type, param, code = (_text(fields.get(name)) for name in ("type", "param", "code"))
    if not fields and response.status == 504:
        error_class = GatewayTimeout
    if error_class is NotFound and code == "model_not_found":
        error_class = UnknownModel
    return error_class(
        message,
        status=response.status,
        request=request,
        type=type,
        param=param,
        code=code,
        retry_after=_retry_after(response),
    )


def _check_finite(values: NDArray[np.float32]) -> None:
    if np.count_nonzero(np.isfinite(values)) != values.size:  # half the time of all()
        raise MalformedResponse("the response decodes to NaN or infinity, expected finite values")


@lru_cache(maxsize=16)
def _check_codebook(values: bytes) -> None:
    # Responses of one model have the same codebook.
    _check_finite(np.frombuffer(values, np.float32))


def _error_object(response: Response) -> dict[str, Any]:
    """Return the error of a response of smallfry; that of another server, or a redirect, is empty."""
    if response.header("location") is not None or len(response.body) > MAX_HEADER:
        return {}
    try:
        error: dict[str, Any] = orjson.loads(response.body)["error"]
        return error if isinstance(error["message"], str) else {}
    except (ValueError, KeyError, TypeError):
        return {}


def _text(value: object) -> str | None:
    return excerpt(value, EXCERPT) if isinstance(value, str) else None


def _read_packed(response: Response, count: int) -> EncodedRows:
    body = response.body
    layout = read_layout(body)
    version, nbit, is_finite = _check_packed(layout, count)
    views = layout.views
    codes, found = views["codes"](body), views["found"](body)
    if nbit == 32:
        return EncodedRows(codes, found, None, version, False)
    codebook = views["codebook"](body)
    if is_finite:
        _check_codebook(codebook.tobytes())
    mean = column_scale = row_scale = fill = None
    zero_rows = _NO_ROWS
    if len(views) > 3:  # There are others than codes, found and codebook.
        optional = {name: view(body) for name, view in views.items()}
        mean, column_scale = optional.get("mean"), optional.get("column_scale")
        row_scale, fill = optional.get("row_scale"), optional.get("fill")
        zero_rows = optional.get("zero_rows", _NO_ROWS)
        check_zero_rows(zero_rows, count)
    decoder = kernels.Decoder(
        codes, version.dim, nbit, codebook, mean, column_scale, row_scale, zero_rows, None
    )
    return EncodedRows(decoder, found, fill, version, is_finite)


@lru_cache(maxsize=256)
def _check_packed(layout: Layout, count: int) -> tuple[ModelVersion, int, bool]:
    """Return the model, the bits per value, and whether the rows are finite if the codebook is.

    Raises an error if the shapes do not fit.
    """
    tensors, metadata = layout.zeros(), layout.metadata
    version = _version(metadata["model"], metadata["digest"], int(metadata["dim"]))
    nbit, codes = int(metadata["nbit"]), tensors["codes"]
    _expect("found", tensors["found"], np.bool_, (count,))
    if nbit == 32:
        _expect("the vectors", codes, np.float32, (count, version.dim))
        return version, nbit, False
    table = Table(
        codes=codes,
        dim=version.dim,
        nbit=nbit,
        codebook_kind=metadata["codebook_kind"],
        codebook=tensors["codebook"],
        clip=float(metadata["clip"]),
        mean=tensors.get("mean"),
        column_scale=tensors.get("column_scale"),
        row_scale=tensors.get("row_scale"),
    )
    _expect("codes", codes, np.uint8, (count, table.stride))
    if "fill" in tensors:
        _expect("fill", tensors["fill"], np.float32, (version.dim,))
    table.verify_shapes()
    return version, nbit, table.mean is table.column_scale is table.row_scale is None


def _read_safetensors(response: Response, count: int) -> EncodedRows:
    layout = read_layout(response.body)
    version = _check_vectors(layout, count)
    vectors, found = (layout.views[name](response.body) for name in ("vectors", "found"))
    return EncodedRows(vectors, found, None, version, False)


@lru_cache(maxsize=256)
def _check_vectors(layout: Layout, count: int) -> ModelVersion:
    """Return the model of a safetensors body; raise an error if its shapes do not fit."""
    tensors, metadata = layout.zeros(), layout.metadata
    *_, dim = tensors["vectors"].shape
    version = _version(metadata["model"], metadata["digest"], dim)
    _expect("found", tensors["found"], np.bool_, (count,))
    _expect("the vectors", tensors["vectors"], np.float32, (count, dim))
    return version


def _read_json(response: Response, count: int) -> EncodedRows:
    fields = _load_json(response.body, count + 3)
    digest = response.header(DIGEST_HEADER)
    if digest is None:
        raise KeyError(DIGEST_HEADER)
    version = _version(fields["model"], digest, fields["dim"])
    vectors, found = fields["vectors"], fields["found"]
    if {*map(type, chain.from_iterable(vectors))} - {float, int} or {*map(type, found)} - {bool}:
        raise ValueError("vectors holds other values than numbers, or found other values than true and false")
    with np.errstate(over="ignore"):
        rows = np.array(vectors, np.float32).reshape(-1, version.dim)
    _expect("the vectors", rows, np.float32, (count, version.dim))
    known = np.array(found, np.bool_)
    _expect("found", known, np.bool_, (count,))
    return EncodedRows(rows, known, None, version, False)


def _load_json(body: bytearray, most: int) -> Any:  # noqa: ANN401 - any JSON value
    """Decode JSON with at most a number of lists and objects, which take 30 times the bytes of their text."""
    count = body.count(b"[") + body.count(b"{")
    if count > most:
        raise ValueError(f"it has {count:,} lists and objects, at most {most:,} are read")
    return orjson.loads(body)


def _version(model: object, digest: object, dim: object) -> ModelVersion:
    if not (isinstance(model, str) and isinstance(digest, str) and type(dim) is int and 0 < dim <= MAX_DIM):
        described = f"model {shorten(model)}, digest {shorten(digest)} or dim {shorten(dim)}"
        raise ValueError(f"{described} is not that of a model; a dim is 1 to {MAX_DIM:,}")
    return ModelVersion(model, digest, dim)


_READERS = {PACKED: _read_packed, SAFETENSORS: _read_safetensors, JSON: _read_json}


def _expect(name: str, array: NDArray[Any], dtype: type, shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(
            f"{name} is {array.dtype} {list(array.shape)}, expected {np.dtype(dtype)} {list(shape)}"
        )


@lru_cache(maxsize=256)
def _parse_layout(header: bytes, size: int) -> Layout:
    """Return the layout of a body of `size` bytes with a header."""
    entries, metadata = parse_header(header, ValueError)
    start, nbytes = PREFIX + len(header), 0
    tensors, bools = [], []
    for name, value in entries.items():
        entry = parse_entry(name, value, ValueError)
        dtype, begin = tensor_dtype(name, entry, ValueError), start + entry.begin
        tensors.append((name, dtype, entry.shape, begin))
        if dtype.kind == "b":
            bools.append((name, begin, start + entry.end))
        nbytes += entry.end - entry.begin
    if nbytes != size - start:
        raise ValueError(f"its tensors take {nbytes:,} bytes, and {size - start:,} follow the header")
    for name, dtype, _, begin in tensors:
        if begin % dtype.itemsize:
            raise ValueError(f"{name} does not start at a multiple of its {dtype.itemsize} bytes")
    views = {name: _view(shape, dtype, begin) for name, dtype, shape, begin in tensors}
    return Layout(views, tuple(bools), metadata, size)


def _view(shape: tuple[int, ...], dtype: np.dtype[Any], begin: int) -> Callable[[bytearray], NDArray[Any]]:
    return lambda body: np.ndarray(shape, dtype, body, begin)


def _foreign_message(response: Response) -> str:
    """Describe an error response that is not smallfry's: a proxy's, or that of another server."""
    location = response.header("location")
    if location is not None:
        return f"redirected to {location[:EXCERPT]!r}, which is not followed. Please correct the base URL."
    text = ""
    if re.search("text/|json", response.header("content-type") or ""):
        markup = bytes(response.body[:MAX_HEADER]).decode("utf-8", "replace")
        text = " ".join(_MARKUP.sub(" ", markup).split())
    shown = f": {text[:EXCERPT]!r}" if text else ""
    return (
        f"the response is from a proxy or another server, not from smallfry{shown}. "
        "Please check the base URL, and the server behind the proxy."
    )


def _retry_after(response: Response) -> float | None:
    value = response.header("retry-after")
    if value is None or len(value) > _MAX_DATE:
        return None
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
