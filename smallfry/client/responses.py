"""Decode the bodies of responses. The body is untrusted; nothing outside of it is read."""

from __future__ import annotations

import email.utils
import re
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from smallfry.client.errors import (
    BY_STATUS,
    GatewayTimeout,
    MalformedResponse,
    NotFound,
    StatusError,
    UnknownModel,
)
from smallfry.client.lookup import ModelVersion
from smallfry.client.transport.messages import Response
from smallfry.errors import InputError
from smallfry.media_types import JSON, PACKED, SAFETENSORS
from smallfry.sfq.safetensors import PREFIX, TensorEntry, parse_entry, parse_header, tensor_dtype
from smallfry.table import Table

DIGEST_HEADER = "x-smallfry-digest"

MAX_HEADER = 1 << 16
"""Most bytes that the header of a body may take; a server's take a few hundred."""

EXCERPT = 200
"""Most characters of another server's text in an error message."""

_MARKUP = re.compile(r"(?is)<(script|style)\b.*?</\1>|<[^>]*>")


@dataclass(frozen=True, eq=False)
class EncodedRows:
    """Rows of one model as the server sent them."""

    values: Table | NDArray[np.float32]
    """One row for each requested token or id: packed, or decoded by the server, ``[n, dim]``."""
    found: NDArray[np.bool_]
    fill: NDArray[np.float32] | None
    """Vector ``[dim]`` of rows that were not found; None if `values` already holds it."""
    version: ModelVersion

    def decode(self, index: NDArray[np.int64] | None) -> NDArray[np.float32]:
        """Return all rows as float32, or those at `index`."""
        if not isinstance(self.values, Table):
            return self.values if index is None else self.values[index]
        if self.fill is not None:
            numbers = np.where(self.found, np.arange(len(self.found)), -1)
            index = numbers if index is None else numbers[index]
        try:
            return self.values.decode(index, fill=self.fill)
        except InputError as error:
            raise MalformedResponse(f"the packed response cannot be decoded: {error}") from error


def read_rows(response: Response, count: int) -> EncodedRows:
    """Decode the response to a lookup of `count` rows, in any of the formats."""
    content_type = (response.header("content-type") or "").partition(";")[0].strip()
    reader = _READERS.get(content_type)
    if reader is None:
        raise MalformedResponse(f"the response to a lookup is {content_type!r}. Is this a smallfry server?")
    try:
        rows = reader(response)
        _expect("found", rows.found, np.bool_, (count,))
        if isinstance(rows.values, Table):
            _expect("codes", rows.values.codes, np.uint8, (count, rows.values.stride))
        else:
            _expect("the vectors", rows.values, np.float32, (count, rows.version.dim))
        if rows.fill is not None:
            _expect("fill", rows.fill, np.float32, (rows.version.dim,))
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise MalformedResponse(f"the response of type {content_type} cannot be decoded: {reason}") from error
    return rows


def read_json(response: Response) -> Any:  # noqa: ANN401 - any JSON value
    """Decode a JSON response."""
    try:
        return orjson.loads(response.body)
    except ValueError as error:
        raise MalformedResponse(f"the response is not JSON: {error}. Is this a smallfry server?") from None


def read_tensors(body: bytearray) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Read a safetensors body: its tensors as views of it, and its metadata."""
    start = PREFIX + int.from_bytes(body[:PREFIX], "little")
    if not PREFIX < start <= min(len(body), MAX_HEADER):
        raise ValueError(f"its header declares {start - PREFIX} of {len(body)} bytes, {MAX_HEADER} at most")
    layout, metadata = _parse_header(bytes(body[PREFIX:start]))
    tensors: dict[str, NDArray[Any]] = {}
    for name, dtype, (_, shape, begin, end) in layout:
        tensors[name] = np.ndarray(shape, dtype, body, start + begin)
        if dtype.kind == "b" and body[start + begin : start + end].translate(None, b"\0\1"):
            raise ValueError(f"{name} holds bytes other than 0 and 1")
    return tensors, metadata


def status_error(response: Response, request: str) -> StatusError:
    """Return the exception for a response with a status other than 200; `request` is its method and URL."""
    error_class = BY_STATUS.get(response.status, StatusError)
    try:
        fields = orjson.loads(response.body)["error"]
        message = str(fields["message"])
        type, param, code = (fields.get(name) for name in ("type", "param", "code"))
    except (ValueError, KeyError, TypeError, AttributeError):
        message = _foreign_message(response)
        type = param = code = None
        if response.status == 504:
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


def _read_packed(response: Response) -> EncodedRows:
    tensors, metadata = read_tensors(response.body)
    version = _version(metadata["model"], metadata["digest"], int(metadata["dim"]))
    nbit = int(metadata["nbit"])
    if nbit == 32:
        return EncodedRows(tensors["codes"], tensors["found"], None, version)
    table = Table(
        codes=tensors["codes"],
        dim=version.dim,
        nbit=nbit,
        codebook_kind=metadata["kind"],
        codebook=tensors["codebook"],
        clip=float(metadata["clip"]),
        mean=tensors.get("mean"),
        row_scale=tensors.get("row_scale"),
        zero_rows=tensors.get("zero_rows", np.empty(0, np.uint32)),
    )
    return EncodedRows(table, tensors["found"], tensors.get("fill"), version)


def _read_safetensors(response: Response) -> EncodedRows:
    tensors, metadata = read_tensors(response.body)
    vectors = tensors["vectors"]
    version = _version(metadata["model"], metadata["digest"], vectors.shape[1])
    return EncodedRows(vectors, tensors["found"], None, version)


def _read_json(response: Response) -> EncodedRows:
    fields = orjson.loads(response.body)
    dim, digest = fields["dim"], response.header(DIGEST_HEADER)
    if digest is None:
        raise KeyError(DIGEST_HEADER)
    vectors = np.array(fields["vectors"], np.float32).reshape(-1, dim)
    return EncodedRows(
        vectors, np.array(fields["found"], np.bool_), None, _version(fields["model"], digest, dim)
    )


def _version(model: object, digest: object, dim: object) -> ModelVersion:
    if not (isinstance(model, str) and isinstance(digest, str) and type(dim) is int and dim > 0):
        raise ValueError(f"model {model!r}, digest {digest!r} or dim {dim!r} is not a model version")
    return ModelVersion(model, digest, dim)


_READERS = {PACKED: _read_packed, SAFETENSORS: _read_safetensors, JSON: _read_json}


def _expect(name: str, array: NDArray[Any], dtype: type, shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(
            f"{name} is {array.dtype} {list(array.shape)}, expected {np.dtype(dtype)} {list(shape)}"
        )


@lru_cache(maxsize=256)
def _parse_header(text: bytes) -> tuple[tuple[tuple[str, np.dtype[Any], TensorEntry], ...], dict[str, str]]:
    # Responses of one model with equally many rows have the same header.
    entries, metadata = parse_header(text, ValueError)
    tensors = {name: parse_entry(name, entry, ValueError) for name, entry in entries.items()}
    layout = [(name, tensor_dtype(name, entry, ValueError), entry) for name, entry in tensors.items()]
    return tuple(layout), metadata


def _foreign_message(response: Response) -> str:
    """Describe an error response that is not smallfry's: a proxy's, or that of another server."""
    location = response.header("location")
    if location is not None:
        return f"redirected to {location[:EXCERPT]!r}, which is not followed. Please correct the base URL."
    text = ""
    if re.search("text/|json", response.header("content-type") or ""):
        markup = bytes(response.body[:MAX_HEADER]).decode("utf-8", "replace")
        text = " ".join(_MARKUP.sub(" ", markup).split())
    quoted = f": {text[:EXCERPT]!r}" if text else ""
    return (
        f"the response is from a proxy or another server, not from smallfry{quoted}. "
        "Please check the base URL, and the server behind the proxy."
    )


def _retry_after(response: Response) -> float | None:
    value = response.header("retry-after")
    if value is None:
        return None
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
