"""The registry of loaded models."""

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
    """The loaded models of one process by name, synchronized with the server's other processes.

    Changes replace the mapping as a whole. A request keeps its model until it ends, and a file is unmapped
    after the last request that uses it.

    With `verify`, the digests of a file are checked before it is served.
    """

    def __init__(self, sources: Sources, scoreboard: Scoreboard, *, verify: bool = False) -> None:
        self.sources = sources
        self._scoreboard = scoreboard
        self._verify = verify
        self._lock = Lock()
        self._models: dict[str, Model] = {}
        self._models = {name: self.open(name, path) for name, path in self._files().items()}
        self._generation = 0
        with self._locked():
            self._publish(self._models)

    def __getitem__(self, name: str) -> Model:
        return self._models[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def find(self, name: str | None) -> Model:
        """Return a model by name; None names the only one, and is invalid if there are several."""
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
        """Open a file without serving it."""
        if self._verify:
            verify(path)
        return Model.open(name, path)

    def put(self, model: Model) -> None:
        """Serve a model in all processes, replacing the one of its name."""
        with self._locked():
            self._publish(self._models | {model.name: model})

    def load(self, name: str, path: Path) -> Model:
        """Check a file and serve it in all processes.

        The file is opened under the lock: after concurrent uploads the served model is the file that stays.
        """
        self.open(name, path)
        with self._locked():
            model, old = Model.open(name, path), self._models.get(name)
            if old is None or not model.is_same(old):
                self._publish(self._models | {name: model})
            return model

    def remove(self, name: str) -> None:
        """Stop serving a model."""
        with self._locked():
            if name not in self._models:
                raise UnknownModel(name, self._models)
            self._publish({key: model for key, model in self._models.items() if key != name})

    def names(self) -> list[str]:
        """Return the names that requests may use."""
        return list(self._models)

    def catalog(self) -> list[Model]:
        """Return all models that requests may use, open."""
        return list(self.values())

    def replace_sources(self, sources: Sources, meter: Meter) -> None:
        """Serve only the files of other sources.

        A file that is missing or invalid is logged, and the loaded model of its name stays.
        """
        before, self.sources = self.sources, sources
        try:
            files = self._files()
        except (ConfigError, SmallfryError, OSError) as error:
            logger.error("the served models do not change: %s", error)
            self.sources = before
            meter.count_reload(success=False)
            return
        self._reopen(self._models, files, meter)

    def reload(self, meter: Meter) -> None:
        """Reopen all files and scan the folders again; see `replace_sources`."""
        self.refresh()
        before, files = self._models, {}
        loaded = {name: model.path for name, model in before.items()}
        try:
            files = self._files()
            loaded = {name: path for name, path in loaded.items() if path.exists()}
        except ConfigError as error:
            logger.error("%s", error)
            meter.count_reload(success=False)
        self._reopen(before, loaded | files, meter)

    def refresh(self) -> None:
        """Adopt the models that another process has loaded, replaced or removed."""
        if self._generation != self._scoreboard.generation:
            with self._locked():
                pass

    def drop_overwritten(self) -> None:
        """Stop serving models whose file was written to; called once a second.

        A lookup past the end of a truncated file kills the process (SIGBUS), and overwritten bytes would be
        served under the old digest. The file is reopened, and served if it is valid.
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
            with self._locked():
                self._publish({key: each for key, each in self._models.items() if key != name} | models)

    def _files(self) -> dict[str, Path]:
        """Return the files to open at the start and on reload."""
        return self.sources.files()

    def _reopen(self, before: Mapping[str, Model], files: Mapping[str, Path], meter: Meter) -> None:
        """Open files and serve them instead of the models before."""
        models: dict[str, Model] = {}
        for name, path in files.items():
            old = before.get(name)
            try:
                new = self.open(name, path)
                models[name] = old if old is not None and new.is_same(old) else new
                meter.count_reload(success=True)
            except (SmallfryError, OSError) as error:
                logger.error("model %r is not replaced: %s", name, error)
                meter.count_reload(success=False)
                if old is not None:
                    models[name] = old
        with self._locked():
            added = {name: model for name, model in self._models.items() if name not in before}
            self._publish(added | models)
        logger.info("reloaded: %s", ", ".join(models) or "no models")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock the list of models against other threads and processes, and adopt their changes."""
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
