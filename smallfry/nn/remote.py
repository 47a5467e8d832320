"""An embedding whose table is on a server."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from smallfry.client import Client, MalformedResponse, ModelInfo
from smallfry.client.errors import excerpt
from smallfry.client.lookup import Oov, Tokens
from smallfry.errors import InputError
from smallfry.nn.fx import traced_call


class RemoteEmbedding(nn.Module):
    r"""Lookup table of constant vectors on a server, for ids or tokens.

    Rows are transferred as packed codes and decoded locally, to the same bits as a `QuantEmbedding` of the
    same file. A repeated id or token of an input is transferred once.

    Parameters
    ----------
    url : str
        As in `smallfry.client.Client`: ``http://host:port``, ``unix:///path.sock`` or ``file:///t.sfq``.
    model : str, optional
        Name of the model; optional for a server of one model.
    oov : {"zero", "mean", "error"}
        Treatment of unknown tokens: zeros, the mean of all rows, or an `OutOfVocabularyError`.
    device, dtype : optional
        Device of the output for tokens, and dtype of every output. ``module.to(…)`` changes both. The output
        for ids is on the device of the ids.
    **options
        Options of `smallfry.client.Client`, such as ``api_key``, ``timeout`` or ``cache_bytes``.

    Attributes
    ----------
    num_embeddings, embedding_dim, nbit : int
        Those of the server's table when the module was created.
    digest : str
        Digest of its content.

    Raises
    ------
    InputError
        The server has no such model, or several and `model` is None.
    ClientError
        The request to the server failed.

    Notes
    -----
    Input: ids :math:`(*)`, int32 or int64, or a list of tokens, or a list of token lists of equal length.
    Output: :math:`(*, H)` with :math:`H` = ``embedding_dim``. The module has no parameters and an empty state
    dict. A copy or an unpickled module opens its own connections. ``torch.compile`` breaks the graph here.

    Examples
    --------
    >>> from smallfry import RemoteEmbedding
    >>> embedding = RemoteEmbedding("http://127.0.0.1:8000", "glove")  # doctest: +SKIP
    >>> embedding([["the", "cat"], ["a", "dog"]]).shape  # doctest: +SKIP
    torch.Size([2, 2, 300])
    """

    _like: Tensor

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        oov: Oov = "zero",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,  # noqa: ANN401 - those of the client
    ) -> None:
        super().__init__()
        if oov not in ("zero", "mean", "error"):
            raise InputError(f"oov is {oov!r}, expected 'zero', 'mean' or 'error'")
        self.url = url
        self.oov = oov
        self._options = options
        self._client = Client(url, model=model, distinct=True, **options)
        try:
            info = _choose(self._client.models(), model, url)
        except Exception:
            self._client.close()
            raise
        self.model = info.name
        self.num_embeddings = info.rows
        self.embedding_dim = info.dim
        self.nbit = info.nbit
        self.digest = info.digest
        # Tracks module.to(…) as a parameter would.
        self.register_buffer("_like", torch.empty(0, device=device, dtype=dtype), persistent=False)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, input: Tensor | Tokens) -> Tensor:
        """Return the rows at ids or tokens, :math:`(*)` → :math:`(*, H)`."""
        if isinstance(input, fx.Proxy):
            return traced_call(self, input)
        if isinstance(input, Tensor):
            vectors, shape, device = self._rows(input), input.shape, input.device
        else:
            vectors = self._client.lookup(input, model=self.model, oov=self.oov).vectors
            shape, device = torch.Size(_shape(input)), self._like.device
        if vectors.shape[1] != self.embedding_dim:
            raise MalformedResponse(
                f"the rows of {self.model!r} have {vectors.shape[1]} values, expected {self.embedding_dim}. "
                "If the model was replaced by one of another dim, please create the module again."
            )
        return torch.from_numpy(vectors).to(device, self._like.dtype).reshape(*shape, self.embedding_dim)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def extra_repr(self) -> str:
        """Describe the URL, model and sizes."""
        return f"{self.url!r}, {self.model!r}, {self.num_embeddings}, {self.embedding_dim}, nbit={self.nbit}"

    def _rows(self, ids: Tensor) -> NDArray[np.float32]:
        if ids.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"ids are {ids.dtype}, expected torch.int64 or torch.int32")
        flat = ids.detach().cpu().reshape(-1).numpy()
        outside = flat[(flat < 0) | (flat >= self.num_embeddings)]
        if len(outside):
            raise IndexError(f"id {outside[0]} is out of range for a table of {self.num_embeddings} rows")
        rows: NDArray[np.float32] = self._client.rows(flat, model=self.model)
        return rows

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the connections."""
        return {**self.__dict__, "_client": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the module with its own connections."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._client = Client(self.url, model=self.model, distinct=True, **self._options)


def _choose(models: list[ModelInfo], name: str | None, url: str) -> ModelInfo:
    names = excerpt(", ".join(model.name for model in models))
    if name is None and len(models) != 1:
        raise InputError(f"{url} has {len(models)} models, {names}. Please name one.")
    for model in models:
        if name in (None, model.name):
            return model
    raise InputError(f"{url} has no model {name!r}; it has {names}")


def _shape(tokens: Tokens) -> tuple[int, ...]:
    """Return the shape of a list of tokens, or of token lists of equal length."""
    if isinstance(tokens, str) or not tokens or isinstance(tokens[0], str):
        return (len(tokens),)
    lengths = {len(inner) for inner in tokens}
    if len(lengths) > 1:
        raise InputError(
            f"the lists have {min(lengths)} to {max(lengths)} tokens, expected equal lengths. "
            "Please pad them, or look them up with smallfry.client, which pools."
        )
    return (len(tokens), lengths.pop())
