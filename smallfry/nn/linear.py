"""Output head tied to a packed table."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from smallfry.nn.fx import traced_call
from smallfry.nn.module import PackedModule
from smallfry.nn.packed import Packed
from smallfry.nn.weight_view import ReadOnlyWeight


class TiedLinear(ReadOnlyWeight):
    r"""A linear layer whose weight is the packed table of an embedding: :math:`y = x W^T + b`.

    Replaces an ``nn.Linear`` tied to an embedding. The table is decoded in chunks of rows, never as a whole.
    The input and the bias receive gradients.

    Parameters
    ----------
    embedding : PackedModule
        Shared, not copied; not a submodule, so the state dict has only the bias.
    bias : nn.Parameter of shape [num_embeddings], optional

    Notes
    -----
    Input: :math:`(*, H)` of the table's dtype, unless under autocast. Output: :math:`(*, R)` with :math:`R` =
    ``num_embeddings``, of that dtype. Another dtype, size or device raises ``RuntimeError``, as in
    ``nn.Linear``.

    Examples
    --------
    >>> import torch
    >>> from smallfry.nn import QuantEmbedding, TiedLinear
    >>> head = TiedLinear(QuantEmbedding(1000, 50, _weight=torch.randn(1000, 50), nbit=4))
    >>> head(torch.randn(2, 50)).shape
    torch.Size([2, 1000])
    """

    embedding: PackedModule
    bias: nn.Parameter | None

    def __init__(self, embedding: PackedModule, bias: nn.Parameter | None = None) -> None:
        super().__init__()
        # Module.__setattr__ would register it as a submodule, which the model has under another name.
        self.__dict__["embedding"] = embedding
        self.in_features = embedding.embedding_dim
        self.out_features = embedding.num_embeddings
        self.register_parameter("bias", bias)

    @property
    def packed(self) -> Packed:
        """The tensors of the embedding's table."""
        return self.embedding.packed

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Load the bias, and the weight of a float checkpoint into the shared table."""
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        name = prefix + "weight"
        if name in state_dict:
            if strict:
                unexpected_keys.remove(name)
            assign = local_metadata.get("assign_to_params_buffers", False)
            self.embedding._load(
                {"weight": state_dict[name]}, prefix, assign, missing_keys, error_msgs, by_head=True
            )

    def forward(self, input: Tensor) -> Tensor:
        """Return the product with every row, :math:`(*, H)` → :math:`(*, R)`; autocast applies."""
        if not isinstance(input, Tensor):
            return traced_call(self, input)
        # Libraries that offload modules, such as accelerate, replace the attribute forward. Hooks of the
        # embedding, which see looked up rows, do not apply.
        product: Tensor = self.embedding.forward(input, _linear=True)
        return product if self.bias is None else product + self.bias.to(product)

    def extra_repr(self) -> str:
        """Describe the module as ``nn.Linear`` does."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        )
