"""The name of the model that a request uses, read before the request is parsed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import parse_qs

import orjson
from starlette.types import Message, Receive, Scope

from service.http.request import route_path
from smallfry.media_types import RAW

_PATH = re.compile(r"/models/([^/]+)(?:/.*)?")
# JSON escapes quotes within strings, so this matches fields only.
_FIELD = re.compile(rb'"model"\s*:\s*("(?:[^"\\]|\\.)*")')


async def requested_model(scope: Scope, receive: Receive, max_body: int) -> tuple[str | None, Receive]:
    """Return the model name in a request, if any, and a `receive` that replays the body.

    The body of a lookup is read up to slightly more than `max_body` bytes, enough for the application to
    reject it.
    """
    match = _PATH.fullmatch(route_path(scope))
    if match is not None:
        return match[1], receive
    if scope["method"] != "POST":
        return None, receive
    headers: Mapping[bytes, bytes] = dict(scope["headers"])
    if headers.get(b"content-type", b"").lower().startswith(RAW.encode()):
        names = parse_qs(scope["query_string"].decode("latin-1")).get("model")
        return (names[-1] if names else None), receive
    messages: list[Message] = [await receive()]
    size = len(messages[0].get("body", b""))
    while messages[-1].get("more_body") and size <= max_body:
        messages.append(await receive())
        size += len(messages[-1].get("body", b""))

    async def replay() -> Message:
        return messages.pop(0) if messages else await receive()

    return _name_in(b"".join([message.get("body", b"") for message in messages])), replay


def _name_in(body: bytes) -> str | None:
    found = _FIELD.findall(body)
    try:
        return str(orjson.loads(found[-1])) if found else None
    except orjson.JSONDecodeError:
        return None
