"""A ``tokenizer.json`` to the tensors of a text model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smallfry import kernels
from smallfry.errors import InputError, shorten
from smallfry.text import settings
from smallfry.text.characters import character_table
from smallfry.text.merges import build_merge_index, read_merges
from smallfry.text.model import TextTensors
from smallfry.text.steps import check_charsmaps, normalizer_steps, parse_charsmap, pre_tokenizer_steps

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.normalizers import Normalizer

_LOW_MARK, _HIGH_MARK = "\u0334", "\u0345"
"""Combining marks that sort first and last."""

_MOST_ADDED = 100_000


class ConvertedTokenizer(NamedTuple):
    """The tokenizer of a model, without the rows and weights of its tokens."""

    tensors: TextTensors
    tokens: list[str]
    """In the order of their ids."""
    unknown: int | None
    """The token of unknown text, which model2vec leaves out of a mean."""
    max_length: int | None
    """Tokens at which a text is truncated."""

    @property
    def median_length(self) -> int:
        """The median length of the tokens in characters, as model2vec computes it."""
        return int(np.median([len(token) for token in self.tokens]))


def convert(data: bytes) -> ConvertedTokenizer:
    """Return the tensors of a tokenizer in the format of the ``tokenizers`` package.

    Parameters
    ----------
    data : bytes
        A ``tokenizer.json``.

    Raises
    ------
    InputError
        ``tokenizers`` is not installed, the JSON is not a tokenizer, or it has a part that is not
        reproduced exactly; the message names it.
    """
    raw, tokenizer = _load(data)
    content = json.loads(tokenizer.to_str())
    model, added = content["model"], content["added_tokens"]
    kind = model["type"]
    if kind not in _MODELS:
        raise InputError(f"the model {kind!r} is not supported, expected one of {', '.join(_MODELS)}.")
    vocabulary = _vocabulary(raw["model"]["vocab"])
    tokens = _all_tokens(vocabulary, added)
    ids = {token: i for i, token in enumerate(vocabulary)}
    steps, by_character, charsmap = normalizer_steps(content["normalizer"])
    pre_tokenizer = pre_tokenizer_steps(content["pre_tokenizer"])
    if kind != "BPE" and any(step["type"] == "byte_level" for step in pre_tokenizer):
        raise InputError(f"the pre-tokenizer 'ByteLevel' is not supported with the model {kind!r}.")
    model_settings, model_tensors = _MODELS[kind](model, ids, len(tokens))
    normalizer = _compose(by_character)
    table = character_table(normalizer)
    if normalizer is not None:
        patterns = [step["pattern"] for step in steps if "pattern" in step]
        # Bytes of any character can be tokens, and a charsmap can map any: as if there were one of each.
        marks = [_HIGH_MARK, "\u302e"] if kind == "BPE" or charsmap is not None else []
        _check_order(by_character, normalizer, [*tokens, *patterns, *marks])
    if charsmap is not None:
        units, text = parse_charsmap(charsmap)
        model_tensors |= {"charsmap": units, "charsmap_text": text}
    added_settings = _added_settings(added, tokenizer.normalizer)
    if any(step.get("prepend") == "first" for step in pre_tokenizer):
        if any(map(_decomposes, by_character)):
            raise InputError(
                "the pre-tokenizer 'Metaspace' with prepend_scheme='first' is not supported after a "
                "normalizer that decomposes characters."
            )
        _check_first(steps, added_settings, [*table.replacements(), *(charsmap or b"").split(b"\0")])
    tensors = TextTensors(
        tokenizer=settings.serialize(
            {
                "model": model_settings,
                "normalizer": steps,
                "pre_tokenizer": pre_tokenizer,
                "added": added_settings,
            }
        ),
        token_trie=_trie(vocabulary),
        character_blocks=table.blocks,
        characters=table.entries,
        character_text=table.text,
        **model_tensors,
    )
    unknown = model["unk_id"] if kind == "Unigram" else ids.get(model["unk_token"])
    return ConvertedTokenizer(tensors, tokens, unknown, _max_length(content["truncation"]))


def _load(data: bytes) -> tuple[dict[str, Any], Tokenizer]:
    """Return a tokenizer, and the JSON that it is from."""
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise InputError(
            "text models need the tokenizers package to be compressed. "
            "Install it with `pip install smallfry[text]`."
        ) from None
    try:
        text = data.decode("utf-8")
        raw = json.loads(text)
        check_charsmaps(raw.get("normalizer"))  # tokenizers would panic
        return raw, Tokenizer.from_str(text)
    except InputError:
        raise
    except Exception as error:  # tokenizers raises bare exceptions
        raise InputError(f"tokenizer.json is not a tokenizer: {str(error) or type(error).__name__}") from None


def _vocabulary(vocabulary: Mapping[str, int] | Sequence[tuple[str, float]]) -> list[str]:
    """Return the tokens of the model in the order of their ids."""
    if isinstance(vocabulary, Mapping):
        tokens = sorted(vocabulary, key=vocabulary.__getitem__)
        for expected, token in enumerate(tokens):
            if vocabulary[token] != expected:
                raise InputError(
                    f"token {shorten(token)} has the id {vocabulary[token]}, expected {expected}: "
                    "the ids of a vocabulary must have no holes and no duplicates."
                )
    else:
        tokens = [token for token, _ in vocabulary]
    seen = set()
    for i, token in enumerate(tokens):
        if "\0" in token:
            raise InputError(f"token {i} is {shorten(token)}: tokens with NUL are not supported.")
        if token in seen:
            raise InputError(f"token {i} is {shorten(token)}, which occurs twice in the vocabulary.")
        seen.add(token)
    return tokens


def _all_tokens(vocabulary: list[str], added: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the tokens of the model and those added after them."""
    if len(added) > _MOST_ADDED:
        raise InputError(f"the tokenizer has {len(added):,} added tokens, expected at most {_MOST_ADDED:,}.")
    tokens = list(vocabulary)
    for token in added:  # by id
        if token["id"] > len(tokens):
            raise InputError(
                f"the added token {shorten(token['content'])} has the id {token['id']}, "
                f"expected at most {len(tokens)}: ids must have no holes."
            )
        if token["id"] == len(tokens):
            tokens.append(token["content"])
    return tokens


def _trie(vocabulary: list[str]) -> NDArray[np.uint32]:
    keys = [(token.encode(), i) for i, token in enumerate(vocabulary) if token]  # an empty one never occurs
    offsets = np.cumsum([0, *(len(key) for key, _ in keys)], dtype=np.uint64)
    values = np.array([i for _, i in keys], np.uint32)
    units: NDArray[np.uint32] = kernels.build_trie(b"".join(key for key, _ in keys), offsets, values)
    return units


_Model = tuple[dict[str, Any], dict[str, Any]]


def _wordpiece(model: Mapping[str, Any], ids: Mapping[str, int], tokens: int) -> _Model:
    most = model["max_input_chars_per_word"]
    if not 1 <= most <= settings.MAX_WORD:
        raise InputError(f"max_input_chars_per_word is {most:,}, expected 1 to {settings.MAX_WORD:,}.")
    return {
        "type": "wordpiece",
        "unknown": _unknown(model, ids),
        "prefix": model["continuing_subword_prefix"],
        "max_characters": most,
    }, {}


def _unigram(model: Mapping[str, Any], ids: Mapping[str, int], tokens: int) -> _Model:
    if model["unk_id"] is None:
        raise InputError("unk_id of the model 'Unigram' is null, expected the id of a token.")
    scores = np.array([score for _, score in model["vocab"]], np.float64)
    # Tokens added after those of the model are not found in texts by their score, which is any but the least.
    scores = np.pad(scores, (0, tokens - len(scores)), constant_values=scores.max())
    return {
        "type": "unigram",
        "unknown": model["unk_id"],
        "byte_fallback": model["byte_fallback"],
    }, {"token_scores": scores}


def _bpe(model: Mapping[str, Any], ids: Mapping[str, int], tokens: int) -> _Model:
    for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model[option]:
            raise InputError(f"{option}={model[option]!r} of the model 'BPE' is not supported.")
    merges = read_merges(model["merges"], ids)
    return {
        "type": "bpe",
        "unknown": None if model["unk_token"] is None else _unknown(model, ids),
        "fuse_unknown": model["fuse_unk"],
        "byte_fallback": model["byte_fallback"],
        "ignore_merges": model["ignore_merges"],
    }, {"token_merges": merges, "merge_index": build_merge_index(merges)}


_MODELS = {"WordPiece": _wordpiece, "Unigram": _unigram, "BPE": _bpe}


def _unknown(model: Mapping[str, Any], ids: Mapping[str, int]) -> int:
    token = model["unk_token"]
    if token not in ids:
        raise InputError(f"unk_token {shorten(token)} is not in the vocabulary of the model.")
    return ids[token]


def _compose(by_character: Sequence[Mapping[str, Any]]) -> Normalizer | None:
    """Return the normalizers of the step ``characters`` as one."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    if not by_character:
        return None
    content = json.loads(Tokenizer(WordLevel({"": 0}, "")).to_str())
    content["normalizer"] = {"type": "Sequence", "normalizers": by_character}
    normalizer: Normalizer = Tokenizer.from_str(json.dumps(content)).normalizer
    return normalizer


def _check_order(
    by_character: Sequence[Mapping[str, Any]], normalizer: Normalizer, known: Iterable[str]
) -> None:
    """Check that the order of combining marks does not matter.

    A decomposition sorts the marks that follow a letter, which a table of code points cannot. Ids are equal
    nevertheless if the normalizer removes the marks that occur in tokens: those that remain are unknown.
    """
    from tokenizers.normalizers import NFD

    if not any(map(_decomposes, by_character)):
        return
    decompose = NFD().normalize_str
    for character in sorted({*"".join(known)}):
        if character.isascii() or decompose(character) != character:
            continue
        last, first = _HIGH_MARK + character, character + _LOW_MARK
        if (decompose(last) != last or decompose(first) != first) and normalizer.normalize_str(character):
            raise InputError(
                f"the normalizer sorts combining marks, and tokens hold U+{ord(character):04X}, "
                "which it does not remove: this is not supported."
            )


def _decomposes(part: Mapping[str, Any]) -> bool:
    if part["type"] == "BertNormalizer":
        return bool(part["lowercase"] if part["strip_accents"] is None else part["strip_accents"])
    return part["type"] in ("NFD", "NFKD")


def _added_settings(
    added: Sequence[Mapping[str, Any]], normalizer: Normalizer | None
) -> list[dict[str, Any]]:
    tokens: dict[tuple[str, bool], dict[str, Any]] = {}
    for token in added:
        content, normalized = token["content"], token["normalized"]
        if normalized and normalizer is not None:
            content = normalizer.normalize_str(content)
        if not content or (content, normalized) in tokens:
            raise InputError(
                f"the added token {shorten(token['content'])} is {shorten(content)} after normalization, "
                "which is empty or that of another."
            )
        flags = {name: token[name] for name in ("single_word", "lstrip", "rstrip", "normalized")}
        tokens[content, normalized] = {"id": token["id"], "content": content, **flags}
    return list(tokens.values())


def _check_first(
    normalizer: Sequence[Mapping[str, Any]], added: Sequence[Mapping[str, Any]], replacements: Sequence[bytes]
) -> None:
    """Check that the start of a normalized text is where the text starts.

    `Metaspace` compares the origin of a piece. Normalizers that change the start leave a text without one;
    and after an added token inside of what replaces the first character, there is another of the same origin.
    """
    for step in normalizer:
        if step["type"] in ("prepend", "replace") or step.get("left"):
            raise InputError(
                "the pre-tokenizer 'Metaspace' with prepend_scheme='first' is not supported after the "
                f"normalizer {step['type'].title()!r}, which can change the start of a text."
            )
    for token in added:
        content = token["content"].encode()
        if token["normalized"] and any(content in by and content != by for by in replacements):
            raise InputError(
                "the pre-tokenizer 'Metaspace' with prepend_scheme='first' is not supported with the added "
                f"token {shorten(token['content'])}, which the normalizer makes of a part of a character."
            )


def _max_length(truncation: Mapping[str, Any] | None) -> int | None:
    if truncation is None:
        return None
    supported = {"direction": ("Right",), "strategy": ("LongestFirst", "OnlyFirst")}
    for option, values in supported.items():
        if truncation[option] not in values:
            raise InputError(
                f"truncation with {option}={truncation[option]!r} is not supported, expected "
                f"{' or '.join(map(repr, values))}."
            )
    if truncation["max_length"] < 1:
        raise InputError("truncation has max_length=0, so that no text has tokens. Please remove it.")
    return int(truncation["max_length"])
