"""``POST /v1/embeddings``, compatible with OpenAI: each text is the mean of its words' vectors."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidValue
from service.http.request import RequestBody
from service.http.response import Response, json_response
from service.http.validation import kind, read_json
from service.models.model import Model
from service.routes.batch import check_count, flatten, row_numbers
from service.routes.endpoint import Endpoint
from service.routes.formats import digest_header
from service.routes.schema import EmbeddingsRequest, EmbeddingsResponse
from smallfry.media_types import JSON
from smallfry.table import finish_bags

_WORD = re.compile(r"\w+(?:['’\-]\w+)*|[^\w\s]")


class EmbeddingsEndpoint(Endpoint):
    """``POST /v1/embeddings``."""

    name = "embed"
    request_model = EmbeddingsRequest
    response_model = EmbeddingsResponse

    async def respond(
        self, headers: Mapping[bytes, bytes], query_string: bytes, body: RequestBody
    ) -> Response:
        """Embed texts, compatible with OpenAI: each is the mean of the vectors of its words.

        A text is split into words and punctuation marks. Each is looked up as written and, if unknown, in
        lower case; unknown ones are left out. A text without known words gets zeros.
        """
        request = await read_json(EmbeddingsRequest, headers, body)
        model = self._models.find(request.model)
        if request.dimensions not in (None, model.store.dim):
            raise InvalidValue(
                f"dimensions is {request.dimensions}; {model.name!r} has {model.store.dim} dimensions",
                param="dimensions",
            )
        ids, offsets = self._token_ids(request.input, model)
        device = self._devices.get(model)
        if device is None:
            sums = model.store.table.bag(ids, offsets[:-1], "sum")
        else:
            sums = await device.sums(ids, offsets)
        vectors, _ = finish_bags(sums, ids, offsets, "mean", skip=True)
        known = int(np.count_nonzero(ids >= 0))
        self._meter.count_tokens(known, len(ids) - known)
        return _encode(model, vectors, request.encoding_format == "base64", len(ids))

    def request_content(self) -> dict[str, Any]:
        """Return the description of a request's body by media type, with examples for the open models."""
        text = " ".join(self.example_fields(2).get("tokens", ())) or "the cat"
        return {JSON: {"example": {"model": next(iter(self._models), "glove"), "input": text}}}

    def _token_ids(self, values: Any, model: Model) -> tuple[NDArray[np.int64], NDArray[np.int64]]:  # noqa: ANN401
        """Return the row numbers of all texts, -1 for unknown words, and where each text begins."""
        if isinstance(values, str):
            values = [values]
        if type(values) is not list:
            raise InvalidValue(f"input is {kind(values)}; it has to be a text or a list", param="input")
        if values and type(values[0]) is int:
            values = [values]
        if values and type(values[0]) is list:
            flat, offsets = flatten(values, "input", self._limits.tokens)
            check_count(len(flat), "input", self._limits.tokens)
            return row_numbers(flat, model, "input", offsets), offsets
        check_count(len(values), "input", self._limits.tokens, "texts in input")
        wrong = next((i for i, text in enumerate(values) if not isinstance(text, str)), None)
        if wrong is not None:
            raise InvalidValue(
                f"input[{wrong}] is {kind(values[wrong])}; give texts, or token ids, or lists of token ids",
                param="input",
            )
        words, offsets = flatten([split(text) for text in values], "input", self._limits.tokens)
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
    """Return the rows of words as written or, if unknown, in lower case; -1 for unknown words."""
    vocabulary = model.store.vocabulary
    if vocabulary is None:
        raise InvalidValue(f"{model.name!r} has no vocabulary; give token ids", param="input")
    ids = vocabulary.find(words)
    unknown = np.flatnonzero(ids < 0)
    if unknown.size:
        ids[unknown] = vocabulary.find([words[position].lower() for position in unknown.tolist()])
    return ids


def _encode(model: Model, vectors: NDArray[np.float32], as_base64: bool, tokens: int) -> Response:
    rows: list[Any] = list(vectors)
    if as_base64:
        rows = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in rows]
    content = {
        "object": "list",
        "data": [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)],
        "model": model.name,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return json_response(content, digest_header(model))
