"""Sources of a replica's models: paths on its node, and other servers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from service.errors import ConfigError
from service.models.sources import Sources, check_name
from smallfry.download import fetch, is_url, model_url


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
        self._names = [*self._urls, *self._paths()]

    def names(self) -> list[str]:
        """Return the names of all models, with the folders as they were at the start."""
        return self._names

    def path(self, name: str) -> Path:
        """Return the path of a model's file, downloading it if this node has no current copy."""
        urls = self._urls.get(name)
        return self._paths()[name] if urls is None else fetch(urls, self._folder, api_key=self._api_key)

    def files(self) -> dict[str, Path]:
        """Return all files by name, with the current files of the folders; see `path`."""
        return {name: self.path(name) for name in self._urls} | self._paths()

    def _paths(self) -> dict[str, Path]:
        if self._urls and not self._files and not self.folders:
            return {}
        paths = super().files()
        for name in paths.keys() & self._urls.keys():
            raise ConfigError(f"{paths[name]} and {self._urls[name][0]} are both called {name!r}")
        return paths

    def _add(self, name: str, url: str) -> None:
        address = model_url(url, name or None)
        name = check_name(name or address.rpartition("/")[2], url)
        self._urls.setdefault(name, []).append(address)
