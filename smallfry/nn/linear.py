"""The output head that shares a packed table."""

from __future__ import annotations

from torch import Tensor, nn

from smallfry.nn.module import PackedModule
from smallfry.nn.operators import linear


class TiedLinear(nn.Module):
    r"""A linear layer whose weight is the packed table of an embedding: :math:`y = x W^T + b`.

    Takes the place of an ``nn.Linear`` that was tied to an embedding. The table is decoded a chunk of rows at
    a time, never as a whole; the gradient reaches the input and the bias.

    Parameters
    ----------
    embedding : PackedModule
        Shared, not copied: also its buffers, wherever the model is moved.
    bias : nn.Parameter of shape [num_embeddings], optional
    """

    bias: nn.Parameter | None

    def __init__(self, embedding: PackedModule, bias: nn.Parameter | None = None) -> None:
        super().__init__()
        self.embedding = embedding
        self.register_parameter("bias", bias)

    @property
    def in_features(self) -> int:
        """Values of a row."""
        return self.embedding.embedding_dim

    @property
    def out_features(self) -> int:
        """Rows."""
        return self.embedding.num_embeddings

    @property
    def weight(self) -> Tensor:
        """The decoded table, for reading."""
        return self.embedding.weight

    def forward(self, input: Tensor) -> Tensor:
        """Return the product with every row, :math:`(*, H)` → :math:`(*, rows)`, of the input's dtype."""
        product = linear(input, self.embedding.packed)
        return product if self.bias is None else product + self.bias.to(product.dtype)

    def extra_repr(self) -> str:
        """Return sizes as ``nn.Linear`` does."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        )
