"""Word lists in JSON: vocab.json, tokenizer.json, and arrays."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from smallfry.errors import InputError
from smallfry.readers.input.stream import BYTE_ORDER_MARK, InputStream
from smallfry.readers.records import BLOCK_BYTES, pack
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
    """Return the words of a JSON file, one for each of `rows` rows, and what the file is.

    Rows without a word get an empty one.

    Raises
    ------
    InputError
        The file is not JSON, or not a list of words; or an id is not that of a row, or occurs twice.
    """
    words, kind = _words(stream.name, _parse(stream), rows)
    missing = sum(word is None for word in words)
    if words and missing == len(words):
        raise InputError(f"{stream.name} is JSON without words, expected one for each row.")
    if missing:
        kind += f", {missing:,} rows without a word"
    return pack([b"" if word is None else word.encode("utf-8", "surrogatepass") for word in words]), kind


def _parse(stream: InputStream) -> Any:  # noqa: ANN401 - any JSON value
    data = bytearray()
    while block := stream.read(BLOCK_BYTES):
        data += block
        if len(data) > MAX_JSON:
            raise InputError(
                f"{stream.name} has more than {MAX_JSON:,} bytes of JSON. Please give one word a line."
            )
    try:
        return json.loads(data.removeprefix(BYTE_ORDER_MARK), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{stream.name} begins like JSON, but cannot be parsed: {str(error)[:100]}. Please correct it, "
            "or give one word a line."
        ) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys: set[str] = set()
        twice = next(key for key, _ in pairs if key in keys or keys.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:50]!r} occurs twice")
    return found


def _words(name: str, content: Any, rows: int | None) -> tuple[list[str | None], str]:  # noqa: ANN401
    if isinstance(content, list):
        return list(_array(name, content)), "JSON array"
    if isinstance(content.get("model"), dict) and "vocab" in content["model"]:
        return _tokenizer(name, content, rows), "tokenizer"
    if _are_ids(content.values()):
        return _place(name, content.items(), rows), "JSON object of ids"
    if all(map(_INTEGER.fullmatch, content)) and all(isinstance(word, str) for word in content.values()):
        return _place(name, ((word, int(key)) for key, word in content.items()), rows), "JSON object by id"
    shown = ", ".join(repr(key[:30]) for key in list(content)[:4])
    raise InputError(
        f"{name} is a JSON object of {len(content):,} keys ({shown}), expected row numbers of words, as in "
        "vocab.json, or a tokenizer.json. Please give one of these, or one word a line."
    )


def _are_ids(values: Iterable[Any]) -> bool:
    return all(type(value) is int for value in values)


def _array(name: str, items: list[Any]) -> Iterable[str]:
    for position, item in enumerate(items):
        word = item[0] if isinstance(item, list) and len(item) == 2 and not isinstance(item[1], str) else item
        if not isinstance(word, str):
            raise InputError(
                f"{name}, item {position}: {json.dumps(item)[:60]}, expected a string or [string, score]."
            )
        yield word


def _tokenizer(name: str, content: dict[str, Any], rows: int | None) -> list[str | None]:
    """Return the tokens of a Hugging Face tokenizer by id, added tokens included."""
    vocab = content["model"]["vocab"]
    if isinstance(vocab, list):
        ids = list(zip(_array(name, vocab), range(len(vocab)), strict=True))
    elif isinstance(vocab, dict) and _are_ids(vocab.values()):
        ids = list(vocab.items())
    else:
        raise InputError(f"{name} has a model.vocab that is neither ids of tokens nor tokens with scores.")
    known = set(ids)
    for token in content.get("added_tokens") or ():
        if not (
            isinstance(token, dict) and type(token.get("id")) is int and type(token.get("content")) is str
        ):
            raise InputError(
                f"{name} has an added token {json.dumps(token)[:60]}, expected 'id' and 'content'."
            )
        if (token["content"], token["id"]) not in known:
            ids.append((token["content"], token["id"]))
    return _place(name, ids, rows)


def _place(name: str, ids: Iterable[tuple[str, int]], rows: int | None) -> list[str | None]:
    """Return the word of each row."""
    ids = list(ids)
    count = len(ids) if rows is None else rows
    words: list[str | None] = [None] * count
    for word, row in ids:
        if not 0 <= row < count:
            raise InputError(
                f"{name} has {row} for {word[:50]!r}, expected the number of one of {count:,} rows, "
                "from 0 on. Please give the words of this matrix."
            )
        if (other := words[row]) is not None:
            raise InputError(f"{name} has id {row} twice, for {other[:50]!r} and {word[:50]!r}.")
        words[row] = word
    return words
