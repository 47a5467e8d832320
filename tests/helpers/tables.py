"""Random tables for property tests, and their decoding in plain NumPy."""

import hypothesis.strategies as st
import numpy as np

from smallfry.table import Table
from smallfry.vocabulary import Vocabulary

DIMS = (1, 3, 7, 299, 300, 301)
KINDS = {
    1: ("uniform", "exact", "lloyd", "grouped"),
    2: ("uniform", "exact", "lloyd", "grouped"),
    4: ("uniform", "exact", "lloyd", "grouped"),
    8: ("uniform", "exact", "lloyd"),
    16: ("uniform", "exact", "lloyd"),
    32: ("float",),
}


def uniform_codebook(nbit: int, clip: float) -> np.ndarray:
    top = 2**nbit - 1
    return ((np.arange(top + 1) - top / 2) * np.float64(np.float32(2 * clip / top))).astype(np.float32)


def random_table(
    rows: int, dim: int, nbit: int, kind: str, *, seed: int = 0, parts: tuple[str, ...] = ()
) -> Table:
    """Return a table of random codes with the optional parts named in `parts`."""
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
        shape = (256, 8 // nbit) if kind == "grouped" else (2**nbit,)
        codebook = rng.standard_normal(shape, np.float32)
    return Table(
        codes=codes,
        dim=dim,
        nbit=nbit,
        codebook_kind=kind,
        codebook=codebook,
        clip=0.75,
        mean=rng.standard_normal(dim, np.float32) if "mean" in parts else None,
        row_scale=rng.uniform(0.5, 2, rows).astype(np.float16) if "row_scale" in parts else None,
        zero_rows=np.flatnonzero(rng.integers(0, 2, rows)).astype(np.uint32)
        if "zero_rows" in parts
        else np.empty(0, np.uint32),
        frobenius_error=float(rng.uniform()),
    )


def plain_decode(table: Table) -> np.ndarray:
    """Decode a table step by step, as docs/format.md specifies."""
    if table.nbit == 32:
        values = np.array(table.codes)
    else:
        if table.nbit == 16:
            codes = table.codes.reshape(table.rows, -1, 2).astype(np.int64) @ np.array([1, 256])
        else:
            shifts = np.arange(0, 8, table.nbit)
            codes = (table.codes[:, :, None] >> shifts) & (2**table.nbit - 1)
            codes = codes.reshape(table.rows, -1)
        if table.codebook_kind == "grouped":
            values = table.codebook[table.codes].reshape(table.rows, -1)
        else:
            values = table.codebook[codes]
        values = values[:, : table.dim]
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
        parts=tuple(draw(st.sets(st.sampled_from(["mean", "row_scale", "zero_rows"])))),
    )


def vocabularies(rows: int) -> st.SearchStrategy[Vocabulary | None]:
    tokens = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    unique = st.lists(tokens, min_size=rows, max_size=rows, unique=True)
    return st.none() | st.builds(Vocabulary.build, unique)
