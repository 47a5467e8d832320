"""Triton kernels that decode packed rows and pool them into bags.

Tiles of the output ignore row boundaries, so every store is full and aligned for any dimension. A tile
consists of groups of ``H`` values within a row; a group loads its id and its codes once. Values are computed
in the steps of the CPU kernels, each rounded (launches disable contraction).
"""

from __future__ import annotations

import triton
import triton.language as tl

PER_LAUNCH = ("count", "total", "rows", "bags", "padding", "even")
"""Arguments that vary between calls; Triton must not specialize on them."""


@triton.jit
def _loaded_values(index: tl.tensor, codebook: tl.tensor, H: tl.constexpr) -> tl.tensor:
    """Load the values of a group one by one; a combined load would be distributed over other threads."""
    lane = tl.arange(0, H)[None, :]
    values = tl.zeros_like(index).to(tl.float32)
    for h in tl.static_range(H):
        at = tl.sum(tl.where(lane == h, index, 0), axis=1, keep_dims=True)
        values = tl.where(lane == h, tl.load(codebook + at).to(tl.float32), values)
    return values


@triton.jit
def codebook_values(
    index: tl.tensor,
    codebook: tl.tensor,
    even: tl.tensor,
    WIDTH: tl.constexpr,
    H: tl.constexpr,
) -> tl.tensor:
    """Return the float32 values of positions [groups, H], computed, selected from registers, or loaded."""
    if WIDTH == 16:
        # A run-time branch: a separately compiled kernel could be launched first during graph capture.
        if even != 0:
            step = tl.load(codebook + (1 << (WIDTH - 1))).to(tl.float32) * 2.0
            values = (index.to(tl.float32) - ((1 << WIDTH) - 1) / 2) * step
        else:
            values = _loaded_values(index, codebook, H)
        return values
    elif WIDTH == 1:
        low, high = tl.load(codebook).to(tl.float32), tl.load(codebook + 1).to(tl.float32)
        return tl.where(index == 0, low, high)
    elif WIDTH == 2:
        first = (index & 1) == 0
        low = tl.where(first, tl.load(codebook).to(tl.float32), tl.load(codebook + 1).to(tl.float32))
        high = tl.where(first, tl.load(codebook + 2).to(tl.float32), tl.load(codebook + 3).to(tl.float32))
        return tl.where(index < 2, low, high)
    else:
        return _loaded_values(index, codebook, H)


@triton.jit
def windows(
    first: tl.tensor,
    column: tl.tensor,
    live: tl.tensor,
    DIM: tl.constexpr,
    NBIT: tl.constexpr,
    WIDTH: tl.constexpr,
    H: tl.constexpr,
) -> tl.tensor:
    """Return codebook positions, [groups, H]: windows of the ring of bits of the rows at ``first``."""
    SIZE: tl.constexpr = H * NBIT + WIDTH - NBIT
    OFFSET: tl.constexpr = 0 if H * NBIT % 8 == 0 else 7
    WORD: tl.constexpr = tl.int32 if SIZE + OFFSET < 32 else tl.int64
    STRIDE: tl.constexpr = (DIM * NBIT + 7) // 8
    bit = column * NBIT
    byte = bit // 8
    word = tl.zeros_like(column).to(WORD)
    for k in tl.static_range((SIZE + OFFSET + 7) // 8):
        # A byte that begins before the end of the group is inside the row.
        inside = live if 8 * k < H * NBIT else live & (byte + k < STRIDE)
        more = tl.load(first + byte + k, mask=inside, other=0)
        word = word | more.to(WORD) << (8 * k)
    word = word >> (bit & 7).to(WORD)
    if WIDTH > NBIT:
        ahead = DIM * NBIT - bit
        wraps = live & (ahead < SIZE)
        start = tl.zeros_like(column).to(WORD)
        for k in tl.static_range((WIDTH - NBIT + 7) // 8):
            start = start | tl.load(first + k, mask=wraps, other=0).to(WORD) << (8 * k)
        end = tl.minimum(ahead, SIZE).to(WORD)
        one = tl.full(column.shape, 1, WORD)
        word = tl.where(wraps, (word & ((one << end) - 1)) | (start << end), word)
    position = (tl.arange(0, H)[None, :] * NBIT).to(WORD)
    return ((word >> position) & ((1 << WIDTH) - 1)).to(tl.int32)


@triton.jit
def _is_listed(
    row: tl.tensor, live: tl.tensor, zero_rows: tl.tensor, zero_count: tl.tensor, STEPS: tl.constexpr
) -> tl.tensor:
    """Return which rows are in the sorted ``zero_rows``, by bisection."""
    below = tl.zeros(row.shape, tl.int32)
    for step in tl.static_range(STEPS):
        middle = below + (1 << (STEPS - 1 - step))
        inside = live & (middle <= zero_count)
        listed = tl.load(zero_rows + middle - 1, mask=inside, other=0)
        below = tl.where(inside & (listed < row), middle, below)
    inside = live & (below < zero_count)
    return inside & (tl.load(zero_rows + below, mask=inside, other=-1) == row)


@triton.jit
def in_range(ids: tl.tensor, end: tl.tensor) -> tl.tensor:
    """Return which ids are in ``[0, end)``, by one unsigned comparison."""
    return ids.to(tl.uint64) < end.to(tl.uint64)


@triton.jit
def unsigned(row: tl.tensor, end: tl.tensor) -> tl.tensor:
    """Return ``row`` as unsigned integers of the width of ``end``, which multiply and divide faster."""
    return row.to(tl.uint32 if end.dtype == tl.int32 else tl.uint64)


@triton.jit
def _row_values(
    ids: tl.tensor,
    column: tl.tensor,
    live: tl.tensor,
    rows: tl.tensor,
    codes: tl.tensor,
    codebook: tl.tensor,
    mean: tl.tensor,
    column_scale: tl.tensor,
    row_scale: tl.tensor,
    zero_rows: tl.tensor,
    zero_count: tl.tensor,
    even: tl.tensor,
    DIM: tl.constexpr,
    NBIT: tl.constexpr,
    WIDTH: tl.constexpr,
    H: tl.constexpr,
    UNIT: tl.constexpr,
    STEPS: tl.constexpr,
) -> tl.tensor:
    """Return float32 [groups, H]: values ``column`` to ``column + H - 1`` of rows ``ids``.

    They are NaN, and nothing is read, if the id is out of range or the group not ``live``. ``ids``,
    ``column`` and ``live`` are [groups, 1], so a thread holds all values of a group and exchanges none.
    ``codes`` points to units of ``UNIT`` bytes.
    """
    known = live & in_range(ids, rows)
    row = unsigned(ids, rows).to(tl.int64)
    lane = tl.arange(0, H)[None, :]
    wide = known & (lane < H)
    if NBIT >= 8:
        code = tl.load(codes + (row * DIM + column) + lane, mask=wide, other=0)
        if NBIT == 32:
            values = code.to(tl.float32)
        else:
            index = code.to(tl.int32) & ((1 << NBIT) - 1)
            values = codebook_values(index, codebook, even, WIDTH, H)
    elif WIDTH > NBIT:
        index = windows(codes + row * ((DIM * NBIT + 7) // 8), column, known, DIM, NBIT, WIDTH, H)
        values = codebook_values(index, codebook, even, WIDTH, H)
    else:
        bit = column * NBIT
        unit = codes + row * ((DIM * NBIT + 7) // 8 // UNIT) + bit // (8 * UNIT)
        word = tl.load(unit, mask=known, other=0).to(tl.int32)
        if UNIT < 4:
            word = word & ((1 << (8 * UNIT)) - 1)
        for further in tl.static_range(1, (H * NBIT + 8 * UNIT - 1) // (8 * UNIT)):
            more = tl.load(unit + further, mask=known, other=0).to(tl.int32)
            word = word | (more & ((1 << (8 * UNIT)) - 1)) << (8 * UNIT * further)
        position = lane * NBIT
        if H * NBIT < 8:
            position = position + (bit & 7)
        index = (word >> position) & ((1 << NBIT) - 1)
        values = codebook_values(index, codebook, even, WIDTH, H)
    if column_scale is not None:
        values = values * tl.load(column_scale + column + lane, mask=wide, other=0)
    # Multiplying by NaN or 0 costs less than selecting it, and leaves conversions to half precision in pairs.
    factor = tl.where(known, 1.0, float("nan"))
    if row_scale is not None:
        scale = tl.load(row_scale + row, mask=known, other=0).to(tl.float32)
        factor = tl.where(known, scale, float("nan"))
    addend = None
    if mean is not None:
        addend = tl.load(mean + column + lane, mask=wide, other=0)
    if zero_rows is not None:
        zero = _is_listed(row, known, zero_rows, zero_count, STEPS)
        factor = tl.where(zero, 0.0, factor)
        # Adding -0 changes no value; adding 0 changes the sign of -0.
        addend = tl.where(zero, 0.0, -0.0 if addend is None else addend)
    values = values * factor
    return values if addend is None else values + addend


@triton.jit
def store_tile(
    out: tl.tensor,
    values: tl.tensor,
    first: tl.tensor,
    total: tl.tensor,
    GROUPS: tl.constexpr,
    H: tl.constexpr,
) -> tl.tensor:
    """Store a tile of the output; only the last one is masked."""
    flat = tl.arange(0, GROUPS * H)
    tile = tl.reshape(values, [GROUPS * H]).to(out.dtype.element_ty)
    start = first * H
    if start + GROUPS * H <= total:
        tl.store(out + start + flat, tile)
    else:
        tl.store(out + start + flat, tile, mask=flat // H < total // H - first)


@triton.jit(do_not_specialize=PER_LAUNCH)
def gather_rows(
    out: tl.tensor,
    ids: tl.tensor,
    count: tl.tensor,
    total: tl.tensor,
    rows: tl.tensor,
    codes: tl.tensor,
    codebook: tl.tensor,
    mean: tl.tensor,
    column_scale: tl.tensor,
    row_scale: tl.tensor,
    zero_rows: tl.tensor,
    zero_count: tl.tensor,
    even: tl.tensor,
    DIM: tl.constexpr,
    NBIT: tl.constexpr,
    WIDTH: tl.constexpr,
    H: tl.constexpr,
    UNIT: tl.constexpr,
    STEPS: tl.constexpr,
    GROUPS: tl.constexpr,
) -> None:
    """Write the rows at ``ids``, ``total`` values, to ``out``."""
    first = tl.program_id(0).to(tl.int64) * GROUPS
    start = first // (DIM // H)
    local = (first - start * (DIM // H)).to(tl.uint32) + tl.arange(0, GROUPS)[:, None].to(tl.uint32)
    column = (local % (DIM // H)).to(tl.int32) * H
    position = (local // (DIM // H)).to(tl.int32)
    live = position < tl.minimum(count - start, GROUPS).to(tl.int32)
    values = _row_values(
        tl.load(ids + start + position, mask=live, other=0),
        column,
        live,
        rows,
        codes,
        codebook,
        mean,
        column_scale,
        row_scale,
        zero_rows,
        zero_count,
        even,
        DIM,
        NBIT,
        WIDTH,
        H,
        UNIT,
        STEPS,
    )
    store_tile(out, values, first, total, GROUPS, H)


@triton.jit(do_not_specialize=PER_LAUNCH)
def pool_rows(
    out: tl.tensor,
    ids: tl.tensor,
    offsets: tl.tensor,
    weights: tl.tensor,
    count: tl.tensor,
    bags: tl.tensor,
    total: tl.tensor,
    padding: tl.tensor,
    rows: tl.tensor,
    codes: tl.tensor,
    codebook: tl.tensor,
    mean: tl.tensor,
    column_scale: tl.tensor,
    row_scale: tl.tensor,
    zero_rows: tl.tensor,
    zero_count: tl.tensor,
    even: tl.tensor,
    DIM: tl.constexpr,
    NBIT: tl.constexpr,
    WIDTH: tl.constexpr,
    H: tl.constexpr,
    UNIT: tl.constexpr,
    STEPS: tl.constexpr,
    GROUPS: tl.constexpr,
    MODE: tl.constexpr,
    PADDED: tl.constexpr,
    ENDED: tl.constexpr,
    AHEAD: tl.constexpr,
) -> None:
    """Write the sum, mean or maximum of the rows of each bag, in order, to ``out``.

    Every group iterates over its own bag, ``AHEAD`` rows at a time to overlap loads. Offsets are clamped to
    the ids.
    """
    first = tl.program_id(0).to(tl.int64) * GROUPS
    start = first // (DIM // H)
    local = (first - start * (DIM // H)).to(tl.uint32) + tl.arange(0, GROUPS)[:, None].to(tl.uint32)
    bag = start + (local // (DIM // H)).to(tl.int64)
    column = (local % (DIM // H)).to(tl.int32) * H
    live = bag < bags
    begin = tl.load(offsets + bag, mask=live, other=0).to(tl.int64)
    if ENDED:
        end = tl.load(offsets + bag + 1, mask=live, other=0).to(tl.int64)
    else:
        end = tl.load(offsets + bag + 1, mask=live & (bag + 1 < bags), other=0).to(tl.int64)
        end = tl.where(bag + 1 < bags, end, count)
    begin = tl.maximum(begin, 0)
    end = tl.where(live, tl.minimum(end, count), begin)
    longest = tl.max(end - begin)
    pooled = tl.zeros([GROUPS, H], tl.float32)
    kept = tl.zeros([GROUPS, 1], tl.int32)
    for at in range(0, longest, AHEAD):
        for further in tl.static_range(AHEAD):
            position = begin + at + further
            used = position < end
            id = tl.load(ids + position, mask=used, other=0)
            if PADDED:
                used = used & (id != padding)
            values = _row_values(
                id,
                column,
                used,
                rows,
                codes,
                codebook,
                mean,
                column_scale,
                row_scale,
                zero_rows,
                zero_count,
                even,
                DIM,
                NBIT,
                WIDTH,
                H,
                UNIT,
                STEPS,
            )
            if MODE == "max":
                better = (kept == 0) | (pooled < values) | (values != values)
                pooled = tl.where(used & better, values, pooled)
            else:
                if weights is not None:
                    values = values * tl.load(weights + position, mask=used, other=0.0).to(tl.float32)
                pooled = tl.where(used, pooled + values, pooled)
            kept += used.to(tl.int32)
    if MODE == "mean":
        pooled = tl.div_rn(pooled, tl.maximum(kept, 1).to(tl.float32) + tl.zeros_like(pooled))
    store_tile(out, pooled, first, total, GROUPS, H)
