"""The library's workload: a table at the scale of published ones, its words and requests by frequency."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.common.dataset import Matrix, draw_requests, read_tokens, write_file

BATCHES = 16
"""Smallest number of different batches for each side, so that none works only from its caches."""
DRAWN_TOKENS = BATCHES * 50_000
"""Tokens drawn in total for any size of batch, so that small batches do not repeat sooner than large ones."""


@dataclass(frozen=True)
class Workload:
    """Sizes, and the data that the measurements share.

    Attributes
    ----------
    rows : int
        Of the table.
    rounds : int
        How often the sides take turns.
    seconds : float
        Time of each side in each round.
    folder : Path
        For temporary files.
    original : Path or None
        A checkout of the original project.
    """

    rows: int
    rounds: int
    seconds: float
    folder: Path
    original: Path | None

    @cached_property
    def weight(self) -> Tensor:
        """Float32 ``[rows, dim]``."""
        weight = np.empty(Matrix(self.rows).shape, np.float32)
        start = 0
        for chunk in Matrix(self.rows):
            weight[start : start + len(chunk)] = chunk
            start += len(chunk)
        return torch.from_numpy(weight)

    @property
    def tokens(self) -> list[str]:
        """One per row."""
        return self._vocabulary[0]

    @cached_property
    def file(self) -> Path:
        """The table at 2 bits with its vocabulary, as a ``.sfq`` file."""
        file = self.folder / "words.sfq"
        write_file(file, self.tokens, 2)
        return file

    def batches(self, size: int) -> Callable[[], tuple[list[str]]]:
        """Return a function that returns batches of tokens drawn by frequency.

        The strings are new each time, as after parsing a request: their hashes are not cached yet.
        """
        count = max(BATCHES, DRAWN_TOKENS // size)
        bodies = cycle([json.dumps(batch) for batch in draw_requests(*self._vocabulary, size, count)])
        return lambda: (json.loads(next(bodies)),)

    def random_rows(self, size: int, rows: int | None = None) -> Callable[[], tuple[Tensor]]:
        """Return a function that returns uniformly distributed row numbers below `rows`."""
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(rows or self.rows, (BATCHES, size), generator=generator)
        batches = cycle(ids)
        return lambda: (next(batches),)

    @cached_property
    def _vocabulary(self) -> tuple[list[str], NDArray[np.float64]]:
        return read_tokens(self.rows)
