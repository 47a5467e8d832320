"""The vocabularies that the server answers from, by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

import smallfry.store
from service.errors import ConfigError, InvalidValue, UnknownModel
from smallfry.store import Store

SUFFIX = ".sfq"


@dataclass(frozen=True, eq=False)
class Model:
    """One loaded vocabulary and what each of its answers repeats."""

    name: str
    path: Path
    store: Store
    digest: str
    digest_header: tuple[bytes, bytes]
    json_head: bytes
    zeros: NDArray[np.float32] = field(repr=False)

    @classmethod
    def open(cls, name: str, path: Path) -> Model:
        """Map a file under a name; its pages are read when a lookup first touches them."""
        store = smallfry.store.open(path)
        return cls(
            name=name,
            path=path,
            store=store,
            digest=store.digest,
            digest_header=(b"x-smallfry-digest", store.digest.encode()),
            json_head=orjson.dumps({"model": name, "dim": store.dim})[:-1] + b',"vectors":',
            zeros=np.zeros(store.dim, np.float32),
        )

    def describe(self) -> dict[str, Any]:
        """Return what ``GET /models`` says about this vocabulary: nothing that its file does not decide."""
        store, table = self.store, self.store.table
        return {
            "name": self.name,
            "rows": table.rows,
            "dim": table.dim,
            "nbit": table.nbit,
            "codebook": table.kind,
            "clip": float(table.clip),
            "frobenius_error": float(table.frobenius_error),
            "has_vocabulary": store.vocabulary is not None,
            "digest": self.digest,
            "bytes": dict(store.nbytes),
            "metadata": dict(store.metadata),
        }


class Models(Mapping[str, Model]):
    """The models by name.

    The mapping is replaced as a whole when it changes, so that a request that has taken its model
    keeps it to the end, whatever is loaded meanwhile; a map goes when its last request has ended.
    """

    def __init__(self, models: Iterable[Model]) -> None:
        self._models = {model.name: model for model in models}

    @classmethod
    def open(cls, embeddings: Iterable[str]) -> Models:
        """Open each ``[name=]path``.

        Raises
        ------
        ConfigError
            A name comes twice, or nothing was given.
        SmallfryError, OSError
            A file cannot be opened.
        """
        return cls(Model.open(name, path) for name, path in sources(embeddings).items())

    def __getitem__(self, name: str) -> Model:
        return self._models[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def find(self, name: object) -> Model:
        """Return the model that a request names, or the only one where it names none.

        Raises
        ------
        UnknownModel
            No model has this name.
        InvalidValue
            The name is no string, or there is none and several models are loaded.
        """
        models = self._models
        if name is None:
            if len(models) == 1:
                return next(iter(models.values()))
            known = ", ".join(map(repr, models)) or "none"
            raise InvalidValue(f"the request has to name its model; loaded: {known}", param="model")
        if not isinstance(name, str):
            raise InvalidValue(f"model is {type(name).__name__}; it has to be a string", param="model")
        model = models.get(name)
        if model is None:
            raise UnknownModel(name, models)
        return model


def sources(embeddings: Iterable[str]) -> dict[str, Path]:
    """Return the files that ``[name=]path`` options stand for, by name.

    A file without a name is called by its stem; a folder stands for the ``.sfq`` files in it.

    Raises
    ------
    ConfigError
        A path does not exist, a folder has no such file or was given a name, or a name comes twice.
    """
    found: dict[str, Path] = {}
    for item in embeddings:
        name, separator, rest = item.partition("=")
        if not separator or "/" in name:
            name, rest = "", item
        path = Path(rest)
        if path.is_dir():
            if name:
                raise ConfigError(
                    f"{rest} is a folder; its files are served under their own names, not {name!r}"
                )
            files = sorted(path.glob(f"*{SUFFIX}"))
            if not files:
                raise ConfigError(f"the folder {rest} holds no {SUFFIX} file")
        elif path.exists():
            files = [path]
        else:
            raise ConfigError(
                f"{rest} does not exist; --embeddings takes a {SUFFIX} file or a folder of them"
            )
        for file in files:
            key = name or file.stem
            if key in found:
                raise ConfigError(
                    f"{found[key]} and {file} are both called {key!r}; name one of them: NAME={file}"
                )
            found[key] = file
    if not found:
        raise ConfigError("nothing to serve; give --embeddings PATH or set SMALLFRY_EMBEDDINGS")
    return found
