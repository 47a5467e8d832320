"""An embedding over a ``.sfq`` file that stays on disk."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from smallfry.errors import InputError
from smallfry.nn import stores
from smallfry.nn.device_table import DTYPES, DeviceTable, Memory, check_memory, device_table
from smallfry.nn.embedding import normalized_padding
from smallfry.nn.fx import traced_call
from smallfry.nn.kernels.gather import gather
from smallfry.nn.scaled import scaled
from smallfry.store import Store

if TYPE_CHECKING:
    from smallfry.pages import Prefetch


class StoreEmbedding(nn.Module):
    r"""Lookup in a ``.sfq`` file, for per-layer and n-gram embeddings larger than memory.

    Replaces a `torch.nn.Embedding`. The table stays in the file, whose pages all processes of the machine
    share and the system can evict. It has no parameters and no gradient.

    Parameters
    ----------
    path : path
        A ``.sfq`` file, preferably a paged one.
    padding_idx : int, optional
        Without effect on the output, as in `torch.nn.Embedding`.
    device : torch.device, optional
        Device of the output; ``.to(device)`` changes it.
    dtype : torch.dtype
        Dtype of the output, float32, float16 or bfloat16; ``.to(dtype)`` changes it.
    memory : {"file", "host", "device"}
        What a GPU reads; see `DeviceTable`. Without effect on the CPU.
    embed_scale, round_scale : optional
        As in `QuantEmbedding`: per-layer embeddings of Gemma multiply rows by a rounded ``embed_scale``.

    Attributes
    ----------
    num_embeddings, embedding_dim, nbit : int
    heads : int or None
        Number of heads, if the file has head offsets.
    path, digest : str
        Absolute path of the file, and the digest of its content.
    store : Store

    Raises
    ------
    SfqError
        The file is damaged or not a ``.sfq`` file.
    InputError
        An option has no such value.

    Notes
    -----
    Input: :math:`(*)`, int32 or int64; with heads :math:`(*, \text{heads})`, ids local to a head. Output:
    :math:`(*, H)` with :math:`H` = ``embedding_dim``. Ids on the CPU cost no synchronization with a GPU. An
    id out of range raises ``IndexError``; on a GPU that reads the whole table its row is NaN.

    The state dict has the digest of the table, which must be equal on loading, and no table. A copy or an
    unpickled module opens the file by its path and raises ``SfqError`` if it was replaced.

    Examples
    --------
    >>> from smallfry import StoreEmbedding
    >>> embedding = StoreEmbedding("ngram.sfq", dtype=torch.bfloat16)  # doctest: +SKIP
    >>> embedding.prefetch(ids)  # doctest: +SKIP
    >>> embedding(ids).shape  # doctest: +SKIP
    torch.Size([512, 16, 160])
    """

    _like: Tensor

    def __init__(
        self,
        path: str | os.PathLike[str],
        padding_idx: int | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        memory: Memory = "file",
        embed_scale: float | None = None,
        round_scale: bool = False,
    ) -> None:
        super().__init__()
        check_memory(memory)
        self._open(path)
        self.padding_idx = normalized_padding(padding_idx, self.num_embeddings)
        self.memory = memory
        self.embed_scale = embed_scale
        self.round_scale = round_scale
        # Tracks module.to(…) as a parameter would.
        self.register_buffer("_like", torch.empty(0, device=device, dtype=dtype), persistent=False)
        self._place()

    def forward(self, input: Tensor) -> Tensor:
        """Return the rows at ``input``, :math:`(*)` → :math:`(*, H)`."""
        if isinstance(input, fx.Proxy):
            return traced_call(self, input)
        like = self._like
        rows: Tensor = gather(input, self.path, self.digest, self.embedding_dim, like.dtype, like.device)
        return rows if self.embed_scale is None else scaled(rows, self.embed_scale, self.round_scale)

    def prefetch(self, input: Tensor) -> Prefetch:
        """Start reading the pages of the rows at ``input``; see `smallfry.Store.prefetch`."""
        return self.store.prefetch(input.cpu().contiguous())

    def extra_repr(self) -> str:
        """Describe the file, sizes and options."""
        heads = "" if self.heads is None else f", heads={self.heads}"
        scale = "" if self.embed_scale is None else f", embed_scale={self.embed_scale}"
        return f"{self.path!r}, {self.num_embeddings}, {self.embedding_dim}, nbit={self.nbit}{heads}{scale}"

    def get_extra_state(self) -> Tensor:
        """Return the name and the digest of the file as bytes of JSON, which every checkpoint can hold."""
        state = {"name": os.path.basename(self.path), "digest": self.digest}
        return torch.frombuffer(bytearray(json.dumps(state), "utf-8"), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Raise InputError unless the state is that of a module over the same table."""
        saved = json.loads(bytes(state.cpu().tolist()))
        if saved["digest"] != self.digest:
            raise InputError(
                f"the state dict was saved with the table {saved['name']} of digest {saved['digest']}, but "
                f"{self.path} has {self.digest}. Please create the module with that table."
            )

    def _open(self, path: str | os.PathLike[str], digest: str | None = None) -> None:
        self.store: Store = stores.share(path, digest)
        table = self.store.table
        self.path = str(self.store.path)
        self.digest = self.store.digest
        self.num_embeddings = table.rows
        self.embedding_dim = table.dim
        self.nbit = table.nbit
        self.heads = None if table.head_offsets is None else len(table.head_offsets) - 1

    def _place(self) -> None:
        """Check the dtype, and give the table to the GPU."""
        like = self._like
        if like.dtype not in DTYPES:
            raise TypeError(
                f"the dtype is {like.dtype}, expected torch.float32, torch.float16 or torch.bfloat16"
            )
        if like.is_cuda and device_table(self.store, like.device).memory != self.memory:
            DeviceTable(self.store, like.device, self.memory)

    def _apply(self, fn: Any, recurse: bool = True) -> StoreEmbedding:  # noqa: ANN401 - Tensor to Tensor
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._place()
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the store."""
        return {name: value for name, value in self.__dict__.items() if name != "store"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the module over the file at its path."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._open(self.path, self.digest)
        self._place()
