"""A mapped ``.sfq`` file that answers as a server would; its methods ask nothing of anybody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import smallfry
from smallfry import store
from smallfry.client.errors import UnknownModel, Unprocessable
from smallfry.client.lookup import Content, Vectors

if TYPE_CHECKING:
    from smallfry.client.remote import Steps


class LocalFile:
    """One file, served to its own process under the name of its stem."""

    def __init__(self, path: str) -> None:
        self._store = store.open(path)
        self._content = Content(self._store.path.stem, self._store.digest, self._store.dim)

    def tokens(self, tokens: list[str], model: str | None, mean: bool) -> Steps[Vectors]:
        """Return the vectors of tokens; those of unknown ones are zeros, or the mean row."""
        yield from ()
        self._check_model(model)
        return Vectors(*self._store.lookup(tokens, oov="mean" if mean else "zero"), self._content)

    def ids(self, ids: NDArray[np.uint32], model: str | None) -> Steps[Vectors]:
        """Return the vectors of row numbers."""
        yield from ()
        self._check_model(model)
        try:
            vectors = self._store.rows(ids)
        except IndexError as error:
            raise Unprocessable(str(error), status=422, param="ids") from None
        return Vectors(vectors, np.ones(len(ids), np.bool_), self._content)

    def models(self) -> Steps[Any]:
        """Return what ``GET /models`` would answer."""
        yield from ()
        return {"models": [{"name": self._content.model} | self._store.describe()]}

    def stats(self) -> Steps[Any]:
        """Return what ``GET /stats`` would answer about the file; there is no server to measure."""
        yield from ()
        model = {"name": self._content.model} | self._store.describe_size()
        return {"version": smallfry.__version__, "workers": 0, "models": [model]}

    def close(self) -> None:
        """Let go of the file."""
        self._store.close()

    def _check_model(self, model: str | None) -> None:
        if model is not None and model != self._content.model:
            raise UnknownModel(
                f"there is no model {model!r}; loaded: {self._content.model!r}", status=404, param="model"
            )
