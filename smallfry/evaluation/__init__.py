"""Fidelity of compressed tables.

`evaluate` measures one compressed table against its original; `Report` collects several.
"""

from __future__ import annotations

from smallfry.evaluation.measure import Questions, evaluate
from smallfry.evaluation.report import Fidelity, Report, recommend
from smallfry.evaluation.vectors import ArrayVectors, TableVectors, Vectors
from smallfry.evaluation.words import (
    AnalogySet,
    Score,
    SimilaritySet,
    read_analogies,
    read_similarity,
)

__all__ = [
    "AnalogySet",
    "ArrayVectors",
    "Fidelity",
    "Questions",
    "Report",
    "Score",
    "SimilaritySet",
    "TableVectors",
    "Vectors",
    "evaluate",
    "read_analogies",
    "read_similarity",
    "recommend",
]
