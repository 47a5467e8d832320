"""Embeddings in OpenAI's form: each text is the mean of its words' vectors."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.types import Receive, Scope

from service.errors import InvalidValue
from service.gpu.placement import DeviceManager
from service.http.limits import Limits
from service.http.negotiation import JSON, negotiate
from service.http.request import check_names, kind, media_type, parse_json, read_body
from service.http.response import Endpoint, Reply, json_reply
from service.models.model import Model
from service.models.registry import Models
from service.observability.metrics import Meter
from service.routes.formats import digest_header
from service.routes.query import check_count, flatten, row_numbers
from smallfry.table import finish_bags

EXAMPLE = '{"input": "the cat sat"}'
ENCODINGS = ("float", "base64")

_FIELDS = frozenset({"input", "model", "encoding_format", "dimensions", "user"})
_WORD = re.compile(r"\w+(?:['’\-]\w+)*|[^\w\s]")


class EmbeddingsEndpoint(Endpoint):
    """Answer ``POST /v1/embeddings``.

    Parameters
    ----------
    models, placement, meter, limits
        As for `service.routes.lookup.LookupEndpoint`.
    """

    def __init__(self, models: Models, placement: DeviceManager, meter: Meter, limits: Limits) -> None:
        self._models = models
        self._placement = placement
        self._meter = meter
        self._limits = limits

    async def answer(self, headers: Mapping[bytes, bytes], scope: Scope, receive: Receive) -> Reply:
        """Answer one request."""
        negotiate(headers.get(b"accept"), (JSON,))
        media_type(headers, (JSON,))
        fields = parse_json(await read_body(receive, headers, self._limits), EXAMPLE)
        model = self._models.find(fields.get("model"))
        encoding = _check(fields, model)
        ids, offsets = self._token_ids(fields["input"], model)
        placed = self._placement.get(model)
        if placed is None:
            sums = model.store.table.bag(ids, offsets[:-1], "sum")
        else:
            sums = await placed.sums(ids, offsets)
        vectors, _ = finish_bags(sums, ids, offsets, "mean", skip=True)
        known = int(np.count_nonzero(ids >= 0))
        self._meter.count_tokens(known, len(ids) - known)
        return _encode(model, vectors, encoding, len(ids))

    def _token_ids(self, given: Any, model: Model) -> tuple[NDArray[np.int64], NDArray[np.int64]]:  # noqa: ANN401
        """Return the row numbers of all texts, -1 for unknown words, and where each text begins."""
        if isinstance(given, str):
            given = [given]
        if type(given) is not list:
            raise InvalidValue(f"input is {kind(given)}; it has to be a text or a list", param="input")
        if given and type(given[0]) is int:
            given = [given]
        if given and type(given[0]) is list:
            flat, offsets = flatten(given, "input", self._limits.tokens)
            check_count(len(flat), "input", self._limits.tokens)
            return row_numbers(flat, model, "input", offsets), offsets
        check_count(len(given), "input", self._limits.tokens, "texts in input")
        wrong = next((i for i, text in enumerate(given) if not isinstance(text, str)), None)
        if wrong is not None:
            raise InvalidValue(
                f"input[{wrong}] is {kind(given[wrong])}; give texts, or token ids, or lists of token ids",
                param="input",
            )
        words, offsets = flatten([split(text) for text in given], "input", self._limits.tokens)
        check_count(len(words), "input", self._limits.tokens)
        return find_words(model, words), offsets


def split(text: str) -> list[str]:
    """Return the words and punctuation marks of a text.

    Examples
    --------
    >>> split("The cat's mat, e-mailed!")
    ['The', "cat's", 'mat', ',', 'e-mailed', '!']
    """
    return _WORD.findall(text)


def find_words(model: Model, words: list[str]) -> NDArray[np.int64]:
    """Return the rows of words as written or, where a word is unknown so, in lower case; else -1."""
    vocabulary = model.store.vocabulary
    if vocabulary is None:
        raise InvalidValue(f"{model.name!r} has no vocabulary; give token ids", param="input")
    ids = vocabulary.find(words)
    unknown = np.flatnonzero(ids < 0)
    if unknown.size:
        ids[unknown] = vocabulary.find([words[position].lower() for position in unknown.tolist()])
    return ids


def _check(fields: dict[str, Any], model: Model) -> str:
    check_names(fields, _FIELDS)
    if "input" not in fields:
        raise InvalidValue(f"the request holds no input; send an object such as {EXAMPLE}", param="input")
    dimensions = fields.get("dimensions")
    if dimensions is not None and (type(dimensions) is not int or dimensions != model.store.dim):
        raise InvalidValue(
            f"{model.name!r} has {model.store.dim} dimensions, no other number", param="dimensions"
        )
    encoding: Any = fields.get("encoding_format") or "float"
    if encoding not in ENCODINGS:
        raise InvalidValue(
            f"encoding_format has to be one of {', '.join(ENCODINGS)}", param="encoding_format"
        )
    return str(encoding)


def _encode(model: Model, vectors: NDArray[np.float32], encoding: str, tokens: int) -> Reply:
    rows: list[Any] = list(vectors)
    if encoding == "base64":
        rows = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in rows]
    content = {
        "object": "list",
        "data": [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)],
        "model": model.name,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return json_reply(content, digest_header(model))
