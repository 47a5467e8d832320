"""What is asked of a server, in which order, and what its answers mean: all of a client but its sockets.

A method here is a generator: it yields each `Request` in turn, is sent the `Response` (or thrown the
`TransportError`), and returns the result. The two clients differ in how they carry the requests.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import quote

import numpy as np
import orjson
from numpy.typing import NDArray

from smallfry.client.cache import TokenCache
from smallfry.client.errors import (
    ConnectFailed,
    ConnectionLost,
    MixedModels,
    Overloaded,
    TooLarge,
    Unavailable,
)
from smallfry.client.lookup import Vectors
from smallfry.client.messages import FORMATS, JSON, RAW, Request, Response
from smallfry.client.responses import Rows, read_json, read_rows, refusal

T = TypeVar("T")
Asked = TypeVar("Asked", list[str], NDArray[np.uint32])
Steps = Generator[Request, Response, T]

REPEATS = 5
"""How often a request of several batches starts again because the model changed in between."""

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 10.0
"""Seconds between attempts: they double from the first to the longest."""


class Remote:
    """A server, and how to ask it.

    Parameters
    ----------
    prefix : str
        What stands before every route.
    format : str
        One of `smallfry.client.messages.FORMATS`.
    retries : int
        How often a failed request is sent again.
    batch_size : int
        Most tokens or ids in one request, as long as the server takes as many.
    distinct : bool
        Whether tokens and ids that are asked for repeatedly are sent once.
    cache : TokenCache or None
    """

    def __init__(
        self,
        prefix: str,
        *,
        format: str,
        retries: int,
        batch_size: int,
        distinct: bool,
        cache: TokenCache | None,
    ) -> None:
        self._prefix = prefix
        self._accept = FORMATS[format]
        self._retries = retries
        self._batch_size = batch_size
        self._distinct = distinct
        self._cache = cache

    def tokens(self, tokens: list[str], model: str | None, mean: bool) -> Steps[Vectors]:
        """Return the vectors of tokens; those of unknown ones are zeros, or the mean row."""
        cache = None if mean else self._cache
        distinct, index = tokens, None
        if cache is not None or self._distinct:
            distinct = list(dict.fromkeys(tokens))
            if len(distinct) < len(tokens):
                numbers = dict(zip(distinct, range(len(distinct)), strict=True))
                index = np.fromiter(map(numbers.__getitem__, tokens), np.int64, len(tokens))
        options = {} if model is None else {"model": model}
        if mean:
            options["oov"] = "mean"

        def request(asked: list[str]) -> Request:
            return self._post("/v1/lookup", _encode_json({"tokens": asked, **options}), JSON)

        if cache is None:
            return (yield from self._rows(distinct, request, index))
        rows = yield from self._through_cache(cache, distinct, model, request)
        return rows if index is None else rows.take(index)

    def ids(self, ids: NDArray[np.uint32], model: str | None) -> Steps[Vectors]:
        """Return the vectors of row numbers."""
        distinct, index = ids, None
        if self._distinct:
            distinct, index = np.unique(ids, return_inverse=True)
        target = "/v1/lookup" if model is None else f"/v1/lookup?model={quote(model, safe='')}"

        def request(asked: NDArray[np.uint32]) -> Request:
            return self._post(target, asked.astype("<u4").tobytes(), RAW)

        return (yield from self._rows(distinct, request, index))

    def models(self) -> Steps[Any]:
        """Return what ``GET /models`` answers."""
        return read_json((yield from self._ask(Request(self._prefix + "/models", JSON))))

    def stats(self) -> Steps[Any]:
        """Return what ``GET /stats`` answers."""
        return read_json((yield from self._ask(Request(self._prefix + "/stats", JSON))))

    def close(self) -> None:
        """Empty the cache."""
        if self._cache is not None:
            self._cache.clear()

    def _post(self, route: str, body: bytes, content_type: str) -> Request:
        return Request(self._prefix + route, self._accept, body, content_type)

    def _through_cache(
        self, cache: TokenCache, tokens: list[str], model: str | None, request: Callable[[list[str]], Request]
    ) -> Steps[Vectors]:
        """Ask for those tokens that the cache does not hold."""
        for _ in range(REPEATS):
            known = cache.get(model, tokens)
            missing = tokens if known is None else known.missing(tokens)
            if known is not None and not missing:
                return known.merge(None)
            fresh = yield from self._rows(missing, request, None)
            cache.put(model, missing, fresh)
            if known is None:
                return fresh
            if known.content == fresh.content:
                return known.merge(fresh)
        raise _mixed()

    def _rows(
        self, asked: Asked, request: Callable[[Asked], Request], index: NDArray[np.int64] | None
    ) -> Steps[Vectors]:
        """Ask for rows in as many requests as it takes, and return them, or those that `index` numbers.

        All of them come from one content of the model: where it changes in between, they are asked for again.
        """
        for _ in range(REPEATS):
            parts = yield from self._batches(asked, request)
            contents = {part.content for part in parts}
            if len(contents) == 1:
                return _join(parts, index)
        raise _mixed()

    def _batches(self, asked: Asked, request: Callable[[Asked], Request]) -> Steps[list[Rows]]:
        parts: list[Rows] = []
        begin = 0
        while begin < len(asked) or not parts:
            batch = asked[begin : begin + self._batch_size]
            try:
                answer = yield from self._ask(request(batch))
            except TooLarge:
                if len(batch) < 2:
                    raise
                self._batch_size = len(batch) // 2
                continue
            parts.append(read_rows(answer, len(batch)))
            begin += len(batch)
        return parts

    def _ask(self, request: Request) -> Steps[Response]:
        """Send a request until it is answered, or has been sent often enough."""
        left, pause = self._retries, FIRST_PAUSE
        while True:
            try:
                answer = yield request
                if answer.status == 200:
                    return answer
                raise refusal(answer)
            except (ConnectFailed, ConnectionLost):
                if not left:
                    raise
                wait = pause
            except (Overloaded, Unavailable) as error:
                wait = max(pause, error.retry_after or 0.0)
                if not left or wait > LONGEST_PAUSE:
                    raise
            # Clients that were refused together must not come back together.
            request = replace(request, pause=wait * random.uniform(1.0, 1.5))
            left, pause = left - 1, min(2 * pause, LONGEST_PAUSE)


def _join(parts: list[Rows], index: NDArray[np.int64] | None) -> Vectors:
    content = parts[0].content
    if len(parts) == 1:
        found = parts[0].found
        return Vectors(parts[0].decode(index), found if index is None else found[index], content)
    rows = Vectors(
        np.concatenate([part.decode(None) for part in parts]),
        np.concatenate([part.found for part in parts]),
        content,
    )
    return rows if index is None else rows.take(index)


def _encode_json(fields: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(fields)
    except TypeError:
        # A lone surrogate has no UTF-8, and is sent as JSON's escape.
        return json.dumps(fields).encode("ascii")


def _mixed() -> MixedModels:
    return MixedModels(
        f"the model changed during a request, and again in each of {REPEATS} repeats. "
        "Please ask again when its reloads have ended, or for fewer tokens at once."
    )
