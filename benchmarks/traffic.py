"""What the load comparison serves and asks for: real words, real vectors, real frequencies."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from smallfry import format
from smallfry.compress import quantize
from smallfry.vocabulary import Vocabulary

CHUNK = 8192
NOISE = 0.05
"""Deviation of the noise on repeated rows, relative to the deviation of the values."""


def data_folder() -> Path:
    """Return the folder of real data: ``SMALLFRY_DATA``, or ``../shared/data`` beside the project."""
    folder = Path(os.environ.get("SMALLFRY_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        raise SystemExit(f"real data is not at {folder}: set SMALLFRY_DATA to its folder")
    return folder


class Matrix:
    """Vectors at the scale of published ones: the rows of ``minilm-words``, repeated with noise.

    Iterating gives float32 chunks, the same ones each time.
    """

    def __init__(self, rows: int) -> None:
        self._source = np.load(data_folder() / "embeddings" / "minilm-words.300d.f16.npy", mmap_mode="r")
        self.shape = (rows, self._source.shape[1])

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        scale = np.float32(NOISE * self._source[:CHUNK].astype(np.float32).std())
        for start in range(0, self.shape[0], CHUNK):
            rows = np.arange(start, min(start + CHUNK, self.shape[0]))
            chunk = self._source[rows % len(self._source)].astype(np.float32)
            noise = np.random.default_rng(start).standard_normal(chunk.shape, np.float32)
            yield chunk + scale * noise * (rows >= len(self._source))[:, None]


def read_tokens(rows: int) -> tuple[list[str], NDArray[np.float64]]:
    """Return `rows` tokens, real ones first, and how often each occurs, as shares of all."""
    tokens, counts = [], []
    with gzip.open(data_folder() / "vocabulary" / "english-321k.tsv.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            token, _, count = line.rstrip("\n").rpartition("\t")
            tokens.append(token)
            counts.append(float(count))
    tokens, counts = tokens[:rows], counts[:rows]
    tokens += [f"made-up-{row}" for row in range(len(tokens), rows)]
    counts += [counts[-1]] * (rows - len(counts))
    return tokens, np.array(counts) / np.sum(counts)


def write_file(path: Path, tokens: list[str], nbit: int) -> None:
    """Write the file that the service serves."""
    format.write(path, quantize(Matrix(len(tokens)), nbit), Vocabulary.build(tokens))


def draw_requests(
    tokens: list[str], shares: NDArray[np.float64], size: int, count: int, seed: int = 0
) -> list[list[str]]:
    """Return requests of `size` tokens each, drawn by frequency."""
    drawn = np.random.default_rng(seed).choice(len(tokens), (count, size), p=shares)
    return [[tokens[i] for i in request] for request in drawn]
