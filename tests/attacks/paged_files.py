"""Crafted ``.sfq`` files of paged tables: blocks, scales and heads that do not fit."""

from __future__ import annotations

import numpy as np

from smallfry.errors import (
    AlignmentError,
    CodeError,
    HeadOffsetsError,
    MetadataError,
    OffsetError,
    ShapeError,
)
from tests.attacks.crafting import LARGE, accepted, rejected_by_open, rejected_by_verify
from tests.helpers.crafted_files import Crafted


def with_blocks(change: tuple[int, int], /, **arrays: np.ndarray) -> bytes:
    """Return a valid paged file with one byte of its block changed, and some arrays added."""
    crafted = Crafted.paged()
    position, value = change
    crafted.arrays["codes"][0, position] = value
    crafted.arrays |= arrays
    return crafted.raw()


def with_heads(*offsets: int, dtype: type = np.uint64) -> bytes:
    """Return a valid paged file with these offsets of heads."""
    crafted = Crafted.paged()
    heads = {"head_offsets": np.array(offsets, dtype)}
    crafted.arrays = {"codes": crafted.arrays["codes"], **heads, "codebook": crafted.arrays["codebook"]}
    return crafted.raw()


@rejected_by_open(MetadataError)
def layout_that_is_unknown() -> bytes:
    """A layout of another name."""
    crafted = Crafted.paged()
    crafted.metadata["layout"] = "column"
    return crafted.raw()


@rejected_by_open(ShapeError)
def rows_in_place_of_blocks() -> bytes:
    """Contiguous codes in a file that is declared as paged."""
    crafted = Crafted.paged()
    crafted.arrays["codes"] = np.zeros((4, 2), np.uint8)
    return crafted.raw()


@rejected_by_open(ShapeError)
def block_for_1025_records() -> bytes:
    """One block for a record more than it holds, which would be read after the end."""
    crafted = Crafted.paged()
    crafted.metadata["rows"] = "1025"
    return crafted.raw()


@rejected_by_open(OffsetError)
def blocks_of_2_to_the_40_rows() -> bytes:
    """Blocks for the most rows are declared, over one block."""
    crafted = Crafted.paged()
    crafted.metadata["rows"] = str(1 << 40)
    crafted.entries["codes"] = {"shape": [1 << 30, 4096]}
    return crafted.raw()


@rejected_by_open(MetadataError)
def more_paged_rows_than_allowed() -> bytes:
    """One row more than a paged table can have."""
    crafted = Crafted.paged()
    crafted.metadata["rows"] = str((1 << 40) + 1)
    return crafted.raw()


@rejected_by_open(AlignmentError)
def blocks_after_the_codebook() -> bytes:
    """Blocks that do not start at a page, so that records are on two pages."""
    crafted = Crafted.paged()
    crafted.arrays = dict(reversed(crafted.arrays.items()))
    return crafted.raw()


@rejected_by_open(MetadataError)
def paged_table_with_row_scales() -> bytes:
    """A second scale for each row."""
    return with_blocks((0, 0), row_scale=np.ones(4, np.float16))


@rejected_by_open(MetadataError)
def paged_table_with_zero_rows() -> bytes:
    """A list of zero rows, which scales of 0 are instead."""
    return with_blocks((0, 0), zero_rows=np.zeros(1, np.uint32))


@rejected_by_open(MetadataError)
def paged_floats() -> bytes:
    """Blocks of 32 bits a value."""
    crafted = Crafted.paged()
    del crafted.arrays["codebook"]
    crafted.metadata |= {"nbit": "32", "codebook_kind": "float"}
    return crafted.raw()


@rejected_by_open(HeadOffsetsError)
def heads_that_decrease() -> bytes:
    """Offsets of heads that decrease, so that a head would have negative rows."""
    return with_heads(0, 3, 2, 4)


@rejected_by_open(HeadOffsetsError)
def heads_beyond_the_rows() -> bytes:
    """A head that ends after the last row."""
    return with_heads(0, 2, 5)


@rejected_by_open(HeadOffsetsError)
def heads_from_row_1() -> bytes:
    """A first head that begins after the first row."""
    return with_heads(1, 4)


@rejected_by_open(HeadOffsetsError)
def heads_of_2_to_the_63_rows() -> bytes:
    """Offsets that are negative as signed numbers."""
    return with_heads(0, 1 << 63, 4)


@rejected_by_open(HeadOffsetsError)
def no_heads() -> bytes:
    """Offsets of no heads."""
    return with_heads(0)


@rejected_by_open(HeadOffsetsError)
def heads_for_each_byte() -> bytes:
    """More heads than a table can have, checked before their offsets are read."""
    return with_heads(*[0] * ((1 << 16) + 1), 4)


@rejected_by_open(MetadataError)
def heads_with_a_vocabulary() -> bytes:
    """A table with tokens and heads."""
    crafted = Crafted()
    crafted.add(head_offsets=np.array([0, 4], np.uint64))
    return crafted.raw()


@rejected_by_verify(CodeError)
def scale_of_nan() -> bytes:
    """A scale of NaN next to the codes of a row."""
    return with_blocks((3, 0x7E))


@rejected_by_verify(CodeError)
def record_with_unused_bits() -> bytes:
    """Bits after the last value of a row are set."""
    return with_blocks((1, 0xFF))


@rejected_by_verify(CodeError)
def record_after_the_last() -> bytes:
    """A byte is set where the record of a fifth row would be."""
    return with_blocks((16, 1))


@accepted
def records_longer_than_a_page() -> bytes:
    """Records of 16,386 bytes, which follow each other without padding."""
    rows, dim = 64, 1 << 16
    crafted = Crafted.paged()
    codes = np.random.default_rng(0).integers(0, 256, (rows, dim // 4 + 2), np.uint8)
    codes[:, -1] &= 0x3B
    crafted.arrays = {"codebook": crafted.arrays["codebook"], "codes": codes}
    crafted.metadata |= {"rows": str(rows), "dim": str(dim)}
    return crafted.raw()


@accepted
def paged_rows_of_one_value() -> bytes:
    """Many records of 3 bytes."""
    rows = LARGE // 4096 * 1365
    crafted = Crafted.paged()
    blocks = np.zeros((LARGE // 4096, 4096), np.uint8)
    blocks[:, 2:4095:3] = 0x3C  # the scale 1.0
    crafted.arrays["codes"] = blocks
    crafted.metadata |= {"rows": str(rows), "dim": "1"}
    return crafted.raw()


@accepted
def heads_without_rows() -> bytes:
    """Heads of which only one has rows."""
    return with_heads(0, 0, 4, 4)
