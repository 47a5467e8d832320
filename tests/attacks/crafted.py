"""Crafted ``.sfq`` files, each of which breaks one rule of the format, or costs much to use.

The name of a function is the name of its file, the docstring says what is wrong with it, and the decorator
names the error that rejects it: when it is opened, only by `smallfry.sfq.verify`, or not at all.

Write all of them, or those named, to try on another reader:

    python -m tests.attacks.crafted FOLDER [NAME ...]
"""

from __future__ import annotations

import argparse
import json
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
    NotSfqError,
    OffsetError,
    ShapeError,
    TokenTableError,
    TruncatedError,
    VersionError,
    ZeroRowsError,
)
from tests.attacks import costly_files, paged_files, text_files, trellis_files  # noqa: F401 - they register their files
from tests.attacks.crafting import (
    FILES,
    WRONG_DIGEST,
    index,
    rejected_by_open,
    rejected_by_verify,
    with_arrays,
    with_entry,
    with_metadata,
)
from tests.helpers.crafted_files import Crafted

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
    crafted.metadata |= {"rows": str(rows), "dim": str(dim), "nbit": "32", "codebook_kind": "float"}
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


@rejected_by_open(VersionError)
def newer_version() -> bytes:
    """A version of the format that does not exist yet."""
    return with_metadata(version="3")


@rejected_by_open(VersionError)
def older_version() -> bytes:
    """A version of the format that nothing reads anymore."""
    return with_metadata(version="1")


@rejected_by_open(BitWidthError)
def unsupported_bit_width() -> bytes:
    """5 bits a value, which no decoder supports."""
    return with_metadata(nbit="5")


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
    crafted.metadata["codebook_kind"] = "exact"
    return crafted.raw()


@rejected_by_verify(CodeError)
def padding_bits_that_are_set() -> bytes:
    """Bits after the last value of a row are set, where anything could hide."""
    return with_arrays(codes=np.full((4, 2), 255, np.uint8))


@rejected_by_verify(CodeError)
def scales_of_infinity() -> bytes:
    """Row scales that decode to infinity, and to NaN where a value is 0."""
    scale = np.array([np.inf, np.nan, -np.inf, 1], np.float16)
    crafted = Crafted()
    crafted.add(row_scale=scale)
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
