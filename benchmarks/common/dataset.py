"""The data of the benchmarks: real words, real vectors, real frequencies."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from smallfry.compress import quantize
from smallfry.sfq import file as sfq
from smallfry.table import Table
from smallfry.vocabulary import Vocabulary

CHUNK = 8192
NOISE = 0.05
"""Standard deviation of the noise on repeated rows, relative to that of the values."""


def data_folder() -> Path:
    """Return the folder of real data, which the environment variable ``SMALLFRY_DATA`` names."""
    folder = os.environ.get("SMALLFRY_DATA")
    if not folder:
        raise SystemExit("SMALLFRY_DATA is not set; set it to the folder of real data")
    if not Path(folder).is_dir():
        raise SystemExit(f"SMALLFRY_DATA={folder} is not a folder; set it to the folder of real data")
    return Path(folder)


class Matrix:
    """Vectors at the scale of published ones: the rows of ``minilm-words``, repeated with noise.

    Iterating yields float32 chunks, the same ones each time.
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
    """Return `rows` tokens, real ones first, and the relative frequency of each."""
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
    """Write a ``.sfq`` file with real vectors of some tokens."""
    sfq.write(path, quantize(Matrix(len(tokens)), nbit), Vocabulary.build(tokens))


def write_random_file(path: Path, rows: int, dim: int = 300) -> None:
    """Write a ``.sfq`` file of random codes at 2 bits, with the tokens ``word-0``, ``word-1`` and so on."""
    codes = np.random.default_rng(0).integers(0, 256, (rows, dim // 4), np.uint8)
    levels = np.arange(-1.5, 2.0).astype(np.float32)
    table = Table(codes, dim, 2, "uniform", levels, clip=1.5)
    sfq.write(path, table, Vocabulary.build([f"word-{row}" for row in range(rows)]))


def draw_requests(
    tokens: list[str], frequencies: NDArray[np.float64], size: int, count: int, seed: int = 0
) -> list[list[str]]:
    """Return requests of `size` tokens each, drawn by frequency."""
    drawn = np.random.default_rng(seed).choice(len(tokens), (count, size), p=frequencies)
    return [[tokens[i] for i in request] for request in drawn]
