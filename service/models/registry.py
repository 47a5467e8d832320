"""The vocabularies that the server answers from, by name."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from service.errors import ConfigError, InvalidValue, UnknownModel
from service.models.model import Model
from service.models.sources import Sources
from service.observability.metrics import Meter
from service.scoreboard import Scoreboard
from smallfry import SmallfryError
from smallfry.sfq.verify import verify

logger = logging.getLogger("smallfry.models")


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

    def find(self, name: str | None) -> Model:
        """Return the model that a request names, or the only one where it names none.

        Raises
        ------
        UnknownModel
            No model has this name.
        InvalidValue
            There is no name, and several models are loaded.
        """
        if self._generation != self._scoreboard.generation:
            self.refresh()
        models = self._models
        if name is None:
            if len(models) == 1:
                return next(iter(models.values()))
            known = ", ".join(map(repr, models)) or "none"
            raise InvalidValue(f"the request has to name its model; loaded: {known}", param="model")
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

    def load(self, name: str, path: Path) -> Model:
        """Check a file and serve it from all processes.

        The file is opened under the lock: after concurrent uploads the served model is the file that stays.
        """
        self.open(name, path)
        with self._exclusive():
            model, old = Model.open(name, path), self._models.get(name)
            if old is None or not model.is_same(old):
                self._publish(self._models | {name: model})
            return model

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
