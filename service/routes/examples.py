"""The examples of the documentation: requests that work against the models loaded, and their answers."""

from __future__ import annotations

from typing import Any

import orjson

from service.http.negotiation import JSON, PACKED, RAW, SAFETENSORS
from service.models.registry import Models
from service.routes.formats import encode
from service.routes.lookup import look_up
from service.routes.query import parse_fields
from service.routes.schema import LookupRequest, NeighborsRequest

DESCRIPTION = """
Compressed embedding tables, looked up by token or row number.

One request takes many tokens: a batch of a thousand costs little more than one of a single token.
`Accept` chooses between JSON, raw float32 (`application/octet-stream`), safetensors
(`application/vnd.safetensors`) and the packed codes themselves (`application/vnd.smallfry.packed`);
all four give the same values, bit for bit.
"""

_BINARY = {"schema": {"type": "string", "format": "binary"}}


def lookup_request(models: Models) -> dict[str, Any]:
    """Return the contents that a lookup's body may have."""
    tokens = _tokens(models)
    several = len(models) > 1
    name: dict[str, Any] = {"model": next(iter(models))} if several else {}
    examples: dict[str, Any] = {
        "ids": {"summary": "Row numbers", "value": {"ids": [0]} | name},
    }
    if tokens:
        examples = {
            "tokens": {"summary": "Tokens", "value": {"tokens": tokens} | name},
            "bags": {
                "summary": "The mean of each list of tokens",
                "value": {"tokens": [tokens, tokens[:1]], "pool": "mean", "oov": "skip"} | name,
            },
        } | examples
    return {
        JSON: {"schema": {"$ref": f"#/components/schemas/{LookupRequest.__name__}"}, "examples": examples},
        RAW: {"schema": {"type": "string", "format": "binary", "description": "little-endian uint32 ids"}},
    }


def lookup_answer(models: Models) -> dict[str, Any]:
    """Return the contents that a lookup's answer may have; the JSON one is a real answer."""
    content: dict[str, Any] = {RAW: _BINARY, SAFETENSORS: _BINARY, PACKED: _BINARY}
    if not models:
        return content
    fields: dict[str, Any] = {"model": next(iter(models))}
    tokens = _tokens(models)[:1]
    query = parse_fields(fields | ({"tokens": tokens} if tokens else {"ids": [0]}), models, 1)
    answer = b"".join(encode(look_up(query), (JSON,)).chunks)
    return {JSON: {"example": orjson.loads(answer)}} | content


def neighbors_request(models: Models) -> dict[str, Any]:
    """Return the content of a request for neighbours."""
    tokens = _tokens(models)[:1]
    fields: dict[str, Any] = {"token": tokens[0]} if tokens else {"id": 0}
    if len(models) > 1:
        fields["model"] = next(iter(models))
    schema = {"$ref": f"#/components/schemas/{NeighborsRequest.__name__}"}
    return {JSON: {"schema": schema, "example": fields | {"k": 10}}}


def embeddings_request(models: Models) -> dict[str, Any]:
    """Return the content of a request for embeddings."""
    fields = {"model": next(iter(models), "glove"), "input": " ".join(_tokens(models)) or "the cat"}
    return {JSON: {"example": fields}}


def _tokens(models: Models) -> list[str]:
    """Return up to two tokens of the first model, if it has any."""
    model = next(iter(models.values()), None)
    if model is None or model.store.vocabulary is None:
        return []
    return [model.store.token(row) for row in range(min(2, len(model.store)))]
