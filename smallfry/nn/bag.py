"""Drop-in replacement for `torch.nn.EmbeddingBag`."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn

from smallfry.errors import InputError
from smallfry.nn.embedding import normalized_padding, refuse_max_norm
from smallfry.nn.fx import traced_call
from smallfry.nn.hub import HubMixin
from smallfry.nn.kernels.operators import bag, linear


class QuantEmbeddingBag(HubMixin):
    r"""Sum, mean or maximum of bags of rows of a table packed at ``nbit`` bits per value.

    Takes the parameters of `torch.nn.EmbeddingBag`. Codes are decoded and pooled in one pass, without the
    :math:`(n, H)` decoded rows. Sums are in float32, so outputs differ from torch's only by rounding.

    Parameters
    ----------
    num_embeddings, embedding_dim, max_norm, norm_type, scale_grad_by_freq, sparse, _weight, nbit,
    embedding_file
        As in `QuantEmbedding`.
    mode : {"mean", "sum", "max"}
    include_last_offset : bool
        ``offsets`` has a further entry, the end of the last bag.
    padding_idx : int, optional
        Row excluded from every bag and from the count of the mean.
    device, dtype : optional
        Device of the table and dtype of the output.
    **quantize_options
        As in `QuantEmbedding`.

    Raises
    ------
    InputError
        As in `QuantEmbedding`; or ``mode`` is none of the three.

    Notes
    -----
    Input: ids :math:`(B, N)`, or :math:`(n)` with offsets :math:`(B)`. Output: :math:`(B, H)` with
    :math:`H` = ``embedding_dim``; zeros for an empty bag.

    Examples
    --------
    >>> import torch
    >>> from smallfry import QuantEmbeddingBag
    >>> bag = QuantEmbeddingBag(1000, 50, mode="sum", _weight=torch.randn(1000, 50), nbit=4)
    >>> bag(torch.tensor([1, 2, 4, 5, 4]), torch.tensor([0, 3])).shape
    torch.Size([2, 50])
    """

    FLOAT = nn.EmbeddingBag
    OPTIONS = ("mode", "include_last_offset", "padding_idx")

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        _weight: Tensor | None = None,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        nbit: int = 32,
        embedding_file: str | os.PathLike[str] | None = None,
        **quantize_options: Any,  # noqa: ANN401
    ) -> None:
        refuse_max_norm(max_norm)
        if mode not in ("sum", "mean", "max"):
            raise InputError(f"mode is {mode!r}, expected 'sum', 'mean' or 'max'")
        padding_idx = normalized_padding(padding_idx, num_embeddings)
        super().__init__(
            num_embeddings, embedding_dim, nbit, _weight, embedding_file, device, dtype, **quantize_options
        )
        self.mode = mode
        self.include_last_offset = include_last_offset
        self.padding_idx = padding_idx
        self.norm_type = norm_type
        self.scale_grad_by_freq = scale_grad_by_freq
        self.sparse = sparse

    def forward(
        self,
        input: Tensor,
        offsets: Tensor | None = None,
        per_sample_weights: Tensor | None = None,
        *,
        _linear: bool = False,
    ) -> Tensor:
        """Pool rows into bags, :math:`(B, N)` or :math:`(n)` → :math:`(B, H)`.

        Parameters
        ----------
        input : Tensor of int32 or int64, shape [B, N] or [n]
            Row numbers.
        offsets : Tensor of int32 or int64, shape [B], optional
            Start of each bag in a one-dimensional ``input``; [B + 1] with ``include_last_offset``.
        per_sample_weights : Tensor of float, the shape of ``input``, optional
            Factor of each row, for sums. It receives no gradient.
        _linear : bool
            Set by `TiedLinear` to multiply ``input`` by the table.

        Returns
        -------
        Tensor of the table's dtype, shape [B, embedding_dim]

        Raises
        ------
        IndexError
            An id is out of range, on CPU.
        ValueError
            The shapes do not match, or ``per_sample_weights`` are given for another mode than "sum".
        NotImplementedError
            ``per_sample_weights`` require a gradient.
        """
        if _linear:
            return linear(input, self.packed)
        if not isinstance(input, Tensor):
            return traced_call(self, input, offsets, per_sample_weights)
        if per_sample_weights is not None:
            self._check_weights(input, per_sample_weights)
        include_last_offset = self.include_last_offset
        if input.is_nested and input.layout == torch.jagged and input.ndim == 2:
            offsets, include_last_offset = input.offsets(), True  # type: ignore[attr-defined]
            input = input.values()
            if per_sample_weights is not None:
                per_sample_weights = per_sample_weights.values()
        elif input.ndim == 2:
            if offsets is not None:
                raise ValueError(
                    "offsets go with one-dimensional input; the rows of two-dimensional input are the bags"
                )
        elif input.ndim != 1:
            raise ValueError(f"input has {input.ndim} dimensions, expected 1 or 2")
        elif offsets is None or offsets.ndim != 1:
            raise ValueError("one-dimensional input needs one-dimensional offsets, the start of each bag")
        padding = -1 if self.padding_idx is None else self.padding_idx
        return bag(input, offsets, per_sample_weights, self.packed, self.mode, padding, include_last_offset)

    def _check_weights(self, input: Tensor, weights: Tensor) -> None:
        if self.mode != "sum":
            raise ValueError(f"per_sample_weights go with mode 'sum', not {self.mode!r}")
        if weights.shape != input.shape:
            raise ValueError(
                f"per_sample_weights have shape {list(weights.shape)}, input {list(input.shape)}; "
                "give one for each id"
            )
