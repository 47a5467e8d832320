"""Perplexity of a model over compressed tables, and the divergence from its own predictions."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from examples.ngram_lm.model import LanguageModel
from examples.ngram_lm.tables import Gather


@dataclass(frozen=True)
class Score:
    """What a table costs.

    Attributes
    ----------
    loss : float
        Mean negative log-likelihood of a token in nats.
    divergence : float
        Mean KL(p_full || p_compressed) of a token in nats.
    error : float
        ``||X - Xq|| / ||X||`` over the rows that were read, as often as they were read.
    """

    loss: float
    divergence: float
    error: float

    @property
    def perplexity(self) -> float:
        """``exp(loss)``."""
        return math.exp(self.loss)


@torch.no_grad()
def evaluate(
    model: LanguageModel,
    full: Gather,
    gathers: Mapping[str, Gather],
    batches: Iterable[tuple[Tensor, Tensor]],
    device: str = "cpu",
) -> dict[str, Score]:
    """Return the score of each way to gather rows, on the CPU, and that of `full` as ``"full"``.

    The model runs in float32 on `device`.
    """
    sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros(3, dtype=torch.float64))
    tokens, energy = 0, 0.0
    for inputs, ids in batches:
        inputs, rows = inputs.to(device), full(ids).to(device)
        targets = inputs[:, 1:, None]
        reference = torch.log_softmax(model(inputs[:, :-1], rows), -1)
        p = reference.exp()
        entropy = -(p * reference).sum(-1)
        tokens += targets.numel()
        energy += rows.square().sum().item()
        sums["full"][0] -= reference.gather(-1, targets).sum().cpu()
        for name, gather in gathers.items():
            compressed = gather(ids).to(device)
            logits = model(inputs[:, :-1], compressed)
            normalizer = logits.logsumexp(-1)
            loss = (normalizer - logits.gather(-1, targets)[..., 0]).sum()
            divergence = (normalizer - (p * logits).sum(-1) - entropy).sum()
            sums[name] += torch.stack([loss, divergence, (rows - compressed).square().sum()]).cpu()
    return {
        name: Score(loss / tokens, divergence / tokens, math.sqrt(error / energy))
        for name, (loss, divergence, error) in ((name, each.tolist()) for name, each in sums.items())
    }
