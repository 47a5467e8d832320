"""Sources of a replica's models: paths on its node, and other servers."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Collection, Iterable
from pathlib import Path

from service.errors import ConfigError
from service.models.sources import Failures, Sources, check_name
from smallfry import SmallfryError
from smallfry.download import fetch, is_url, model_url

logger = logging.getLogger("smallfry.models")


class RemoteSources(Sources):
    """Files, folders and URLs; the file behind a URL is downloaded once per node.

    Parameters
    ----------
    embeddings : iterable of str
        ``[name=]path`` as in `Sources`, or ``name=http://host:port`` for the model of that name on a server,
        or ``[name=]http://host:port/models/NAME``. If a name has several URLs, the first that responds with
        the file is used.
    folder : Path, optional
        Cache folder on each node; see `smallfry.download.default_folder`.
    api_key : str, optional
        API key sent to the source servers.
    """

    def __init__(
        self, embeddings: Iterable[str], *, folder: Path | None = None, api_key: str | None = None
    ) -> None:
        self._folder = folder
        self._api_key = api_key
        self._urls: dict[str, list[str]] = {}
        paths = []
        for item in embeddings:
            name, separator, url = item.partition("=")
            if is_url(item):
                self._add("", item)
            elif separator and is_url(url):
                self._add(name, url)
            else:
                paths.append(item)
        super().__init__(paths)
        for given, path in self._items:
            name = given or path.stem
            if name in self._urls and not os.path.isdir(path):
                raise ConfigError(f"{path} and {self._urls[name][0]} are both called {name!r}")
        self._names = [*self._urls, *(name for name in self._paths()[0] if name not in self._urls)]

    def names(self) -> list[str]:
        """Return the names of all models, with the folders as they were at the start."""
        return self._names

    def path(self, name: str) -> Path:
        """Return the path of a model's file, downloading it if this node has no current copy."""
        urls = self._urls.get(name)
        if urls is not None:
            return fetch(urls, self._folder, api_key=self._api_key)
        path = self._paths()[0].get(name)
        if path is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return path

    def files(self, downloaded: Collection[str] | None = None) -> tuple[dict[str, Path], Failures]:
        """Return all files by name, as `Sources.files` does, with those of URLs, or of some of them."""
        files, failed = self._paths()
        for name, urls in self._urls.items():
            if name in files:
                failed[str(files.pop(name))] = f"{urls[0]} is called {name!r}, too; rename the file"
            if downloaded is None or name in downloaded:
                try:
                    files[name] = self.path(name)
                except (SmallfryError, OSError) as error:
                    logger.error("model %r cannot be downloaded: %s", name, error)
                    failed[urls[0]] = "no server could send the file"
        return files, failed

    def _paths(self) -> tuple[dict[str, Path], Failures]:
        return super().files() if self._items or not self._urls else ({}, {})

    def _add(self, name: str, url: str) -> None:
        address = model_url(url, name or None)
        name = check_name(name or address.rpartition("/")[2], url)
        self._urls.setdefault(name, []).append(address)
