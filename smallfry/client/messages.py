"""A request and its answer, as values."""

from __future__ import annotations

from dataclasses import dataclass

JSON = "application/json"
SAFETENSORS = "application/vnd.safetensors"
PACKED = "application/vnd.smallfry.packed"
RAW = "application/octet-stream"

FORMATS = {"packed": PACKED, "safetensors": SAFETENSORS, "json": JSON}
"""Media type of each format that the client can ask for."""


@dataclass(frozen=True)
class Request:
    """One request; without a body it is a GET.

    Attributes
    ----------
    target : str
        Path and query, percent-encoded.
    accept : str
        Media type of the answer.
    body : bytes or None
        The body of a POST.
    content_type : str
        Media type of the body.
    pause : float
        Seconds to wait before it is sent.
    """

    target: str
    accept: str
    body: bytes | None = None
    content_type: str = "application/json"
    pause: float = 0.0

    def encode(self, common: str) -> bytes:
        """Return the bytes to send; `common` are header lines that all requests of a client share."""
        if self.body is None:
            return f"GET {self.target} HTTP/1.1\r\n{common}Accept: {self.accept}\r\n\r\n".encode("ascii")
        head = (
            f"POST {self.target} HTTP/1.1\r\n{common}Accept: {self.accept}\r\n"
            f"Content-Type: {self.content_type}\r\nContent-Length: {len(self.body)}\r\n\r\n"
        )
        return head.encode("ascii") + self.body


@dataclass(frozen=True)
class Response:
    """What a server answered; header names are in lower case."""

    status: int
    headers: dict[bytes, bytes]
    body: bytearray

    def header(self, name: str) -> str | None:
        """Return a header field's value, or None."""
        value = self.headers.get(name.encode("ascii"))
        return None if value is None else value.decode("latin-1")
