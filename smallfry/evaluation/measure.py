"""All measures of one compressed table against its original."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smallfry.evaluation import geometry, words
from smallfry.evaluation.neighbors import knn_overlap
from smallfry.evaluation.report import Fidelity
from smallfry.evaluation.vectors import TableVectors, Vectors
from smallfry.evaluation.words import AnalogySet, Find, SimilaritySet
from smallfry.progress import Progress
from smallfry.quantization.codebooks import lloyd_max
from smallfry.table import Table

_SAMPLE_ROWS = 10_000
_SAMPLE_SEED = 0
_HISTOGRAM_BINS = 120


@dataclass(frozen=True)
class Questions:
    """What the words of a table are asked.

    Attributes
    ----------
    find : callable
        From words to row numbers, -1 for an unknown word.
    similarity : sequence of SimilaritySet
    analogies : sequence of AnalogySet
    restrict : int or None
        Only the first so many rows can answer an analogy.
    """

    find: Find
    similarity: Sequence[SimilaritySet] = ()
    analogies: Sequence[AnalogySet] = ()
    restrict: int | None = None

    def ask(
        self, vectors: Vectors, progress: Progress | None = None
    ) -> tuple[list[words.Score], list[words.Score]]:
        """Return the scores of the similarity sets and of the analogy sets."""
        similar = words.similarity(vectors, self.similarity, self.find)
        if not self.analogies:
            return similar, []
        return similar, words.analogies(
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
    """Measure what a compressed table keeps of its original.

    Parameters
    ----------
    original : Vectors
        The vectors before compression.
    table : Table
        What they were compressed to.
    name : str
        What the report calls it.
    coding : str
        What the report calls the way of compressing, at any number of bits; by default the kind of codebook.
    compressed : Vectors, optional
        The table's vectors in the original's order, where that is not the table's own.
    questions : Questions, optional
        Word similarity and analogies to ask.
    queries, k, seed : int
        Of the k-NN overlap; see `smallfry.evaluation.neighbors.knn_overlap`.
    progress : callable, optional

    Returns
    -------
    Fidelity
    """
    compressed = TableVectors(table) if compressed is None else compressed
    moved = geometry.compare(original, compressed, progress)
    similar, analogous = questions.ask(compressed, progress) if questions is not None else ([], [])
    return Fidelity(
        name=name,
        nbit=table.nbit,
        coding=coding or table.kind,
        codebook=table.kind,
        nbytes=sum(table.nbytes.values()),
        clip=table.clip,
        frobenius_error=moved.frobenius_error,
        snr_db=moved.snr_db,
        lloyd_max_snr_db=lloyd_max_snr_db(original, table.nbit),
        rate_distortion_snr_db=geometry.DECIBELS_A_BIT * table.nbit,
        eigenspace_overlap=moved.eigenspace_overlap,
        pip_loss=moved.pip_loss,
        fit_error=moved.fit_error,
        knn_overlap=knn_overlap(original, compressed, queries=queries, k=k, seed=seed, progress=progress),
        similarity=similar,
        analogies=analogous,
    )


def lloyd_max_snr_db(original: Vectors, nbit: int) -> float | None:
    """Return the signal to noise ratio of the best scalar quantizer; None past 8 bits, where none is fitted.

    Fitted to the values of at most 10,000 rows, drawn with a fixed seed.
    """
    if nbit > 8:
        return None
    values = sample_rows(original).ravel().astype(np.float64)
    levels = lloyd_max(values, 2**nbit)
    nearest = levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, values)]
    noise, signal = float(np.square(values - nearest).sum()), float(np.square(values).sum())
    return 10 * math.log10(signal / noise) if noise else math.inf


def histogram(original: Vectors) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return edges and counts of the values of at most 10,000 rows, drawn with a fixed seed."""
    counts, edges = np.histogram(sample_rows(original), _HISTOGRAM_BINS)
    return edges.astype(np.float64), counts.astype(np.int64)


def sample_rows(vectors: Vectors) -> NDArray[np.float32]:
    """Return at most 10,000 rows, drawn with a fixed seed."""
    rows = vectors.shape[0]
    if rows <= _SAMPLE_ROWS:
        return vectors.take(np.arange(rows))
    chosen = np.random.default_rng(_SAMPLE_SEED).choice(rows, _SAMPLE_ROWS, replace=False)
    return vectors.take(np.sort(chosen))
