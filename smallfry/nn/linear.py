"""The output head that shares a packed table."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from smallfry.nn.module import PackedModule
from smallfry.nn.operators import linear
from smallfry.nn.weight_view import READ_ONLY, check_assigned


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
        self.in_features = embedding.embedding_dim
        self.out_features = embedding.num_embeddings
        self.register_parameter("bias", bias)

    @property
    def weight(self) -> Tensor:
        """The decoded table, for reading; it can be set to the embedding's, which it is."""
        return self.embedding.weight

    @weight.setter
    def weight(self, value: object) -> None:
        check_assigned(value, self.embedding.codes)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Register a parameter; ``module.weight = nn.Parameter(…)`` comes here too and is refused."""
        if name == "weight":
            raise AttributeError(READ_ONLY)
        super().register_parameter(name, param)

    def forward(self, input: Tensor) -> Tensor:
        """Return the product with every row, :math:`(*, H)` → :math:`(*, rows)`.

        It has the input's dtype; under autocast, as that of ``nn.Linear``, the one that autocast computes in.
        """
        kind = input.device.type
        if torch.is_autocast_enabled(kind) and input.dtype != torch.float64:
            input = input.to(torch.get_autocast_dtype(kind))
        product = linear(input, self.embedding.packed)
        return product if self.bias is None else product + self.bias.to(product.dtype)

    def extra_repr(self) -> str:
        """Return sizes as ``nn.Linear`` does."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        )
