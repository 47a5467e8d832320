"""The language model: a decoder-only transformer whose input adds rows of a hashed n-gram table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Size:
    """Sizes of the model and its table.

    Attributes
    ----------
    vocabulary, hidden, layers, length : int
        Tokens, width, transformer blocks, and tokens of context.
    orders : tuple of int
        The n of each head of the table: 2 hashes the token and the one before it.
    rows : int
        Rows of each head.
    dim : int
        Values in a row.
    """

    vocabulary: int = 8192
    hidden: int = 256
    layers: int = 2
    length: int = 128
    orders: tuple[int, ...] = (2, 2, 3, 3)
    rows: int = 1 << 18
    dim: int = 64

    @property
    def table(self) -> tuple[int, int]:
        """Shape of the table."""
        return len(self.orders) * self.rows, self.dim

    @property
    def offsets(self) -> NDArray[np.int64]:
        """The first row of each head, and the number of rows."""
        return self.rows * np.arange(len(self.orders) + 1)


def ngrams(tokens: NDArray[np.int64], size: Size) -> NDArray[np.int64]:
    """Return hashes of the n-grams that end at each token ``[n, heads]``: rows, local to their heads.

    Tokens before the first are 0. Heads of the same order have different hashes.
    """
    heads = []
    for head, order in enumerate(size.orders):
        mixed = np.full(len(tokens), head + 1, np.uint64)
        for back in range(order):
            shifted = np.concatenate([np.zeros(back, np.int64), tokens])[: len(tokens)]
            mixed = (mixed ^ shifted.astype(np.uint64)) * _MULTIPLIER
            mixed ^= mixed >> np.uint64(29)
        heads.append((mixed % np.uint64(size.rows)).astype(np.int64))
    return np.stack(heads, axis=1)


class LanguageModel(nn.Module):
    """Everything except the table.

    Parameters
    ----------
    size : Size
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.tokens = nn.Embedding(size.vocabulary, size.hidden)
        self.positions = nn.Parameter(torch.zeros(size.length, size.hidden))
        self.project = nn.Linear(len(size.orders) * size.dim, size.hidden, bias=False)
        self.blocks = nn.ModuleList(Block(size.hidden) for _ in range(size.layers))
        self.norm = nn.RMSNorm(size.hidden)
        self.head = nn.Linear(size.hidden, size.vocabulary, bias=False)
        nn.init.normal_(self.tokens.weight, std=0.1)
        nn.init.normal_(self.head.weight, std=0.02)

    def forward(self, tokens: Tensor, rows: Tensor) -> Tensor:
        """Return the logits of the next tokens.

        Shape:
            - tokens: int64 :math:`(B, T)`, T at most ``size.length``
            - rows: float32 :math:`(B, T, heads, dim)`, of the n-grams that end at each token
            - output: :math:`(B, T, vocabulary)`
        """
        x = self.tokens(tokens) + self.positions[: tokens.shape[1]] + self.project(rows.flatten(2))
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits


class Block(nn.Module):
    """Causal attention of heads of 64 values, and a feed-forward layer, both with residual connections."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.heads = max(1, hidden // 64)
        self.norms = nn.ModuleList(nn.RMSNorm(hidden) for _ in range(2))
        self.qkv = nn.Linear(hidden, 3 * hidden, bias=False)
        self.out = nn.Linear(hidden, hidden, bias=False)
        self.up = nn.Linear(hidden, 4 * hidden, bias=False)
        self.down = nn.Linear(4 * hidden, hidden, bias=False)
        for last in (self.out, self.down):
            nn.init.zeros_(last.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of the input ``[B, T, hidden]`` and both layers."""
        batch, length, hidden = x.shape
        q, k, v = self.qkv(self.norms[0](x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, hidden))
        added: Tensor = x + self.down(F.gelu(self.up(self.norms[1](x))))
        return added
