"""What can go wrong between a client and a server.

ClientError
  + AddressError           the base URL
  + TransportError         no answer came
    - ConnectFailed
    - ConnectionLost
    - Timeout
    - ProtocolError
  + ResponseError          an answer came that cannot be used
    - MalformedResponse
    - MixedModels
  + StatusError            the server said no
    - BadRequest           400
    - Unauthorized         401
    - Forbidden            403
    - NotFound             404
      . UnknownModel
    - NotAcceptable        406
    - TooLarge             413
    - Unprocessable        422
    - Overloaded           429
    - ServerError          500
    - Unavailable          503
    - ServerTimeout        408, 504
"""

from __future__ import annotations

from smallfry.errors import SmallfryError


class ClientError(SmallfryError):
    """Base of everything that a client raises about a server and its answers."""


class AddressError(ClientError, ValueError):
    """The base URL names no place that a client can reach."""


# No answer came.


class TransportError(ClientError):
    """The request was sent in vain, or could not be sent."""


class ConnectFailed(TransportError):
    """No connection to the server could be opened."""


class ConnectionLost(TransportError):
    """The connection ended before the whole answer had come."""


class Timeout(TransportError, TimeoutError):
    """The answer took longer than the client's timeout."""


class ProtocolError(TransportError):
    """What came back is not HTTP/1.1."""


# An answer came that cannot be used.


class ResponseError(ClientError):
    """The server said yes, and its answer cannot be used."""


class MalformedResponse(ResponseError):
    """The body of the answer is not what its content type or the request promises."""


class MixedModels(ResponseError):
    """The model changed during a request of several batches, each time that the request was repeated."""


# The server said no.


class StatusError(ClientError):
    """The server answered with a status other than 200.

    Attributes
    ----------
    status : int
        The HTTP status.
    message : str
        What the server says is wrong.
    type, param, code : str or None
        The other fields of the server's error object.
    retry_after : float or None
        Seconds after which the server asks to try again.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        type: str | None = None,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        self.status = status
        self.message = message
        self.type = type
        self.param = param
        self.code = code
        self.retry_after = retry_after
        super().__init__(message)


class BadRequest(StatusError):
    """400: the request is malformed."""


class Unauthorized(StatusError):
    """401: the server wants an API key, and none or a wrong one was sent."""


class Forbidden(StatusError):
    """403: the API key does not allow this."""


class NotFound(StatusError):
    """404: the server has no such route."""


class UnknownModel(NotFound):
    """404: the server has no such model; the message names those there are."""


class NotAcceptable(StatusError):
    """406: the server has no such answer format."""


class TooLarge(StatusError):
    """413: one request holds more than the server takes."""


class Unprocessable(StatusError):
    """422: a value in the request is not allowed."""


class Overloaded(StatusError):
    """429: the server is full, and was still full after every retry."""


class ServerError(StatusError):
    """500: the server failed."""


class Unavailable(StatusError):
    """503: the server is starting or draining, and was so after every retry."""


class ServerTimeout(StatusError):
    """408 or 504: the server gave the request up for taking too long."""


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
    503: Unavailable,
    504: ServerTimeout,
}
"""The class of each status that has one; any other status is a plain `StatusError`."""
