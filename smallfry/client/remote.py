"""The client without its I/O: requests, retries, batches, and what the responses mean.

Public methods return generators. Each yields a `Request`, is sent its `Response` (or thrown the
`TransportError`), and finally returns the result. `Client` and `AsyncClient` differ only in how they send.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Generator
from typing import Any, TypeVar
from urllib.parse import quote

import numpy as np
import orjson
from numpy.typing import NDArray

from smallfry.client.batch_size import BatchSize, TextBatchSize
from smallfry.client.cache import TokenCache
from smallfry.client.errors import (
    BadGateway,
    ConnectFailed,
    ConnectionLost,
    GatewayTimeout,
    MixedModels,
    Overloaded,
    StatusError,
    TooLarge,
    Unavailable,
)
from smallfry.client.lookup import DecodedRows
from smallfry.client.responses import EncodedRows, body_limit, read_json, read_rows, status_error
from smallfry.client.transport.address import Address
from smallfry.client.transport.messages import FORMATS, Request, Response
from smallfry.media_types import JSON, RAW, SAFETENSORS

T = TypeVar("T")
Keys = TypeVar("Keys", list[str], NDArray[np.uint32])
Steps = Generator[Request, Response, T]

RETRIED = (ConnectFailed, ConnectionLost, Overloaded, Unavailable, BadGateway, GatewayTimeout)
"""Errors after which a request is sent again."""

REPEATS = 5
"""Attempts at a lookup of several batches while the model changes between them."""

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 10.0
"""Seconds between retries: exponential backoff from the first to the longest pause."""


class RemoteServer:
    """The models of a server; the options are those of `Client`."""

    def __init__(
        self,
        address: Address,
        format: str,
        retries: int,
        batch_size: int,
        distinct: bool,
        cache: TokenCache | None,
    ) -> None:
        self._url = str(address)
        self._prefix = address.prefix
        self._target = f"{address.prefix}/v1/lookup"
        self._accept = FORMATS[format]
        self._retries = retries
        self._batch_size = BatchSize(batch_size)
        self._text_batch_size = TextBatchSize(batch_size)
        self._distinct = distinct
        self._cache = cache

    def tokens(self, tokens: list[str], model: str | None, mean: bool) -> Steps[DecodedRows]:
        """Return the vectors of tokens; unknown ones get zeros, or the mean row."""
        cache = None if mean else self._cache
        distinct, index = tokens, None
        if cache is not None or self._distinct:
            distinct, index = _deduplicate(tokens)
        options = {} if model is None else {"model": model}
        if mean:
            options["oov"] = "mean"

        def request(batch: list[str]) -> Request:
            body = _encode_json({"tokens": batch, **options})
            return Request(self._target, self._accept, body, JSON, body_limit(len(batch), self._accept))

        if cache is None:
            return self._rows(distinct, model, request, index, self._batch_size)
        return self._through_cache(cache, distinct, model, request, index)

    def ids(self, ids: NDArray[np.uint32], model: str | None) -> Steps[DecodedRows]:
        """Return rows by number."""
        distinct, index = ids, None
        if self._distinct:
            distinct, index = np.unique(ids, return_inverse=True)
        target = self._target if model is None else f"{self._target}?model={quote(model, safe='')}"

        def request(batch: NDArray[np.uint32]) -> Request:
            body = batch.astype("<u4").tobytes()
            return Request(target, self._accept, body, RAW, body_limit(len(batch), self._accept))

        return self._rows(distinct, model, request, index, self._batch_size)

    def texts(self, texts: list[str], model: str | None) -> Steps[DecodedRows]:
        """Return the vectors of texts."""
        distinct, index = _deduplicate(texts) if self._distinct else (texts, None)
        options = {} if model is None else {"model": model}
        # Pooled vectors have no codes.
        accept = JSON if self._accept == JSON else SAFETENSORS

        def request(batch: list[str]) -> Request:
            body = orjson.dumps({"texts": batch, **options})
            return Request(self._target, accept, body, JSON, body_limit(len(batch), accept))

        return self._rows(distinct, model, request, index, self._text_batch_size)

    def models(self) -> Steps[Any]:
        """Return the body of ``GET /models``."""
        return read_json((yield from self._send(Request(self._prefix + "/models", JSON))))

    def stats(self) -> Steps[Any]:
        """Return the body of ``GET /stats``."""
        return read_json((yield from self._send(Request(self._prefix + "/stats", JSON))))

    def model(self, name: str) -> Steps[Any]:
        """Return the body of ``GET /models/{name}``; `name` is percent-encoded."""
        return read_json((yield from self._send(Request(f"{self._prefix}/models/{name}", JSON))))

    def file_range(self, name: str, start: int, end: int) -> Steps[Response]:
        """Return the response to ``GET /models/{name}/file`` for the bytes from `start` to before `end`."""
        target, lines = f"{self._prefix}/models/{name}/file", f"Range: bytes={start}-{end - 1}\r\n"
        return self._send(Request(target, RAW, limit=end - start, headers=lines))

    def close(self) -> None:
        """Empty the cache."""
        if self._cache is not None:
            self._cache.clear()

    def _describe(self, request: Request) -> str:
        method = "GET" if request.body is None else "POST"
        return f"{method} {self._url}{request.target.removeprefix(self._prefix)}"

    def _through_cache(
        self,
        cache: TokenCache,
        tokens: list[str],
        model: str | None,
        request: Callable[[list[str]], Request],
        index: NDArray[np.int64] | None,
    ) -> Steps[DecodedRows]:
        """Return the vectors of tokens, or those at `index`, requesting those that are not cached."""

        def fetch(tokens: list[str]) -> Steps[DecodedRows]:
            rows = yield from self._rows(tokens, model, request, None, self._batch_size)
            cache.put(model, tokens, rows)
            return rows

        for _ in range(REPEATS):
            cached = cache.get(model, tokens)
            if cached is None:
                rows = yield from fetch(tokens)
            else:
                missing = cached.missing(tokens)
                fetched = (yield from fetch(missing)) if missing else None
                if fetched is not None and fetched.version != cached.version:
                    continue
                rows = cached.merge(fetched)
            return rows if index is None else rows.take(index)
        raise _mixed()

    def _rows(
        self,
        keys: Keys,
        model: str | None,
        request: Callable[[Keys], Request],
        index: NDArray[np.int64] | None,
        size: BatchSize,
    ) -> Steps[DecodedRows]:
        """Return rows, or those at `index`, from as many requests as needed.

        All come from one version of the model; if it changes between batches, the requests are repeated.
        """
        for _ in range(REPEATS):
            batches: list[EncodedRows] = []
            begin, end = 0, len(keys)
            while begin < end or not batches:
                batch = keys[begin : size.end(keys, begin)]
                count, message = len(batch), request(batch)
                try:
                    response = yield from self._send(message)
                except TooLarge:
                    if count < 2:
                        raise
                    size.halve(batch)
                    continue
                batches.append(read_rows(response, count, message.accept, model))
                begin += count
            if len(batches) == 1:
                return batches[0].decode(index)
            if len({batch.version for batch in batches}) == 1:
                return _join(batches, index)
        raise _mixed()

    def _send(self, request: Request) -> Steps[Response]:
        """Send a request, with retries, and return its response of status 200 or 206."""
        left, pause = self._retries, FIRST_PAUSE
        while True:
            try:
                response = yield request
                if response.status in (200, 206):
                    return response
                raise status_error(response, self._describe(request))
            except RETRIED as error:
                wanted = error.retry_after if isinstance(error, StatusError) else None
                wait = max(pause, wanted or 0.0)
                if not left or wait > LONGEST_PAUSE:
                    raise
            # Jitter: clients that were rejected together must not retry together.
            request = request._replace(pause=wait * random.uniform(1.0, 1.5))
            left, pause = left - 1, min(2 * pause, LONGEST_PAUSE)


def _deduplicate(texts: list[str]) -> tuple[list[str], NDArray[np.int64] | None]:
    """Return each text once, and the position there of every text; None if none is repeated."""
    distinct = list(dict.fromkeys(texts))
    if len(distinct) == len(texts):
        return texts, None
    numbers = dict(zip(distinct, range(len(distinct)), strict=True))
    return distinct, np.fromiter(map(numbers.__getitem__, texts), np.int64, len(texts))


def _join(batches: list[EncodedRows], index: NDArray[np.int64] | None) -> DecodedRows:
    vectors = np.concatenate([batch.decode(None).vectors for batch in batches])
    found = np.concatenate([batch.found for batch in batches])
    rows = DecodedRows(vectors, found, batches[0].version)
    return rows if index is None else rows.take(index)


def _encode_json(fields: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(fields)
    except TypeError:
        # A lone surrogate has no UTF-8 encoding; the standard library escapes it.
        return json.dumps(fields).encode("ascii")


def _mixed() -> MixedModels:
    return MixedModels(
        f"the model changed during a lookup, and again in each of {REPEATS} repeats. "
        "Please repeat the lookup after its reloads, or with fewer tokens."
    )
