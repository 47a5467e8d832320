"""Where the vectors are: a base URL taken apart."""

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
    """One of the places that a client reads from.

    Attributes
    ----------
    scheme : str
        ``http``, ``https``, ``unix`` or ``file``.
    host, port : str, int
        Of ``http`` and ``https``.
    path : str
        The socket of ``unix``, the file of ``file``; else what stands before every route.
    """

    scheme: Scheme
    host: str
    port: int
    path: str

    @property
    def prefix(self) -> str:
        """What stands before every route."""
        return self.path if self.scheme in ("http", "https") else ""

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        if self.scheme == "unix":
            return "localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        return (
            f"{self.scheme}://{self.path if self.scheme in ('unix', 'file') else self.authority + self.path}"
        )


def parse_address(url: str) -> Address:
    """Take a base URL apart.

    Parameters
    ----------
    url : str
        ``http://host:port/prefix``, ``https://…``, ``unix:///path.sock`` or ``file:///path/to.sfq``. The
        slashes after ``unix:`` and ``file:`` may be left out, and the path may be relative.

    Raises
    ------
    AddressError
        When the URL has another form.
    """
    for scheme in _PATH_SCHEMES:
        if url.startswith(f"{scheme}:"):
            path = unquote(url.removeprefix(f"{scheme}:").removeprefix("//"))
            if not path or "\0" in path:
                raise AddressError(f"the base URL {url!r} names no path. Expected {FORMS}.")
            return Address(scheme, "", 0, path)
    if not url.isascii() or any(ord(character) <= 32 or ord(character) == 127 for character in url):
        raise AddressError(
            f"the base URL {url!r} holds a character that must be percent-encoded. Expected {FORMS}."
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise AddressError(f"the base URL {url!r} cannot be read: {error}. Expected {FORMS}.") from None
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise AddressError(
            f"the base URL of {parts.hostname!r} holds a query, a fragment or a password. "
            "Please give only where the server is, and a key as api_key=."
        )
    for web_scheme, default_port in _PORTS.items():
        if parts.scheme == web_scheme and parts.hostname:
            return Address(web_scheme, parts.hostname, port or default_port, parts.path.rstrip("/"))
    raise AddressError(f"the base URL {url!r} names no place. Expected {FORMS}.")
