"""Download a model's ``.sfq`` file from a server, once for all processes of a machine."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO
from urllib.parse import quote

from smallfry.client import Client, MalformedResponse
from smallfry.client.base import model_info
from smallfry.client.remote import RemoteServer
from smallfry.client.transport.messages import Response
from smallfry.errors import DigestError, InputError, SfqError, SmallfryError, shorten
from smallfry.sfq.atomic import output_folder, replacing
from smallfry.sfq.file import stamp_of
from smallfry.sfq.header import MAX_HEADER
from smallfry.sfq.verify import verify

_SCHEMES = ("http://", "https://")
_TIMEOUT = 30.0
"""Seconds for each response."""
_PART = 1 << 24
"""Bytes of a file in one response, which arrive at 0.5 MB/s or faster."""
_MAX_FILL = 0.9
"""Most of the free space of the disk that a file may take."""
_DIGEST = re.compile(r"[0-9a-f]{64}")
_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")


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
    and find the copy. A file is verified before it is renamed to its name, and again if it is found changed.
    Redirects are errors, and proxies (``http_proxy``) are not used.

    Parameters
    ----------
    urls : sequence of str
        Addresses of the same model on several servers, ``http://host:port/models/NAME``, tried in order.
    folder : Path, optional
        Folder of the copies, which only this user may write to; created if missing. See `default_folder`.
    api_key : str, optional
        Sent as ``Authorization: Bearer`` to each of these servers.

    Raises
    ------
    MirrorError
        No server could send the file, or other users can write to the folder.
    """
    folder = default_folder() if folder is None else folder
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_private(folder.stat()):
        raise MirrorError(
            f"other users can write to {folder}, and so replace the files in it. "
            "Please make it yours and chmod go-w, or use a new folder inside it."
        )
    reasons = []
    for url in urls:
        try:
            return _fetch(url, folder, api_key)
        except (OSError, SmallfryError) as error:
            reasons.append(f"{url}: {error}")
    raise MirrorError(f"no server could send the file: {'; '.join(reasons) or 'no address was given'}")


def fetch_file(url: str, path: Path, *, api_key: str | None = None) -> bool:
    """Download a model to a file, unless that has its digest already; return whether it was downloaded.

    The download is verified before it replaces the file, and keeps its mode. Redirects are errors, and
    proxies are not used.

    Parameters
    ----------
    url : str
        ``http://host:port/models/NAME``.
    path : Path
    api_key : str, optional
        Sent as ``Authorization: Bearer``.
    """
    folder = output_folder(path)
    with _model(url, api_key) as model:
        try:
            model.check(path)
        except (FileNotFoundError, SfqError):
            with replacing(path, check=model.check) as file:
                model.download(file, folder)
            return True
    return False


def _fetch(url: str, folder: Path, api_key: str | None) -> Path:
    with _model(url, api_key) as model:
        copy = folder / f"{model.digest}.sfq"
        with _locked(folder / f".{model.digest}.lock") as lock:
            if not _is_copy(copy, model.digest, lock.read()):
                with replacing(copy, check=model.check, follow_symlinks=False) as file:
                    os.fchmod(file.fileno(), 0o644)
                    model.download(file, folder)
            lock.seek(0)
            lock.truncate()
            lock.write(_stamp(copy.lstat()))
    return copy


@dataclass(frozen=True)
class _Model:
    """A model of a server."""

    client: Client
    source: RemoteServer
    name: str
    digest: str
    most: int
    """Limit for the bytes of its file."""

    def download(self, file: BinaryIO, folder: Path) -> None:
        """Write the bytes of the model to a file in a folder."""
        position, size = 0, 1
        while position < size:
            steps = self.source.file_range(self.name, position, position + _PART)
            response = self.client._run(steps)
            size = _file_size(response, position, self.most)
            if size > _MAX_FILL * shutil.disk_usage(folder).free + position:
                raise OSError(f"the file takes {size:,} bytes, too many for the disk of {folder}")
            file.write(response.body)
            position += len(response.body)

    def check(self, path: Path) -> None:
        """Verify a file, and that it has the model's digest."""
        _check(path, self.digest)


@contextmanager
def _model(url: str, api_key: str | None) -> Iterator[_Model]:
    base, _, name = url.rpartition("/models/")
    with Client(base, api_key=api_key, timeout=_TIMEOUT) as client:
        source = client._source
        assert isinstance(source, RemoteServer)
        info = model_info(client._run(source.model(name)))
        if not _DIGEST.fullmatch(info.digest):
            raise InputError(
                f"the response has the digest {shorten(info.digest)}, expected 64 hexadecimal digits"
            )
        yield _Model(client, source, name, info.digest, info.bytes.get("total", 0) + MAX_HEADER)


def _file_size(response: Response, position: int, most: int) -> int:
    """Return the size of a file from the response with the part of it at a position."""
    found = _RANGE.fullmatch(response.header("content-range") or "")
    start, last, size = map(int, found.groups()) if found else (-1, -1, -1)
    if (start, last + 1 - start) != (position, len(response.body)) or not start <= last < size:
        raise MalformedResponse(
            f"the response has {len(response.body):,} bytes and the range "
            f"{shorten(response.header('content-range'))}, expected the bytes from {position:,}"
        )
    if size > most:
        raise MalformedResponse(f"the file has {size:,} bytes, and its description allows at most {most:,}")
    return size


def _check(path: Path, digest: str) -> None:
    found = verify(path).digest
    if found != digest:
        raise DigestError(f"the file has digest {found}, expected {digest}. Was it replaced meanwhile?")


def _is_copy(copy: Path, digest: str, stamp: str) -> bool:
    """Whether a file is this user's and has the digest; it is read unless it still has the stamp."""
    try:
        status = copy.lstat()
        if not (stat.S_ISREG(status.st_mode) and _is_private(status)):
            return False
        if stamp != _stamp(status):
            _check(copy, digest)
    except (FileNotFoundError, SfqError):
        return False
    return True


def _is_private(status: os.stat_result) -> bool:
    """Whether only this user or root can have written a file, or can write to a folder."""
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _stamp(status: os.stat_result) -> str:
    """Return what changes with any change of a file."""
    return f"{stamp_of(status)} {status.st_ctime_ns}"


@contextmanager
def _locked(path: Path) -> Iterator[TextIO]:
    """Hold a lock for the copies of one digest; the file has the stamp of a verified copy."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, 0o600), "r+", encoding="ascii", errors="replace") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
