"""An answer that is ready to be sent, and the sending."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from starlette.types import Receive, Scope, Send

from service.errors import ClientDisconnected, ServiceError
from service.http.protocol import answer_whole, is_gone

Headers = list[tuple[bytes, bytes]]
Buffer = bytes | memoryview

#: Answers up to this many bytes go out as one piece: copying them costs less than another turn.
_JOIN = 1 << 16
#: Pieces of more bytes than this take time to make.
_LONG = 1 << 18


@dataclass(slots=True)
class Reply:
    """An answer.

    Attributes
    ----------
    headers : list of (bytes, bytes)
        All but those that every answer gets.
    chunks : iterable of bytes or memoryview
        The body, in pieces.
    length : int, optional
        Bytes in the body; None where the pieces are made while they are sent.
    status : int
        The HTTP status.
    timing : bytes
        What ``Server-Timing`` says before the total.
    """

    headers: Headers
    chunks: Iterable[Buffer]
    length: int | None
    status: int = 200
    timing: bytes = b""

    async def send(self, send: Send) -> None:
        """Send the answer: a small one as one piece, a large one without joining its pieces.

        After a long piece others have their turn.

        Raises
        ------
        ClientDisconnected
            The client has left amid a large answer; the rest of it is not made.
        """
        start = {"type": "http.response.start", "status": self.status, "headers": self.headers}
        if self.length is not None and self.length <= _JOIN:
            body = b"".join(self.chunks)
            if not answer_whole(send, self.status, self.headers, body):
                await send(start)
                await send({"type": "http.response.body", "body": body})
            return
        await send(start)
        for chunk in self.chunks:
            data = chunk if isinstance(chunk, bytes) else _flat(chunk)
            await send({"type": "http.response.body", "body": data, "more_body": True})
            if len(data) > _LONG:
                # A client that has left is noticed in the next turn of the loop.
                await asyncio.sleep(0)
                if is_gone(send):
                    raise ClientDisconnected
        await send({"type": "http.response.body", "body": b""})


class Endpoint(ABC):
    """A plain ASGI application that makes its whole answer before it sends any of it."""

    @abstractmethod
    async def answer(self, headers: Mapping[bytes, bytes], scope: Scope, receive: Receive) -> Reply:
        """Return the answer to a request; what is refused is raised as `ServiceError`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        reply = await self.answer(dict(scope["headers"]), scope, receive)
        await reply.send(send)


def json_reply(content: Any, *headers: tuple[bytes, bytes]) -> Reply:  # noqa: ANN401 - any JSON value
    """Return the answer whose body is JSON; NumPy's arrays and numbers may be in it."""
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    types = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    return Reply([*types, *headers], (body,), len(body))


def refusal(error: ServiceError) -> Reply:
    """Return the answer that tells of an error."""
    body = error.body()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *error.headers]
    return Reply(headers, (body,), len(body), error.status)


def _flat(chunk: memoryview) -> memoryview:
    return np.asarray(chunk).reshape(-1).view(np.uint8).data
