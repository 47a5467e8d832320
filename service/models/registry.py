"""The vocabularies that the server answers from, by name."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock
from time import perf_counter, time
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

import smallfry.sfq.file
from service.errors import ConfigError, InvalidValue, UnknownModel
from service.http.request import kind
from service.http.response import Headers
from service.models.sources import Sources
from service.observability.metrics import Meter
from service.process.scoreboard import Scoreboard
from smallfry import SmallfryError
from smallfry.sfq.file import SfqFile
from smallfry.sfq.verify import verify
from smallfry.store import Store
from smallfry.table import Table

logger = logging.getLogger("smallfry.models")


class Frame(NamedTuple):
    """What a safetensors answer begins with, made once for each of its shapes."""

    head: bytes
    headers: Headers
    length: int


@dataclass(frozen=True, eq=False)
class Model:
    """One loaded vocabulary and what its answers repeat.

    Attributes
    ----------
    loaded_at : float
        When its file was opened, in seconds since 1970.
    load_seconds : float
        How long that took.
    packs_from : int
        The least number of rows that take fewer bytes as codes, with their codebook, than decoded.
    stamp : tuple of int
        What tells the file that is mapped from one that takes its place, and from itself written to.
    frames : dict
        The frames of answers already given, by format and shapes.
    """

    name: str
    path: Path
    file: SfqFile
    store: Store
    digest: str
    digest_header: tuple[bytes, bytes]
    json_head: bytes
    zeros: NDArray[np.float32] = field(repr=False)
    packs_from: int
    loaded_at: float
    load_seconds: float
    stamp: tuple[int, ...] = field(repr=False)
    frames: dict[tuple[str | int, ...], Frame] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, name: str, path: Path) -> Model:
        """Map a file under a name; its pages are read when a lookup first touches them."""
        started = perf_counter()
        stamp = _stamp(path)
        file = smallfry.sfq.file.map(path)
        store = Store(file)
        return cls(
            name=name,
            path=path,
            file=file,
            store=store,
            digest=store.digest,
            digest_header=(b"x-smallfry-digest", store.digest.encode()),
            json_head=orjson.dumps({"model": name, "dim": store.dim})[:-1] + b',"vectors":',
            zeros=np.zeros(store.dim, np.float32),
            packs_from=_packs_from(store.table),
            loaded_at=time(),
            load_seconds=perf_counter() - started,
            stamp=stamp,
        )

    def decode(self, ids: NDArray[np.int64], fill: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Return rows as float32 [n, dim]; id -1 gives `fill`, or zeros where there is none."""
        return self.store.table.decode(ids, fill=self.zeros if fill is None else fill)

    @cached_property
    def fits_half(self) -> bool:
        """Whether every value is known to be one of float16, without decoding any."""
        table = self.store.table
        if table.codebook is None:
            return False
        most = float(np.abs(table.codebook).max())
        if table.row_scale is not None:
            most *= float(np.abs(table.row_scale).max(initial=0))
        if table.mean is not None:
            most += float(np.abs(table.mean).max())
        return most < float(np.finfo(np.float16).max)

    def is_overwritten(self) -> bool:
        """Say whether the mapped file has been cut short or written to; one that was replaced has not."""
        try:
            stamp = _stamp(self.path)
        except OSError:
            return False
        return stamp[:2] == self.stamp[:2] and stamp != self.stamp

    def replacement(self) -> tuple[int, ...] | None:
        """Return what tells the file that has taken the place of the mapped one; None where none has."""
        try:
            stamp = _stamp(self.path)
        except OSError:
            return None
        return None if stamp[:2] == self.stamp[:2] else stamp

    def is_same(self, other: Model) -> bool:
        """Say whether both answer the same from the same place."""
        return (self.path, self.digest) == (other.path, other.digest)

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
    """The models of one process, kept equal to those of the server's other processes.

    The mapping is replaced as a whole when it changes: a request that has taken its model keeps it to the
    end, whatever is loaded meanwhile, and a map goes when its last request has ended.

    Parameters
    ----------
    sources : Sources
        The files and folders that the server was started with.
    scoreboard : Scoreboard
        Where processes tell each other what is loaded.
    verify : bool
        Whether to check a file's digests before it is served.

    Raises
    ------
    ConfigError
        Nothing is there to serve, or two files have one name.
    SmallfryError, OSError
        A file cannot be opened.
    """

    def __init__(self, sources: Sources, scoreboard: Scoreboard, *, verify: bool = False) -> None:
        self.sources = sources
        self._scoreboard = scoreboard
        self._verify = verify
        self._lock = Lock()
        self._models: dict[str, Model] = {}
        self._models = {name: self.open(name, path) for name, path in self._files().items()}
        self._generation = 0
        with self._exclusive():
            self._publish(self._models)

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
        if self._generation != self._scoreboard.generation:
            self.refresh()
        models = self._models
        if name is None:
            if len(models) == 1:
                return next(iter(models.values()))
            known = ", ".join(map(repr, models)) or "none"
            raise InvalidValue(f"the request has to name its model; loaded: {known}", param="model")
        if not isinstance(name, str):
            raise InvalidValue(f"model is {kind(name)}; it has to be a string", param="model")
        model = models.get(name)
        if model is None:
            raise UnknownModel(name, models)
        return model

    def open(self, name: str, path: Path) -> Model:
        """Open a file without serving it.

        Raises
        ------
        SmallfryError, OSError
            It cannot be opened or, where the server verifies, its bytes do not fit their digests.
        """
        if self._verify:
            verify(path)
        return Model.open(name, path)

    def put(self, model: Model) -> None:
        """Serve a model from all processes, in place of the one that had its name."""
        with self._exclusive():
            self._publish(self._models | {model.name: model})

    def remove(self, name: str) -> None:
        """Serve a model no longer.

        Raises
        ------
        UnknownModel
            No model has this name.
        """
        with self._exclusive():
            if name not in self._models:
                raise UnknownModel(name, self._models)
            self._publish({key: model for key, model in self._models.items() if key != name})

    def names(self) -> list[str]:
        """Return what requests may ask for."""
        return list(self._models)

    def catalog(self) -> list[Model]:
        """Return everything that requests may ask for, open."""
        return list(self.values())

    def follow(self, sources: Sources, meter: Meter) -> int:
        """Serve what other sources stand for, and nothing else; return how many files were refused.

        A file that is missing or broken is logged, and what was served under its name still is.
        """
        before, self.sources = self.sources, sources
        try:
            files = self._files()
        except (ConfigError, SmallfryError, OSError) as error:
            logger.error("what is served stays as it was: %s", error)
            self.sources = before
            meter.count_reload(success=False)
            return 1
        return self._take(self._models, files, meter)

    def reload_all(self, meter: Meter) -> int:
        """Open all files anew and look into the folders again; return how many were refused.

        A file that is missing or broken is logged, and what was served under its name still is.
        """
        self.refresh()
        before, refused, files = self._models, 0, {}
        left = {name: model.path for name, model in before.items()}
        try:
            files = self._files()
            left = {name: path for name, path in left.items() if path.exists()}
        except ConfigError as error:
            logger.error("%s", error)
            meter.count_reload(success=False)
            refused = 1
        return refused + self._take(before, left | files, meter)

    def refresh(self) -> None:
        """Take over what another process has loaded, replaced or dropped."""
        if self._generation != self._scoreboard.generation:
            with self._exclusive():
                pass

    def drop_overwritten(self) -> None:
        """Serve no longer what was read from a file that has been written to since; called every second.

        A lookup behind the end of a file that is cut short kills the process that asks (SIGBUS), and what is
        written into one is answered under the digest of what was there. The file is opened anew, and served
        if it is whole again.
        """
        for name, model in list(self._models.items()):
            if not model.is_overwritten():
                continue
            logger.error("%s was written to while it was served; replace files by renaming", model.path)
            try:
                models = {name: self.open(name, model.path)}
            except (SmallfryError, OSError) as error:
                logger.error("model %r is not served any more: %s", name, error)
                models = {}
            with self._exclusive():
                self._publish({key: each for key, each in self._models.items() if key != name} | models)

    def _files(self) -> dict[str, Path]:
        """Return the files that are opened before they are asked for."""
        return self.sources.files()

    def _take(self, before: Mapping[str, Model], files: Mapping[str, Path], meter: Meter) -> int:
        """Serve files opened anew in place of the models before; return how many were refused."""
        models, refused = {}, 0
        for name, path in files.items():
            old = before.get(name)
            new: Model | None
            try:
                new = self.open(name, path)
                meter.count_reload(success=True)
            except (SmallfryError, OSError) as error:
                logger.error("model %r is not replaced: %s", name, error)
                meter.count_reload(success=False)
                refused += 1
                new = old
            if new is not None:
                models[name] = old if old is not None and new.is_same(old) else new
        with self._exclusive():
            added = {name: model for name, model in self._models.items() if name not in before}
            self._publish(added | models)
        logger.info("reloaded: %s", ", ".join(models) or "no models")
        return refused

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Keep other threads and processes from changing what is served; start from what they left."""
        with self._lock, self._scoreboard.locked():
            if self._generation != self._scoreboard.generation:
                self._adopt(self._scoreboard.read())
                self._generation = self._scoreboard.generation
            yield

    def _adopt(self, listed: Mapping[str, Sequence[str]]) -> None:
        models = {}
        for name, (path, digest) in listed.items():
            model = self._models.get(name)
            if model is None or [str(model.path), model.digest] != [path, digest]:
                try:
                    model = Model.open(name, Path(path))
                except (SmallfryError, OSError) as error:
                    logger.error("model %r: %s", name, error)
            if model is not None:
                models[name] = model
        self._models = models

    def _publish(self, models: dict[str, Model]) -> None:
        self._scoreboard.write({name: [str(model.path), model.digest] for name, model in models.items()})
        self._models = models
        self._generation = self._scoreboard.generation


def _stamp(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _packs_from(table: Table) -> int:
    if table.codebook is None:
        return sys.maxsize
    return table.codebook.nbytes // (4 * table.dim - table.stride) + 1
