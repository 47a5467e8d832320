"""Random tables for property tests, and their decoding in plain NumPy."""

import hypothesis.strategies as st
import numpy as np

from smallfry.table import Table
from smallfry.vocabulary import Vocabulary

DIMS = (1, 3, 7, 299, 300, 301)
KINDS = {
    1: ("uniform", "exact", "trellis"),
    2: ("uniform", "exact", "trellis"),
    3: ("trellis",),
    4: ("uniform", "exact", "trellis"),
    8: ("uniform", "exact"),
    16: ("uniform", "exact"),
    32: ("float",),
}
PARTS = ("mean", "column_scale", "row_scale", "zero_rows")


def uniform_codebook(nbit: int, clip: float) -> np.ndarray:
    top = 2**nbit - 1
    return ((np.arange(top + 1) - top / 2) * np.float64(np.float32(2 * clip / top))).astype(np.float32)


def random_table(
    rows: int,
    dim: int,
    nbit: int,
    kind: str,
    *,
    seed: int = 0,
    parts: tuple[str, ...] = (),
    state_bits: int = 8,
) -> Table:
    """Return a table of random codes with the optional parts named in `parts`.

    Parts are `PARTS`, and "bfloat16": a trellis codebook of such values. Only a trellis gets column scales.

    Rows too short for a trellis of `state_bits` get as many values as it needs.
    """
    if kind == "trellis":
        dim = max(dim, -(-state_bits // nbit))
    rng = np.random.default_rng(seed)
    stride = -(-dim * nbit // 8)
    codes = rng.integers(0, 256, (rows, stride), np.uint8)
    if dim * nbit % 8:
        codes[:, -1] &= (1 << dim * nbit % 8) - 1
    codebook = None
    if nbit == 32:
        codes = rng.standard_normal((rows, dim), np.float32)
    elif kind == "uniform":
        codebook = uniform_codebook(nbit, 0.75)
    else:
        codebook = rng.standard_normal(2 ** (state_bits if kind == "trellis" else nbit), np.float32)
        if kind == "trellis" and "bfloat16" in parts:
            codebook.view(np.uint32)[:] &= 0xFFFF0000
    return Table(
        codes=codes,
        dim=dim,
        nbit=nbit,
        codebook_kind=kind,
        codebook=codebook,
        clip=0.75,
        mean=rng.standard_normal(dim, np.float32) if "mean" in parts else None,
        column_scale=rng.uniform(0.5, 2, dim).astype(np.float32)
        if "column_scale" in parts and kind == "trellis"
        else None,
        row_scale=rng.uniform(0.5, 2, rows).astype(np.float16) if "row_scale" in parts else None,
        zero_rows=np.flatnonzero(rng.integers(0, 2, rows)).astype(np.uint32)
        if "zero_rows" in parts
        else np.empty(0, np.uint32),
        frobenius_error=float(rng.uniform()),
    )


def quantize_options(nbit: int) -> dict[str, str]:
    """Return the options without which `nbit` bits are rejected."""
    return {"codebook_kind": "trellis"} if nbit == 3 else {}


def plain_decode(table: Table) -> np.ndarray:
    """Decode a table step by step, as docs/reference/format.md specifies."""
    if table.nbit == 32:
        values = np.array(table.codes)
    else:
        window = len(table.codebook).bit_length() - 1
        ring = np.unpackbits(table.codes, axis=1, bitorder="little")[:, : table.dim * table.nbit]
        positions = np.arange(table.dim)[:, None] * table.nbit + np.arange(window)
        codes = ring[:, positions % ring.shape[1]] @ (1 << np.arange(window))
        values = table.codebook[codes]
    if table.column_scale is not None:
        values = values * table.column_scale
    if table.row_scale is not None:
        values = values * table.row_scale.astype(np.float32)[:, None]
    if table.mean is not None:
        values = values + table.mean
    values[table.zero_rows] = 0
    return values


@st.composite
def tables(draw: st.DrawFn) -> Table:
    nbit = draw(st.sampled_from(list(KINDS)))
    return random_table(
        draw(st.integers(1, 12)),
        draw(st.sampled_from(DIMS)),
        nbit,
        draw(st.sampled_from(KINDS[nbit])),
        seed=draw(st.integers(0, 1000)),
        parts=tuple(draw(st.sets(st.sampled_from(PARTS)))),
    )


def vocabularies(rows: int) -> st.SearchStrategy[Vocabulary | None]:
    tokens = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    unique = st.lists(tokens, min_size=rows, max_size=rows, unique=True)
    return st.none() | st.builds(Vocabulary.build, unique)
