"""A memory-mapped ``.sfq`` file behind the interface of `RemoteServer`; its generators yield no requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import smallfry
from smallfry import store
from smallfry.client.errors import UnknownModel, Unprocessable
from smallfry.client.lookup import DecodedRows, ModelVersion

if TYPE_CHECKING:
    from smallfry.client.remote import Steps


class LocalFile:
    """One file as a model named by its stem."""

    def __init__(self, path: str) -> None:
        self._store = store.open(path)
        self._version = ModelVersion(self._store.path.stem, self._store.digest, self._store.dim)

    def tokens(self, tokens: list[str], model: str | None, mean: bool) -> Steps[DecodedRows]:
        """Return the vectors of tokens; unknown ones get zeros, or the mean row."""
        yield from ()
        self._check_model(model)
        return DecodedRows(*self._store.lookup(tokens, oov="mean" if mean else "zero"), self._version)

    def ids(self, ids: NDArray[np.uint32], model: str | None) -> Steps[DecodedRows]:
        """Return rows by number."""
        yield from ()
        self._check_model(model)
        try:
            vectors = self._store.rows(ids)
        except IndexError as error:
            raise Unprocessable(str(error), status=422, param="ids") from None
        return DecodedRows(vectors, np.ones(len(ids), np.bool_), self._version)

    def models(self) -> Steps[Any]:
        """Return the file in the form of ``GET /models``."""
        yield from ()
        return {"models": [{"name": self._version.model} | self._store.describe()]}

    def stats(self) -> Steps[Any]:
        """Return the file's sizes in the form of ``GET /stats``."""
        yield from ()
        model = {"name": self._version.model} | self._store.describe_size()
        return {"version": smallfry.__version__, "workers": 0, "models": [model]}

    def close(self) -> None:
        """Close the file."""
        self._store.close()

    def _check_model(self, model: str | None) -> None:
        if model is not None and model != self._version.model:
            raise UnknownModel(
                f"there is no model {model!r}; loaded: {self._version.model!r}", status=404, param="model"
            )
