"""The document reader of DrQA, written for current torch.

Chen, Fisch, Weston and Bordes, "Reading Wikipedia to Answer Open-Domain Questions" (2017), section 3.2.
The word vectors come from an embedding module that is not trained.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Reader(nn.Module):
    """Find the start and end of the answer to a question in a passage.

    Parameters
    ----------
    embedding : nn.Module
        Maps ids of any shape to vectors of `dim`; id 0 is unknown words. Not trained.
    dim : int
        Length of a word vector.
    features : int
        Features of a passage token in addition to its vector.
    hidden : int
        Units of one direction of one LSTM layer.
    layers : int
        LSTM layers, for the passage and for the question.
    dropout : float
        Dropout of word vectors and of LSTM inputs and outputs. All tokens of a text share a mask (Gal and
        Ghahramani, 2016), which regularizes as well here and is a quarter faster.
    """

    def __init__(
        self,
        embedding: nn.Module,
        dim: int,
        features: int,
        hidden: int,
        layers: int = 3,
        dropout: float = 0.4,
    ) -> None:
        super().__init__()
        self.embedding = embedding.requires_grad_(False)
        self.dropout = dropout
        self.align = nn.Linear(dim, dim)
        self.passage_lstm = StackedBiLSTM(2 * dim + features, hidden, layers, dropout)
        self.question_lstm = StackedBiLSTM(dim, hidden, layers, dropout)
        width = 2 * hidden * layers
        self.question_weight = nn.Linear(width, 1)
        self.start = nn.Linear(width, width)
        self.end = nn.Linear(width, width)

    def forward(self, passage: Tensor, features: Tensor, question: Tensor) -> tuple[Tensor, Tensor]:
        r"""Score every passage token as the start and as the end of the answer.

        Parameters
        ----------
        passage : Tensor
            Ids, :math:`(B, P)`; 0 for an unknown word, -1 past the end.
        features : Tensor
            :math:`(B, P, F)`.
        question : Tensor
            Ids, :math:`(B, Q)`, in the same encoding.

        Returns
        -------
        tuple of Tensor
            Logits of the first and of the last token, each :math:`(B, P)`, :math:`-\infty` on padding.
        """
        passage_pad, question_pad = passage < 0, question < 0
        passage_words = self._words(passage)
        question_words = self._words(question)
        aligned = self._aligned(passage_words, question_words, question_pad)
        passage_states = self.passage_lstm(torch.cat([passage_words, aligned, features], dim=2))
        question_states = self.question_lstm(question_words)

        weight = self.question_weight(question_states).squeeze(2).masked_fill(question_pad, -torch.inf)
        summary = torch.einsum("bq,bqh->bh", weight.softmax(dim=1), question_states)
        start = torch.einsum("bph,bh->bp", passage_states, self.start(summary))
        end = torch.einsum("bph,bh->bp", passage_states, self.end(summary))
        return start.masked_fill(passage_pad, -torch.inf), end.masked_fill(passage_pad, -torch.inf)

    def _words(self, ids: Tensor) -> Tensor:
        return _drop(self.embedding(ids.clamp(min=0)), self.dropout, self.training)

    def _aligned(self, passage: Tensor, question: Tensor, question_pad: Tensor) -> Tensor:
        """Return for each passage token the average of the question words, weighted by attention."""
        scores = F.relu(self.align(passage)) @ F.relu(self.align(question)).transpose(1, 2)
        scores = scores.masked_fill(question_pad[:, None, :], -torch.inf)
        return scores.softmax(dim=2) @ question


class StackedBiLSTM(nn.Module):
    """Bidirectional LSTM layers with concatenated outputs, and dropout between them and at the end."""

    def __init__(self, inputs: int, hidden: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.layers = nn.ModuleList(
            nn.LSTM(inputs if i == 0 else 2 * hidden, hidden, batch_first=True, bidirectional=True)
            for i in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        r"""Map :math:`(B, T, \text{inputs})` to :math:`(B, T, 2 \cdot \text{hidden} \cdot \text{layers})`."""
        outputs = []
        for layer in self.layers:
            x, _ = layer(x if not outputs else _drop(x, self.dropout, self.training))
            outputs.append(x)
        return _drop(torch.cat(outputs, dim=2), self.dropout, self.training)


def best_spans(start: Tensor, end: Tensor, longest: int = 15) -> list[tuple[int, int]]:
    """Return the most probable span of at most `longest` tokens for each row.

    Parameters
    ----------
    start, end : Tensor
        Logits, ``[batch, tokens]``, from `Reader`.
    longest : int
        Maximum number of tokens in a span.

    Returns
    -------
    list of (int, int)
        First and last token.
    """
    scores = start.log_softmax(1)[:, :, None] + end.log_softmax(1)[:, None, :]
    allowed = torch.ones(scores.shape[1:], dtype=torch.bool, device=scores.device).triu().tril(longest - 1)
    best = scores.masked_fill(~allowed, -torch.inf).flatten(1).argmax(1)
    return [divmod(int(i), scores.shape[2]) for i in best]


def _drop(x: Tensor, dropout: float, training: bool) -> Tensor:
    return x * F.dropout(x.new_ones(len(x), 1, x.shape[2]), dropout) if training else x
