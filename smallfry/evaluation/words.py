"""Word similarity and analogy tests: their files, and the scores of vectors."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import BadLineError
from smallfry.evaluation.questions import Line, read_lines
from smallfry.evaluation.vectors import Vectors, blocks, unit
from smallfry.progress import Progress

#: Maps words to row numbers, -1 for an unknown word, as `smallfry.vocabulary.Vocabulary.find`.
Find = Callable[[Sequence[str]], NDArray[np.int64]]

_QUESTION_BATCH = 2048


@dataclass(frozen=True)
class SimilaritySet:
    """Pairs of words and their similarity as rated by people."""

    name: str
    pairs: tuple[tuple[str, str], ...]
    scores: tuple[float, ...]


@dataclass(frozen=True)
class AnalogySet:
    """Questions "a is to b as c is to d"."""

    name: str
    questions: tuple[tuple[str, str, str, str], ...]


@dataclass(frozen=True)
class Score:
    """Score of vectors on one set."""

    name: str
    value: float  # Spearman's rank correlation, or the share of correct answers; NaN if nothing was found
    found: int  # pairs or questions whose words all have vectors
    total: int


def read_similarity(path: str | Path, encoding: str | None = None) -> SimilaritySet:
    """Read a file of ``word word score`` lines, separated by tabs, commas, semicolons or spaces.

    The score is the first number after the words; other columns, such as a part of speech, may precede it. A
    first line without a number is a header. Empty lines and lines that begin with ``#`` are skipped.

    Raises
    ------
    InputError
        The file is not text in `encoding` (UTF-8 by default), or a line is malformed.
    OSError
        The file cannot be read.
    """
    pairs, scores = [], []
    lines = read_lines(path, 3, encoding)
    for line in lines:
        score = next((_number(field) for field in line.fields[2:] if _is_number(field)), None)
        if score is None or not all(line.fields[:2]):
            if line is lines[0]:
                continue
            raise _bad_line(path, line, "'word word score'")
        pairs.append((line.fields[0], line.fields[1]))
        scores.append(score)
    if not pairs:
        raise _bad_line(path, lines[0], "'word word score'")
    return SimilaritySet(Path(path).stem, tuple(pairs), tuple(scores))


def read_analogies(path: str | Path, encoding: str | None = None) -> list[AnalogySet]:
    """Read a file of ``a b c d`` lines; a line ``: name`` begins a set, as in the Google analogies.

    Raises
    ------
    InputError
        The file is not text in `encoding` (UTF-8 by default), or a line is malformed.
    OSError
        The file cannot be read.
    """
    sets: list[tuple[str, list[tuple[str, str, str, str]]]] = []
    lines = read_lines(path, 4, encoding)
    for line in lines:
        if line.text.startswith(":"):
            sets.append((line.text[1:].strip(), []))
            continue
        if len(line.fields) != 4 or not all(line.fields):
            raise _bad_line(path, line, "four words")
        if not sets:
            sets.append((Path(path).stem, []))
        sets[-1][1].append((line.fields[0], line.fields[1], line.fields[2], line.fields[3]))
    found = [AnalogySet(name, tuple(questions)) for name, questions in sets if questions]
    if not found:
        raise _bad_line(path, lines[-1], "four words")
    return found


def find_forms(words: Sequence[str], find: Find) -> NDArray[np.int64]:
    """Return the row of each word as written, in lower case or capitalized, whichever exists; else -1."""
    ids = find(words).copy()
    for form in (str.lower, str.capitalize):
        unknown = ids < 0
        ids[unknown] = find([form(w) for w, missing in zip(words, unknown, strict=True) if missing])
    return ids


def similarity(vectors: Vectors, sets: Sequence[SimilaritySet], find: Find) -> list[Score]:
    """Return Spearman's correlation of cosines with the rated similarity, over the pairs found."""
    scores = []
    for tested in sets:
        ids = find_forms([w for pair in tested.pairs for w in pair], find).reshape(-1, 2)
        found = (ids >= 0).all(axis=1)
        first, second = (unit(vectors.take(side)) for side in ids[found].T)
        cosines = np.einsum("nd,nd->n", first, second, dtype=np.float64)
        value = spearman(cosines, np.array(tested.scores)[found])
        scores.append(Score(tested.name, value, int(found.sum()), len(ids)))
    return scores


def analogies(
    vectors: Vectors,
    sets: Sequence[AnalogySet],
    find: Find,
    *,
    restrict: int | None = None,
    progress: Progress | None = None,
) -> list[Score]:
    """Return the share of questions whose answer is the row nearest to b − a + c, of unit vectors (3CosAdd).

    The three words of the question are excluded.

    Parameters
    ----------
    restrict : int, optional
        Number of leading rows to search, the most frequent words if the file is sorted by frequency.
    """
    rows = vectors.shape[0] if restrict is None else min(restrict, vectors.shape[0])
    ids = find_forms([w for tested in sets for q in tested.questions for w in q], find).reshape(-1, 4)
    found: NDArray[np.bool_] = np.all((ids >= 0) & (ids < rows), axis=1)
    right = np.zeros(len(ids), bool)
    right[found] = _answers(vectors, rows, ids[found], progress) == ids[found, 3]
    scores, start = [], 0
    for tested in sets:
        part = slice(start, start + len(tested.questions))
        start = part.stop
        count = int(found[part].sum())
        value = float(right[part].sum() / count) if count else float("nan")
        scores.append(Score(tested.name, value, count, len(tested.questions)))
    return scores


def spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the rank correlation of two series; ties share their mean rank. NaN if undefined."""
    if len(a) < 2:
        return float("nan")
    x, y = (ranks - ranks.mean() for ranks in (_ranks(a), _ranks(b)))
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / norm if norm else float("nan")


def _answers(
    vectors: Vectors, rows: int, ids: NDArray[np.int64], progress: Progress | None
) -> NDArray[np.int64]:
    """Return the nearest row to b − a + c for each question ``[n, 4]``."""
    a, b, c = (unit(vectors.take(column)) for column in ids.T[:3])
    targets = b - a + c
    best = np.full(len(ids), -np.inf, np.float32)
    answers = np.full(len(ids), -1, np.int64)
    for block in blocks((rows, vectors.shape[1]), "analogies", progress):
        candidates = unit(vectors.take(block)).T
        for start in range(0, len(ids), _QUESTION_BATCH):
            part = slice(start, start + _QUESTION_BATCH)
            scores = targets[part] @ candidates
            own = ids[part, :3]
            question, word = np.nonzero((own >= block[0]) & (own <= block[-1]))
            scores[question, own[question, word] - block[0]] = -np.inf
            nearest = scores.argmax(axis=1)
            score = scores[np.arange(len(scores)), nearest]
            better = score > best[part]
            best[part][better] = score[better]
            answers[part][better] = block[nearest[better]]
    return answers


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[inverse]
    return ranks


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?(\d+[.,]?\d*|[.,]\d+)(e[+-]?\d+)?", text, re.IGNORECASE) is not None


def _number(text: str) -> float:
    return float(text.replace(",", "."))


def _bad_line(path: str | Path, line: Line, expected: str) -> BadLineError:
    return BadLineError(f"{path}, line {line.number}: expected {expected}, found {line.text[:80]!r}")
