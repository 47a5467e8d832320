"""All measures of one compressed table against its original."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from smallfry.evaluation import geometry, words
from smallfry.evaluation.lloyd_max import lloyd_max
from smallfry.evaluation.neighbors import knn_overlap
from smallfry.evaluation.report import Fidelity
from smallfry.evaluation.vectors import TableVectors, Vectors
from smallfry.evaluation.words import AnalogySet, Find, SimilaritySet
from smallfry.progress import Progress
from smallfry.table import Table

_SAMPLE_ROWS = 10_000
_SAMPLE_SEED = 0
_HISTOGRAM_BINS = 120


@dataclass(frozen=True)
class Questions:
    """Word similarity and analogy tests."""

    find: Find  # maps words to row numbers, -1 for an unknown word
    similarity: Sequence[SimilaritySet] = ()
    analogies: Sequence[AnalogySet] = ()
    restrict: int | None = None  # only this many leading rows can answer an analogy; all by default

    def score(
        self, vectors: Vectors, progress: Progress | None = None
    ) -> tuple[list[words.Score], list[words.Score]]:
        """Return the scores of the similarity sets and of the analogy sets."""
        similarity = words.similarity(vectors, self.similarity, self.find)
        if not self.analogies:
            return similarity, []
        return similarity, words.analogies(
            vectors, self.analogies, self.find, restrict=self.restrict, progress=progress
        )


def evaluate(
    original: Vectors,
    table: Table,
    *,
    name: str,
    coding: str = "",
    compressed: Vectors | None = None,
    questions: Questions | None = None,
    queries: int = 1000,
    k: int = 10,
    seed: int = 0,
    progress: Progress | None = None,
) -> Fidelity:
    """Measure a compressed table against its original.

    Parameters
    ----------
    original : Vectors
        The vectors before compression.
    table : Table
        The compressed vectors.
    name : str
        Name of the table in the report.
    coding : str
        Name of the compression method in the report, without the bit width; by default the codebook kind.
    compressed : Vectors, optional
        The table's vectors in the order of `original`, if it differs from the table's.
    questions : Questions, optional
        Word similarity and analogy tests.
    queries, k, seed : int
        Parameters of `smallfry.evaluation.neighbors.knn_overlap`.
    progress : callable, optional
    """
    compressed = TableVectors(table) if compressed is None else compressed
    distance = geometry.compare(original, compressed, progress)
    similarity, analogies = questions.score(compressed, progress) if questions is not None else ([], [])
    return Fidelity(
        name=name,
        nbit=table.nbit,
        coding=coding or table.codebook_kind,
        codebook_kind=table.codebook_kind,
        nbytes=sum(table.nbytes.values()),
        clip=table.clip,
        **asdict(distance),
        snr_db=distance.snr_db,
        lloyd_max_snr_db=lloyd_max_snr_db(original, table.nbit),
        rate_distortion_snr_db=geometry.DECIBELS_A_BIT * table.nbit,
        knn_overlap=knn_overlap(original, compressed, queries=queries, k=k, seed=seed, progress=progress),
        similarity=similarity,
        analogies=analogies,
    )


def lloyd_max_snr_db(original: Vectors, nbit: int) -> float | None:
    """Return the signal-to-noise ratio of the best scalar quantizer; None above 8 bits.

    The quantizer is fitted to the values of at most 10,000 rows, drawn with a fixed seed.
    """
    if nbit > 8:
        return None
    values = sample_rows(original).ravel().astype(np.float64)
    levels = lloyd_max(values, 2**nbit)
    nearest = levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, values)]
    noise, signal = float(np.square(values - nearest).sum()), float(np.square(values).sum())
    return 10 * math.log10(signal / noise) if noise else math.inf


def histogram(original: Vectors) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return bin edges and counts of the values of at most 10,000 rows, drawn with a fixed seed."""
    counts, edges = np.histogram(sample_rows(original), _HISTOGRAM_BINS)
    return edges.astype(np.float64), counts.astype(np.int64)


def sample_rows(vectors: Vectors) -> NDArray[np.float32]:
    """Return at most 10,000 rows, drawn with a fixed seed."""
    rows = vectors.shape[0]
    if rows <= _SAMPLE_ROWS:
        return vectors.take(np.arange(rows))
    chosen = np.random.default_rng(_SAMPLE_SEED).choice(rows, _SAMPLE_ROWS, replace=False)
    return vectors.take(np.sort(chosen))
