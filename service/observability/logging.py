"""Log records as text, or as one JSON object per line."""

from __future__ import annotations

import json
import logging
import sys
import time

from service.config import Config


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, and the fields of access records."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as JSON."""
        content = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            content["exception"] = self.formatException(record.exc_info)
        return json.dumps(content)


def configure(config: Config) -> None:
    """Log to standard error in the configured format and level."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(JsonFormatter() if config.log_format == "json" else text)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(config.log_level.upper())
