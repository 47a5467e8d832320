"""Relative error of each coding on independent Gaussian values, as a Markdown table.

The references are the optimal scalar quantizer (Lloyd–Max) and the bound of any code, ``2**-nbit``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from smallfry.compress import quantize
from smallfry.evaluation.lloyd_max import lloyd_max

NBITS = (1, 2, 3, 4)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=8000, help="rows of the matrix (8000)")
    parser.add_argument("--dim", type=int, default=300, help="its columns (300)")
    args = parser.parse_args()
    X = np.random.default_rng(0).standard_normal((args.rows, args.dim), np.float32)
    codings: dict[str, Callable[[int], float | None]] = {
        "uniform": lambda nbit: quantize(X, nbit).frobenius_error if nbit != 3 else None,
        "Lloyd–Max": lambda nbit: scalar(X, nbit),
        "trellis": lambda nbit: quantize(X, nbit, codebook_kind="trellis").frobenius_error,
        "trellis, 12 state bits": lambda nbit: (
            quantize(X, nbit, codebook_kind="trellis", trellis_state_bits=12).frobenius_error
        ),
        "bound": lambda nbit: 2.0**-nbit,
    }
    print(f"| | {' | '.join(map(str, NBITS))} |", "|---" * (len(NBITS) + 1) + "|", sep="\n")
    for name, error in codings.items():
        cells = ["" if (value := error(nbit)) is None else f"{value:.3f}" for nbit in NBITS]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def scalar(X: NDArray[np.float32], nbit: int) -> float:
    """Return the relative error of the optimal scalar quantizer."""
    levels = lloyd_max(X, 2**nbit)
    nearest = levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, X)]
    return float(np.linalg.norm(X - nearest) / np.linalg.norm(X))


if __name__ == "__main__":
    main()
