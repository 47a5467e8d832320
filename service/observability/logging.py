"""Log records as text, or as one JSON object per line; no request can forge a line or control a terminal."""

from __future__ import annotations

import json
import logging
import sys
import time
from traceback import TracebackException
from types import TracebackType
from urllib.parse import quote

from starlette.types import Scope

from service.config import Config
from smallfry.console import printable

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

access = logging.getLogger("smallfry.access")

#: Seconds for which a library repeats no message, and the libraries: a dead collector fails each batch, and
#: uvicorn warns of each malformed request.
_QUIET = 60.0
_LIBRARIES = ("opentelemetry.", "grpc.", "uvicorn.")


class TextFormatter(logging.Formatter):
    """Time, level and message on one line, and a traceback on the lines after it.

    Characters that are not printable (`str.isprintable`: controls, line separators, bidirectional controls,
    surrogates) are replaced by escape sequences.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return time, level and message."""
        return printable(super().formatMessage(record))

    def formatException(self, ei: ExcInfo) -> str:
        """Return a traceback, with each message on one line."""
        assert ei[0] is not None
        lines: list[str] = []
        for part in TracebackException(*ei).format():
            text = part.strip("\n")
            lines += text.split("\n") if text.lstrip(" |+-").startswith('File "') else [text]
        return "\n".join(map(printable, lines))


class JsonFormatter(TextFormatter):
    """One JSON object per line, in ASCII, with field names of the Elastic Common Schema."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as JSON."""
        content = {
            "@timestamp": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{record.msecs:03.0f}Z",
            "log.level": record.levelname.lower(),
            "log.logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            content["error.stack_trace"] = self.formatException(record.exc_info)
        return json.dumps(content).replace("\x7f", "\\u007f")


class RepetitionFilter(logging.Filter):
    """Drop what a library logged from the same line within the last minute, and tracebacks of exporters."""

    def __init__(self) -> None:
        super().__init__()
        self._logged: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether to log a record."""
        if not record.name.startswith(_LIBRARIES) or (record.name == "uvicorn.error" and record.exc_info):
            return True
        record.exc_info = None
        place, now = (record.name, record.lineno), time.monotonic()
        if now - self._logged.get(place, -_QUIET) < _QUIET:
            return False
        self._logged[place] = now
        return True


def configure(config: Config) -> None:
    """Log to standard error in the configured format and level."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if config.log_format == "json" else TextFormatter())
    handler.addFilter(RepetitionFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(config.log_level.upper())


def log_request(scope: Scope, route: str, request_id: bytes, status: int, nanoseconds: int) -> None:
    """Log a request, without its headers and query, which may hold keys."""
    host, port = scope.get("client") or ("unix", 0)
    # Quoted, they have no spaces and quotes: each line has the same fields.
    host, path = quote(host, safe=":"), quote(scope["path"], errors="replace")
    fields = {
        "client.address": host,
        "client.port": port,
        "http.request.method": scope["method"],
        "url.path": path,
        "http.route": route,
        "http.response.status_code": status,
        "event.duration": nanoseconds,
        "http.request.id": request_id.decode(),
    }
    address = f"[{host}]" if ":" in host else host
    access.info(
        '%s "%s %s" %d %.3f ms %s',
        f"{address}:{port}" if port else address,
        scope["method"],
        path,
        status,
        nanoseconds / 1e6,
        fields["http.request.id"],
        extra={"fields": {name: value for name, value in fields.items() if value}},
    )
