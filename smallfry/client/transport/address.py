"""Parse base URLs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote, urlsplit

from smallfry.client.errors import AddressError

Scheme = Literal["http", "https", "unix", "file"]

_PATH_SCHEMES: tuple[Literal["unix"], Literal["file"]] = ("unix", "file")
_PORTS: dict[Literal["http", "https"], int] = {"http": 80, "https": 443}

FORMS = "http://host[:port][/prefix], https://…, unix:///path/to.sock or file:///path/to.sfq"


@dataclass(frozen=True)
class Address:
    """A parsed base URL; `host` and `port` are set for ``http`` and ``https``."""

    scheme: Scheme
    host: str
    port: int
    path: str
    """Path of the socket (``unix``) or file (``file``); otherwise the prefix of every route."""

    @property
    def prefix(self) -> str:
        """Prefix of every route."""
        return self.path if self.scheme in ("http", "https") else ""

    @property
    def authority(self) -> str:
        """Value of the Host header."""
        if self.scheme == "unix":
            return "localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        location = self.path if self.scheme in _PATH_SCHEMES else self.authority + self.path
        return f"{self.scheme}://{location}"


def parse_address(url: str) -> Address:
    """Parse a base URL.

    Parameters
    ----------
    url : str
        ``http://host:port/prefix``, ``https://…``, ``unix:///path.sock`` or ``file:///path/to.sfq``. The
        slashes after ``unix:`` and ``file:`` are optional; the path may be relative.
    """
    for scheme in _PATH_SCHEMES:
        if url.startswith(f"{scheme}:"):
            path = unquote(url.removeprefix(f"{scheme}:").removeprefix("//"))
            if not path or "\0" in path:
                raise AddressError(f"the base URL {url!r} has no path. Expected {FORMS}.")
            return Address(scheme, "", 0, path)
    if not url.isascii() or any(ord(character) <= 32 or ord(character) == 127 for character in url):
        raise AddressError(
            f"the base URL {url!r} contains a character that must be percent-encoded. Expected {FORMS}."
        )
    try:
        parts = urlsplit(url)
        port = parts.port
        (parts.hostname or "").encode("idna")  # rejects empty and overlong labels
    except ValueError as error:
        raise AddressError(f"the base URL {url!r} is not valid: {error}. Expected {FORMS}.") from None
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise AddressError(
            f"the base URL of {parts.hostname!r} contains a query, a fragment or a password. "
            "Give the address only, and the key as api_key=."
        )
    for web_scheme, default_port in _PORTS.items():
        if parts.scheme == web_scheme and parts.hostname:
            return Address(
                web_scheme, parts.hostname, default_port if port is None else port, parts.path.rstrip("/")
            )
    raise AddressError(f"the base URL {url!r} has no host or an unknown scheme. Expected {FORMS}.")
