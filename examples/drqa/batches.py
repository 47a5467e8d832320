"""Questions as tensors: word ids, features, and batches of passages of similar length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from examples.drqa.squad import Question

FEATURES = 3
"""Features of a passage token: in the question, in it ignoring case, frequency in the passage."""

_BATCHES_SORTED_TOGETHER = 20


@dataclass(frozen=True)
class Batch:
    """A batch of questions, padded with -1 (features with 0)."""

    questions: tuple[Question, ...]
    passage: Tensor
    features: Tensor
    question: Tensor
    target: Tensor


class Dataset:
    """Questions with their word ids and features.

    Parameters
    ----------
    questions : sequence of Question
    rows : mapping of str to int
        Maps a word to its row of the embedding. A word is looked up as written, then in lower case; row 0 is
        unknown words.
    """

    def __init__(self, questions: Sequence[Question], rows: Mapping[str, int]) -> None:
        self.questions = list(questions)
        self._rows = rows
        self._encoded = [self._encode(q) for q in self.questions]

    def __len__(self) -> int:
        return len(self.questions)

    def batches(self, size: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """Yield every question once, in batches of passages of similar length.

        The order is random with a generator, and by length without one.
        """
        yield from (self._batch(group) for group in self._groups(size, generator))

    def _groups(self, size: int, generator: torch.Generator | None) -> list[list[int]]:
        def length(i: int) -> int:
            return len(self.questions[i].passage.tokens)

        if generator is None:
            order = sorted(range(len(self)), key=length)
            return [order[i : i + size] for i in range(0, len(order), size)]
        order = torch.randperm(len(self), generator=generator).tolist()
        step = size * _BATCHES_SORTED_TOGETHER
        groups = []
        for first in range(0, len(order), step):
            near = sorted(order[first : first + step], key=length)
            groups += [near[i : i + size] for i in range(0, len(near), size)]
        return [groups[i] for i in torch.randperm(len(groups), generator=generator).tolist()]

    def _batch(self, group: list[int]) -> Batch:
        def pad(tensors: list[Tensor], value: float) -> Tensor:
            return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)

        encoded = [self._encoded[i] for i in group]
        questions = tuple(self.questions[i] for i in group)
        return Batch(
            questions,
            passage=pad([e[0] for e in encoded], -1),
            features=pad([e[1] for e in encoded], 0.0),
            question=pad([e[2] for e in encoded], -1),
            target=torch.tensor([q.target for q in questions]),
        )

    def _encode(self, q: Question) -> tuple[Tensor, Tensor, Tensor]:
        tokens = q.passage.tokens
        words, lower = set(q.question.tokens), {t.lower() for t in q.question.tokens}
        counts = Counter(t.lower() for t in tokens)
        features = [[t in words, t.lower() in lower, counts[t.lower()] / len(tokens)] for t in tokens]
        return self._ids(tokens), torch.tensor(features, dtype=torch.float32), self._ids(q.question.tokens)

    def _ids(self, tokens: Sequence[str]) -> Tensor:
        return torch.tensor([self._rows.get(t) or self._rows.get(t.lower(), 0) for t in tokens])
