"""A text model under the names of model2vec."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from smallfry import store


class StaticModel:
    """The ``.sfq`` file of a text model with the methods of ``model2vec.StaticModel`` that encode.

    Examples
    --------
    >>> model = StaticModel.from_pretrained("potion.sfq")
    >>> model.encode(["a sentence"]).shape
    (1, 256)
    """

    def __init__(self, opened: store.Store) -> None:
        self._encoder = opened.encoder()

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str]) -> StaticModel:
        """Map a file that ``smallfry compress DIRECTORY`` wrote; see `smallfry.open` for the errors."""
        return cls(store.open(path))

    @property
    def dim(self) -> int:
        """Values in a vector."""
        return self._encoder.dim

    def encode(
        self,
        sentences: str | Sequence[str],
        *,
        show_progress_bar: bool = False,
        batch_size: int = 1024,
        use_multiprocessing: bool = True,
        multiprocessing_threshold: int = 10_000,
    ) -> NDArray[np.float32]:
        """Return the vectors of texts, float32 ``[n, dim]``, of one str ``[dim]``, using all cores.

        The other arguments, those of model2vec that do not change a vector, are ignored.
        """
        return self._encoder.encode(sentences)

    def tokenize(self, sentences: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, without unknown tokens."""
        return self._encoder.tokenize(sentences)
