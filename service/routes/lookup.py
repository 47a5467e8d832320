"""The hot route: tokens or row numbers in, vectors out; a plain ASGI application."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter_ns

import numpy as np
from numpy.typing import NDArray
from starlette.types import Receive, Scope

from service.errors import InvalidValue, UnknownToken
from service.gpu.batching import Batcher
from service.gpu.placement import DeviceManager
from service.http.limits import Limits
from service.http.negotiation import JSON, PACKED, RAW, negotiate
from service.http.request import kind, media_type, parse_json, read_body
from service.http.response import Endpoint, Reply
from service.models.registry import Models
from service.observability.metrics import Meter
from service.routes.formats import Answer, encode
from service.routes.query import EXAMPLE, Offsets, Query, parse_fields, parse_raw, where
from smallfry.errors import InputError
from smallfry.table import Pool, finish_bags, to_float16

_SHOWN = 20


class LookupEndpoint(Endpoint):
    """Answer ``POST /lookup``.

    Parameters
    ----------
    models : Models
        Where the vectors come from.
    placement : DeviceManager
        Which of them lie on a device.
    meter : Meter
        Where tokens are counted.
    limits : Limits
        How much one request may ask for.
    """

    def __init__(self, models: Models, placement: DeviceManager, meter: Meter, limits: Limits) -> None:
        self._models = models
        self._placement = placement
        self._meter = meter
        self._limits = limits

    async def answer(self, headers: Mapping[bytes, bytes], scope: Scope, receive: Receive) -> Reply:
        """Answer one request."""
        formats = negotiate(headers.get(b"accept"))
        content_type = media_type(headers, (JSON, RAW))
        body = await read_body(receive, headers, self._limits)
        started = perf_counter_ns()
        if content_type == RAW:
            query = parse_raw(body, scope["query_string"], self._models, self._limits.tokens)
        else:
            query = parse_fields(parse_json(body, EXAMPLE), self._models, self._limits.tokens)
        placed = self._placement.get(query.model)
        answer = look_up(query) if placed is None else await look_up_on(placed, query, formats)
        found = perf_counter_ns()
        reply = encode(answer, formats)
        encoded = perf_counter_ns()
        reply.timing = b"find;dur=%.3f, encode;dur=%.3f, " % (
            (found - started) / 1e6,
            (encoded - found) / 1e6,
        )
        self._meter.count_tokens(len(answer.ids) - answer.unknown, answer.unknown)
        return reply


def look_up(query: Query) -> Answer:
    """Find the rows of a query and pool them where it asks for that.

    Raises
    ------
    InvalidValue
        A token is no string, the model has no vocabulary, or the vectors exceed float16.
    UnknownToken
        Some tokens are not in the vocabulary, and the query's policy is ``error``.
    """
    answer = _find(query)
    if query.pool is not None and query.offsets is not None:
        sums = query.model.store.table.bag(answer.ids, query.offsets[:-1], "sum")
        _pool(query, query.pool, query.offsets, answer, sums)
    return _rounded(query, answer)


async def look_up_on(placed: Batcher, query: Query, formats: Sequence[str]) -> Answer:
    """Look up as `look_up` does, where vectors are needed on the device that the model lies on."""
    answer = _find(query)
    if query.pool is not None and query.offsets is not None:
        _pool(query, query.pool, query.offsets, answer, await placed.sums(answer.ids, query.offsets))
    elif formats[0] != PACKED or query.dtype == "float16":
        answer.vectors = await placed.rows(answer.ids, answer.fill)
    return _rounded(query, answer)


def _find(query: Query) -> Answer:
    store = query.model.store
    if query.ids is not None:
        ids = query.ids
    elif store.vocabulary is None:
        raise InvalidValue(f"{query.model.name!r} has no vocabulary; ask for ids", param="tokens")
    else:
        assert query.tokens is not None
        try:
            ids = store.vocabulary.find(query.tokens)
        except TypeError:
            raise _not_a_string(query) from None
    found = ids >= 0
    unknown = len(ids) - int(np.count_nonzero(found))
    answer = Answer(query.model, ids, found, unknown, query.offsets, query.dtype)
    if unknown and query.oov == "error":
        raise _unknown_tokens(query, found)
    if unknown and query.oov == "mean":
        answer.fill = store.mean
    return answer


def _pool(query: Query, pool: Pool, offsets: Offsets, answer: Answer, sums: NDArray[np.float32]) -> None:
    answer.vectors, answer.found = finish_bags(
        sums, answer.ids, offsets, pool, fill=answer.fill, skip=query.oov == "skip"
    )
    answer.pooled = True


def _rounded(query: Query, answer: Answer) -> Answer:
    if query.dtype == "float16" and not (
        answer.vectors is None and answer.is_large() and query.model.fits_half
    ):
        try:
            answer.vectors = to_float16(answer.decoded())
        except InputError as error:
            raise InvalidValue(str(error), param="dtype") from None
    return answer


def _not_a_string(query: Query) -> InvalidValue:
    tokens = query.tokens or []
    position = next(i for i, token in enumerate(tokens) if not isinstance(token, str))
    place = where("tokens", position, query.offsets)
    return InvalidValue(f"{place} is {kind(tokens[position])}; a token is a string", param="tokens")


def _unknown_tokens(query: Query, found: NDArray[np.bool_]) -> UnknownToken:
    tokens = query.tokens or []
    unknown = list(dict.fromkeys(tokens[i] for i in np.flatnonzero(~found).tolist()))
    more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
    shown = ", ".join(map(repr, unknown[:_SHOWN])) + more
    return UnknownToken(
        f'not in the vocabulary: {shown}; oov "zero" or "mean" answers them with a vector', param="tokens"
    )
