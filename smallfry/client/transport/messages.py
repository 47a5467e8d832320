"""HTTP requests and responses as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from smallfry.media_types import JSON, PACKED, SAFETENSORS

FORMATS = {"packed": PACKED, "safetensors": SAFETENSORS, "json": JSON}
"""Media type by format name."""

MAX_JSON = 1 << 22
"""Limit for the body of a response other than rows, in bytes."""


class Request(NamedTuple):
    """A GET request, or with a body a POST request."""

    target: str
    """Path and query, percent-encoded."""
    accept: str
    body: bytes | None = None
    content_type: str = JSON
    limit: int = MAX_JSON
    """Limit for the body of the response, in bytes."""
    pause: float = 0.0
    """Seconds to wait before sending."""
    headers: str = ""
    """Further header lines of a GET request."""

    def encode(self, common: str) -> bytes:
        """Return the bytes to send; `common` holds the header lines shared by all requests of a client."""
        if self.body is None:
            return (
                f"GET {self.target} HTTP/1.1\r\n{common}Accept: {self.accept}\r\n{self.headers}\r\n"
            ).encode("ascii")
        head = _post_head(self.target, common, self.accept, self.content_type)
        return b"%b%d\r\n\r\n%b" % (head, len(self.body), self.body)


@lru_cache(maxsize=64)
def _post_head(target: str, common: str, accept: str, content_type: str) -> bytes:
    return (
        f"POST {target} HTTP/1.1\r\n{common}Accept: {accept}\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: "
    ).encode("ascii")


@dataclass
class Response:
    """A response, which is not changed: repeated heads share their headers.

    Header names are in lower case. A repeated head yields only the fields whose values do not vary.
    """

    status: int
    headers: Mapping[bytes, bytes]
    body: bytearray

    def header(self, name: str) -> str | None:
        """Return the value of a header field, or None."""
        value = self.headers.get(name.encode("ascii"))
        return None if value is None else value.decode("latin-1")
