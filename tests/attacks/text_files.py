"""Crafted ``.sfq`` files of text models: tables of tokenizers that lead outside, in circles or nowhere."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from smallfry.errors import (
    CodeError,
    DtypeError,
    MetadataError,
    MissingTensorError,
    ShapeError,
    TokenizerError,
)
from smallfry.text.merges import build_merge_index
from smallfry.text.model import CODE_POINT_BLOCKS, Pooling
from tests.attacks.crafting import LARGE, accepted, rejected_by_encoder, rejected_by_open, rejected_by_verify
from tests.helpers.crafted_files import MODELS, Crafted, settings_array

Step = dict[str, Any]

CHARACTERS: Step = {"type": "characters"}
CHARSMAP: Step = {"type": "charsmap"}
DOUBLING: Step = {"type": "replace", "pattern": "a", "content": "aa"}
#: A trie in which every byte leads back to the same node, where a key ends.
CIRCLE = np.array([1 << 10, *[0x61 | 256 | (0x60 ^ 0x61) << 10] * 255], np.uint32)
#: A trie whose nodes and leaves are far beyond its end.
OUTSIDE = np.array([0x1FFFFF << 10 | 512, *[97 | 256 | 0x1FFFFF << 10] * 767], np.uint32)


def with_text(model: str, /, *normalizer: Step, **arrays: np.ndarray) -> bytes:
    """Return a valid file of a text model, with some arrays replaced or added."""
    crafted = Crafted.text(model, normalizer=[*normalizer])
    crafted.add(**arrays)
    return crafted.raw()


def with_settings(model: str, /, **settings: object) -> bytes:
    """Return a valid file of a text model with other settings of its tokenizer."""
    return with_text(model, tokenizer=settings_array({"model": MODELS[model]} | settings))


def with_merges(*merges: tuple[int, int, int]) -> bytes:
    """Return a file of byte pair encoding with other merges, which its index finds."""
    table = np.array(merges, np.uint32)
    return with_text("bpe", token_merges=table, merge_index=build_merge_index(table))


def with_pooling(**fields: object) -> bytes:
    """Return a file of a text model with other pooling."""
    crafted = Crafted.text("wordpiece")
    crafted.metadata["pooling"] = json.dumps(json.loads(Pooling(4).serialize()) | fields)
    return crafted.raw()


def without(model: str, *names: str) -> bytes:
    """Return a file of a text model without some of its tensors."""
    crafted = Crafted.text(model)
    for name in names:
        del crafted.arrays[name]
    return crafted.raw()


@accepted
def honest_wordpiece() -> bytes:
    """A valid model, so that the rest of this file attacks what it means to."""
    return with_text("wordpiece", CHARACTERS)


@accepted
def honest_unigram() -> bytes:
    """A valid model with weights and rows."""
    rows, weights = np.array([3, 2, 1, 0], np.uint32), np.ones(4, np.float32)
    return with_text("unigram", token_rows=rows, token_weights=weights)


@accepted
def honest_bpe() -> bytes:
    """A valid model with merges."""
    return with_text("bpe")


# Scores, weights and rows.


@rejected_by_verify(CodeError)
def scores_of_nan() -> bytes:
    """Scores of NaN and infinity, which no path is better than, or every one."""
    return with_text("unigram", token_scores=np.array([np.nan, np.inf, -np.inf, 0], np.float64))


@accepted
def scores_that_overflow() -> bytes:
    """Scores whose sums are infinite, and whose differences are NaN."""
    return with_text("unigram", token_scores=np.array([1.7e308, -1.7e308, 1.7e308, -1.7e308], np.float64))


@rejected_by_open(ShapeError)
def scores_that_are_missing() -> bytes:
    """Three scores of four tokens."""
    return with_text("unigram", token_scores=np.zeros(3, np.float64))


@rejected_by_open(DtypeError)
def scores_of_half_the_width() -> bytes:
    """Scores in float32, in which the array is half as long."""
    return with_text("unigram", token_scores=np.zeros(4, np.float32))


@rejected_by_verify(CodeError)
def weights_of_nan() -> bytes:
    """Weights of NaN and infinity."""
    return with_text("wordpiece", token_weights=np.array([np.nan, np.inf, -np.inf, 1], np.float32))


@rejected_by_verify(TokenizerError)
def rows_outside() -> bytes:
    """Tokens have rows beyond the end of the table."""
    return with_text("wordpiece", token_rows=np.array([4, 2**32 - 1, 1 << 31, 0], np.uint32))


@rejected_by_open(TokenizerError)
def more_tokens_than_rows() -> bytes:
    """2**31 tokens are declared, for 4 rows."""
    return with_pooling(tokens=1 << 31)


@rejected_by_open(MetadataError)
def pooling_of_nothing() -> bytes:
    """A text is cut to no tokens at all."""
    return with_pooling(max_tokens=0)


# Merges and their index.


@rejected_by_verify(TokenizerError)
def merges_that_make_other_tokens() -> bytes:
    """Merges make tokens beyond the last one."""
    return with_merges((0, 1, 2**32 - 1), (1, 0, 4))


@accepted
def merges_in_a_circle() -> bytes:
    """Merges make their own parts."""
    return with_merges((0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (2, 2, 2))


@rejected_by_verify(TokenizerError)
def merge_index_of_wrong_ranks() -> bytes:
    """Every slot leads to another merge, and none is empty."""
    return with_text("bpe", merge_index=np.full(1 << 12, 2, np.uint32))


@rejected_by_verify(TokenizerError)
def merge_index_that_points_outside() -> bytes:
    """Every slot leads beyond the merges."""
    return with_text("bpe", merge_index=np.full(1 << 12, 2**32 - 1, np.uint32))


@rejected_by_encoder(TokenizerError)
def merge_index_without_slots() -> bytes:
    """An index of no slots."""
    return with_text("bpe", merge_index=np.zeros(0, np.uint32))


@rejected_by_encoder(TokenizerError)
def merge_index_of_three_slots() -> bytes:
    """An index whose size is not a power of two."""
    return with_text("bpe", merge_index=np.ones(3, np.uint32))


@rejected_by_open(MissingTensorError)
def merges_without_an_index() -> bytes:
    """Merges that nothing leads to."""
    return without("bpe", "merge_index")


@rejected_by_encoder(TokenizerError)
def bpe_without_merges() -> bytes:
    """A model of merges without any."""
    return without("bpe", "token_merges", "merge_index")


# Tries.


@accepted
def trie_in_a_circle() -> bytes:
    """Every byte leads back to the same node, so that a walk ends only with the text."""
    return with_text("wordpiece", token_trie=CIRCLE)


@accepted
def unigram_trie_in_a_circle() -> bytes:
    """The same, for a model that tries every prefix of the rest of a text."""
    return with_text("unigram", token_trie=CIRCLE)


@accepted
def trie_that_points_outside() -> bytes:
    """Nodes and leaves are beyond the end."""
    return with_text("bpe", token_trie=OUTSIDE)


@accepted
def trie_of_nothing() -> bytes:
    """A trie without a root."""
    return with_text("unigram", token_trie=np.zeros(0, np.uint32))


@rejected_by_verify(TokenizerError)
def trie_of_other_tokens() -> bytes:
    """Values are beyond the last token."""
    crafted = Crafted.text("unigram")
    trie = crafted.arrays["token_trie"]
    crafted.add(token_trie=np.where(trie >> 31, 0xFFFFFFFF, trie).astype(np.uint32))
    return crafted.raw()


# Characters and replacements.


@rejected_by_verify(TokenizerError)
def blocks_outside() -> bytes:
    """Every block of characters is beyond the end."""
    blocks = np.full(CODE_POINT_BLOCKS, 65535, np.uint16)
    return with_text("wordpiece", CHARACTERS, character_blocks=blocks)


@rejected_by_verify(TokenizerError)
def characters_that_are_missing() -> bytes:
    """A block of 97 characters, without the letters."""
    return with_text("bpe", CHARACTERS, characters=np.zeros(97, np.uint32))


@rejected_by_verify(TokenizerError)
def replacements_outside() -> bytes:
    """Every character is replaced by bytes beyond the end."""
    characters = np.full(256, 2**32 - 1, np.uint32)
    return with_text("wordpiece", CHARACTERS, characters=characters)


@rejected_by_encoder(TokenizerError)
def replacement_that_is_too_long() -> bytes:
    """A replacement declares more bytes than follow."""
    text = np.array([255, 97], np.uint8)
    characters = np.full(256, 1 << 12, np.uint32)
    return with_text("wordpiece", CHARACTERS, characters=characters, character_text=text)


@rejected_by_verify(TokenizerError)
def replacement_that_is_not_unicode() -> bytes:
    """Every character becomes the start of one of four bytes."""
    text, characters = np.array([1, 0xF7], np.uint8), np.full(256, 1 << 12 | 0xFFF, np.uint32)
    return with_text("unigram", CHARACTERS, characters=characters, character_text=text)


@accepted
def characters_of_all_classes() -> bytes:
    """Every character is white space, a letter and a number, punctuation, and joins its neighbors."""
    steps = ("bert", "whitespace", "whitespace_split", "punctuation")
    pre_tokenizer = [{"type": step} for step in steps] * 4
    crafted = Crafted.text("bpe", normalizer=[CHARACTERS], pre_tokenizer=pre_tokenizer)
    crafted.add(characters=np.full(256, 0xFFF, np.uint32))
    return crafted.raw()


@accepted
def charsmap_in_a_circle() -> bytes:
    """A normalizer in which every byte leads back to the same node."""
    return with_text("unigram", CHARSMAP, charsmap=CIRCLE, charsmap_text=np.zeros(1 << 20, np.uint8))


@rejected_by_encoder(TokenizerError)
def charsmap_that_points_outside() -> bytes:
    """Replacements are beyond the end."""
    trie = Crafted.text("bpe").arrays["token_trie"]
    values = np.where(trie >> 31, 0xFFFFFFFF, trie).astype(np.uint32)
    return with_text("bpe", CHARSMAP, charsmap=values, charsmap_text=np.zeros(1, np.uint8))


@accepted
def charsmap_that_does_not_end() -> bytes:
    """Each letter is replaced by 4 MiB without a NUL."""
    trie, text = Crafted.text("bpe").arrays["token_trie"], np.full(LARGE, 97, np.uint8)
    return with_text("bpe", CHARSMAP, charsmap=trie, charsmap_text=text)


# Settings.


@rejected_by_encoder(TokenizerError)
def settings_of_nested_lists() -> bytes:
    """The JSON nests lists deeper than Python's recursion limit."""
    return with_text("wordpiece", tokenizer=np.frombuffer(b"[" * 50_000, np.uint8))


@rejected_by_encoder(TokenizerError)
def settings_of_17_mib() -> bytes:
    """The JSON is longer than any tokenizer needs."""
    return with_text("wordpiece", tokenizer=np.full(17 << 20, ord(" "), np.uint8))


@rejected_by_encoder(TokenizerError)
def settings_with_an_unknown_step() -> bytes:
    """A normalizer that runs a program."""
    return with_settings("wordpiece", normalizer=[{"type": "system", "content": "touch owned"}])


@rejected_by_encoder(TokenizerError)
def settings_with_a_token_outside() -> bytes:
    """The unknown token is beyond the last one."""
    return with_settings("wordpiece", model=MODELS["wordpiece"] | {"unknown": 4})


@rejected_by_encoder(TokenizerError)
def normalizers_that_multiply_a_text() -> bytes:
    """Fifteen steps, each of which makes a text twice as long."""
    return with_settings("wordpiece", normalizer=[DOUBLING] * 15)


@rejected_by_encoder(TokenizerError)
def bytes_mapped_sixteen_times() -> bytes:
    """Sixteen pre-tokenizers, each of which makes two bytes of one."""
    step = {"type": "byte_level", "prefix_space": True, "pattern": None}
    return with_settings("bpe", pre_tokenizer=[step] * 16)


@rejected_by_encoder(TokenizerError)
def lone_surrogate_in_the_settings() -> bytes:
    """A normalizer writes a lone surrogate, which is not Unicode."""
    return with_settings("wordpiece", normalizer=[{"type": "prepend", "content": "\ud800"}])


@accepted
def added_tokens_of_one_letter() -> bytes:
    """10,000 added tokens of up to 1,000 letters, all prefixes of each other or nearly."""
    flags = {"single_word": True, "lstrip": True, "rstrip": True, "normalized": False}
    contents = ["a" * length + end for length in range(1, 1000) for end in ("", *"bcdefghij")]
    return with_settings("wordpiece", added=[{"id": 0, "content": content, **flags} for content in contents])
