"""What the server refuses: each error carries the HTTP status and the form of its answer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

Headers = Sequence[tuple[bytes, bytes]]

#: Most characters of a message, and of what it says is at fault: both may quote what the request holds.
_MAX_MESSAGE, _MAX_PARAM = 2000, 200


class ConfigError(Exception):
    """The server cannot start: an option, a file or the address is wrong."""


class ServiceError(Exception):
    """Base of every refusal; answered as ``{"error": {"message", "type", "param", "code"}}``.

    Parameters
    ----------
    message : str
        What was wrong, what was expected and what to do.
    param : str, optional
        The field, header or path parameter at fault.
    headers : sequence of (bytes, bytes), optional
        Headers of the answer beside its type and length.

    Attributes
    ----------
    reason : str
        Under which ``smallfry_rejected_total`` counts it; empty where nobody was turned away, but what was
        asked is wrong.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"
    reason: ClassVar[str] = ""

    def __init__(self, message: str, *, param: str | None = None, headers: Headers = ()) -> None:
        self.message = _shortened(message, _MAX_MESSAGE)
        self.param = None if param is None else _shortened(param, _MAX_PARAM)
        self.headers = headers
        super().__init__(self.message)

    def content(self) -> dict[str, Any]:
        """Return the answer's body as JSON values."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def body(self) -> bytes:
        """Return the answer's body.

        Text of the request may be quoted in the message, lone surrogates too: JSON escapes carry them.
        """
        return json.dumps(self.content(), ensure_ascii=True).encode("ascii")


def _shortened(text: str, most: int) -> str:
    """Leave the middle of a long text out."""
    return text if len(text) <= most else f"{text[: most // 2]} … {text[-most // 2 :]}"


class RequestError(ServiceError):
    """The request is malformed: not JSON, or not HTTP."""

    status, type, code = 400, "invalid_request_error", "malformed_request"


class InvalidValue(ServiceError):
    """The request is well-formed and one of its values cannot be used."""

    status, type, code = 422, "invalid_request_error", "invalid_value"


class UnknownToken(InvalidValue):
    """Tokens outside the vocabulary, where the request asked for an error."""

    code = "unknown_token"


class NotAuthenticated(ServiceError):
    """The request carries no key that the server knows."""

    status, type, code = 401, "authentication_error", "invalid_api_key"
    reason = "auth"


class NotAllowed(ServiceError):
    """The request's key may not do this, or the server was not set up for it."""

    status, type, code = 403, "permission_error", "not_allowed"
    reason = "auth"


class NotFound(ServiceError):
    """No such route."""

    status, type, code = 404, "not_found_error", "not_found"


class UnknownModel(NotFound):
    """No such vocabulary; the message names those that are loaded."""

    code = "model_not_found"

    def __init__(self, name: str, known: Iterable[str]) -> None:
        names = ", ".join(repr(each) for each in known) or "none"
        super().__init__(f"there is no model {name!r}; loaded: {names}", param="model")


class MethodNotAllowed(ServiceError):
    """The route exists and answers other methods, named in ``Allow``."""

    status, type, code = 405, "invalid_request_error", "method_not_allowed"


class NotAcceptable(ServiceError):
    """None of the formats that ``Accept`` names can be given."""

    status, type, code = 406, "invalid_request_error", "not_acceptable"


class RequestTimeout(ServiceError):
    """The body did not arrive in time."""

    status, type, code = 408, "timeout_error", "request_timeout"
    reason = "slow_body"


class TooLarge(ServiceError):
    """The body or the batch is larger than the server takes."""

    status, type, code = 413, "invalid_request_error", "too_large"


class BodyTooLarge(TooLarge):
    """The body has more bytes than the server takes."""

    reason = "body_size"


class BatchTooLarge(TooLarge):
    """The request asks for more tokens or ids at once than the server takes."""

    reason = "batch_size"


class UnsupportedMediaType(ServiceError):
    """The body is in a format that the route does not read."""

    status, type, code = 415, "invalid_request_error", "unsupported_media_type"


class HeadTooLarge(ServiceError):
    """The request's line and headers are longer than the server reads."""

    status, type, code = 431, "invalid_request_error", "head_too_large"


class TooManyRequests(ServiceError):
    """As many requests are being answered, and wait, as the server takes."""

    status, type, code = 429, "rate_limit_error", "queue_full"
    reason = "queue_full"


class QueueTimeout(ServiceError):
    """The request waited for its turn as long as it may."""

    status, type, code = 504, "timeout_error", "queue_timeout"
    reason = "queue_time"


class RangeNotSatisfiable(ServiceError):
    """The range asked for is not in the file."""

    status, type, code = 416, "invalid_request_error", "range_not_satisfiable"


class Conflict(ServiceError):
    """The file cannot be served: it is missing or broken; what was served before still is."""

    status, type, code = 409, "invalid_request_error", "file_refused"


class Unavailable(ServiceError):
    """The server is starting or stopping."""

    status, type, code = 503, "server_error", "unavailable"


class Stopping(Unavailable):
    """The server ends before the request could."""

    reason = "draining"


class OutOfMemory(Unavailable):
    """The answer takes more memory than there is now."""

    code = "out_of_memory"


class FileDamaged(ServiceError):
    """The model's file turned out to be damaged where this request looked."""

    code = "file_damaged"


class ClientDisconnected(Exception):
    """The client left before it had its answer; there is nobody to send it to."""
