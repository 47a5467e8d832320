"""A compressed embedding layer from a file in GloVe's format.

``python examples/quant_embedding_from_file.py glove.6B.50d.txt``
"""

from __future__ import annotations

import argparse

import torch

from smallfry import QuantEmbedding


def main(arguments: list[str] | None = None) -> None:
    """Compress the vectors of a file and look some up by line number."""
    parser = argparse.ArgumentParser(description="Compress the vectors of a file and look some up.")
    parser.add_argument("file", help="a word and its values a line, as in the GloVe files")
    parser.add_argument("--nbit", type=int, default=2, help="bits per value (2)")
    options = parser.parse_args(arguments)

    with open(options.file, encoding="utf-8") as file:
        lines = [line.split() for line in file]
    words, dim = [line[0] for line in lines], len(lines[0]) - 1
    embedding = QuantEmbedding(
        num_embeddings=len(words),  # vocabulary size
        embedding_dim=dim,
        nbit=options.nbit,  # bits per value
        embedding_file=options.file,
    )
    print(embedding)
    first = torch.arange(min(3, len(words)))
    for word, row in zip(words, embedding(first), strict=False):
        print(word, " ".join(f"{value:.3f}" for value in row[:5]), "…")


if __name__ == "__main__":
    main()
