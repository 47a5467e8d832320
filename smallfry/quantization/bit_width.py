"""Choose the number of bits by what it may cost."""

from __future__ import annotations

from collections.abc import Callable

from smallfry.errors import InputError
from smallfry.quantization.codebooks import CENTROIDS
from smallfry.quantization.learned import Options
from smallfry.table import Table


def by_error(max_error: float, options: Options, compress: Callable[[int], Table]) -> Table:
    """Return the table of fewest bits whose relative Frobenius error is at most `max_error`.

    Parameters
    ----------
    max_error : float
    options : Options
        What `compress` compresses with.
    compress : callable
        From a number of bits to the table.

    Raises
    ------
    InputError
        No number of bits that the options allow is enough.
    """
    if not max_error >= 0:
        raise InputError(f"max_error is {max_error}, expected a number of at least 0")
    for nbit in options.widths:
        table = compress(nbit)
        if table.frobenius_error <= max_error:
            return table
    raise InputError(
        f"the relative error is {table.frobenius_error:.4g} at {nbit} bits, the most that these options "
        f"allow, and may be {max_error:g} at most. Allow more, or take other options."
    )


def by_size(max_nbytes: int, rows: int, dim: int, vocabulary_nbytes: int, options: Options) -> int:
    """Return the most bits a value whose tensors take at most `max_nbytes`.

    Parameters
    ----------
    max_nbytes : int
    rows, dim : int
        Of the matrix.
    vocabulary_nbytes : int
        Bytes of the tokens and their index.
    options : Options
        What the matrix will be compressed with.

    Raises
    ------
    InputError
        Not even the fewest bits fit.
    """
    sizes = {n: vocabulary_nbytes + matrix_nbytes(rows, dim, n, options) for n in options.widths}
    fitting = [nbit for nbit, size in sizes.items() if size <= max_nbytes]
    if not fitting:
        nbit, size = next(iter(sizes.items()))
        raise InputError(
            f"{rows:,} rows of {dim} values take {size:,} bytes with their vocabulary even at {nbit} bits, "
            f"and may take {max_nbytes:,}. Allow more, or give fewer rows."
        )
    return fitting[-1]


def matrix_nbytes(rows: int, dim: int, nbit: int, options: Options) -> int:
    """Return the bytes of a table's tensors, but for the list of its zero rows."""
    codebook = CENTROIDS * 8 // nbit if options.codebook == "grouped" else 2**nbit if nbit < 32 else 0
    rotation = dim * dim if options.rotate == "principal" else 0
    floats = codebook + rotation + (dim if options.center else 0)
    return rows * -(-dim * nbit // 8) + 4 * floats + (2 * rows if options.row_scale else 0)
