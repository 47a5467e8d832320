"""A small real vocabulary, made without a download from the English text that Python itself carries.

Words that keep the same company get similar vectors: counts of co-occurrence, positive pointwise mutual
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
_LEAST_OCCURRENCES = 4
_LEAST_DOCUMENTS = 3
_CONTEXTS = 3000
_WINDOW = 5
_SMOOTHING = 0.75  # exponent on the contexts' counts: without it rare contexts dominate
_OVERSAMPLING = 16
_POWER_ITERATIONS = 4


def make_sample(path: str | os.PathLike[str], *, dim: int = 128) -> tuple[int, int]:
    """Write the sample vocabulary as GloVe text, the most frequent word first.

    One version of Python gives one file, byte for byte.

    Parameters
    ----------
    path : str or os.PathLike
        The file to write; an existing one is replaced.
    dim : int
        Values in a vector.

    Returns
    -------
    tuple of int
        How many words were written, and `dim`.

    Raises
    ------
    InputError
        If `dim` is below 1, or this Python carries too little text for it.
    OSError
        If the file cannot be written; what was there is unchanged.
    """
    with replacing(path) as file:  # first, since learning takes seconds
        words, vectors = embed(standard_library_text(), dim=dim)
        for word, vector in zip(words, vectors.tolist(), strict=True):
            file.write(f"{word} {' '.join(f'{value:.4f}' for value in vector)}\n".encode())
    return len(words), dim


def standard_library_text() -> Iterator[str]:
    """Yield Python's manual topics, the docstrings of its built-in types and those of its library's sources.

    Sources are parsed, never imported. Where they are not installed, the rest is yielded.
    """
    yield from _manual_topics()
    yield from _builtin_docstrings()
    for path in _library_sources(Path(sysconfig.get_path("stdlib"))):
        yield from _docstrings(path)


def embed(texts: Iterable[str], *, dim: int) -> tuple[list[str], NDArray[np.float64]]:
    """Learn a vector for each frequent word of `texts`.

    Parameters
    ----------
    texts : iterable of str
        The documents. A repeated one counts once, and no context reaches from one into the next.
    dim : int
        Values in a vector.

    Returns
    -------
    words : list of str
        Lower-case words met at least 4 times in at least 3 documents: most frequent first, ties in
        alphabetical order.
    vectors : ndarray of float64, [len(words), dim]
        Of length 1, or 0 where a word has no context.

    Raises
    ------
    InputError
        If `dim` is below 1, or too few words are that frequent.
    """
    if dim < 1:
        raise InputError(f"a vector needs at least 1 value, not {dim}")
    documents = [_WORD.findall(text.lower()) for text in dict.fromkeys(texts)]
    words = _frequent_words(documents)
    if len(words) < dim + _OVERSAMPLING:
        raise InputError(
            f"{dim} dimensions need at least {dim + _OVERSAMPLING} frequent words and the text has "
            f"{len(words)}: install Python's standard library with its sources, or ask for fewer dimensions"
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
    except ImportError:  # some distributions split it off
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
            warnings.simplefilter("ignore")  # the library's own invalid escapes are no concern of the user's
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node, clean=False) or ""


def _frequent_words(documents: list[list[str]]) -> list[str]:
    occurrences = Counter(word for words in documents for word in words)
    spread = Counter(word for words in documents for word in set(words))
    frequent = (
        w for w, n in occurrences.items() if n >= _LEAST_OCCURRENCES and spread[w] >= _LEAST_DOCUMENTS
    )
    return sorted(frequent, key=lambda word: (-occurrences[word], word))


def _cooccurrences(stream: NDArray[np.int64], words: int, contexts: int) -> NDArray[np.float64]:
    """Count, for each word, the `contexts` most frequent words near it; one at distance d counts 1/d."""
    counts = np.zeros(words * contexts)
    for distance in range(1, _WINDOW + 1):
        first, second = stream[:-distance], stream[distance:]
        for word, context in ((first, second), (second, first)):
            known = (word >= 0) & (context >= 0) & (context < contexts)
            cells, times = np.unique(word[known] * contexts + context[known], return_counts=True)
            counts[cells] += times / distance
    return counts.reshape(words, contexts)


def _positive_pmi(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn counts, in place, into max(0, log P(word, context) / (P(word) P(context)))."""
    contexts = counts.sum(axis=0) ** _SMOOTHING
    counts /= np.maximum(counts.sum(axis=1, keepdims=True), 1)
    counts /= contexts / contexts.sum()
    return np.log(np.maximum(counts, 1, out=counts), out=counts)


def _truncated_svd(matrix: NDArray[np.float64], dim: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the `dim` leading left singular vectors, as columns, and their singular values.

    Randomised subspace iteration (Halko, Martinsson and Tropp, 2011), from a fixed seed. The largest entry of
    each vector is positive, because BLAS libraries differ in the sign they choose.
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
    """Scale rows to length 1 and rotate them: cosines stay, and columns get like variances, as in GloVe."""
    dim = vectors.shape[1]
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((dim, dim)))[0]
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    rotated: NDArray[np.float64] = (vectors / np.where(lengths > 0, lengths, 1)) @ rotation
    return rotated
