"""Write fastText models, and compute their vectors one by one."""

import struct

import numpy as np

UNSUPERVISED, SUPERVISED = 2, 3


def fasttext_model(
    words,
    matrix,
    *,
    ngrams=(3, 6),
    labels=(),
    model=UNSUPERVISED,
    version=12,
    pruned=-1,
    quantized=False,
    shape=None,
):
    """Return a model as bytes. The matrix has a row for each word, then one for each bucket of n-grams."""
    matrix = np.asarray(matrix, "<f4")
    shape = shape or matrix.shape
    parts = [] if version is None else [struct.pack("<Ii", 793712314, version)]
    loss, buckets = 2, matrix.shape[0] - len(words)
    parts.append(
        struct.pack("<12id", matrix.shape[1], 5, 5, 5, 5, 1, loss, model, buckets, *ngrams, 100, 1e-4)
    )
    parts.append(struct.pack("<3iq", len(words) + len(labels), len(words), len(labels), 1000))
    if version is not None:
        parts.append(struct.pack("<q", pruned))
    parts += [word.encode() + b"\0" + struct.pack("<qb", 7, 0) for word in words]
    parts += [label.encode() + b"\0" + struct.pack("<qb", 7, 1) for label in labels]
    if version is not None:
        parts.append(struct.pack("<?", quantized))
    return b"".join([*parts, struct.pack("<2q", *shape), matrix.tobytes()])


def word_vector(word, number, words, matrix, ngrams):
    """Return the vector of a word as fastText's documentation describes it."""
    rows = [number]
    text = f"<{word}>"
    if word != "</s>":
        for begin in range(len(text)):
            for end in range(begin + 1, len(text) + 1):
                if ngrams[0] <= end - begin <= ngrams[1] and text[begin:end] not in ("<", ">"):
                    rows.append(len(words) + _hash(text[begin:end].encode()) % (len(matrix) - len(words)))
    return np.mean(np.asarray(matrix, np.float64)[rows], axis=0)


def _hash(ngram):
    value = 2166136261
    for byte in ngram:
        value ^= byte if byte < 128 else byte | 0xFFFFFF00
        value = value * 16777619 % 2**32
    return value
