"""The examples of the documentation: requests that work against the models loaded, and their answers."""

from __future__ import annotations

from typing import Any

import orjson

from service.lookup import LookupApp
from service.models import Models
from service.schema import LookupRequest
from service.wire import JSON, PACKED, RAW, SAFETENSORS

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
    examples = {
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


def lookup_answer(models: Models, lookup: LookupApp) -> dict[str, Any]:
    """Return the contents that a lookup's answer may have; the JSON one is a real answer."""
    content: dict[str, Any] = {RAW: _BINARY, SAFETENSORS: _BINARY, PACKED: _BINARY}
    if not models:
        return content
    tokens = _tokens(models)
    request = {"model": next(iter(models))} | ({"tokens": tokens[:1]} if tokens else {"ids": [0]})
    chunks = lookup.answer_json(orjson.dumps(request)).chunks
    answer = b"".join(chunks() if callable(chunks) else chunks)
    return {JSON: {"example": orjson.loads(answer)}} | content


def _tokens(models: Models) -> list[str]:
    for model in models.values():
        if model.store.vocabulary is not None:
            return [model.store.token(row) for row in range(min(2, len(model.store)))]
    return []
