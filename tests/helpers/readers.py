"""Read a whole source, for the reader tests."""

import io
import itertools

import numpy as np

from smallfry.readers import open_vectors


def npy(array):
    """Return the bytes of a .npy file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(**arrays):
    """Return the bytes of a .npz file."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def read(data, **options):
    """Return tokens, matrix and report of a path, or of bytes read like a pipe."""
    if isinstance(data, bytes):
        data = io.BytesIO(data)
    source = open_vectors(data, **options)
    tokens, parts = [], [np.empty((0, source.dim), np.float32)]
    for packed, vectors in source.chunks():
        assert vectors.dtype == np.float32
        parts.append(vectors)
        if packed is None:
            tokens = None
        else:
            tokens += words(packed)
            assert len(packed.offsets) == len(vectors) + 1
    matrix = np.concatenate(parts)
    assert source.report.rows == len(matrix)
    return tokens, matrix, source.report


def words(packed):
    buf, offsets = packed
    return [buf[begin:end].tobytes().decode() for begin, end in itertools.pairwise(offsets)]
