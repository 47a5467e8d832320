"""Sending a model's ``.sfq`` file, whole or in part, from the map that is served."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote

from starlette.types import Receive, Scope, Send

from service.errors import RangeNotSatisfiable
from service.http.negotiation import RAW
from service.models.model import Model
from service.models.registry import Models
from service.routes.formats import digest_header

_PIECE = 1 << 18
_RANGE = re.compile(rb"bytes=([0-9]{0,18})-([0-9]{0,18})")


class FileApp:
    """Answer ``GET /models/{name}/file``.

    The bytes come from the map, not from the path: a file that is replaced meanwhile is sent as it was.
    """

    def __init__(self, models: Models) -> None:
        self._models = models

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = dict(scope["headers"])
        model = self._models.find(scope["path_params"]["name"])
        tag = etag(model)
        if is_current(headers, model):
            await send({"type": "http.response.start", "status": 304, "headers": [(b"etag", tag)]})
            await send({"type": "http.response.body", "body": b""})
            return
        data = model.file.data.data
        asked = headers.get(b"range") if headers.get(b"if-range", tag) == tag else None
        span = byte_range(asked, len(data))
        answer = [
            (b"content-type", RAW.encode()),
            (b"accept-ranges", b"bytes"),
            (b"etag", tag),
            (
                b"content-disposition",
                f'attachment; filename="{quote(model.name)}.sfq"'.encode(),
            ),
            digest_header(model),
        ]
        start, end = (0, len(data)) if span is None else span
        if span is not None:
            answer.append((b"content-range", b"bytes %d-%d/%d" % (start, end - 1, len(data))))
        answer.append((b"content-length", b"%d" % (end - start)))
        await send({"type": "http.response.start", "status": 200 if span is None else 206, "headers": answer})
        if scope["method"] == "HEAD":
            start = end
        for position in range(start, end, _PIECE):
            piece = data[position : min(position + _PIECE, end)]
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def etag(model: Model) -> bytes:
    """Return the entity tag of a model: its digest."""
    return b'"%s"' % model.digest.encode()


def is_current(headers: Mapping[bytes, bytes], model: Model) -> bool:
    """Say whether ``If-None-Match`` names what is served."""
    tags = [tag.strip().removeprefix(b"W/") for tag in headers.get(b"if-none-match", b"").split(b",")]
    return etag(model) in tags or b"*" in tags


def byte_range(header: bytes | None, size: int) -> tuple[int, int] | None:
    """Return the first byte asked for and the one after the last, or None for all of them.

    A header that is not understood, several ranges among them, is ignored, as HTTP allows.

    Raises
    ------
    RangeNotSatisfiable
        The range begins after the end.
    """
    match = None if header is None else _RANGE.fullmatch(header.replace(b" ", b""))
    if match is None or match.group(1) == match.group(2) == b"":
        return None
    first, last = match.groups()
    if first == b"":
        start, end = max(size - int(last), 0), size
    else:
        start, end = int(first), size if last == b"" else min(int(last) + 1, size)
        if last and int(last) < start:
            return None
    if start >= size or start >= end:
        raise RangeNotSatisfiable(
            f"the range {match.group().decode()!r} is outside of the file's {size} bytes",
            param="Range",
            headers=((b"content-range", b"bytes */%d" % size),),
        )
    return start, end
