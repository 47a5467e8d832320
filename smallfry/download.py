"""Download a model's ``.sfq`` file from a server, once for all processes of a machine."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from smallfry.errors import DigestError, InputError, SmallfryError
from smallfry.sfq.atomic import replacing
from smallfry.sfq.verify import verify

_SCHEMES = ("http://", "https://")
_TIMEOUT = 30.0
_CHUNK = 1 << 20
_EXCERPT = 300
_DIGEST = re.compile(r"[0-9a-f]{64}")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Redirects are errors: urllib would send the API key to wherever they lead."""

    def redirect_request(self, *arguments: Any) -> None:  # noqa: ANN401 - as in the base class
        """Follow nothing."""


# Without proxies: the machines of a cluster reach each other directly.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects)


class MirrorError(SmallfryError, OSError):
    """No server could send the file; the message has the reasons."""


def is_url(source: str) -> bool:
    """Whether a source is the address of a server, not a path."""
    return source.startswith(_SCHEMES)


def default_folder() -> Path:
    """Return the folder of copies: ``smallfry`` in ``XDG_CACHE_HOME``, by default in ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "smallfry"


def model_url(url: str, name: str | None = None) -> str:
    """Return the address of a model: that in `url` if it names one or its file, else that of `name`."""
    address = url.rstrip("/").removesuffix("/file")
    if re.search(r"/models/[^/]+$", address):
        return address
    if name is None:
        raise InputError(f"{url!r} does not name a model, expected http://HOST:PORT/models/NAME")
    return f"{address}/models/{quote(name)}"


def fetch(urls: Sequence[str], folder: Path | None = None, *, api_key: str | None = None) -> Path:
    """Return the path of this machine's copy of a model, after downloading it if it is missing.

    A copy is named by its digest. The first process holds a lock while it downloads; others wait for the lock
    and find the copy. A file is verified before it is renamed to its name.

    Parameters
    ----------
    urls : sequence of str
        Addresses of the same model on several servers, ``http://host:port/models/NAME``, tried in order.
    folder : Path, optional
        Folder of the copies; see `default_folder`.
    api_key : str, optional
        Sent as ``Authorization: Bearer``.

    Raises
    ------
    MirrorError
        No server could send the file.
    """
    folder = default_folder() if folder is None else folder
    folder.mkdir(parents=True, exist_ok=True)
    headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
    reasons = []
    for url in urls:
        try:
            return _fetch(url, folder, headers)
        except (OSError, ValueError, http.client.HTTPException, SmallfryError) as error:
            reasons.append(f"{url}: {error}")
    raise MirrorError(f"no server could send the file: {'; '.join(reasons) or 'no address was given'}")


def _fetch(url: str, folder: Path, headers: dict[str, str]) -> Path:
    with closing(_open(url, headers)) as response:
        model: Any = json.load(response)
    digest = model.get("digest") if isinstance(model, dict) else None
    if not (isinstance(digest, str) and _DIGEST.fullmatch(digest)):
        raise InputError(f"the response has the digest {digest!r}, expected 64 hexadecimal digits")
    copy = folder / f"{digest}.sfq"
    if copy.exists():
        return copy
    with open(folder / f".{digest}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not copy.exists():
            _download(f"{url}/file", headers, digest, copy)
    return copy


def _download(url: str, headers: dict[str, str], digest: str, copy: Path) -> None:
    def check(path: Path) -> None:
        found = verify(path).digest
        if found != digest:
            raise DigestError(f"the file has digest {found}, expected {digest}. Was it replaced meanwhile?")

    with closing(_open(url, headers)) as response, replacing(copy, check=check) as file:
        shutil.copyfileobj(response, file, _CHUNK)


def _open(url: str, headers: dict[str, str]) -> Any:  # noqa: ANN401 - urllib's response has no public type
    try:
        return _opener.open(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            raise OSError(f"status {error.code}: {error.read(_EXCERPT).decode(errors='replace')}") from None
