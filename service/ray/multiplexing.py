"""More vocabularies than a process may hold: those asked for last are open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from service.errors import InvalidValue, UnknownModel
from service.models.model import Model
from service.models.registry import Models
from service.ray.sources import RemoteSources
from service.scoreboard import Scoreboard

_TAKEN: ContextVar[Model | None] = ContextVar("taken", default=None)


class ModelCache(Models):
    """The vocabularies that are open here, of all that can be asked for.

    Which of them are open is decided elsewhere, by taking `Lease` objects and letting them go. A request
    keeps the model that it has taken, even if that is put away meanwhile.

    Parameters
    ----------
    sources : RemoteSources
        All that can be asked for.
    scoreboard : Scoreboard
        The process's own.
    verify : bool
        Whether to check a file's digests before it is served.
    """

    sources: RemoteSources

    def __init__(self, sources: RemoteSources, scoreboard: Scoreboard, *, verify: bool = False) -> None:
        super().__init__(sources, scoreboard, verify=verify)

    def names(self) -> list[str]:
        """Return what requests may ask for, open or not."""
        return self.sources.names()

    def only(self) -> str | None:
        """Return the one name that there is, which requests may leave out."""
        names = self.names()
        return names[0] if len(names) == 1 else None

    def place(self, name: str) -> Lease:
        """Open a vocabulary, or find it open, and keep it so as long as the place is held."""
        self.put(self._opened(name))
        return Lease(self, name)

    def find(self, name: str | None) -> Model:
        """Return the model that the request has taken; see `Models.find`."""
        taken = _TAKEN.get()
        if taken is not None and name in (None, taken.name):
            return taken
        names = self.names()
        if name is not None:
            if name not in names:
                raise UnknownModel(name, names)
            # The body names it in a way that was not seen before: opened for this request alone.
            return self._opened(name)
        if len(names) != 1:
            known = ", ".join(map(repr, names)) or "none"
            raise InvalidValue(f"the request has to name its model; there are: {known}", param="model")
        return super().find(name)

    def catalog(self) -> list[Model]:
        """Return all that can be asked for; what is not open is opened for the while."""
        return [self._opened(name) for name in self.names()]

    def _opened(self, name: str) -> Model:
        return self.get(name) or self.open(name, self.sources.path(name))

    def _files(self) -> dict[str, Path]:
        """Return the files of what is open and can still be asked for."""
        return {name: self.sources.path(name) for name in self if name in self.names()}


class Lease:
    """A vocabulary that stays open until this is let go.

    Parameters
    ----------
    shelf : ModelCache
        Where it is open.
    name : str
        What it is called there.
    """

    def __init__(self, shelf: ModelCache, name: str) -> None:
        self._shelf = shelf
        self._name = name
        self._held = True

    def __del__(self) -> None:
        """Put the vocabulary away; Serve calls this once others were asked for since."""
        if self._held:
            self._held = False
            if self._name in self._shelf:
                self._shelf.remove(self._name)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Let this task's lookups find the model, even if it is put away meanwhile."""
        token = _TAKEN.set(self._shelf.get(self._name))
        try:
            yield
        finally:
            _TAKEN.reset(token)
