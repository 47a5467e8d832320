"""Requests of ``POST /lookup``: from a body to the tokens, row numbers or texts to look up."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidValue, ServiceError
from service.http.limits import Limits
from service.http.validation import parse_json, validate
from service.models.model import Model
from service.models.registry import Models
from service.routes.batch import (
    Offsets,
    check_count,
    check_pooled,
    check_range,
    flatten,
    row_range,
    whole_numbers,
)
from service.routes.schema import LookupRequest
from service.routes.texts import check_texts
from smallfry.pooling import Pool

#: The fields of which a request has one.
_QUERIES = ("tokens", "ids", "texts")
#: Bytes of the options after a list of tokens that are parsed once for many requests.
_MAX_OPTIONS = 256


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

    @property
    def size(self) -> int:
        """The number of tokens, ids or texts, or of lists of them if there are more."""
        values = next(each for each in (self.ids, self.tokens, self.texts) if each is not None)
        return len(values) if self.offsets is None else max(len(values), len(self.offsets) - 1)


def parse_body(body: bytes, models: Models, limits: Limits) -> Query:
    """Validate a JSON body.

    Raises
    ------
    RequestError
        It is not JSON.
    InvalidValue, UnknownModel, BatchTooLarge
        As for `parse_fields`.
    """
    query = _parse_tokens(body, models, limits.tokens)
    if query is None:
        query = parse_fields(parse_json(body, LookupRequest.example, limits.values), models, limits.tokens)
    return query


def _parse_tokens(body: bytes, models: Models, max_tokens: int) -> Query | None:
    """Find the tokens of a body that begins with a flat list of them, without creating strings.

    Returns None for other bodies, also invalid ones, and if an error has to name unknown tokens.
    """
    if b'"tokens"' not in body[:_MAX_OPTIONS]:
        return None
    end = body.rfind(b"]") + 1
    request = _options(body[end:]) if end and len(body) - end <= _MAX_OPTIONS else None
    if request is None:
        return None
    try:
        model = models.find(request.model)
    except ServiceError:
        return None  # raised again, unless the tokens have another error
    if model.store.vocabulary is None:
        return None
    ids = model.store.vocabulary.find_json(body[:end], max_tokens)
    if ids is None or (request.oov == "error" and ids.min(initial=0) < 0):
        return None
    return Query(model, None, ids, None, None, None, request.oov or "zero", request.dtype or "float32")


@lru_cache(maxsize=64)
def _options(rest: bytes) -> LookupRequest | None:
    """Return what a body says after its list of tokens; None if it is invalid, or holds another list."""
    try:
        fields = parse_json(b'{"tokens":[]' + rest, LookupRequest.example, _MAX_OPTIONS)
        request = validate(LookupRequest, fields)
    except ServiceError:
        return None
    others = (request.ids, request.texts, request.pool)
    return (
        request if request.tokens == [] and others == (None, None, None) and request.oov != "skip" else None
    )


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


def parse_raw(body: bytes, models: Models, limits: Limits, query_string: bytes) -> Query:
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
    check_count(len(body) // 4, "ids", limits.tokens)
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
