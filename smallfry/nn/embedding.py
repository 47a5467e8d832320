"""Drop-in replacement for `torch.nn.Embedding`."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn

from smallfry.errors import InputError
from smallfry.nn.fx import traced_call
from smallfry.nn.hub import HubMixin
from smallfry.nn.kernels.operators import decode, linear
from smallfry.nn.scaled import scale_options, scaled


class QuantEmbedding(HubMixin):
    r"""Lookup table of constant vectors packed at ``nbit`` bits per value.

    Takes the parameters of `torch.nn.Embedding`. ``_weight`` is rounded to the levels with the least squared
    error. A matrix of at most ``2**nbit`` distinct values is stored exactly. A row of zeros stays zeros.

    Parameters
    ----------
    num_embeddings : int
        Number of rows.
    embedding_dim : int
        Values per row.
    padding_idx : int, optional
        Row for padding; negative counts from the end. As in `torch.nn.Embedding`, its vector is the row of
        ``_weight``, usually zeros.
    max_norm : None
        Not supported: it rescales rows on lookup, and a packed table is constant.
    norm_type, scale_grad_by_freq, sparse, _freeze
        Without effect: they concern ``max_norm`` and the gradient of the table, which is constant.
    _weight : Tensor of any real dtype, shape [num_embeddings, embedding_dim], optional
        The vectors. The table is on their device, the output has their dtype. Integers are rounded to
        float32, and the output has the default dtype.
    nbit : int
        1, 2, 3, 4, 8, 16 or 32; 3 needs ``codebook_kind="trellis"``.
    embedding_file : path, optional
        Vectors in any format of `smallfry.readers.open_vectors`, instead of ``_weight``: row ``i`` is the
        vector of line ``i``, without a header, whatever its word. Rows beyond the end of the file are zeros,
        with a warning. For a ``.sfq`` file use `from_sfq`.
    device, dtype : optional
        Device of the table and dtype of the output.
    embed_scale : float, optional
        Factor of the rows on lookup, as in scaled embeddings of transformers (BART, Gemma 3). The table of
        ``weight``, and so a tied head, is unscaled.
    round_scale : bool
        Round ``embed_scale`` to the dtype of the output first, as Gemma's embeddings do.
    **quantize_options
        ``codebook_kind``, ``trellis_state_bits``, ``center``, ``row_scale`` of `smallfry.compress.quantize`.

    Raises
    ------
    InputError
        The sizes do not match, the vectors contain NaN or infinity, or an option is not supported.

    Notes
    -----
    Without ``_weight`` and ``embedding_file`` the table is zeros, ready for ``load_state_dict``.

    Input: :math:`(*)`, int32 or int64, also nested. Output: :math:`(*, H)` with :math:`H` =
    ``embedding_dim``, in the dtype of the codebook, without gradient. On CPU an id out of range raises
    ``IndexError``.

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
    OPTIONS = ("padding_idx", "embed_scale", "round_scale")

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
        _freeze: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        nbit: int = 32,
        embedding_file: str | os.PathLike[str] | None = None,
        embed_scale: float | None = None,
        round_scale: bool = False,
        **quantize_options: Any,  # noqa: ANN401
    ) -> None:
        refuse_max_norm(max_norm)
        padding_idx = normalized_padding(padding_idx, num_embeddings)
        super().__init__(
            num_embeddings, embedding_dim, nbit, _weight, embedding_file, device, dtype, **quantize_options
        )
        self.padding_idx = padding_idx
        self.norm_type = norm_type
        self.scale_grad_by_freq = scale_grad_by_freq
        self.sparse = sparse
        self.embed_scale = embed_scale
        self.round_scale = round_scale

    @classmethod
    def float_options(cls, module: nn.Module) -> dict[str, Any]:
        """Return the options of a packed module that does what ``module`` does; see `PackedModule`."""
        assert isinstance(module, nn.Embedding)
        return {"padding_idx": module.padding_idx, **scale_options(module)}

    def forward(self, input: Tensor, *, _linear: bool = False) -> Tensor:
        """Return the rows at ``input``, :math:`(*)` → :math:`(*, H)`.

        `TiedLinear` sets ``_linear`` to multiply ``input`` by the table.
        """
        if not isinstance(input, Tensor):
            return traced_call(self, input)
        if _linear:
            return linear(input, self.packed)
        rows = decode(input, self.packed)
        return rows if self.embed_scale is None else scaled(rows, self.embed_scale, self.round_scale)


def refuse_max_norm(max_norm: float | None) -> None:
    """Raise InputError for ``max_norm`` of `torch.nn.Embedding`, which packed tables do not support."""
    if max_norm is not None:
        raise InputError(
            "max_norm rescales rows on lookup, but a packed table is constant. "
            "Please rescale the rows before quantizing them."
        )


def normalized_padding(padding_idx: int | None, rows: int) -> int | None:
    """Return ``padding_idx`` as a non-negative row number."""
    if padding_idx is None:
        return None
    if not -rows <= padding_idx < rows:
        raise InputError(f"padding_idx is {padding_idx}, expected a row of the {rows}")
    return padding_idx % rows
