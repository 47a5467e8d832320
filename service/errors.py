"""Errors, with the HTTP status and body of their responses."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import ClassVar

#: Limits in characters of `message` and `param`, which may quote the request.
_MAX_MESSAGE, _MAX_PARAM = 2000, 200


class ConfigError(Exception):
    """The server cannot start: an option, all files or the address are wrong; one argument for each."""

    def __str__(self) -> str:
        """Return all messages."""
        return "; ".join(self.args)


class ServiceError(Exception):
    """A server error, and the base of all others.

    The response is ``{"error": {"message", "type", "param", "code"}}``. The message says what was wrong, what
    was expected and what to do; `param` names the field, header or path parameter at fault. `reason` is the
    label of ``smallfry_rejected_total``; empty if the request itself is wrong, which is not counted.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"
    reason: ClassVar[str] = ""

    def __init__(
        self, message: str, *, param: str | None = None, headers: Sequence[tuple[bytes, bytes]] = ()
    ) -> None:
        self.message = _shortened(message, _MAX_MESSAGE)
        self.param = None if param is None else _shortened(param, _MAX_PARAM)
        self.headers = headers
        super().__init__(self.message)

    def body(self) -> bytes:
        """Return the response's body; ASCII, so that the message may quote lone surrogates."""
        detail = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return json.dumps({"error": detail}).encode("ascii")


def quoted(text: str) -> str:
    """Return the representation of a string of the request, shortened first: that of megabytes takes long."""
    return repr(_shortened(text, _MAX_MESSAGE))


def _shortened(text: str, most: int) -> str:
    """Omit the middle of a long text."""
    return text if len(text) <= most else f"{text[: most // 2]} … {text[-most // 2 :]}"


class RequestError(ServiceError):
    """The request is malformed: not JSON, or not HTTP."""

    status, type, code = 400, "invalid_request_error", "malformed_request"


class InvalidValue(ServiceError):
    """The request is well-formed, but one of its values is invalid."""

    status, type, code = 422, "invalid_request_error", "invalid_value"


class UnknownToken(InvalidValue):
    """Tokens are not in the vocabulary, and the request treats that as an error."""

    code = "unknown_token"


class NotAuthenticated(ServiceError):
    """The request has no valid key."""

    status, type, code = 401, "authentication_error", "invalid_api_key"
    reason = "auth"


class NotAllowed(ServiceError):
    """The key does not permit this, the server has it disabled, or a web page of another origin sent it."""

    status, type, code = 403, "permission_error", "not_allowed"
    reason = "auth"


class NotFound(ServiceError):
    """The route or the model does not exist."""

    status, type, code = 404, "not_found_error", "not_found"


class UnknownModel(NotFound):
    """The model does not exist; the message names the loaded ones."""

    code = "model_not_found"

    def __init__(self, name: str, known: Iterable[str]) -> None:
        names = ", ".join(repr(each) for each in known) or "none"
        super().__init__(f"there is no model {quoted(name)}; loaded: {names}", param="model")


class MethodNotAllowed(ServiceError):
    """The route takes other methods, named in ``Allow``."""

    status, type, code = 405, "invalid_request_error", "method_not_allowed"


class NotAcceptable(ServiceError):
    """The route has none of the formats in ``Accept``."""

    status, type, code = 406, "invalid_request_error", "not_acceptable"


class RequestTimeout(ServiceError):
    """The body did not arrive in time."""

    status, type, code = 408, "timeout_error", "request_timeout"
    reason = "slow_body"


class TooLarge(ServiceError):
    """The body or the batch exceeds the limit."""

    status, type, code = 413, "invalid_request_error", "too_large"


class BodyTooLarge(TooLarge):
    """The body exceeds the limit in bytes."""

    reason = "body_size"


class BatchTooLarge(TooLarge):
    """The request has more tokens or ids than the limit."""

    reason = "batch_size"


class UnsupportedMediaType(ServiceError):
    """The route does not read the body's format."""

    status, type, code = 415, "invalid_request_error", "unsupported_media_type"


class HeadTooLarge(ServiceError):
    """The request line and headers, or one of them, exceed the limit in bytes."""

    status, type, code = 431, "invalid_request_error", "head_too_large"


class TooManyRequests(ServiceError):
    """The limits of concurrent and of queued requests are reached."""

    status, type, code = 429, "rate_limit_error", "queue_full"
    reason = "queue_full"


class SearchTimeout(ServiceError):
    """The search did not end in time."""

    status, type, code = 504, "timeout_error", "search_timeout"
    reason = "search_time"


class QueueTimeout(ServiceError):
    """The request timed out in the queue."""

    status, type, code = 504, "timeout_error", "queue_timeout"
    reason = "queue_time"


class RangeNotSatisfiable(ServiceError):
    """The requested range is outside the file."""

    status, type, code = 416, "invalid_request_error", "range_not_satisfiable"


class Conflict(ServiceError):
    """The file is missing or broken; the previous model stays."""

    status, type, code = 409, "invalid_request_error", "file_refused"


class StorageFull(ServiceError):
    """The disk or its quota has no space for the file."""

    status, type, code = 507, "server_error", "storage_full"


class Unavailable(ServiceError):
    """The server is starting or stopping, or no model is loaded."""

    status, type, code = 503, "server_error", "unavailable"


class TooManyConnections(Unavailable):
    """The limit of open connections is reached."""


class Stopping(Unavailable):
    """The server stopped before the request was finished."""

    reason = "draining"


class OutOfMemory(Unavailable):
    """The response needs more memory than is free."""

    code = "out_of_memory"


class FileDamaged(ServiceError):
    """The model's file is damaged where this request reads it."""

    code = "file_damaged"


class ClientDisconnected(Exception):
    """The client disconnected before the response was sent."""
