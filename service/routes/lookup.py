"""``POST /lookup``: tokens, row numbers or texts to vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import perf_counter_ns
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from service.errors import InvalidValue, UnknownToken, quoted
from service.gpu.batching import Batcher
from service.http.request import RequestBody, media_type, negotiate
from service.http.response import WHOLE, DeferredResponse, Response
from service.http.scheduler import Scheduler
from service.http.validation import kind
from service.models.examples import TEXTS
from service.models.model import Model
from service.routes.batch import where
from service.routes.endpoint import Endpoint
from service.routes.formats import encode, pack_known
from service.routes.means import Means
from service.routes.query import Query, parse_body, parse_fields, parse_raw
from service.routes.result import CHUNK, LookupResult, TextResult, spans
from service.routes.schema import LookupRequest, LookupResponse
from service.routes.texts import TextEncoder
from service.server import Server
from smallfry.errors import InputError
from smallfry.media_types import JSON, PACKED, RAW, SAFETENSORS
from smallfry.offsets import offsets_of
from smallfry.pooling import finish_bags, to_float16

_BINARY = {"schema": {"type": "string", "format": "binary"}}
#: Unknown tokens that an error message names.
_SHOWN = 20


class LookupEndpoint(Endpoint):
    """``POST /lookup``."""

    name = "look_up"
    request_model = LookupRequest
    response_model = LookupResponse

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._means = Means(server.config.request_timeout)
        self._encoder = TextEncoder(server.limits)

    async def respond(
        self, headers: Mapping[bytes, bytes], query_string: bytes, body: RequestBody
    ) -> Response:
        """Look up tokens or row numbers, or encode texts; `Accept` chooses the format of the response."""
        formats, parse = self._read_headers(headers, query_string)
        data = await body.read()
        started = perf_counter_ns()
        query = parse(data)
        if self._is_immediate(query):
            response, known, unknown = look_up_at_once(query, formats, started)
            self._meter.count_tokens(known, unknown)
            response.repeat = partial(self._repeat, formats, parse)
            return response
        if query.oov == "mean" and not query.model.store.has_mean:
            return DeferredResponse(lambda: self._look_up_with_mean(query, formats))
        return await self._look_up(query, formats, started)

    def _repeat(
        self, formats: Sequence[str], parse: Callable[[bytes], Query], data: bytes
    ) -> Response | None:
        """Look up under the headers of an earlier request; None for what has to wait, or is large."""
        started = perf_counter_ns()
        query = parse(data)
        if not self._is_immediate(query) or _is_large(query, formats):
            return None
        response, known, unknown = look_up_at_once(query, formats, started)
        if response.is_large:
            return None
        # Errors of a generator are raised here, before anything is counted or sent.
        response.chunks = [*response.chunks]
        self._meter.count_tokens(known, unknown)
        return response

    def _read_headers(
        self, headers: Mapping[bytes, bytes], query_string: bytes
    ) -> tuple[Sequence[str], Callable[[bytes], Query]]:
        """Return the formats that a request accepts, and how to parse its body."""
        formats = negotiate(headers.get(b"accept"))
        parse = partial(parse_body, models=self._models, limits=self._limits)
        if media_type(headers, (JSON, RAW)) == RAW:
            parse = partial(parse_raw, models=self._models, limits=self._limits, query_string=query_string)
        return formats, parse

    def _is_immediate(self, query: Query) -> bool:
        """Whether a query waits for nothing: no device, no text, no mean, no rounding in slices."""
        store = query.model.store
        if query.texts is not None or (query.oov == "mean" and not store.has_mean):
            return False
        if query.dtype == "float16" and 4 * query.size * store.dim > CHUNK:
            return False
        return self._devices.get(query.model) is None

    async def _look_up_with_mean(self, query: Query, formats: Sequence[str]) -> Response:
        await self._means.compute(query.model)
        return await self._look_up(query, formats, perf_counter_ns())

    async def _look_up(self, query: Query, formats: Sequence[str], started: int) -> Response:
        device = self._devices.get(query.model)
        if query.texts is not None:
            result = await self._encode_texts(query.model, query.texts, query.dtype)
        else:
            result = look_up(query) if device is None else await look_up_on(device, query, formats)
        if query.dtype == "float16":
            await _round(result, self._limits.scheduler)
        self._meter.count_tokens(result.known, result.unknown)
        return timed_encode(result, formats, started)

    async def _encode_texts(self, model: Model, texts: list[str], dtype: str) -> LookupResult:
        counts, make = await self._encoder.encode(model, texts, "texts")
        no_ids = np.empty(0, np.int64)
        return TextResult(model, no_ids, counts > 0, 0, None, dtype, "mean", counts=counts, make=make)

    def request_content(self) -> dict[str, Any]:
        """Return the description of a request's body by media type, with examples for the shown models."""
        fields = self.example_fields(2)
        tokens = fields.pop("tokens", None)
        examples: dict[str, Any] = {}
        if tokens is not None:
            bags = {"tokens": [tokens, tokens[:1]], "pool": "mean", "oov": "skip"}
            examples["tokens"] = {"summary": "Tokens", "value": {"tokens": tokens} | fields}
            examples["bags"] = {"summary": "The mean of each list of tokens", "value": bags | fields}
        examples["ids"] = {"summary": "Row numbers", "value": {"ids": [0]} | fields}
        if self.takes_texts():
            examples["texts"] = {"summary": "Texts", "value": {"texts": [*TEXTS]} | fields}
        ids = {"schema": {"type": "string", "format": "binary", "description": "little-endian uint32 ids"}}
        return {
            JSON: {"schema": {"$ref": "#/components/schemas/LookupRequest"}, "examples": examples},
            RAW: ids,
        }

    def response_content(self) -> dict[str, Any]:
        """Return the description of a response's body by media type; the JSON example is a real one."""
        content: dict[str, Any] = {RAW: _BINARY, SAFETENSORS: _BINARY, PACKED: _BINARY}
        if not self._shown:
            return content
        fields = self.example_fields(1)
        query = parse_fields(fields if "tokens" in fields else {"ids": [0]} | fields, self._models, 1)
        example = orjson.loads(b"".join(encode(look_up(query), (JSON,)).chunks))
        return {JSON: {"example": example}} | content


def timed_encode(result: LookupResult, formats: Sequence[str], started: int) -> Response:
    """Encode a result; record the times of the lookup, which `started` at a time, and of the encoding."""
    found = perf_counter_ns()
    response = encode(result, formats)
    response.timing = _timing(started, found)
    return response


def _timing(started: int, found: int) -> bytes:
    return b"find;dur=%.3f, encode;dur=%.3f, " % ((found - started) / 1e6, (perf_counter_ns() - found) / 1e6)


async def look_up_on(device: Batcher, query: Query, formats: Sequence[str]) -> LookupResult:
    """Look up as `look_up` does; vectors, if the format needs them, are computed on the model's device."""
    result = look_up(query)
    if result.pool is not None and result.offsets is not None:
        sums = await device.sums(result.ids, result.offsets)
        result.vectors, _ = finish_bags(
            sums, result.ids, result.offsets, result.pool, fill=result.fill, skip=result.skip
        )
    elif formats[0] != PACKED or query.dtype == "float16":
        result.vectors = await device.rows(result.ids, result.fill)
    return result


def look_up_at_once(query: Query, formats: Sequence[str], started: int) -> tuple[Response, int, int]:
    """Look up a query that waits for nothing; return the response, and how many are known and unknown."""
    if formats[0] == PACKED and query.ids is not None and query.offsets is None and query.dtype == "float32":
        found = perf_counter_ns()
        response = pack_known(query.model, query.ids)
        if response is not None:
            response.timing = _timing(started, found)
            return response, len(query.ids), 0
    result = look_up(query)
    if query.dtype == "float16":
        result.vectors = _rounded(result.computed())
    return timed_encode(result, formats, started), result.known, result.unknown


def _is_large(query: Query, formats: Sequence[str]) -> bool:
    """Estimate whether a response is too large to be sent in one piece."""
    table, offsets = query.model.store.table, query.offsets
    rows = query.size if query.pool is None or offsets is None else len(offsets) - 1
    row = {PACKED: table.stride, JSON: 12 * table.dim}.get(formats[0], 4 * table.dim)
    return rows * row > WHOLE


def look_up(query: Query) -> LookupResult:
    """Find the rows of a query.

    Raises
    ------
    InvalidValue
        A token is not a string, or the model has no vocabulary.
    UnknownToken
        Tokens are not in the vocabulary, and the query's policy is ``error``.
    """
    store = query.model.store
    if query.ids is not None:
        ids = query.ids
    elif store.vocabulary is None:
        give = "ids or texts" if store.has_tokenizer else "ids"
        raise InvalidValue(f"{query.model.name!r} has no vocabulary; give {give}", param="tokens")
    else:
        assert query.tokens is not None
        try:
            ids = store.vocabulary.find(query.tokens)
        except TypeError:
            raise _not_a_string(query) from None
    found = ids >= 0
    unknown = len(ids) - int(np.count_nonzero(found))
    result = LookupResult(
        query.model, ids, found, unknown, query.offsets, query.dtype, query.pool, query.oov == "skip"
    )
    if unknown and query.oov == "error":
        raise _unknown_tokens(query, found)
    if unknown and query.oov == "mean":
        result.fill = store.mean
    if query.pool is not None and query.offsets is not None:
        result.found = np.diff(offsets_of(found)[query.offsets]) > 0
    return result


async def _round(result: LookupResult, scheduler: Scheduler) -> None:
    """Round the vectors to float16; many are checked only, in slices, and rounded while they are sent."""
    if not result.is_lazy():
        result.vectors = _rounded(result.computed())
    elif not result.fits_half():
        count, step = len(result.found), max(1, CHUNK // (4 * result.model.store.dim))
        for taken, (begin, end) in enumerate(spans(count, step)):
            await scheduler.turn(taken)
            _rounded(result.compute(begin, end))


def _rounded(vectors: NDArray[Any]) -> NDArray[Any]:
    """Round vectors to float16; raise `InvalidValue` if they exceed it."""
    try:
        return to_float16(vectors)
    except InputError as error:
        raise InvalidValue(str(error), param="dtype") from None


def _not_a_string(query: Query) -> InvalidValue:
    tokens = query.tokens or []
    position = next(i for i, token in enumerate(tokens) if not isinstance(token, str))
    place = where("tokens", position, query.offsets)
    return InvalidValue(f"{place} is {kind(tokens[position])}; a token is a string", param="tokens")


def _unknown_tokens(query: Query, found: NDArray[np.bool_]) -> UnknownToken:
    tokens = query.tokens or []
    unknown = list(dict.fromkeys(tokens[i] for i in np.flatnonzero(~found).tolist()))
    more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
    shown = ", ".join(map(quoted, unknown[:_SHOWN])) + more
    return UnknownToken(
        f'not in the vocabulary: {shown}; oov "zero" or "mean" gives them a vector', param="tokens"
    )
