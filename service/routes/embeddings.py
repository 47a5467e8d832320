"""``POST /v1/embeddings``, compatible with OpenAI: each text is the mean of its words' vectors."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from service.errors import BatchTooLarge, InvalidValue, RequestError
from service.http.request import RequestBody
from service.http.response import Response
from service.http.validation import kind, read_json
from service.models.model import Model
from service.routes.batch import Offsets, check_pooled
from service.routes.endpoint import Endpoint
from service.routes.formats import JSON_CHUNK, digest_header
from service.routes.schema import EmbeddingsRequest, EmbeddingsResponse
from smallfry.media_types import JSON
from smallfry.offsets import offsets_of
from smallfry.table import finish_bags

#: Texts per request, as many as OpenAI takes.
MAX_TEXTS = 2048

#: Returns the vectors of consecutive texts.
Vectors = Callable[[slice], NDArray[np.float32]]

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
        request = await read_json(EmbeddingsRequest, headers, body, self._limits.values)
        model = self._models.find(request.model)
        if request.dimensions not in (None, model.store.dim):
            raise InvalidValue(
                f"dimensions is {request.dimensions}; {model.name!r} has {model.store.dim} dimensions",
                param="dimensions",
            )
        words, offsets = split_all(_texts(request.input), self._limits.tokens)
        check_pooled(offsets, model, "input")
        ids = find_words(model, words)
        known = int(np.count_nonzero(ids >= 0))
        self._meter.count_tokens(known, len(ids) - known)
        device = self._devices.get(model)
        if device is None:
            vectors = _means(model, ids, offsets)
        else:
            sums = await device.sums(ids, offsets)
            means, _ = finish_bags(sums, ids, offsets, "mean", skip=True)
            vectors = means.__getitem__
        return _respond(model, vectors, offsets, request.encoding_format == "base64")

    def request_content(self) -> dict[str, Any]:
        """Return the description of a request's body by media type, with examples for the shown models."""
        text = " ".join(self.example_fields(2).get("tokens", ())) or "the cat"
        return {JSON: {"example": {"model": next(iter(self._shown), "glove"), "input": text}}}


def _texts(values: Any) -> list[str]:  # noqa: ANN401 - any JSON value
    """Return the texts of a request: one, or a list of at least one."""
    texts = [values] if type(values) is str else values
    if type(texts) is not list:
        raise InvalidValue(f"input is {kind(values)}; it has to be a text or a list of texts", param="input")
    if not texts:
        raise RequestError("input is an empty list; send at least one text", param="input")
    wrong = next((i for i, text in enumerate(texts[:MAX_TEXTS]) if type(text) is not str), None)
    if wrong is not None:
        found = f"input[{wrong}] is {kind(texts[wrong])}"
        if type(texts[wrong]) in (int, list):
            found += (
                ", as if input were token ids, but tables have no tokenizer: send texts (LangChain: "
                "OpenAIEmbeddings(check_embedding_ctx_length=False)), or row numbers to /lookup with pool"
            )
        raise InvalidValue(f"{found}; a text is a string", param="input")
    if len(texts) > MAX_TEXTS:
        raise BatchTooLarge(
            f"input holds {len(texts)} texts; this server takes {MAX_TEXTS} at once: split the request",
            param="input",
        )
    return texts


def split_all(texts: list[str], most: int) -> tuple[list[str], Offsets]:
    """Return the words of all texts, and where each text begins.

    Raises
    ------
    BatchTooLarge
        There are more than `most` words; the remaining text is not split.
    """
    # Each takes a fraction of a microsecond, also if all are in one word.
    if (
        sum(map(len, texts)) > 4 * most
        and sum(text.count(sign) for text in texts for sign in "'’-") > 4 * most
    ):
        raise BatchTooLarge(
            f"input holds more than {4 * most} apostrophes and hyphens (4 x --max-batch-tokens): split the "
            "request",
            param="input",
        )
    words: list[str] = []
    lengths = []
    for text in texts:
        found = split(text, most + 1)
        words += found
        lengths.append(len(found))
        if len(words) > most:
            raise BatchTooLarge(
                f"input holds more than {most} words, the most that this server takes at once "
                "(--max-batch-tokens): split the request",
                param="input",
            )
    return words, offsets_of(np.array(lengths, np.int64))


def split(text: str, most: int) -> list[str]:
    """Return the first words and punctuation marks of a text, up to a number of them.

    Examples
    --------
    >>> split("The cat's mat, e-mailed!", 9)
    ['The', "cat's", 'mat', ',', 'e-mailed', '!']
    """
    if len(text) > most:
        # Spaces between words are skipped one by one.
        text = " ".join(text.split(maxsplit=most))
    return [match[0] for match in islice(_WORD.finditer(text), most)]


def find_words(model: Model, words: list[str]) -> NDArray[np.int64]:
    """Return the rows of words as written or, if unknown, in lower case; -1 for unknown words."""
    vocabulary = model.store.vocabulary
    if vocabulary is None:
        raise InvalidValue(
            f"{model.name!r} has no vocabulary, so it takes no texts: send row numbers to /lookup with pool",
            param="model",
        )
    ids = vocabulary.find(words)
    unknown = np.flatnonzero(ids < 0)
    if unknown.size:
        ids[unknown] = vocabulary.find([words[position].lower() for position in unknown.tolist()])
    return ids


def _means(model: Model, ids: NDArray[np.int64], offsets: Offsets) -> Vectors:
    table = model.store.table

    def means(texts: slice) -> NDArray[np.float32]:
        bounds = offsets[texts.start : texts.stop + 1]
        rows, bounds = ids[bounds[0] : bounds[-1]], bounds - bounds[0]
        return finish_bags(table.bag(rows, bounds[:-1], "sum"), rows, bounds, "mean", skip=True)[0]

    return means


def _respond(model: Model, vectors: Vectors, offsets: Offsets, as_base64: bool) -> Response:
    count, words = len(offsets) - 1, int(offsets[-1])
    tail = {"model": model.name, "usage": {"prompt_tokens": words, "total_tokens": words}}
    headers = [(b"content-type", JSON.encode()), digest_header(model)]
    step = max(1, JSON_CHUNK // model.store.dim)
    chunks = _chunks(vectors, count, step, as_base64, orjson.dumps(tail))
    if count > step:
        return Response(headers, chunks)
    body = b"".join(chunks)
    return Response([*headers, (b"content-length", b"%d" % len(body))], (body,), len(body))


def _chunks(vectors: Vectors, count: int, step: int, as_base64: bool, tail: bytes) -> Iterator[bytes]:
    yield b'{"object":"list","data":['
    for begin in range(0, count, step):
        rows: list[Any] = list(vectors(slice(begin, begin + step)))
        if as_base64:
            rows = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in rows]
        data = [
            {"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows, begin)
        ]
        yield (b"," if begin else b"") + orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
    yield b"]," + tail[1:]
