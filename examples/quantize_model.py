"""Compress every embedding layer of a model: ``python examples/quantize_model.py``."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from smallfry import quantize_embed


class Tagger(nn.Module):
    """A tagger over words and their shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20_000, 128, padding_idx=0)
        self.shapes = nn.Embedding(50, 16)
        self.lstm = nn.LSTM(144, 64, batch_first=True, bidirectional=True)
        self.tags = nn.Linear(128, 17)

    def forward(self, words: Tensor, shapes: Tensor) -> Tensor:
        """Return a score for each tag, ``[batch, length, 17]``."""
        features = torch.cat([self.words(words), self.shapes(shapes)], dim=-1)
        scores: Tensor = self.tags(self.lstm(features)[0])
        return scores


def main() -> None:
    """Compress a model's embeddings and run it before and after."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    model = Tagger().eval()
    words, shapes = torch.randint(20_000, (2, 7)), torch.randint(50, (2, 7))
    before = model(words, shapes)
    quantize_embed(model, nbit={"words": 2, "shapes": 8})  # or nbit=2 for all of them
    after = model(words, shapes)
    print(model)
    print(f"largest change of a score: {(after - before).abs().max():.3f}")


if __name__ == "__main__":
    main()
