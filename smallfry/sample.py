"""A small real data set, made without a download from the English text that Python itself has.

Words that occur near the same words get similar vectors: co-occurrence counts, positive pointwise mutual
information, truncated SVD (Levy, Goldberg and Dagan, "Improving Distributional Similarity with Lessons
Learned from Word Embeddings", TACL 2015).
"""

from __future__ import annotations

import ast
import builtins
import os
import re
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import InputError
from smallfry.sfq.atomic import replacing

_WORD = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
_NOT_DOCUMENTATION = {"site-packages", "dist-packages", "test", "tests", "idlelib"}
_BLOCKS = ("body", "handlers", "orelse", "finalbody", "cases")  # of statements, which alone hold docstrings
_LEAST_OCCURRENCES = 4
_LEAST_DOCUMENTS = 3
_CONTEXTS = 3000
_WINDOW = 5
_SMOOTHING = 0.75  # exponent of the context counts, without which rare contexts dominate
_OVERSAMPLING = 16
_POWER_ITERATIONS = 4


def make_sample(path: str | os.PathLike[str], *, dim: int = 128) -> int:
    """Write words and vectors as GloVe text, the most frequent word first; return the number of words.

    The bytes are the same for each version of Python. A failure leaves `path` unchanged.
    """
    with replacing(path) as file:  # before the seconds of learning, to fail early
        words, vectors = embed(standard_library_text(), dim=dim)
        for word, vector in zip(words, vectors.tolist(), strict=True):
            file.write(f"{word} {' '.join(f'{value:.4f}' for value in vector)}\n".encode())
    return len(words)


def standard_library_text() -> Iterator[str]:
    """Yield the topics of Python's manual, and the docstrings of its built-in types and standard library.

    Sources are parsed, never imported. They are optional.
    """
    yield from _manual_topics()
    yield from _builtin_docstrings()
    for path in _library_sources(Path(sysconfig.get_path("stdlib"))):
        yield from _docstrings(path)


def embed(texts: Iterable[str], *, dim: int) -> tuple[list[str], NDArray[np.float64]]:
    """Learn a vector for each frequent word of `texts`.

    Repeated documents are ignored, and contexts end with their document.

    Returns
    -------
    words : list of str
        Lower-case words that occur at least 4 times, in at least 3 documents; the most frequent first, ties
        in alphabetical order.
    vectors : ndarray of float64, shape [len(words), dim]
        Of length 1, or 0 for a word without context.
    """
    if dim < 1:
        raise InputError(f"dim is {dim}, expected 1 or more")
    documents = [_WORD.findall(text.lower()) for text in dict.fromkeys(texts)]
    words = _frequent_words(documents)
    if len(words) < dim + _OVERSAMPLING:
        raise InputError(
            f"{dim} dimensions need at least {dim + _OVERSAMPLING} frequent words and the text has "
            f"{len(words)}. Install the sources of Python's standard library, or choose fewer dimensions."
        )
    rows = {word: row for row, word in enumerate(words)}
    gap = [-1] * _WINDOW
    stream = np.array([row for words in documents for row in (*(rows.get(w, -1) for w in words), *gap)])
    counts = _cooccurrences(stream, len(words), min(len(words), _CONTEXTS))
    left, values = _truncated_svd(_positive_pmi(counts), dim)
    return words, _spread(left * np.sqrt(values))


def _manual_topics() -> list[str]:
    try:
        from pydoc_data.topics import topics
    except ImportError:  # a separate package in some distributions
        return []
    return list(topics.values())


def _builtin_docstrings() -> Iterator[str]:
    for _, value in sorted(vars(builtins).items()):
        members = [member for _, member in sorted(vars(value).items())] if isinstance(value, type) else []
        yield from (str(member.__doc__ or "") for member in (value, *members))


def _library_sources(folder: Path) -> Iterator[Path]:
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(set(folders) - _NOT_DOCUMENTATION)
        yield from (Path(where, name) for name in sorted(files) if name.endswith(".py"))


def _docstrings(path: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes in the standard library
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    nodes: list[ast.AST] = [tree]
    for node in nodes:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node, clean=False) or ""
        for name in _BLOCKS:
            nodes += getattr(node, name, ())


def _frequent_words(documents: list[list[str]]) -> list[str]:
    occurrences = Counter(word for words in documents for word in words)
    spread = Counter(word for words in documents for word in set(words))
    frequent = (
        w for w, n in occurrences.items() if n >= _LEAST_OCCURRENCES and spread[w] >= _LEAST_DOCUMENTS
    )
    return sorted(frequent, key=lambda word: (-occurrences[word], word))


def _cooccurrences(stream: NDArray[np.int64], words: int, contexts: int) -> NDArray[np.float64]:
    """Count how often each word occurs near the `contexts` most frequent words; 1/d at distance d."""
    counts = np.zeros(words * contexts)
    for distance in range(1, _WINDOW + 1):
        first, second = stream[:-distance], stream[distance:]
        for word, context in ((first, second), (second, first)):
            known = (word >= 0) & (context >= 0) & (context < contexts)
            cells, times = np.unique(word[known] * contexts + context[known], return_counts=True)
            counts[cells] += times / distance
    return counts.reshape(words, contexts)


def _positive_pmi(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert counts in place to max(0, log P(word, context) / (P(word) P(context)))."""
    contexts = counts.sum(axis=0) ** _SMOOTHING
    counts /= np.maximum(counts.sum(axis=1, keepdims=True), 1)
    counts /= contexts / contexts.sum()
    return np.log(np.maximum(counts, 1, out=counts), out=counts)


def _truncated_svd(matrix: NDArray[np.float64], dim: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the `dim` leading left singular vectors, as columns, and their singular values.

    Randomized subspace iteration (Halko, Martinsson and Tropp, 2011) with a fixed seed. The largest entry of
    each vector is made positive, because the sign depends on the BLAS library.
    """
    start = np.random.default_rng(0).standard_normal((matrix.shape[1], dim + _OVERSAMPLING))
    basis = np.linalg.qr(matrix @ start)[0]
    for _ in range(_POWER_ITERATIONS):
        basis = np.linalg.qr(matrix @ (matrix.T @ basis))[0]
    left, values, _ = np.linalg.svd(basis.T @ matrix, full_matrices=False)
    left = basis @ left[:, :dim]
    signs = np.sign(left[np.abs(left).argmax(axis=0), np.arange(dim)])
    return left * signs, values[:dim]


def _spread(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale rows to length 1 and rotate them, which keeps cosines and evens out the columns' variances."""
    dim = vectors.shape[1]
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((dim, dim)))[0]
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    rotated: NDArray[np.float64] = (vectors / np.where(lengths > 0, lengths, 1)) @ rotation
    return rotated
