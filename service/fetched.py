"""Vocabularies that another instance serves, copied once for all processes of a machine."""

from __future__ import annotations

import fcntl
import os
import tempfile
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import smallfry
from service.errors import ConfigError
from service.sources import SUFFIX, is_name
from smallfry.verify import verify

FILE_ROUTE = "/models/{name}/file"

_TIMEOUT = 60.0
_PIECE = 1 << 20


def local_embeddings(embeddings: Iterable[str], folder: Path, api_key: str | None = None) -> tuple[str, ...]:
    """Return the items of ``--embeddings``, those that name a URL as files of a folder.

    Parameters
    ----------
    embeddings : iterable of str
        ``[name=]path``, or ``[name=]http://host:port/models/NAME/file``.
    folder : Path
        Where files are kept, named by what they hold: all processes that name one folder share them.
    api_key : str, optional
        What the other instance asks for.

    Raises
    ------
    ConfigError
        A URL is not that of a model's file.
    OSError
        It cannot be fetched.
    SfqError
        What came is no ``.sfq`` file, is damaged, or is not what was announced.
    """
    items = []
    for item in embeddings:
        name, separator, rest = item.partition("=")
        url = rest if separator and "/" not in name else item
        if not url.startswith(("http://", "https://")):
            items.append(item)
            continue
        served, path = _served_name(url), _fetch(url, folder, api_key)
        items.append(f"{name if url is rest else served}={path}")
    return tuple(items)


def _served_name(url: str) -> str:
    parts = urlsplit(url).path.split("/")
    name = unquote(parts[-2]) if parts[-1:] == ["file"] and parts[-3:-2] == ["models"] else ""
    if not is_name(name):
        raise ConfigError(f"{url} is not the file of a model: expected http://HOST:PORT{FILE_ROUTE}")
    return name


def _fetch(url: str, folder: Path, api_key: str | None) -> Path:
    """Return the local copy of what a URL serves now; one process fetches it, the others wait."""
    headers = {} if api_key is None else {"x-api-key": api_key}
    with urllib.request.urlopen(
        urllib.request.Request(url, method="HEAD", headers=headers), timeout=_TIMEOUT
    ) as answer:
        digest = answer.headers.get("x-smallfry-digest", "")
    if not digest.isalnum():
        raise ConfigError(f"{url} announces no digest: it is not a smallfry server")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{digest}{SUFFIX}"
    with open(folder / f"{digest}.lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            _download(urllib.request.Request(url, headers=headers), path, digest)
    return path


def _download(request: urllib.request.Request, path: Path, digest: str) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file, urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            while piece := answer.read(_PIECE):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        verify(temporary)
        found = smallfry.open(temporary).digest
        if found != digest:
            raise OSError(f"{request.full_url} sent {found}, but announced {digest}; try again")
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
