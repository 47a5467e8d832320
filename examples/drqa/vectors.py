"""Fixed word vectors for the reader, compressed to any bit width."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import torch

from smallfry import QuantEmbedding
from smallfry.compress import quantize
from smallfry.nn.packed import Packed
from smallfry.readers import open_vectors


def load(
    path: Path, words: Path | None, nbit: int, options: dict[str, Any]
) -> tuple[QuantEmbedding, dict[str, int], int]:
    """Read word vectors and compress them.

    Parameters
    ----------
    path : Path
        Vectors in any format that smallfry reads.
    words : Path or None
        Their words, one a line, if the vectors have none.
    nbit : int
        Bits a value; 32 is uncompressed.
    options : dict
        Of `smallfry.compress.quantize`.

    Returns
    -------
    tuple of (QuantEmbedding, dict, int)
        The embedding, whose row 0 is zeros (unknown words); the row of each word; the dim.
    """
    rows: dict[str, int] = {}
    with open_vectors(path, words=words) as source:
        chunks = [torch.zeros(1, source.dim)]
        for tokens, vectors in source.chunks():
            if tokens is None:
                raise ValueError(f"{path} has no words. Give them with --words.")
            text = tokens.buf.tobytes()
            bounds = tokens.offsets.tolist()
            for start, end in itertools.pairwise(bounds):
                rows[text[start:end].decode("utf-8")] = len(rows) + 1
            chunks.append(torch.from_numpy(vectors.copy()))
    matrix = torch.cat(chunks)
    # A reader that is trained on the vectors may have them in any basis.
    packed = Packed.from_table(quantize(matrix.numpy(), nbit, **options))
    return QuantEmbedding.from_packed(packed), rows, source.dim
