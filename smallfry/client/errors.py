"""Exceptions of the client."""

from __future__ import annotations

from functools import partial
from typing import Any

from smallfry.console import printable
from smallfry.errors import SmallfryError

EXCERPT = 200
"""Most characters of another server's text in a message; a message of smallfry takes five times as many."""


def excerpt(text: object, limit: int = 5 * EXCERPT) -> str:
    """Return text from a server for a message: shortened, with control characters escaped."""
    whole = str(text)
    return printable(whole if len(whole) <= limit else f"{whole[:limit]}…")


class ClientError(SmallfryError):
    """Base class of the client's exceptions."""


class AddressError(ClientError, ValueError):
    """The base URL is not valid."""


class FileError(ClientError):
    """The file of a ``file:`` URL cannot be opened, or is not a valid ``.sfq`` file."""


# No complete response arrived.


class TransportError(ClientError):
    """The request could not be sent, or its response not received."""


class ConnectFailed(TransportError):
    """No connection to the server could be opened, after every retry."""


class TlsError(TransportError):
    """The server's certificate is rejected, or the TLS handshake failed otherwise."""


class ConnectionLost(TransportError):
    """The connection ended before the response was complete, after every retry."""


class Timeout(TransportError, TimeoutError):
    """The response took longer than the client's timeout."""


class ProtocolError(TransportError):
    """The response is not valid HTTP/1.1."""


# The response cannot be used.


class ResponseError(ClientError):
    """The server sent a response with status 200 that cannot be used."""


class MalformedResponse(ResponseError):
    """The body does not match its content type or the request."""


class MixedModels(ResponseError):
    """The model changed between the batches of one lookup, and again in every repeat."""


# The server rejected the request.


class StatusError(ClientError):
    """The server, or a proxy before it, responded with a status other than 200.

    Attributes
    ----------
    status : int
        The HTTP status.
    message : str
        The server's description of the error; of a response that is not smallfry's, an excerpt of its text.
    request : str
        Method and URL of the request, or the URL of the file.
    type, param, code : str or None
        The other fields of the server's error object.
    retry_after : float or None
        Seconds to wait before the next attempt, from the Retry-After header.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        request: str,
        type: str | None = None,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        self.status = status
        self.message = message
        self.request = request
        self.type = type
        self.param = param
        self.code = code
        self.retry_after = retry_after
        super().__init__(f"{request}: status {status}: {message}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep the attributes when pickled, as between processes."""
        names = ("status", "request", "type", "param", "code", "retry_after")
        return partial(type(self), **{name: getattr(self, name) for name in names}), (self.message,)


class BadRequest(StatusError):
    """400: the request is malformed."""


class Unauthorized(StatusError):
    """401: the API key is missing or wrong."""


class Forbidden(StatusError):
    """403: the API key does not permit the request."""


class NotFound(StatusError):
    """404: the server has no such route."""


class UnknownModel(NotFound):
    """404: the server has no such model; the message lists the models it has."""


class NotAcceptable(StatusError):
    """406: the server does not offer the requested response format."""


class TooLarge(StatusError):
    """413: the request exceeds a limit of the server."""


class Unprocessable(StatusError):
    """422: a value in the request is not allowed."""


class Overloaded(StatusError):
    """429: the server is at its concurrency limit, after every retry."""


class ServerError(StatusError):
    """500: the server failed."""


class Unavailable(StatusError):
    """503: the server is starting or shutting down, after every retry."""


class BadGateway(StatusError):
    """502: a proxy received no valid response from the server, after every retry."""


class ServerTimeout(StatusError):
    """408 or 504: the server timed out on the request."""


class GatewayTimeout(ServerTimeout):
    """504 from a proxy: it received no response from the server in time, after every retry."""


BY_STATUS: dict[int, type[StatusError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    406: NotAcceptable,
    408: ServerTimeout,
    413: TooLarge,
    422: Unprocessable,
    429: Overloaded,
    500: ServerError,
    502: BadGateway,
    503: Unavailable,
    504: ServerTimeout,
}
"""Exception class by status; other statuses raise `StatusError`."""
