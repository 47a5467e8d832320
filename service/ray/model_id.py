"""Which vocabulary a request asks for, known before the request is answered."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import parse_qs

import orjson
from starlette.types import Message, Receive, Scope

from smallfry.media_types import RAW

_PATH = re.compile(r"/models/([^/]+)(?:/.*)?")
# In JSON a quote inside of a string is escaped: what matches is a field, not text.
_FIELD = re.compile(rb'"model"\s*:\s*("(?:[^"\\]|\\.)*")')


async def asked_model(scope: Scope, receive: Receive, max_body: int) -> tuple[str | None, Receive]:
    """Return the name that a request gives, if any, and what gives its body again.

    The body of a lookup is read for that, up to a little more than `max_body` bytes: enough for whoever
    answers to refuse it.
    """
    match = _PATH.fullmatch(scope["path"])
    if match is not None:
        return match[1], receive
    if scope["method"] != "POST":
        return None, receive
    headers: Mapping[bytes, bytes] = dict(scope["headers"])
    if headers.get(b"content-type", b"").lower().startswith(RAW.encode()):
        given = parse_qs(scope["query_string"].decode("latin-1")).get("model")
        return (given[-1] if given else None), receive
    messages: list[Message] = [await receive()]
    size = len(messages[0].get("body", b""))
    while messages[-1].get("more_body") and size <= max_body:
        messages.append(await receive())
        size += len(messages[-1].get("body", b""))

    async def again() -> Message:
        return messages.pop(0) if messages else await receive()

    return _named(b"".join([message.get("body", b"") for message in messages])), again


def _named(body: bytes) -> str | None:
    found = _FIELD.findall(body)
    try:
        return str(orjson.loads(found[-1])) if found else None
    except orjson.JSONDecodeError:
        return None
