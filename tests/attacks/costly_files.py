"""Crafted ``.sfq`` files that cost much to open, verify or use, most of them valid."""

from __future__ import annotations

import json

import numpy as np

from smallfry.errors import CodeError, DigestError, HeaderSyntaxError, MetadataError, TokenTableError
from smallfry.kernels.numpy.tokens import hash_tokens
from tests.attacks.crafting import (
    LARGE,
    WRONG_DIGEST,
    accepted,
    packed,
    rejected_by_open,
    rejected_by_verify,
    with_arrays,
    with_metadata,
    with_rows,
)
from tests.helpers.crafted_files import Crafted


@rejected_by_verify(TokenTableError)
def index_of_one_endless_chain() -> bytes:
    """The index has no empty slot: each of the 64 steps of a lookup compares two tokens of 16 KB."""
    length = 1 << 14
    tokens = np.full(4 * length, ord("a"), np.uint8)
    tokens[length - 1 :: length] = ord("b")
    hashed = int(hash_tokens(np.full(length, ord("a"), np.uint8), np.array([0, length]), 0)[0])
    slot = (hashed << 3 & 0xFFFFFFF8) | 1
    return with_arrays(
        token_offsets=np.arange(5, dtype=np.uint64) * np.uint64(length),
        token_index=np.full(1 << 12, slot, np.uint32),
        tokens=tokens,
    )


@rejected_by_verify(TokenTableError)
def token_offsets_that_overlap() -> bytes:
    """Every second token has the bytes of all tokens."""
    rows = LARGE // 16
    offsets = np.zeros(rows + 1, np.uint32)
    offsets[1::2] = offsets[-1] = LARGE // 2
    text = np.full(LARGE // 2, ord("a"), np.uint8)
    return with_rows(rows, packed(bytes(rows), rows), token_offsets=offsets, tokens=text)


@accepted
def tokens_of_megabytes() -> bytes:
    """Four tokens, which take four times as many bytes as strings."""
    return with_rows(4, [b"%d\xf0\x9f\x8d\x9f" % row + b"a" * (LARGE // 4) for row in range(4)])


@accepted
def tokens_of_control_characters() -> bytes:
    """Four tokens, which take six times as many bytes in JSON."""
    return with_rows(4, [b"%d" % row + b"\1" * (LARGE // 4) for row in range(4)])


@accepted
def unnamed_tokens_of_megabytes() -> bytes:
    """Four tokens that are not UTF-8, so each byte becomes U+FFFD."""
    return with_rows(4, packed(b"\xff" * LARGE, 4))


@accepted
def many_tokens_of_blanks() -> bytes:
    """Tokens of spaces, which exports look for."""
    return with_rows(LARGE >> 10, [b"%d" % row + b" " * 1023 for row in range(LARGE >> 10)])


@accepted
def one_token_in_every_row() -> bytes:
    """All rows have the same token, so all but the first are unnamed."""
    return with_rows(LARGE // 16, packed(b"a" * (LARGE // 16), LARGE // 16))


@accepted
def one_empty_token_in_every_row() -> bytes:
    """All rows have the empty token."""
    return with_rows(LARGE // 16, packed(b"", LARGE // 16))


@accepted
def zero_rows_of_the_whole_table() -> bytes:
    """All rows are zeros."""
    rows = LARGE // 16
    return with_rows(rows, packed(b"a" * rows, rows), zero_rows=np.arange(rows, dtype=np.uint32))


@accepted
def rows_of_65536_values() -> bytes:
    """The widest rows, which take 32 times as many bytes when they are decoded."""
    rows, dim = 64, 1 << 16
    crafted = Crafted()
    levels = np.array([-1.5, 1.5], np.float32)
    crafted.arrays |= {"codebook": levels, "codes": np.zeros((rows, dim // 8), np.uint8)}
    crafted.arrays = {name: crafted.arrays[name] for name in ("codebook", "zero_rows", "codes")}
    crafted.metadata |= {"rows": str(rows), "dim": str(dim), "nbit": "1"}
    return crafted.raw()


@rejected_by_open(MetadataError)
def row_of_10_million_values() -> bytes:
    """A row that takes 40 MB when it is decoded."""
    return with_metadata(dim="10000000", nbit="1")


@rejected_by_verify(CodeError)
def floats_that_are_not_finite() -> bytes:
    """A 32-bit table of NaN and infinity."""
    crafted = Crafted()
    crafted.arrays = {"codes": np.array([[np.nan] * 8, [np.inf, -np.inf] * 4, [3e38] * 8], np.float32)}
    crafted.metadata |= {"rows": "3", "dim": "8", "nbit": "32", "codebook_kind": "float"}
    return crafted.raw()


@rejected_by_open(CodeError)
def mean_of_nan() -> bytes:
    """A mean of NaN, which every row gets."""
    return with_rows(4, [b"a", b"b", b"c", b"d"], mean=np.full(5, np.nan, np.float32))


@accepted
def values_that_overflow() -> bytes:
    """Levels and a mean whose products and sums exceed float32."""
    crafted = Crafted()
    crafted.arrays = {
        "codebook": np.array([-3e38, -1e38, 1e38, 3e38], np.float32),
        "mean": np.full(5, 3e38, np.float32),
        "row_scale": np.array([65504, 65504, 6e-8, 0], np.float16),
        "codes": np.full((4, 2), [255, 3], np.uint8),
    }
    crafted.metadata |= {"codebook_kind": "exact", "clip": "3e38"}
    return crafted.raw()


@rejected_by_verify(DigestError)
def metadata_of_control_characters() -> bytes:
    """60 KB of characters that are escaped when they are printed."""
    crafted = Crafted()
    crafted.metadata |= {"created_by": "\x7f" * 30_000, "source": "\x7f" * 30_000} | WRONG_DIGEST
    return crafted.raw(json.dumps(crafted.header(), ensure_ascii=False).encode())


@rejected_by_verify(DigestError)
def metadata_of_many_names() -> bytes:
    """5,000 names."""
    return with_metadata(**{f"{name:x}": "" for name in range(5_000)}, **WRONG_DIGEST)


@rejected_by_open(HeaderSyntaxError)
def metadata_of_many_names_and_one_twice() -> bytes:
    """7,000 names, of which only the last occurs twice."""
    names = ",".join(f'"{name:x}":0' for name in (*range(7_000), 6_999))
    return Crafted().raw(b'{"__metadata__":{' + names.encode() + b"}}")
