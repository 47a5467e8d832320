"""The drop-in for `torch.nn.Embedding`."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn

from smallfry.errors import InputError
from smallfry.nn.hub import HubMixin
from smallfry.nn.operators import decode


class QuantEmbedding(HubMixin):
    r"""A lookup table of fixed vectors held at ``nbit`` bits a value.

    Takes the parameters of `torch.nn.Embedding`, and answers as it does: with ``_weight`` rounded to the
    levels that give the least squared error. A matrix of at most ``2**nbit`` distinct values is held as it
    is, and a row of zeros stays exact zeros.

    Parameters
    ----------
    num_embeddings : int
        Rows.
    embedding_dim : int
        Values of a row.
    padding_idx : int, optional
        Row that stands for padding; negative counts from the end. As in `torch.nn.Embedding`, it answers with
        what ``_weight`` holds there, usually zeros.
    max_norm, norm_type, scale_grad_by_freq, sparse
        Taken for compatibility. Anything but the defaults is refused: the first changes rows on lookup, the
        others are about gradients, and a packed table is fixed.
    _weight : Tensor of any floating dtype, shape [num_embeddings, embedding_dim], optional
        The vectors. Answers have its dtype and it stays on its device.
    nbit : int
        1, 2, 4, 8, 16 or 32.
    embedding_file : path, optional
        Vectors in GloVe's text format, instead of ``_weight``: row ``i`` is line ``i``. Rows past the file's
        end are zeros, with a warning.
    device, dtype : optional
        Where the table lives, and the dtype of the answers.
    **quantize_options
        ``codebook``, ``center``, ``row_scale`` of `smallfry.compress.quantize`: less error in as many bits.

    Raises
    ------
    InputError
        The sizes do not agree, the vectors hold NaN or infinity, or an option is not for packed tables.

    Notes
    -----
    Without ``_weight`` and ``embedding_file`` the table is zeros, to load a state dict into.

    Input: :math:`(*)`, int32 or int64. Output: :math:`(*, H)` with :math:`H` = ``embedding_dim``, of the
    codebook's dtype; it needs no gradient. An id out of range raises ``IndexError`` on CPU.

    Examples
    --------
    >>> import torch
    >>> from smallfry import QuantEmbedding
    >>> embedding = QuantEmbedding(1000, 50, _weight=torch.randn(1000, 50), nbit=4)
    >>> embedding(torch.tensor([[1, 2], [3, 999]])).shape
    torch.Size([2, 2, 50])
    >>> embedding.nbytes
    25064
    """

    FLOAT = nn.Embedding
    OPTIONS = ("padding_idx",)

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Tensor | None = None,
        nbit: int = 32,
        embedding_file: str | os.PathLike[str] | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **quantize_options: Any,  # noqa: ANN401
    ) -> None:
        refuse_options(max_norm, norm_type, scale_grad_by_freq, sparse)
        padding_idx = normalized_padding(padding_idx, num_embeddings)
        super().__init__(
            num_embeddings,
            embedding_dim,
            nbit=nbit,
            _weight=_weight,
            embedding_file=embedding_file,
            device=device,
            dtype=dtype,
            **quantize_options,
        )
        self.padding_idx = padding_idx

    def forward(self, input: Tensor) -> Tensor:
        """Return the rows of ``input``, :math:`(*)` → :math:`(*, H)`."""
        return decode(input, self.packed)


def refuse_options(max_norm: float | None, norm_type: float, scale_grad_by_freq: bool, sparse: bool) -> None:
    """Raise InputError for an option of `torch.nn.Embedding` that packed tables cannot have."""
    if max_norm is not None or norm_type != 2.0:
        raise InputError(
            "max_norm rescales rows of the table when they are looked up, but a packed table is fixed. "
            "Please rescale the rows before they are quantized."
        )
    if scale_grad_by_freq or sparse:
        name = "sparse" if sparse else "scale_grad_by_freq"
        raise InputError(
            f"{name} is about the gradient of the table, and a packed table has none. Please leave it out."
        )


def normalized_padding(padding_idx: int | None, rows: int) -> int | None:
    """Return ``padding_idx`` counted from the start."""
    if padding_idx is None:
        return None
    if not -rows <= padding_idx < rows:
        raise InputError(f"padding_idx is {padding_idx}, expected a row of the {rows}")
    return padding_idx % rows
