"""A memory-mapped ``.sfq`` file behind the interface of `RemoteServer`; its generators yield no requests."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import smallfry
from smallfry import store
from smallfry.client.errors import FileError, UnknownModel, Unprocessable
from smallfry.client.lookup import DecodedRows, ModelVersion
from smallfry.errors import NoTokenizerError, NoVocabularyError, SfqError

if TYPE_CHECKING:
    from smallfry.client.remote import Steps


class LocalFile:
    """One file as a model named by its stem."""

    def __init__(self, path: str) -> None:
        self._url = f"file://{path}"
        try:
            self._store = store.open(path)
        except OSError as error:
            raise FileError(
                f"cannot open {os.path.abspath(path)!r}: {error.strerror or error}. "
                "Please check the path in the base URL and the permissions of the file."
            ) from error
        except SfqError as error:
            raise FileError(str(error)) from error
        self._version = ModelVersion(self._store.path.stem, self._store.digest, self._store.dim)

    def tokens(self, tokens: list[str], model: str | None, mean: bool) -> Steps[DecodedRows]:
        """Return the vectors of tokens; unknown ones get zeros, or the mean row."""
        yield from ()
        self._check_model(model)
        try:
            rows = self._store.lookup(tokens, oov="mean" if mean else "zero")
        except NoVocabularyError as error:
            raise self._unprocessable(error, "tokens") from None
        return DecodedRows(*rows, self._version)

    def ids(self, ids: NDArray[np.uint32], model: str | None) -> Steps[DecodedRows]:
        """Return rows by number."""
        yield from ()
        self._check_model(model)
        try:
            vectors = self._store.rows(ids)
        except IndexError as error:
            raise self._unprocessable(error, "ids") from None
        return DecodedRows(vectors, np.ones(len(ids), np.bool_), self._version)

    def texts(self, texts: list[str], model: str | None) -> Steps[DecodedRows]:
        """Return the vectors of texts."""
        yield from ()
        self._check_model(model)
        try:
            vectors = self._store.encoder().encode(texts)
        except NoTokenizerError as error:
            raise self._unprocessable(error, "texts") from None
        return DecodedRows(vectors, np.ones(len(texts), np.bool_), self._version)

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

    def _unprocessable(self, error: Exception, param: str) -> Unprocessable:
        return Unprocessable(str(error), status=422, request=self._url, param=param)

    def _check_model(self, model: str | None) -> None:
        if model is not None and model != self._version.model:
            message = f"there is no model {model!r}; loaded: {self._version.model!r}"
            raise UnknownModel(message, status=404, request=self._url, param="model")
