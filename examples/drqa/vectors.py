"""Fixed word vectors for the reader, compressed to any bit width."""

from __future__ import annotations

import itertools
from pathlib import Path

import torch

from smallfry import QuantEmbedding
from smallfry.readers import open_vectors


def load(path: Path, words: Path | None, nbit: int) -> tuple[QuantEmbedding, dict[str, int], int]:
    """Read word vectors and compress them.

    Parameters
    ----------
    path : Path
        Vectors in any format that smallfry reads.
    words : Path or None
        Their words, one a line, if the vectors have none.
    nbit : int
        Bits a value; 32 is uncompressed.

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
    return QuantEmbedding(*matrix.shape, _weight=matrix, nbit=nbit), rows, source.dim
