"""Triton kernel that decodes the records of a paged table, in device memory or in host memory that CUDA maps.

A record is the packed codes of a row and its float16 scale, at any byte address.
"""

from __future__ import annotations

import triton
import triton.language as tl

from smallfry.nn.kernels.triton_kernels import codebook_values, in_range, store_tile, unsigned, windows


@triton.jit
def _record_values(
    row: tl.tensor,
    column: tl.tensor,
    known: tl.tensor,
    records: tl.tensor,
    codebook: tl.tensor,
    mean: tl.tensor,
    column_scale: tl.tensor,
    even: tl.tensor,
    DIM: tl.constexpr,
    NBIT: tl.constexpr,
    WIDTH: tl.constexpr,
    H: tl.constexpr,
    RECORD: tl.constexpr,
    PER_BLOCK: tl.constexpr,
    BLOCK: tl.constexpr,
) -> tl.tensor:
    """Return float32 [groups, H]: values ``column`` to ``column + H - 1`` of rows ``row``, unsigned.

    They are NaN, and nothing is read, if the group is not ``known``.
    """
    first = records + (row // PER_BLOCK).to(tl.int64) * BLOCK + (row % PER_BLOCK).to(tl.int64) * RECORD
    lane = tl.arange(0, H)[None, :]
    wide = known & (lane < H)
    if NBIT == 16:
        low = tl.load(first + (column + lane) * 2, mask=wide, other=0).to(tl.int32)
        index = low | tl.load(first + (column + lane) * 2 + 1, mask=wide, other=0).to(tl.int32) << 8
    else:
        index = windows(first, column, known, DIM, NBIT, WIDTH, H)
    values = codebook_values(index, codebook, even, WIDTH, H)
    if column_scale is not None:
        values = values * tl.load(column_scale + column + lane, mask=wide, other=0)
    low = tl.load(first + (RECORD - 2), mask=known, other=0).to(tl.uint16)
    high = tl.load(first + (RECORD - 1), mask=known, other=0).to(tl.uint16)
    scale = (low | high << 8).to(tl.float16, bitcast=True).to(tl.float32)
    addend = -0.0
    if mean is not None:
        addend = tl.load(mean + column + lane, mask=wide, other=0)
    return values * tl.where(known, scale, float("nan")) + tl.where(scale == 0.0, 0.0, addend)


@triton.jit(do_not_specialize=("count", "total", "rows", "even"))
def gather_records(
    out: tl.tensor,
    ids: tl.tensor,
    head_offsets: tl.tensor,
    count: tl.tensor,
    total: tl.tensor,
    rows: tl.tensor,
    records: tl.tensor,
    codebook: tl.tensor,
    mean: tl.tensor,
    column_scale: tl.tensor,
    even: tl.tensor,
    DIM: tl.constexpr,
    NBIT: tl.constexpr,
    WIDTH: tl.constexpr,
    H: tl.constexpr,
    RECORD: tl.constexpr,
    PER_BLOCK: tl.constexpr,
    BLOCK: tl.constexpr,
    HEADS: tl.constexpr,
    GROUPS: tl.constexpr,
) -> None:
    """Write the rows at ``ids``, or all rows in order if None, to ``out``; NaN for an id out of range.

    With ``head_offsets``, ids are local to a head, and the last axis of ids is the head.
    """
    first = tl.program_id(0).to(tl.int64) * GROUPS
    start = first // (DIM // H)
    local = (first - start * (DIM // H)).to(tl.uint32) + tl.arange(0, GROUPS)[:, None].to(tl.uint32)
    column = (local % (DIM // H)).to(tl.int32) * H
    position = (local // (DIM // H)).to(tl.int32)
    live = position < tl.minimum(count - start, GROUPS).to(tl.int32)
    if ids is None:
        known = live
        row = unsigned(start + position, count)
    else:
        id = tl.load(ids + start + position, mask=live, other=0)
        if head_offsets is None:
            known = live & in_range(id, rows)
            row = unsigned(id, rows)
        else:
            head = (start + position) % HEADS
            begin = tl.load(head_offsets + head, mask=live, other=0)
            known = live & in_range(id, tl.load(head_offsets + head + 1, mask=live, other=0) - begin)
            row = unsigned(begin + id, rows)
    values = _record_values(
        row,
        column,
        known,
        records,
        codebook,
        mean,
        column_scale,
        even,
        DIM,
        NBIT,
        WIDTH,
        H,
        RECORD,
        PER_BLOCK,
        BLOCK,
    )
    store_tile(out, values, first, total, GROUPS, H)
