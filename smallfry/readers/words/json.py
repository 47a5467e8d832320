"""Word lists in JSON: vocab.json, tokenizer.json, and arrays."""

from __future__ import annotations

import json
import re
from typing import Any

from smallfry.errors import InputError
from smallfry.readers.input.stream import BYTE_ORDER_MARK, InputStream
from smallfry.readers.records import pack
from smallfry.readers.words.list import NO_WORD
from smallfry.vocabulary import PackedTokens

MAX_JSON = 10**9
"""Longest word list in JSON, in bytes: it is parsed in memory."""

# Not a list of punctuation: a line of only a quote is no start of JSON.
_START = re.compile(rb'\s*(?:\{\s*"[^\n]|\[\s*(?:"[^\n]|[\[{]\s*"))')
_INTEGER = re.compile(r"[0-9]{1,18}")


def is_json(stream: InputStream) -> bool:
    """Return whether the stream begins as a JSON object, or as an array of strings or arrays."""
    return _START.match(stream.peek(1 << 10).removeprefix(BYTE_ORDER_MARK)) is not None


def read_json_words(stream: InputStream, rows: int | None) -> tuple[PackedTokens, str]:
    """Return the words of a JSON file, `NO_WORD` for rows without one, and what the file is.

    Raises
    ------
    InputError
        The file is not JSON, or not a list of words; or an id is not that of a row, or occurs twice.
    """
    content = _parse(stream)
    if isinstance(content, list):
        words, kind, rows = _array(stream.name, content), "JSON array", len(content)
    elif isinstance(content.get("model"), dict) and "vocab" in content["model"]:
        words, kind = _tokenizer(stream.name, content), "tokenizer"
    elif all(type(row) is int for row in content.values()):
        words, kind = [(row, word) for word, row in content.items()], "JSON object of ids"
    elif all(map(_INTEGER.fullmatch, content)) and all(isinstance(word, str) for word in content.values()):
        words, kind = [(int(row), word) for row, word in content.items()], "JSON object by id"
    else:
        keys = ", ".join(repr(key[:30]) for key in list(content)[:4])
        raise InputError(
            f"{stream.name} is a JSON object of {len(content):,} keys ({keys}), expected row numbers of "
            "words, as in vocab.json, or a tokenizer.json. Please give one of these, or one word a line."
        )
    return pack(_place(stream.name, words, len(words) if rows is None else rows)), kind


def _parse(stream: InputStream) -> Any:  # noqa: ANN401 - any JSON value
    data = stream.read(MAX_JSON + 1)
    if len(data) > MAX_JSON:
        raise InputError(
            f"{stream.name} has more than {MAX_JSON:,} bytes of JSON. Please give one word a line."
        )
    try:
        return json.loads(data.removeprefix(BYTE_ORDER_MARK))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{stream.name} begins like JSON, but cannot be parsed: {str(error)[:100]}. Please correct it, "
            "or give one word a line."
        ) from None


def _array(name: str, items: list[Any]) -> list[tuple[int, str]]:
    """Return the positions and words of strings or pairs ``[word, score]``."""
    words = []
    for position, item in enumerate(items):
        scored = isinstance(item, list) and len(item) == 2 and not isinstance(item[1], str)
        word = item[0] if scored else item
        if not isinstance(word, str):
            raise InputError(
                f"{name}, item {position}: {json.dumps(item)[:60]}, expected a string or [string, score]."
            )
        words.append((position, word))
    return words


def _tokenizer(name: str, content: dict[str, Any]) -> list[tuple[int, str]]:
    """Return the ids and tokens of a Hugging Face tokenizer, with its added tokens."""
    vocab = content["model"]["vocab"]
    try:
        ids = _array(name, vocab) if isinstance(vocab, list) else [(id, token) for token, id in vocab.items()]
        ids += [(token["id"], token["content"]) for token in content.get("added_tokens") or ()]
        return list(dict.fromkeys(ids))
    except (AttributeError, KeyError, TypeError):
        raise InputError(
            f"{name} is a tokenizer, but its model.vocab or added_tokens lack ids of tokens. "
            "Please give one word a line."
        ) from None


def _place(name: str, words: list[tuple[int, str]], rows: int) -> list[bytes]:
    """Return the word of each row."""
    placed = [NO_WORD] * rows
    for row, word in words:
        if type(row) is not int or type(word) is not str or not 0 <= row < rows:
            raise InputError(
                f"{name} has {str(row)[:50]} for {str(word)[:50]!r}, expected the number of one of {rows:,} "
                "rows, from 0 on. Please give the words of this matrix."
            )
        if placed[row] != NO_WORD:
            other = placed[row].decode(errors="replace")
            raise InputError(f"{name} has id {row} twice, for {other[:50]!r} and {word[:50]!r}.")
        placed[row] = word.encode(errors="surrogatepass")
    return placed
