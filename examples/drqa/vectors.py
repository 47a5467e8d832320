"""Fixed word vectors for the reader, compressed to any number of bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from smallfry.compress import quantize


def load(path: Path, words: Path, nbit: int) -> tuple[nn.Module, dict[str, int], int]:
    """Read word vectors and compress them.

    Parameters
    ----------
    path : Path
        A ``.npy`` matrix.
    words : Path
        Its words, one a line.
    nbit : int
        Bits a value; 32 compresses nothing.

    Returns
    -------
    tuple of (nn.Module, dict, int)
        The embedding, whose row 0 is zeros (unknown words); the row of each word; the length of a vector.
    """
    matrix = np.load(path).astype(np.float32)
    listed = words.read_text("utf-8").split("\n")[: len(matrix)]
    if len(listed) != len(matrix):
        raise ValueError(f"{path} has {len(matrix)} rows, {words} has {len(listed)} words.")
    table = quantize(np.concatenate([np.zeros((1, matrix.shape[1]), np.float32), matrix]), nbit)
    rows = {word: row for row, word in enumerate(listed, 1)}
    return nn.Embedding.from_pretrained(torch.from_numpy(table.decode())), rows, table.dim
