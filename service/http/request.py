"""A request's body: reading it within its limits of size and time, its type, its JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from starlette.types import Message, Receive

from service.errors import (
    BodyTooLarge,
    ClientDisconnected,
    InvalidValue,
    RequestError,
    RequestTimeout,
    UnsupportedMediaType,
)
from service.http.body_timeout import BodyTimeout
from service.http.limits import Limits

#: Bytes of a body that are awaited before its request takes a place among those that are answered.
_AWAITED = 1 << 16


async def await_body(receive: Receive, headers: Mapping[bytes, bytes], limits: Limits) -> Receive:
    """Wait for the whole body, of a large one for its beginning; return what gives it again.

    A request whose body is slow to arrive so holds nothing but its connection.

    Raises
    ------
    BodyTooLarge
        It says that it is longer than the limit.
    RequestTimeout
        It has not arrived in time.
    """
    messages = await _pull(receive, headers, limits, min(_AWAITED, limits.body))

    async def again() -> Message:
        return messages.pop(0) if messages else await receive()

    return again


async def read_body(receive: Receive, headers: Mapping[bytes, bytes], limits: Limits) -> bytes:
    """Return the whole body.

    Raises
    ------
    BodyTooLarge
        It is, or says that it is, longer than the limit.
    RequestTimeout
        It has not arrived in time.
    ClientDisconnected
        The client left.
    """
    messages = await _pull(receive, headers, limits, limits.body)
    if messages[-1]["type"] == "http.disconnect":
        raise ClientDisconnected
    if len(messages) == 1:
        body: bytes = messages[0].get("body", b"")
    else:
        body = b"".join([message.get("body", b"") for message in messages])
    if len(body) > limits.body:
        raise _too_large(len(body), limits)
    return body


async def _pull(receive: Receive, headers: Mapping[bytes, bytes], limits: Limits, most: int) -> list[Message]:
    """Receive a body up to its end, or to where it has more than so many bytes."""
    length = headers.get(b"content-length")
    if length is not None and int(length) > limits.body:
        raise _too_large(int(length), limits)
    task = limits.watch.enter()
    try:
        message = await receive()
        messages, size = [message], len(message.get("body", b""))
        while message.get("more_body") and size <= most:
            message = await receive()
            messages.append(message)
            size += len(message.get("body", b""))
    except asyncio.CancelledError:
        if not limits.watch.leave(task):
            raise
        raise body_timeout(limits.watch) from None
    finally:
        limits.watch.leave(task)
    return messages


def body_timeout(watch: BodyTimeout) -> RequestTimeout:
    """Return the error of a body that did not arrive in time."""
    return RequestTimeout(
        f"the body did not arrive within {watch.timeout:g} s (--request-timeout)",
        headers=((b"connection", b"close"),),
    )


def _too_large(size: int, limits: Limits) -> BodyTooLarge:
    return BodyTooLarge(
        f"the body has {size} bytes or more; this server takes {limits.body} (--max-body): split the request"
    )


def media_type(headers: Mapping[bytes, bytes], expected: Sequence[str]) -> str:
    """Return the media type of a body; where the header is missing, the first that is expected.

    Raises
    ------
    UnsupportedMediaType
        It is none of them, or the body is compressed.
    """
    coding = headers.get(b"content-encoding")
    if coding is not None and coding.lower() != b"identity":
        raise UnsupportedMediaType(
            f"Content-Encoding is {coding.decode('latin-1')!r}; this server reads bodies as they are, "
            "not compressed",
            param="Content-Encoding",
        )
    header = headers.get(b"content-type")
    if header is None:
        return expected[0]
    name = header.partition(b";")[0].strip().lower().decode("latin-1")
    if name not in expected:
        raise UnsupportedMediaType(
            f"Content-Type is {name!r}; this route reads {' and '.join(expected)}", param="Content-Type"
        )
    return name


def parse_json(body: bytes, example: str) -> dict[str, Any]:
    """Parse a body that has to be an object; strings may hold lone surrogates, which orjson refuses.

    Raises
    ------
    RequestError
        The body is not JSON; the message shows the example.
    InvalidValue
        It is JSON and no object.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        value = _parse_surrogates(body, error, example)
    if type(value) is not dict:
        raise InvalidValue(f"the body is {kind(value)}; it has to be an object such as {example}")
    return value


def _parse_surrogates(body: bytes, problem: Exception, example: str) -> Any:  # noqa: ANN401 - any JSON value
    if b"\\u" in body:
        try:
            return json.loads(body, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            problem = error
    raise RequestError(f"the body is not JSON: {problem}; send an object such as {example}")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def check_names(fields: dict[str, Any], known: frozenset[str]) -> None:
    """Refuse a request that has another field than those that the route knows."""
    if not fields.keys() <= known:
        unknown = min(fields.keys() - known)
        raise InvalidValue(
            f"there is no field {unknown!r}; fields: {', '.join(sorted(known))}", param=unknown
        )


def kind(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """Name the JSON type of a value, for messages."""
    names = {type(None): "null", dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return names.get(type(value), "a number")
