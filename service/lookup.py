"""The hot route: tokens or row numbers in, vectors out; a plain ASGI application."""

from __future__ import annotations

import json
from itertools import chain
from time import perf_counter_ns
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import numpy as np
import orjson
from numpy.typing import NDArray
from starlette.types import Receive, Scope, Send

from service.body import read_body
from service.errors import InvalidValue, RequestError, TooLarge, UnknownToken, UnsupportedMediaType
from service.models import Model, Models
from service.wire import JSON, RAW, Answer, Body, encode, negotiate
from smallfry.pooling import POOLS, Pool, pool_bags

FIELDS = frozenset({"tokens", "ids", "model", "pool", "oov", "dtype"})
POLICIES = ("zero", "mean", "error", "skip")
DTYPES = ("float32", "float16")

#: Answers up to this size go out as one piece; copying them costs less than another turn.
JOIN = 1 << 16


class Query(NamedTuple):
    """A lookup as it was asked for: `tokens` or `ids`, flat, and how to answer."""

    model: Model
    tokens: list[str] | None
    ids: NDArray[np.int64] | None
    offsets: NDArray[np.int64] | None
    pool: Pool | None
    oov: str
    dtype: str


class LookupApp:
    """Answer ``POST /lookup``.

    Parameters
    ----------
    models : Models
        Where the vectors come from.
    max_tokens : int
        Most tokens or ids in one request.
    max_body : int
        Most bytes in one request's body.
    timeout : float
        Seconds that a body may take to arrive.
    """

    def __init__(self, models: Models, *, max_tokens: int, max_body: int, timeout: float) -> None:
        self._models = models
        self._max_tokens = max_tokens
        self._max_body = max_body
        self._timeout = timeout

    def answer_json(self, body: bytes) -> Body:
        """Return the JSON answer to a JSON request."""
        return encode(lookup(self._json_query(body)), (JSON,))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; what it refuses is raised as `ServiceError`."""
        headers = dict(scope["headers"])
        formats = negotiate(headers.get(b"accept"))
        content_type = media_type(headers.get(b"content-type"))
        body = await read_body(receive, headers, limit=self._max_body, timeout=self._timeout)
        started = perf_counter_ns()
        if content_type == RAW:
            query = self._raw_query(body, scope["query_string"])
        else:
            query = self._json_query(body)
        parsed = perf_counter_ns()
        answer = lookup(query)
        found = perf_counter_ns()
        encoded = encode(answer, formats)
        finished = perf_counter_ns()
        scope["smallfry.timing"] = (
            ("parse", parsed - started),
            ("find", found - parsed),
            ("encode", finished - found),
        )
        await respond(send, encoded)

    def _json_query(self, body: bytes) -> Query:
        fields = parse_json(body)
        if not isinstance(fields, dict):
            raise InvalidValue(f"the body is {_kind(fields)}; it has to be an object such as {EXAMPLE}")
        if not fields.keys() <= FIELDS:
            unknown = min(fields.keys() - FIELDS)
            raise InvalidValue(
                f"there is no field {unknown!r}; fields: {', '.join(sorted(FIELDS))}", param=unknown
            )
        tokens, ids = fields.get("tokens"), fields.get("ids")
        if (tokens is None) == (ids is None):
            state = "neither tokens nor ids" if tokens is None else "both tokens and ids"
            raise InvalidValue(
                f"the request holds {state}; it has to hold one of them: {EXAMPLE}", param="tokens"
            )
        param, values = ("tokens", tokens) if ids is None else ("ids", ids)
        if type(values) is not list:
            kind = "strings" if ids is None else "row numbers"
            raise InvalidValue(f"{param} is {_kind(values)}; it has to be a list of {kind}", param=param)
        offsets = None
        if values and type(values[0]) is list:
            values, offsets = _flatten(values, param)
        if len(values) > self._max_tokens:
            raise TooLarge(
                f"the request holds {len(values)} {param}; this server takes {self._max_tokens} at once "
                "(--max-batch-tokens): split the request",
                param=param,
            )
        model = self._models.find(fields.get("model"))
        return Query(
            model=model,
            tokens=values if ids is None else None,
            ids=None if ids is None else _row_numbers(values, offsets, model),
            offsets=offsets,
            **_options(fields, nested=offsets is not None),
        )

    def _raw_query(self, body: bytes, query_string: bytes) -> Query:
        try:
            given = parse_qs(query_string.decode("ascii"), keep_blank_values=True, errors="strict")
        except UnicodeDecodeError:
            raise RequestError("the query string is not UTF-8") from None
        fields = {name: values[-1] for name, values in given.items() if name in FIELDS}
        if len(body) % 4:
            raise InvalidValue(
                f"the body is {len(body)} bytes; row numbers are little-endian uint32, 4 bytes each",
                param="ids",
            )
        if len(body) > 4 * self._max_tokens:
            raise TooLarge(
                f"the request holds {len(body) // 4} ids; this server takes {self._max_tokens} at once "
                "(--max-batch-tokens): split the request",
                param="ids",
            )
        model = self._models.find(fields.get("model"))
        ids = np.frombuffer(body, "<u4").astype(np.int64)
        _check_range(ids, None, model)
        return Query(model=model, tokens=None, ids=ids, offsets=None, **_options(fields, nested=False))


EXAMPLE = '{"tokens": ["the", "cat"]}'


def lookup(query: Query) -> Answer:
    """Find the rows of a query and pool them where it asks for that.

    Raises
    ------
    InvalidValue
        A token is no string.
    UnknownToken
        Some tokens are not in the vocabulary, and the query's policy is ``error``.
    """
    store = query.model.store
    if query.tokens is None:
        assert query.ids is not None
        ids = query.ids
    else:
        if store.vocabulary is None:
            raise InvalidValue(f"{query.model.name!r} has no vocabulary; ask for ids", param="tokens")
        try:
            ids = store.find(query.tokens)
        except TypeError:
            raise _not_a_string(query.tokens, query.offsets) from None
    found = ids >= 0
    fill = None
    if query.oov != "zero" and not found.all():
        if query.oov == "error":
            raise _unknown_tokens(query.tokens or [], found)
        if query.oov == "mean":
            fill = query.model.store.mean
    answer = Answer(query.model, ids, found, query.offsets, None, fill, query.dtype)
    if query.pool is not None and query.offsets is not None:
        answer.vectors, answer.found = pool_bags(
            store.table, ids, query.offsets, query.pool, fill=fill, skip=query.oov == "skip"
        )
        answer.pooled = True
    if query.dtype == "float16":
        answer.vectors = _half(answer.decoded())
    return answer


async def respond(send: Send, body: Body) -> None:
    """Send an encoded answer: small ones as one piece, large ones without joining them."""
    headers = body.headers
    if body.length is None:
        assert callable(body.chunks)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for piece in body.chunks():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return
    assert not callable(body.chunks)
    headers.append((b"content-length", b"%d" % body.length))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    chunks = body.chunks if body.length > JOIN else (b"".join(body.chunks),)
    for chunk in chunks[:-1]:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": chunks[-1]})


def media_type(header: bytes | None) -> str:
    """Return the media type of a body, JSON where the header is missing.

    Raises
    ------
    UnsupportedMediaType
        It is neither JSON nor raw row numbers.
    """
    if header is None:
        return JSON
    name = header.partition(b";")[0].strip().lower().decode("latin-1")
    if name not in (JSON, RAW):
        raise UnsupportedMediaType(
            f"Content-Type is {name!r}; send {JSON}, or little-endian uint32 ids as {RAW}",
            param="Content-Type",
        )
    return name


def parse_json(body: bytes) -> Any:  # noqa: ANN401 - any JSON value
    """Parse a body; strings may hold lone surrogates, which orjson refuses.

    Raises
    ------
    RequestError
        The body is not JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        problem: Exception = error
        if b"\\u" in body:
            try:
                return json.loads(body, parse_constant=_no_constant)
            except (ValueError, RecursionError) as error:
                problem = error
    raise RequestError(f"the body is not JSON: {problem}; send an object such as {EXAMPLE}")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _kind(value: Any) -> str:  # noqa: ANN401
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number"}
    return "null" if value is None else names.get(type(value), "a number")


def _flatten(values: list[Any], param: str) -> tuple[list[Any], NDArray[np.int64]]:
    if set(map(type, values)) != {list}:
        position = next(i for i, value in enumerate(values) if type(value) is not list)
        raise InvalidValue(
            f"{param}[{position}] is {_kind(values[position])} among lists; give all flat, or all in lists",
            param=param,
        )
    offsets = np.zeros(len(values) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, values), np.int64, len(values)), out=offsets[1:])
    return list(chain.from_iterable(values)), offsets


def _options(fields: dict[str, Any], *, nested: bool) -> dict[str, Any]:
    if len(fields) <= 2 and not fields.keys() & {"pool", "oov", "dtype"}:
        return {"pool": None, "oov": "zero", "dtype": "float32"}
    pool = _choice(fields, "pool", POOLS)
    oov = _choice(fields, "oov", POLICIES) or "zero"
    dtype = _choice(fields, "dtype", DTYPES) or "float32"
    if pool is not None and not nested:
        raise InvalidValue(
            "pool needs lists of lists: one vector is answered for each inner list", param="pool"
        )
    if oov == "skip" and pool is None:
        raise InvalidValue(
            'oov "skip" leaves unknown tokens out of a pool; give pool, or another oov', param="oov"
        )
    return {"pool": pool, "oov": oov, "dtype": dtype}


def _choice(fields: dict[str, Any], name: str, choices: tuple[str, ...]) -> str | None:
    value = fields.get(name)
    if value is None or (type(value) is str and value in choices):
        return value
    shown = repr(value) if isinstance(value, str) else _kind(value)
    raise InvalidValue(f"{name} is {shown}; it has to be one of {', '.join(choices)}", param=name)


def _row_numbers(values: list[Any], offsets: NDArray[np.int64] | None, model: Model) -> NDArray[np.int64]:
    if not set(map(type, values)) <= {int}:
        position = next(i for i, value in enumerate(values) if type(value) is not int)
        place = _place("ids", position, offsets)
        raise InvalidValue(
            f"{place} is {_kind(values[position])}; a row number is a whole number", param="ids"
        )
    try:
        ids = np.array(values, np.int64)
    except OverflowError:
        position = next(i for i, value in enumerate(values) if not -1 < value < 1 << 32)
        raise _out_of_range(values[position], position, offsets, model) from None
    _check_range(ids, offsets, model)
    return ids


def _check_range(ids: NDArray[np.int64], offsets: NDArray[np.int64] | None, model: Model) -> None:
    outside = ids.view(np.uint64) >= model.store.table.rows
    if outside.any():
        position = int(outside.argmax())
        raise _out_of_range(int(ids[position]), position, offsets, model)


def _out_of_range(value: int, position: int, offsets: NDArray[np.int64] | None, model: Model) -> InvalidValue:
    last = model.store.table.rows - 1
    return InvalidValue(
        f"{_place('ids', position, offsets)} is {value}; the rows of {model.name!r} are 0 to {last}",
        param="ids",
    )


def _not_a_string(tokens: list[Any], offsets: NDArray[np.int64] | None) -> InvalidValue:
    position = next(i for i, token in enumerate(tokens) if not isinstance(token, str))
    place = _place("tokens", position, offsets)
    return InvalidValue(f"{place} is {_kind(tokens[position])}; a token is a string", param="tokens")


def _place(param: str, position: int, offsets: NDArray[np.int64] | None) -> str:
    if offsets is None:
        return f"{param}[{position}]"
    bag = int(np.searchsorted(offsets, position, side="right")) - 1
    return f"{param}[{bag}][{position - int(offsets[bag])}]"


def _unknown_tokens(tokens: list[str], found: NDArray[np.bool_]) -> UnknownToken:
    unknown = list(dict.fromkeys(tokens[i] for i in np.flatnonzero(~found).tolist()))
    shown = ", ".join(map(repr, unknown[:20])) + (
        f" and {len(unknown) - 20} more" if len(unknown) > 20 else ""
    )
    return UnknownToken(
        f'not in the vocabulary: {shown}; oov "zero" or "mean" answers them with a vector', param="tokens"
    )


def _half(vectors: NDArray[np.float32]) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        half = vectors.astype(np.float16)
    if not np.isfinite(half).all():
        raise InvalidValue(
            f"the vectors reach {np.abs(vectors).max():g}, float16 only 65504; ask for float32", param="dtype"
        )
    return half
