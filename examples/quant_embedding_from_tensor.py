"""A compressed embedding layer from a tensor: ``python examples/quant_embedding_from_tensor.py``."""

from __future__ import annotations

import torch

from smallfry import QuantEmbedding


def main() -> None:
    """Compress random vectors to 4 bits per value and look some up."""
    vectors = torch.randn(1000, 50)
    embedding = QuantEmbedding(
        num_embeddings=1000,  # vocabulary size
        embedding_dim=50,
        _weight=vectors,  # rows are embeddings
        nbit=4,  # bits per value
    )
    rows = embedding(torch.tensor([[1, 2, 3], [4, 5, 999]]))
    print(embedding)
    print(f"rows have shape {list(rows.shape)} and dtype {rows.dtype}")
    print(f"{vectors.nbytes:,} bytes became {embedding.nbytes:,}, error {embedding.frobenius_error:.1%}")


if __name__ == "__main__":
    main()
