"""What compressing the embeddings of a trained LSTM and a trained transformer costs.

    python examples/quantize_trained_models.py --data "$SMALLFRY_DATA"

Trains each on fixed word vectors, then replaces its embeddings by packed ones with `quantize_embed`, without
training it again, and prints accuracy on the test sentences and the bytes of all parameters and buffers. The
folder holds ``embeddings/`` (vectors in ``.npy``, words in ``.txt``) and ``sentence-classification/``
(``label words…`` a line, gzipped).
"""

from __future__ import annotations

import argparse
import copy
import gzip
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from smallfry import quantize_embed

PADDING = 0
LONGEST = 64


@dataclass(frozen=True)
class Sentences:
    """Sentences as row numbers, padded to the longest: ids ``[n, length]``, labels ``[n]``."""

    ids: Tensor
    labels: Tensor

    def batches(self, size: int, *, shuffle: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield ids, no longer than the batch needs, and labels."""
        order = torch.randperm(len(self.ids)) if shuffle else torch.arange(len(self.ids))
        for chosen in order.split(size):
            ids = self.ids[chosen]
            yield ids[:, : max(1, int((ids != PADDING).sum(1).max()))], self.labels[chosen]


class LstmClassifier(nn.Module):
    """The largest outputs of a bidirectional LSTM over word vectors, and a linear layer."""

    def __init__(self, vectors: Tensor, classes: int) -> None:
        super().__init__()
        self.words = nn.Embedding.from_pretrained(vectors, padding_idx=PADDING)
        self.lstm = nn.LSTM(vectors.shape[1], 128, batch_first=True, bidirectional=True)
        self.drop = nn.Dropout(0.5)
        self.scores = nn.Linear(256, classes)

    def forward(self, ids: Tensor) -> Tensor:
        """Return a score for each class, ``[batch, classes]``."""
        states, _ = self.lstm(self.drop(self.words(ids)))
        states = states.masked_fill((ids == PADDING).unsqueeze(2), -math.inf)
        scores: Tensor = self.scores(self.drop(states.amax(1)))
        return scores


class TransformerClassifier(nn.Module):
    """The mean output of a transformer encoder over word vectors and positions, and a linear layer."""

    def __init__(self, vectors: Tensor, classes: int) -> None:
        super().__init__()
        self.words = nn.Embedding.from_pretrained(vectors, padding_idx=PADDING)
        self.positions = nn.Embedding(LONGEST, 128)
        self.enter = nn.Linear(vectors.shape[1], 128)
        layer = nn.TransformerEncoderLayer(128, 4, 256, dropout=0.3, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.drop = nn.Dropout(0.5)
        self.scores = nn.Linear(128, classes)

    def forward(self, ids: Tensor) -> Tensor:
        """Return a score for each class, ``[batch, classes]``."""
        absent = ids == PADDING
        entered = self.enter(self.drop(self.words(ids))) + self.positions(torch.arange(ids.shape[1]))
        states = self.encoder(entered, src_key_padding_mask=absent)
        states = states.masked_fill(absent.unsqueeze(2), 0.0).sum(1) / (~absent).sum(1, keepdim=True)
        scores: Tensor = self.scores(self.drop(states))
        return scores


MODELS = {"lstm": LstmClassifier, "transformer": TransformerClassifier}


def main(arguments: list[str] | None = None) -> None:
    """Train, compress and score each model."""
    parser = argparse.ArgumentParser(description="What compressing the embeddings of a trained model costs.")
    parser.add_argument("--data", type=Path, required=True, help="folder of embeddings and sentences")
    parser.add_argument("--vectors", default="minilm-words.300d.f16.npy", help="file of embeddings/")
    parser.add_argument("--words", default="minilm-words.txt", help="file of embeddings/")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--nbits", nargs="+", type=int, default=[8, 4, 2])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--limit", type=int, help="train and test on this many sentences only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)

    words = (options.data / "embeddings" / options.words).read_text(encoding="utf-8").split("\n")
    matrix = np.load(options.data / "embeddings" / options.vectors).astype(np.float32)
    vectors = torch.from_numpy(np.concatenate([np.zeros((1, matrix.shape[1]), np.float32), matrix]))
    rows = {word: row for row, word in enumerate(words, start=1) if word}
    folder = options.data / "sentence-classification"
    train = read(folder / "stsa.binary.train.gz", rows, options.limit)
    test = read(folder / "stsa.binary.test.gz", rows, options.limit)

    print(f"{'model':12} {'bits':>4} {'accuracy':>8} {'embeddings':>12} {'whole model':>12}")
    for name in options.models:
        torch.manual_seed(options.seed)
        model = MODELS[name](vectors, classes=int(train.labels.max()) + 1)
        began = time.perf_counter()
        fit(model, train, options.epochs)
        seconds = time.perf_counter() - began
        print(row(name, 32, model, test), f" trained in {seconds:.0f} s", flush=True)
        for nbit in options.nbits:
            print(row(name, nbit, quantize_embed(copy.deepcopy(model), nbit, min_share=0), test), flush=True)


def read(path: Path, rows: dict[str, int], limit: int | None = None) -> Sentences:
    """Read sentences; words without a vector are left out, and sentences without words."""
    kept: list[tuple[int, list[int]]] = []
    with gzip.open(path, "rt", encoding="latin-1") as lines:
        for line in lines:
            label, *tokens = line.split()
            ids = [rows[token] for token in tokens if token in rows][:LONGEST]
            if ids:
                kept.append((int(label), ids))
    kept = kept[:limit]
    padded = torch.full((len(kept), max(len(ids) for _, ids in kept)), PADDING)
    for target, (_, ids) in zip(padded, kept, strict=True):
        target[: len(ids)] = torch.tensor(ids)
    return Sentences(padded, torch.tensor([label for label, _ in kept]))


def fit(model: nn.Module, train: Sentences, epochs: int) -> None:
    """Train all parameters that are not fixed."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-3)
    model.train()
    for _ in range(epochs):
        for ids, labels in train.batches(64, shuffle=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(ids), labels).backward()
            optimizer.step()
    model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, test: Sentences) -> float:
    """Return the share of sentences whose class is right."""
    right = sum(int((model(ids).argmax(1) == labels).sum()) for ids, labels in test.batches(256))
    return right / len(test.labels)


def row(name: str, nbit: int, model: nn.Module, test: Sentences) -> str:
    """Return one line of the table."""
    embeddings = (module for module in model.modules() if "Embedding" in type(module).__name__)
    table = sum(tensor_bytes(module) for module in embeddings)
    return f"{name:12} {nbit:4} {accuracy(model, test):8.2%} {table:12,} {tensor_bytes(model):12,}"


def tensor_bytes(module: nn.Module) -> int:
    """Return the bytes of all parameters and buffers."""
    tensors = [*module.parameters(), *module.buffers()]
    return sum(tensor.nbytes for tensor in tensors)


if __name__ == "__main__":
    main()
