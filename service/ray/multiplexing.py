"""Model multiplexing: a replica keeps only the models open that were requested last."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from service.errors import Unavailable, UnknownModel
from service.http.limits import RETRY
from service.models.model import Model
from service.models.registry import Models, not_named
from service.models.sources import Failures, reason
from service.ray.sources import RemoteSources
from smallfry import SmallfryError

_LEASED: ContextVar[Model | None] = ContextVar("leased", default=None)


class ModelCache(Models):
    """The open models of a replica, out of all that requests may use.

    Serve decides which are open, by keeping and deleting `Lease` objects. A request keeps its model even if
    the model is closed in the meantime.
    """

    sources: RemoteSources

    def names(self) -> list[str]:
        """Return the names that requests may use, open or not."""
        return self.sources.names()

    def lease(self, name: str) -> Lease:
        """Open a model, unless it is open, and keep it open until the lease is deleted."""
        self.put(self._get_or_open(name))
        return Lease(self, name)

    def find(self, name: str | None) -> Model:
        """Return the model that the request has leased; see `Models.find`."""
        leased = _LEASED.get()
        if leased is not None and name in (None, leased.name):
            return leased
        names = self.names()
        if name is not None:
            if name not in names:
                raise UnknownModel(name, names)
            # `requested_model` did not recognize the name in the body: open the model for this request only.
            return self._get_or_open(name)
        if len(names) != 1:
            raise not_named(names)
        return super().find(name)

    def catalog(self) -> list[Model]:
        """Return all models that can be opened; closed ones are opened for the caller only."""
        models = []
        for name in self.names():
            with suppress(SmallfryError, OSError):
                models.append(self.get(name) or Model.open(name, self.sources.path(name)))
        return models

    def _get_or_open(self, name: str) -> Model:
        try:
            return self.get(name) or self.open(name, self.sources.path(name))
        except (SmallfryError, OSError) as error:
            raise Unavailable(f"{name!r} cannot be opened now: {reason(error)}", headers=RETRY) from None

    def _files(self) -> tuple[dict[str, Path], Failures]:
        """Return the files of open models that requests may still use, and all that cannot be opened."""
        files, failed = self.sources.files(self)
        closed = {name: path for name, path in files.items() if name not in self}
        return {name: files[name] for name in files.keys() - closed.keys()}, self._open_all(closed, failed)[1]


class Lease:
    """Keeps a model of a cache open until this object is deleted."""

    def __init__(self, cache: ModelCache, name: str) -> None:
        self._cache = cache
        self._name = name
        self._held = True

    def __del__(self) -> None:
        """Close the model; called by Serve when it evicts the lease as least recently used."""
        if self._held:
            self._held = False
            if self._name in self._cache:
                self._cache.remove(self._name)

    @contextmanager
    def use(self) -> Iterator[None]:
        """Within the context, lookups of this task find the model even if it is closed."""
        token = _LEASED.set(self._cache.get(self._name))
        try:
            yield
        finally:
            _LEASED.reset(token)
