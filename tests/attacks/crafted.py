"""Crafted ``.sfq`` files, each of which breaks one rule of the format, or costs much to use.

The name of a function is the name of its file, the docstring says what is wrong with it, and the decorator
names the error that rejects it: when it is opened, only by `smallfry.sfq.verify`, or not at all.

Write all of them, or those named, to try on another reader:

    python -m tests.attacks.crafted FOLDER [NAME ...]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from smallfry.errors import (
    AlignmentError,
    BitWidthError,
    CodebookError,
    CodeError,
    DigestError,
    DtypeError,
    HeaderSizeError,
    HeaderSyntaxError,
    LayoutError,
    MetadataError,
    NewerVersionError,
    NotSfqError,
    OffsetError,
    SfqError,
    ShapeError,
    TokenTableError,
    TruncatedError,
    ZeroRowsError,
)
from smallfry.kernels.numpy.tokens import hash_tokens
from smallfry.vocabulary import PackedTokens, Vocabulary
from tests.helpers.crafted_files import Crafted

Build = Callable[[], bytes]
Error = type[SfqError]


@dataclass(frozen=True)
class CraftedFile:
    """One crafted file.

    Attributes
    ----------
    build : callable
        Returns the bytes.
    open_error : type of SfqError or None
        Raised wherever the file is opened; None if only `smallfry.sfq.verify` rejects it.
    verify_error : type of SfqError or None
        Raised by `smallfry.sfq.verify`; None for a valid file that costs much to use.
    """

    build: Build
    open_error: Error | None
    verify_error: Error | None

    @property
    def name(self) -> str:
        """The file's name, without suffix."""
        return self.build.__name__


FILES: dict[str, CraftedFile] = {}


def rejected_by_open(error: Error) -> Callable[[Build], Build]:
    """Register a file that no reader of the format accepts."""
    return lambda build: register(build, error, error)


def rejected_by_verify(error: Error) -> Callable[[Build], Build]:
    """Register a file that opens, and that `smallfry.sfq.verify` rejects."""
    return lambda build: register(build, None, error)


def accepted(build: Build) -> Build:
    """Register a valid file."""
    return register(build, None, None)


def register(build: Build, open_error: Error | None, verify_error: Error | None) -> Build:
    """Add a file to `FILES`."""
    FILES[build.__name__] = CraftedFile(build, open_error, verify_error)
    return build


def with_metadata(**metadata: str) -> bytes:
    """Return a valid file in which some metadata is replaced."""
    crafted = Crafted()
    crafted.metadata |= metadata
    return crafted.raw()


def with_arrays(**arrays: np.ndarray) -> bytes:
    """Return a valid file in which some arrays are replaced; digests match them."""
    crafted = Crafted()
    crafted.arrays |= arrays
    return crafted.raw()


def with_entry(name: str, **fields: object) -> bytes:
    """Return a valid file in which the header's entry of one tensor is changed."""
    return Crafted(entries={name: dict(fields)}).raw()


def with_rows(rows: int, names: PackedTokens | list[bytes], /, **arrays: np.ndarray) -> bytes:
    """Return a valid file with other rows and tokens, and some arrays replaced."""
    crafted, vocabulary = Crafted(), Vocabulary.build(names, unnamed=True)
    changed = {
        "token_offsets": vocabulary.offsets,
        "token_index": vocabulary.index,
        "codes": np.zeros((rows, 2), np.uint8),
        "tokens": vocabulary.tokens,
    } | arrays
    # The widest items first, so that each tensor is aligned.
    crafted.arrays = dict(sorted((crafted.arrays | changed).items(), key=lambda item: -item[1].itemsize))
    crafted.metadata |= {"rows": str(rows), "token_hash_seed": str(vocabulary.seed)}
    return crafted.raw()


def packed(tokens: bytes, rows: int) -> PackedTokens:
    """Return tokens of equal length."""
    offsets = np.linspace(0, len(tokens), rows + 1, dtype=np.int64)
    return PackedTokens(np.frombuffer(tokens, np.uint8), offsets)


def index() -> np.ndarray:
    """Return the token index of the valid file."""
    return Vocabulary.build(["a", "b", "c", "d"]).index


#: Bytes of the files that cost much to use.
LARGE = 1 << 22

WRONG_DIGEST = {"sha256.codes": "0" * 64}


# The size and the start of the file.


@rejected_by_open(TruncatedError)
def empty_file() -> bytes:
    """No bytes at all."""
    return b""


@rejected_by_open(NotSfqError)
def pickle_in_disguise() -> bytes:
    """A pickle that would run a program."""
    return b"\x80\x04cposix\nsystem\n(S'touch owned'\ntR." + bytes(5000)


@rejected_by_open(HeaderSizeError)
def header_longer_than_memory() -> bytes:
    """The header declares 2**64 - 1 bytes."""
    return (2**64 - 1).to_bytes(8, "little") + b"{}" + bytes(5000)


@rejected_by_open(HeaderSizeError)
def header_of_100_mb() -> bytes:
    """The header declares 100 MB, and the file holds them."""
    length = 100_000_000
    return length.to_bytes(8, "little") + b"{" + bytes(length - 1)


@rejected_by_open(AlignmentError)
def data_that_is_not_aligned() -> bytes:
    """The data does not begin at a page, so arrays would not be aligned."""
    return Crafted(alignment=8).raw()


@rejected_by_open(LayoutError)
def bytes_after_the_end() -> bytes:
    """Bytes that belong to no tensor follow the last one."""
    return Crafted(tail=b"#!/bin/sh\n").raw()


# The header's JSON.


@rejected_by_open(HeaderSyntaxError)
def header_of_nested_lists() -> bytes:
    """The header nests 60,000 lists."""
    return Crafted().raw(b'{"a":' + b"[" * 60_000)


@rejected_by_open(HeaderSyntaxError)
def header_that_is_not_unicode() -> bytes:
    """The header is not UTF-8."""
    return Crafted().raw(b'{"\xff\xfe": 1}')


@rejected_by_open(HeaderSyntaxError)
def header_with_a_long_number() -> bytes:
    """A size has 60,000 digits, which take long to convert."""
    return Crafted().raw(b'{"codes":{"shape":[' + b"9" * 60_000 + b"]}}")


@rejected_by_open(HeaderSyntaxError)
def duplicate_names() -> bytes:
    """A name occurs twice: parsers that keep the first and those that keep the last would differ."""
    text = json.dumps(Crafted().header()).encode()
    return Crafted().raw(text.replace(b'"tokens"', b'"codes"'))


# Entries of tensors: dtypes, shapes and offsets.


@rejected_by_open(DtypeError)
def unknown_dtype() -> bytes:
    """A dtype that the format does not define."""
    return with_entry("codebook", dtype="F128")


@rejected_by_open(DtypeError)
def wrong_dtypes() -> bytes:
    """Codes are declared as floats, four times as wide."""
    return with_entry("codes", dtype="F32", shape=[4, 2])


@rejected_by_open(ShapeError)
def shape_whose_product_overflows() -> bytes:
    """A shape of 2,000 sizes of 2**63."""
    return with_entry("codes", shape=[2**63] * 2_000)


@rejected_by_open(MetadataError)
def rows_times_stride_overflows() -> bytes:
    """The size of the codes is right modulo 2**64: (2**31 + 46341) rows of (2**31 - 46340) floats.

    With at most 65,536 values in a row no size overflows.
    """
    rows, dim = 2**31 + 46341, 2**31 - 46340
    crafted = Crafted()
    crafted.arrays = {"codes": np.zeros(rows * dim * 4 % 2**64 // 4, np.float32)}
    crafted.entries = {"codes": {"shape": [rows, dim]}}
    crafted.metadata |= {"rows": str(rows), "dim": str(dim), "nbit": "32", "codebook": "float"}
    return crafted.raw()


@rejected_by_open(HeaderSyntaxError)
def negative_offset() -> bytes:
    """A tensor begins before the data."""
    return with_entry("codes", data_offsets=[-8, 0])


@rejected_by_open(LayoutError)
def offset_of_64_bits() -> bytes:
    """An offset is 2**64 - 1, which is -1 as a signed integer."""
    return with_entry("tokens", data_offsets=[2**64 - 1, 2**64 - 1])


@rejected_by_open(TruncatedError)
def offset_outside_the_file() -> bytes:
    """The last tensor ends far beyond the end of the file."""
    return with_entry("tokens", data_offsets=[348, 2**40])


@rejected_by_open(OffsetError)
def offsets_in_reverse() -> bytes:
    """A tensor ends before it begins."""
    return with_entry("codes", data_offsets=[340, 332])


@rejected_by_open(LayoutError)
def overlapping_offsets() -> bytes:
    """Two tensors overlap."""
    return with_entry("codes", data_offsets=[328, 336])


@rejected_by_open(LayoutError)
def hole_between_tensors() -> bytes:
    """Bytes between two tensors belong to neither, so anything could hide there."""
    return with_entry("codes", data_offsets=[400, 408])


# Metadata.


@rejected_by_open(NewerVersionError)
def newer_version() -> bytes:
    """A version of the format that does not exist yet."""
    return with_metadata(version="2")


@rejected_by_open(BitWidthError)
def unsupported_bit_width() -> bytes:
    """3 bits a value, which no decoder supports."""
    return with_metadata(nbit="3")


@rejected_by_open(CodebookError)
def bit_width_against_the_codebook() -> bytes:
    """4 bits a value in the metadata, and a codebook for 2."""
    return with_metadata(nbit="4", dim="4")


@rejected_by_open(MetadataError)
def rows_2_to_the_40() -> bytes:
    """2**40 rows are declared."""
    return with_metadata(rows=str(2**40))


@rejected_by_open(ShapeError)
def rows_that_are_missing() -> bytes:
    """The largest number of rows that the format allows, in a file of 4."""
    return with_metadata(rows=str(2**32 - 2))


@rejected_by_open(MetadataError)
def rows_in_other_digits() -> bytes:
    """The number of rows is in digits that int() accepts and the format does not."""
    return with_metadata(rows="\N{ARABIC-INDIC DIGIT FOUR}")


@rejected_by_open(MetadataError)
def zero_length_everything() -> bytes:
    """No rows and no dimensions; every tensor is empty."""
    crafted = Crafted()
    crafted.arrays = {name: array[:0] for name, array in crafted.arrays.items()}
    crafted.metadata |= {"rows": "0", "dim": "0"}
    return crafted.raw()


@rejected_by_verify(CodebookError)
def clip_beyond_float32() -> bytes:
    """The clip is larger than the largest float32."""
    return with_metadata(clip="1e39")


@rejected_by_open(MetadataError)
def digest_that_is_missing() -> bytes:
    """The tensors have no digests, so damage could not be detected."""
    return Crafted(digests=False).raw()


@rejected_by_verify(DigestError)
def forged_digest() -> bytes:
    """A digest does not match its tensor."""
    return with_metadata(**WRONG_DIGEST)


@rejected_by_verify(DigestError)
def names_that_control_a_terminal() -> bytes:
    """Metadata with escape sequences, which a terminal that prints them would obey."""
    source = json.dumps({"name": "\x1b[31m\u202e"}) + " " * 9
    return with_metadata(created_by="\x1b]0;owned\x07\x1b[2J\r\n", source=source, **WRONG_DIGEST)


@rejected_by_verify(DigestError)
def source_of_nested_lists() -> bytes:
    """The JSON of the source is nested deeper than Python's recursion limit."""
    return with_metadata(source="[" * 50_000, **WRONG_DIGEST)


@rejected_by_verify(TokenTableError)
def source_that_is_not_json() -> bytes:
    """The source has NaN and infinity, which are not JSON and which `info --json` would repeat."""
    return with_metadata(source='{"name": NaN, "sha256": 1e999}')


@rejected_by_verify(DigestError)
def rotation_of_65536_dimensions() -> bytes:
    """A rotation whose matrix would take 17 GB: it must be built only when it is needed."""
    dim = 1 << 16
    crafted = Crafted()
    crafted.arrays["codes"] = np.zeros((4, dim // 4), np.uint8)
    crafted.metadata |= {"dim": str(dim), "rotation": "hadamard 99999999999999999999"}
    crafted.metadata["sha256.codes"] = "f" * 64
    return crafted.raw()


# Codes, levels, scales and zero rows.


@rejected_by_open(CodeError)
def codebook_of_nan() -> bytes:
    """A codebook that decodes to NaN and infinity."""
    return with_arrays(codebook=np.array([np.nan, np.inf, -np.inf, 3e38], np.float32))


@rejected_by_open(CodebookError)
def codes_that_exceed_a_short_codebook() -> bytes:
    """A codebook of 3 levels for codes of 2 bits, some of which are 3."""
    crafted = Crafted()
    crafted.arrays["codebook"] = np.array([-1, 0, 1], np.float32)
    crafted.arrays["codes"] = np.full((4, 2), 255, np.uint8)
    crafted.metadata["codebook"] = "given"
    return crafted.raw()


@rejected_by_verify(CodeError)
def padding_bits_that_are_set() -> bytes:
    """Bits after the last value of a row are set, where anything could hide."""
    return with_arrays(codes=np.full((4, 2), 255, np.uint8))


@rejected_by_verify(CodeError)
def scales_of_infinity() -> bytes:
    """Row scales that decode to infinity, and to NaN where a value is 0."""
    scale = np.array([np.inf, np.nan, -np.inf, 1], np.float16)
    order = ("token_offsets", "codebook", "token_index", "zero_rows", "row_scale", "codes", "tokens")
    crafted = Crafted()
    arrays = crafted.arrays | {"row_scale": scale}
    crafted.arrays = {name: arrays[name] for name in order}
    return crafted.raw()


@rejected_by_open(ZeroRowsError)
def zero_rows_outside() -> bytes:
    """A zero row is beyond the end of the table."""
    return with_arrays(zero_rows=np.array([1, 2**32 - 1], np.uint32))


@rejected_by_open(ZeroRowsError)
def zero_rows_out_of_order() -> bytes:
    """Zero rows are not sorted, as the binary search requires."""
    return with_arrays(zero_rows=np.array([3, 1], np.uint32))


# Tokens and their index.


@rejected_by_verify(TokenTableError)
def zero_length_tokens() -> bytes:
    """Every token is empty."""
    return with_arrays(tokens=np.empty(0, np.uint8), token_offsets=np.zeros(5, np.uint64))


@rejected_by_verify(TokenTableError)
def duplicate_tokens() -> bytes:
    """One token in two rows."""
    return with_arrays(tokens=np.frombuffer(b"aacd", np.uint8), token_index=index())


@rejected_by_verify(TokenTableError)
def tokens_that_are_not_unicode() -> bytes:
    """Tokens are not UTF-8."""
    return with_arrays(tokens=np.array([0xFF, 0xC0, 0x80, 0xF5], np.uint8), token_index=index())


@rejected_by_open(TokenTableError)
def token_offsets_beyond_the_tokens() -> bytes:
    """The last token offset is not the end of the tokens."""
    return with_arrays(token_offsets=np.array([0, 1, 2, 3, 2**40], np.uint64))


@rejected_by_verify(TokenTableError)
def token_offsets_that_decrease() -> bytes:
    """Token offsets decrease and exceed the tokens, and the index leads to them."""
    offsets = np.array([0, 2**63, 1, 2**64 - 1, 4], np.uint64)
    return with_arrays(token_index=index(), token_offsets=offsets)


@rejected_by_open(TokenTableError)
def index_that_is_too_short() -> bytes:
    """The index has fewer slots than a probe may read."""
    return with_arrays(token_index=np.zeros(63, np.uint32))


@rejected_by_verify(TokenTableError)
def index_that_points_outside() -> bytes:
    """The index leads every token to a row beyond the end of the table."""
    return with_arrays(token_index=np.where(index(), index() | np.uint32(7), index()))


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


# Valid files that cost much to use.


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
    crafted.metadata |= {"rows": "3", "dim": "8", "nbit": "32", "codebook": "float"}
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
    crafted.metadata |= {"codebook": "given", "clip": "3e38"}
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


def main() -> None:
    """Write files into a folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(FILES)} (default: all)")
    options = parser.parse_args()
    if unknown := set(options.names) - FILES.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}; --help lists the names")
    for name in options.names or FILES:
        (options.folder / f"{name}.sfq").write_bytes(FILES[name].build())


if __name__ == "__main__":
    main()
