"""``POST /lookup``: tokens, row numbers or texts to vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter_ns
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import numpy as np
import orjson
from numpy.typing import NDArray

from service.errors import InvalidValue, UnknownToken, quoted
from service.gpu.batching import Batcher
from service.http.request import RequestBody, media_type, negotiate
from service.http.response import DeferredResponse, Response
from service.http.scheduler import Scheduler
from service.http.validation import kind, parse_json, validate
from service.models.examples import TEXTS
from service.models.model import Model
from service.models.registry import Models
from service.routes.batch import (
    Offsets,
    check_count,
    check_pooled,
    check_range,
    flatten,
    row_range,
    where,
    whole_numbers,
)
from service.routes.endpoint import Endpoint
from service.routes.formats import encode
from service.routes.means import Means
from service.routes.result import CHUNK, LookupResult, TextResult, spans
from service.routes.schema import LookupRequest, LookupResponse
from service.routes.texts import TextEncoder, check_texts
from service.server import Server
from smallfry.errors import InputError
from smallfry.media_types import JSON, PACKED, RAW, SAFETENSORS
from smallfry.offsets import offsets_of
from smallfry.pooling import Pool, finish_bags, to_float16

_BINARY = {"schema": {"type": "string", "format": "binary"}}
#: The fields of which a request has one.
_QUERIES = ("tokens", "ids", "texts")
#: Unknown tokens that an error message names.
_SHOWN = 20


class Query(NamedTuple):
    """Tokens or row numbers, flat, or texts, and how to look them up."""

    model: Model
    tokens: list[str] | None
    ids: NDArray[np.int64] | None
    texts: list[str] | None
    offsets: Offsets | None
    pool: Pool | None
    oov: str
    dtype: str


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
        formats = negotiate(headers.get(b"accept"))
        content_type = media_type(headers, (JSON, RAW))
        data = await body.read()
        started = perf_counter_ns()
        if content_type == RAW:
            query = parse_raw(data, query_string, self._models, self._limits.tokens)
        else:
            fields = parse_json(data, LookupRequest.example, self._limits.values)
            query = parse_fields(fields, self._models, self._limits.tokens)
        if query.oov == "mean" and not query.model.store.has_mean:
            return DeferredResponse(lambda: self._look_up_with_mean(query, formats))
        return await self._look_up(query, formats, started)

    async def _look_up_with_mean(self, query: Query, formats: Sequence[str]) -> Response:
        await self._means.compute(query.model)
        return await self._look_up(query, formats, perf_counter_ns())

    async def _look_up(self, query: Query, formats: Sequence[str], started: int) -> Response:
        device = self._devices.get(query.model)
        if query.texts is not None:
            result = await self._encode(query.model, query.texts, query.dtype)
        else:
            result = look_up(query) if device is None else await look_up_on(device, query, formats)
        if query.dtype == "float16":
            await _round(result, self._limits.scheduler)
        found = perf_counter_ns()
        response = encode(result, formats)
        encoded = perf_counter_ns()
        response.timing = b"find;dur=%.3f, encode;dur=%.3f, " % (
            (found - started) / 1e6,
            (encoded - found) / 1e6,
        )
        self._meter.count_tokens(result.known, result.unknown)
        return response

    async def _encode(self, model: Model, texts: list[str], dtype: str) -> LookupResult:
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


def parse_fields(fields: dict[str, Any], models: Models, max_tokens: int) -> Query:
    """Validate the fields of a JSON request.

    Raises
    ------
    InvalidValue
        A field is unknown, is missing, or has a wrong value.
    UnknownModel
        There is no model of this name.
    BatchTooLarge
        There are more than `max_tokens` tokens or ids, or lists of them.
    """
    request = validate(LookupRequest, fields)
    held = {name: values for name in _QUERIES if (values := getattr(request, name)) is not None}
    if len(held) != 1:
        names = " and ".join(held) or f"none of {', '.join(_QUERIES)}"
        raise InvalidValue(
            f"the request holds {names}; give one of them: {LookupRequest.example}", param="tokens"
        )
    ((name, values),) = held.items()
    if name == "texts":
        return _text_query(request, values, models, max_tokens)
    offsets = None
    if values and type(values[0]) is list:
        values, offsets = flatten(values, name, max_tokens)
    check_count(len(values), name, max_tokens)
    model = models.find(request.model)
    if name == "tokens":
        return _query(request, model, values, None, offsets)
    return _query(request, model, None, whole_numbers(values, row_range(model), name, offsets), offsets)


def parse_raw(body: bytes, query_string: bytes, models: Models, max_tokens: int) -> Query:
    """Validate a body of little-endian uint32 row numbers, and the other fields in the query string.

    Raises
    ------
    InvalidValue, UnknownModel, BatchTooLarge
        As for `parse_fields`.
    """
    given = parse_qs(query_string.decode("latin-1"), keep_blank_values=True)
    request = validate(LookupRequest, {name: values[-1] for name, values in given.items()})
    if len(body) % 4:
        raise InvalidValue(
            f"the body has {len(body)} bytes; row numbers are little-endian uint32, 4 bytes each", param="ids"
        )
    check_count(len(body) // 4, "ids", max_tokens)
    model = models.find(request.model)
    ids = np.frombuffer(body, "<u4").astype(np.int64)
    check_range(ids, row_range(model), "ids", None)
    return _query(request, model, None, ids, None)


def _query(
    request: LookupRequest,
    model: Model,
    tokens: list[Any] | None,
    ids: NDArray[np.int64] | None,
    offsets: Offsets | None,
) -> Query:
    pool, oov = request.pool, request.oov or "zero"
    if pool is not None and offsets is None:
        if tokens or (ids is not None and ids.size):
            raise InvalidValue("pool needs lists of lists: each inner list gets one vector", param="pool")
        offsets = np.zeros(1, np.int64)
    if pool is not None and offsets is not None:
        check_pooled(offsets, model, "tokens" if ids is None else "ids")
    if oov == "skip" and pool is None:
        raise InvalidValue(
            'oov "skip" leaves unknown tokens out of a pool; give pool, or another oov', param="oov"
        )
    return Query(model, tokens, ids, None, offsets, pool, oov, request.dtype or "float32")


def _text_query(request: LookupRequest, texts: list[Any], models: Models, max_texts: int) -> Query:
    for option in ("pool", "oov"):
        if getattr(request, option) is not None:
            raise InvalidValue(
                f"{option} does not apply to texts: the tokenizer and the pooling are those of the model",
                param=option,
            )
    check_texts(texts, "texts", max_texts)
    model = models.find(request.model)
    if not model.store.has_tokenizer:
        raise InvalidValue(
            f"{model.name!r} has no tokenizer, so it takes no texts: give tokens or ids (/v1/embeddings "
            "splits texts into words)",
            param="texts",
        )
    return Query(model, None, None, texts, None, None, "zero", request.dtype or "float32")


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
    """Round the vectors to float16; many are checked only, in slices, and rounded while they are sent.

    Raises
    ------
    InvalidValue
        The vectors exceed float16.
    """
    try:
        if not result.is_lazy():
            result.vectors = to_float16(result.computed())
        elif not result.fits_half():
            count, step = len(result.found), max(1, CHUNK // (4 * result.model.store.dim))
            for taken, (begin, end) in enumerate(spans(count, step)):
                await scheduler.turn(taken)
                to_float16(result.compute(begin, end))
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
