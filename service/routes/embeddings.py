"""``POST /v1/embeddings``, compatible with OpenAI: texts to vectors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice, pairwise
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from service.errors import BatchTooLarge, InvalidValue, RequestError
from service.http.request import RequestBody
from service.http.response import Response
from service.http.validation import kind, read_json
from service.models.examples import TEXTS
from service.models.model import Model
from service.routes.batch import Offsets, check_count, check_pooled, flatten, whole_numbers
from service.routes.endpoint import Endpoint
from service.routes.formats import JSON_CHUNK, digest_header
from service.routes.result import spans
from service.routes.schema import EmbeddingsRequest, EmbeddingsResponse
from service.routes.texts import TextEncoder, TextVectors, check_texts, pooled, token_range
from service.server import Server
from smallfry.kernels import encode_base64, format_json
from smallfry.media_types import JSON
from smallfry.offsets import offsets_of
from smallfry.pooling import finish_bags

#: Texts per request, as many as OpenAI takes.
MAX_TEXTS = 2048

#: LangChain sends token ids of OpenAI's tokenizer by default.
_LANGCHAIN = "OpenAIEmbeddings(check_embedding_ctx_length=False)"

_WORD = re.compile(r"\w+(?:['’\-]\w+)*|[^\w\s]")


class EmbeddingsEndpoint(Endpoint):
    """``POST /v1/embeddings``."""

    name = "embed"
    request_model = EmbeddingsRequest
    response_model = EmbeddingsResponse

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._encoder = TextEncoder(server.limits)

    async def respond(
        self, headers: Mapping[bytes, bytes], query_string: bytes, body: RequestBody
    ) -> Response:
        """Embed texts, compatible with OpenAI.

        A model with a tokenizer pools the tokens of each text by its own rules. With other models, each text
        is the mean of the vectors of its words: it is split into words and punctuation marks, each is looked
        up as written and, if unknown, in lower case, and unknown ones are left out. A text without tokens or
        known words gets zeros.
        """
        request = await read_json(EmbeddingsRequest, headers, body, self._limits.values)
        model = self._models.find(request.model)
        if request.dimensions not in (None, model.store.dim):
            raise InvalidValue(
                f"dimensions is {request.dimensions}; {model.name!r} has {model.store.dim} dimensions",
                param="dimensions",
            )
        inputs = _inputs(request.input, model, own_ids=request.tokenizer is not None)
        embed = self._embed_texts if model.store.has_tokenizer else self._embed_words
        return _respond(model, await embed(model, inputs), request.encoding_format == "base64")

    async def _embed_texts(self, model: Model, inputs: list[Any]) -> TextVectors:
        if type(inputs[0]) is str:
            vectors = await self._encoder.encode(model, inputs, "input")
        else:
            values, offsets = flatten(inputs, "input", MAX_TEXTS)
            check_count(len(values), "input", self._limits.tokens, "token ids")
            ids = whole_numbers(values, token_range(model), "input", offsets)
            vectors = pooled(model, ids, offsets, "input")
        self._meter.count_tokens(int(vectors.counts.sum()), 0)
        return vectors

    async def _embed_words(self, model: Model, texts: list[str]) -> TextVectors:
        words, offsets = split_all(texts, self._limits.tokens)
        check_pooled(offsets, model, "input")
        ids = find_words(model, words)
        known = int(np.count_nonzero(ids >= 0))
        self._meter.count_tokens(known, len(ids) - known)
        device = self._devices.get(model)
        if device is None:
            return _means(model, ids, offsets)
        sums = await device.sums(ids, offsets)
        means, _ = finish_bags(sums, ids, offsets, "mean", skip=True)
        return TextVectors(np.diff(offsets), lambda begin, end: means[begin:end])

    def request_content(self) -> dict[str, Any]:
        """Return the description of a request's body by media type, with examples for the shown models."""
        text = " ".join(self.example_fields(2).get("tokens", ()))
        if self.takes_texts() or not text:
            text = TEXTS[0]
        return {JSON: {"example": {"model": next(iter(self._shown), "glove"), "input": text}}}


def _inputs(value: Any, model: Model, own_ids: bool) -> list[Any]:  # noqa: ANN401 - any JSON value
    """Return the texts of a request, or its lists of token ids: one, or a list of at least one."""
    if type(value) is str or (type(value) is list and value and type(value[0]) is int):
        value = [value]
    if type(value) is not list:
        raise InvalidValue(f"input is {kind(value)}; it has to be a text or a list of texts", param="input")
    if not value:
        raise RequestError("input is an empty list; send at least one text", param="input")
    if len(value) > MAX_TEXTS:
        raise BatchTooLarge(
            f"input holds {len(value)} texts; this server takes {MAX_TEXTS} at once: split the request",
            param="input",
        )
    if not model.store.has_tokenizer and {int, list} & set(map(type, value)):
        raise InvalidValue(
            f"input holds token ids, and {model.name!r} has no tokenizer: send texts (LangChain: "
            f"{_LANGCHAIN}), or row numbers to /lookup with pool",
            param="input",
        )
    if type(value[0]) is list:
        if not own_ids:
            raise InvalidValue(
                "input holds token ids, which may be those of another tokenizer: send texts (LangChain: "
                f'{_LANGCHAIN}), or add "tokenizer": "model" if they are those of {model.name!r}',
                param="input",
            )
        return value
    check_texts(value, "input", MAX_TEXTS)
    return value


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


def _means(model: Model, ids: NDArray[np.int64], offsets: Offsets) -> TextVectors:
    table = model.store.table

    def means(begin: int, end: int) -> NDArray[np.float32]:
        bounds = offsets[begin : end + 1]
        rows, bounds = ids[bounds[0] : bounds[-1]], bounds - bounds[0]
        return finish_bags(table.bag(rows, bounds[:-1], "sum"), rows, bounds, "mean", skip=True)[0]

    return TextVectors(np.diff(offsets), means)


def _respond(model: Model, vectors: TextVectors, as_base64: bool) -> Response:
    count, tokens = len(vectors.counts), int(vectors.counts.sum())
    tail = {"model": model.name, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
    headers = [(b"content-type", JSON.encode()), digest_header(model)]
    step = max(1, JSON_CHUNK // model.store.dim)
    chunks = _chunks(vectors, step, as_base64, orjson.dumps(tail))
    if count > step:
        return Response(headers, chunks)
    body = b"".join(chunks)
    return Response([*headers, (b"content-length", b"%d" % len(body))], (body,), len(body))


def _chunks(vectors: TextVectors, step: int, as_base64: bool, tail: bytes) -> Iterator[bytes]:
    yield b'{"object":"list","data":['
    write = _in_base64 if as_base64 else _as_numbers
    for begin, end in spans(len(vectors.counts), step):
        yield (b"," if begin else b"") + write(vectors.make(begin, end), begin)
    yield b"]," + tail[1:]


def _as_numbers(rows: NDArray[np.float32], first: int) -> bytes:
    buf, offsets = format_json(np.ascontiguousarray(rows))
    text, bounds = buf.tobytes(), enumerate(pairwise(offsets.tolist()), first)
    entry = b'{"object":"embedding","index":%d,"embedding":%b}'
    return b",".join([entry % (index, text[begin : end - 1]) for index, (begin, end) in bounds])


def _in_base64(rows: NDArray[np.float32], first: int) -> bytes:
    encoded = encode_base64(np.ascontiguousarray(rows, "<f4"))
    text, width = encoded.tobytes(), encoded.shape[1]
    entry = b'{"object":"embedding","index":%d,"embedding":"%b"}'
    return b",".join([entry % (first + i, text[i * width : (i + 1) * width]) for i in range(len(encoded))])
