"""The registry of loaded models."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from service.errors import ConfigError, Conflict, InvalidValue, ServiceError, Unavailable, UnknownModel
from service.models.model import Model
from service.models.sources import Failures, Sources, reason
from service.models.verifier import Verifier
from service.observability.metrics import Meter
from service.scoreboard import Scoreboard
from smallfry import SmallfryError

logger = logging.getLogger("smallfry.models")

#: Errors of a process, not of a file.
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class Models(Mapping[str, Model]):
    """The loaded models of one process by name, synchronized with the server's other processes.

    Changes replace the mapping as a whole. A request keeps its model until it ends, and a file is unmapped
    after the last request that uses it.

    With `verify`, each version of a file is verified before it is served. A file that cannot be served does
    not affect the others; `failed` has the reasons.
    """

    def __init__(self, sources: Sources, scoreboard: Scoreboard, *, verify: bool = False) -> None:
        self.sources = sources
        self._scoreboard = scoreboard
        self._verifier = Verifier() if verify else None
        self._lock = Lock()
        self._models: dict[str, Model] = {}
        self._failed: Failures = {}
        self._generation = 0
        self._behind = False  # whether listed files could not be opened for lack of descriptors or memory
        models, failed = self._open_all(*self._files())
        with self._locked():
            self._publish(models, failed)

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
            raise not_named(models)
        model = models.get(name)
        if model is None:
            raise UnknownModel(name, models)
        return model

    def open(self, name: str, path: Path) -> Model:
        """Open a file without serving it."""
        model = Model.open(name, path)
        if self._verifier is not None:
            self._verifier.check(model.file)
        return model

    def upload(self, name: str) -> Path:
        """Return the file that an upload of a model replaces or creates; see `Sources.upload`.

        Raises
        ------
        Conflict
            It is not the file that is served under the name.
        """
        path = self.sources.upload(name)
        self.refresh()
        served = self._models.get(name)
        if served is not None and served.path != path:
            raise Conflict(
                f"model {name!r} is served from {served.path.name}, and an upload replaces only "
                f"{path.name}; remove the model first (DELETE), or use another name"
            )
        return path

    def put(self, model: Model) -> None:
        """Serve a model in all processes, replacing the one of its name."""
        with self._locked():
            self._publish(self._models | {model.name: model}, self._failed_without(model.path))

    def load(self, name: str, path: Path) -> Model:
        """Check a file and serve it in all processes.

        It is opened again if it was replaced meanwhile: after concurrent uploads the served model is the file
        that stays.
        """
        try:
            while True:
                model = self.open(name, path)
                with self._locked():
                    if model.replacement() is None:
                        self._serve(model)
                        return model
        except (SmallfryError, OSError) as error:
            if name in self._models and self._models[name].path == path:
                self._fail(path, error)
            raise

    def remove(self, name: str) -> None:
        """Stop serving a model."""
        with self._locked():
            if name not in self._models:
                raise UnknownModel(name, self._models)
            left = dict(self._models)
            self._publish(left, self._failed_without(left.pop(name).path))

    @property
    def failed(self) -> Failures:
        """Why files cannot be served, by their path or URL; an earlier version may still be served."""
        return self._failed

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
            files, failed = self._files()
        except (ConfigError, SmallfryError, OSError) as error:
            logger.error("the served models do not change: %s", error)
            self.sources = before
            meter.count_reload(success=False)
            return
        names = sources.names()
        kept = {name: model for name, model in self._models.items() if name in names}
        self._reopen(self._models, kept, files, failed, meter)

    def reload(self, meter: Meter) -> None:
        """Reopen all files and scan the folders again; see `replace_sources`.

        Models of files that were removed are dropped, unless their folder cannot be read.
        """
        self.refresh()
        before = self._models
        files, failed = self._files()
        kept = {
            name: model
            for name, model in before.items()
            if name in files or os.path.exists(model.path) or str(model.path.parent) in failed
        }
        paths = {name: model.path for name, model in kept.items()}
        self._reopen(before, kept, paths | files, failed, meter)

    def refresh(self) -> None:
        """Adopt the models that another process has loaded, replaced or removed."""
        if self._generation != self._scoreboard.generation:
            with self._locked():
                pass

    def maintain(self) -> list[Model]:
        """Adopt changes of other processes; return the models whose file was written to, for `reopen`.

        Called once a second. A lack of memory or descriptors is logged and does not end the process: the next
        call tries again.
        """
        try:
            if self._behind:
                self._behind, self._generation = False, -1
            self.refresh()
        except (OSError, MemoryError) as error:
            logger.error("the models cannot be checked: %s", error)
        return [model for model in self._models.values() if model.is_overwritten()]

    def reopen(self, overwritten: Sequence[Model]) -> None:
        """Stop serving models whose file was written to, then open the files, and serve those that are valid.

        A lookup past the end of a truncated file kills the process (SIGBUS), and overwritten bytes would be
        served under the old digest.
        """
        for model in overwritten:
            problem = {str(model.path): "written to while it was served; replace files by renaming"}
            log_failures(problem)
            try:
                with self._locked():
                    left = {name: each for name, each in self._models.items() if each is not model}
                    self._publish(left, self._failed | problem)
                models, failed = self._open_all({model.name: model.path}, {})
                with self._locked():
                    self._publish(models | self._models, self._failed_without(model.path) | failed)
                log_failures(failed)
            except (OSError, MemoryError) as error:
                logger.error("%s cannot be opened: %s", model.path, error)

    def _files(self) -> tuple[dict[str, Path], Failures]:
        """Return the files to open at the start and on reload, and those that cannot be."""
        return self.sources.files()

    def _open_all(self, files: Mapping[str, Path], failed: Failures) -> tuple[dict[str, Model], Failures]:
        """Open files; return the models, and the failures added to those given."""
        models, failed = {}, dict(failed)
        for name, path in files.items():
            try:
                models[name] = self.open(name, path)
            except (SmallfryError, OSError) as error:
                failed[str(path)] = reason(error)
        return models, failed

    def _reopen(
        self,
        before: Mapping[str, Model],
        kept: Mapping[str, Model],
        files: Mapping[str, Path],
        failed: Failures,
        meter: Meter,
    ) -> None:
        """Open files and serve them instead of the models before; those `kept` stay if theirs fails."""
        opened, failed = self._open_all(files, failed)
        changed = {
            name: model for name, model in opened.items() if name not in kept or not model.is_same(kept[name])
        }
        models = {**kept, **changed}
        with self._locked():
            added = {name: model for name, model in self._models.items() if name not in before}
            self._publish(added | models, failed)
        for success in (*[True] * len(opened), *[False] * len(failed)):
            meter.count_reload(success=success)
        log_failures(failed)
        logger.info("reloaded: %s", ", ".join(models) or "no models")

    def _serve(self, model: Model) -> None:
        """Publish a model, unless it is served; requires the lock."""
        old, failed = self._models.get(model.name), self._failed_without(model.path)
        if old is None or not model.is_same(old) or failed != self._failed:
            self._publish(self._models | {model.name: model}, failed)

    def _fail(self, path: Path, error: Exception) -> None:
        """Share with the other processes that a file cannot be served."""
        with self._locked():
            failed = self._failed | {str(path): reason(error)}
            if failed != self._failed:
                self._publish(self._models, failed)

    def _failed_without(self, path: Path) -> Failures:
        return {file: message for file, message in self._failed.items() if file != str(path)}

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock the list of models against other threads and processes, and adopt their changes."""
        with self._lock, self._scoreboard.locked():
            if self._generation != self._scoreboard.generation:
                self._adopt(*self._scoreboard.read())
            yield

    def _adopt(self, listed: Mapping[str, Sequence[str]], failed: Failures) -> None:
        """Open the listed models, and share what differs from the list: a file was replaced or removed."""
        models: dict[str, Model] = {}
        found, failures = {}, dict(failed)
        for name, (path, digest) in listed.items():
            model = self._models.get(name)
            found[name] = [path, digest]
            if model is None or [str(model.path), model.digest] != [path, digest]:
                try:
                    model = Model.open(name, Path(path))
                    found[name] = [path, model.digest]
                except (SmallfryError, OSError) as error:
                    if isinstance(error, OSError) and error.errno in _EXHAUSTED:
                        self._behind = True
                        logger.error("%s cannot be opened now: %s", path, error.strerror)
                    else:
                        failures[path] = reason(error)
            if model is not None:
                models[name] = model
        if found != listed or failures != failed:
            self._scoreboard.write(found, failures)
            log_failures({file: failures[file] for file in failures.keys() - failed.keys()})
        self._models, self._failed = models, failures
        self._generation = self._scoreboard.generation

    def _publish(self, models: dict[str, Model], failed: Failures) -> None:
        listed = {name: [str(model.path), model.digest] for name, model in models.items()}
        self._scoreboard.write(listed, failed)
        self._models, self._failed = models, failed
        self._generation = self._scoreboard.generation


def log_failures(failed: Failures) -> None:
    """Log why files cannot be served, one line each."""
    for file, message in failed.items():
        logger.error("%s cannot be served: %s", file, message)


def not_named(names: Collection[str]) -> ServiceError:
    """Return the error of a request that does not name its model, given the names that it may use."""
    if not names:
        return Unavailable("no model is loaded")
    known = ", ".join(map(repr, names))
    return InvalidValue(f"the request has to name its model; loaded: {known}", param="model")
