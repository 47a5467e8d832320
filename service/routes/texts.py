"""Vectors of texts, by the tokenizer of a model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import BatchTooLarge, InvalidValue
from service.http.limits import Limits
from service.http.validation import kind
from service.models.model import Model
from service.routes.batch import MAX_POOLED, IdRange, Offsets, check_count, check_pooled
from service.routes.result import CHUNK
from smallfry.errors import InputError
from smallfry.offsets import offsets_of

#: Texts and their characters that are encoded on the event loop, which takes up to 5 ms; more are encoded in
#: a thread.
INLINE = 1 << 14
#: Characters that the thread encodes at a time, so that requests take turns; a longer text is not divided.
PIECE = 1 << 16


class TextVectors(NamedTuple):
    """The number of tokens of each text, int64 [n], and the vectors of texts from a first to a last."""

    counts: NDArray[np.int64]
    make: Callable[[int, int], NDArray[np.float32]]


class TextEncoder:
    """Encodes texts: few on the event loop, many in a thread outside the interpreter's lock.

    Vectors that are small in total are computed at once; of others only the tokens, and the vectors while
    they are sent.
    """

    def __init__(self, limits: Limits) -> None:
        self._most = limits.tokens
        self._thread = ThreadPoolExecutor(1, "texts")

    async def encode(self, model: Model, texts: list[str], name: str) -> TextVectors:
        """Encode texts; errors name the field and the position of a text.

        Raises
        ------
        InvalidValue
            A text holds a lone surrogate.
        BatchTooLarge
            The texts have too many tokens, or one that is too many for a vector.
        """
        encoder, at_once = model.store.encoder(), 4 * len(texts) * model.store.dim <= CHUNK
        size = len(texts) + sum(map(len, texts))

        def encode(texts: list[str]) -> tuple[NDArray[Any], NDArray[np.int64]]:
            if at_once:
                return encoder.encode_counts(texts, threads=1)
            ids, offsets = encoder.token_ids(texts)
            return ids, np.diff(offsets)

        parts, tokens = [], 0
        try:
            for begin, end in _pieces(texts):
                if size <= INLINE and size * model.store.dim <= MAX_POOLED:
                    part = encode(texts)
                else:
                    loop = asyncio.get_running_loop()
                    part = await loop.run_in_executor(self._thread, encode, texts[begin:end])
                tokens += int(part[1].sum())
                if tokens > self._most:
                    raise BatchTooLarge(
                        f"{name} holds more than {self._most} tokens, the most that this server takes at "
                        "once (--max-batch-tokens): send fewer or shorter texts",
                        param=name,
                    )
                parts.append(part)
        except InputError:
            _check_surrogates(texts, name)
            raise
        values, counts = parts[0] if len(parts) == 1 else map(np.concatenate, zip(*parts, strict=True))
        if at_once:
            return TextVectors(counts, lambda begin, end: values[begin:end])
        return pooled(model, values, offsets_of(counts), name)


def pooled(model: Model, ids: NDArray[np.int64], offsets: Offsets, name: str) -> TextVectors:
    """Return the vectors of texts whose token ids are known.

    Raises
    ------
    BatchTooLarge
        A text has too many tokens for a vector.
    """
    check_pooled(offsets, model, name)
    encoder = model.store.encoder()

    def make(begin: int, end: int) -> NDArray[np.float32]:
        bounds = offsets[begin : end + 1]
        return encoder.pool(ids[bounds[0] : bounds[-1]], bounds - bounds[0], threads=1)

    return TextVectors(np.diff(offsets), make)


def check_texts(texts: list[Any], name: str, most: int) -> None:
    """Raise unless all texts are strings, and there are at most `most`."""
    check_count(len(texts), name, most, "texts")
    if not set(map(type, texts)) <= {str}:
        position = next(i for i, text in enumerate(texts) if type(text) is not str)
        raise InvalidValue(f"{name}[{position}] is {kind(texts[position])}; a text is a string", param=name)


def token_range(model: Model) -> IdRange:
    """Return the token ids of a model."""
    return IdRange("token id", f"token ids of {model.name!r}", model.store.encoder().tokens)


def _pieces(texts: list[str]) -> Iterator[tuple[int, int]]:
    """Divide texts into parts of about `PIECE` characters; there is at least one."""
    begin = size = 0
    for end, text in enumerate(texts):
        size += len(text)
        if size > PIECE and end > begin:
            yield begin, end
            begin, size = end, len(text)
    yield begin, len(texts)


def _check_surrogates(texts: list[str], name: str) -> None:
    for position, text in enumerate(texts):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidValue(
                f"{name}[{position}] has a lone surrogate at character {error.start}, which is not Unicode: "
                "replace it with U+FFFD",
                param=name,
            ) from None
