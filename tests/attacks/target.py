"""The attacked server, and how attacks send to it."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Iterable
from contextlib import suppress
from dataclasses import dataclass

Statuses = Counter[int]

JSON = "content-type: application/json\r\n"
HONEST = b'{"tokens": ["the", "cat"]}'
TIMEOUT = 60.0
#: The attacked server's limit of a body, four times the default: large bodies are read, not rejected.
MAX_BODY = 8 << 20
#: Bytes of a response that are read at most.
RESPONSE = 1 << 16


@dataclass(frozen=True)
class Target:
    """A server, and how hard to attack it: a scale of 1 suits a test.

    ``patience`` is how many seconds the server waits for a client.
    """

    host: str
    port: int
    scale: int
    patience: float

    async def send(self, data: bytes, *, source: str = "127.0.0.1") -> int:
        """Send bytes; return the status of the response, 0 if there is none."""
        with suppress(OSError):
            reader, writer = await self.connect(source)
            try:
                return await self.exchange(reader, writer, data)
            finally:
                await close(writer)
        return 0

    async def connect(self, source: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection from an address of the loopback network."""
        return await asyncio.open_connection(self.host, self.port, local_addr=(source, 0), limit=RESPONSE)

    async def exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> int:
        """Send bytes over a connection, up to what the server reads; return the status of the response."""
        sending = asyncio.ensure_future(push(writer, data))
        try:
            return await status(reader)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


async def push(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Write until all is written or the server closes the connection."""
    with suppress(OSError):
        for begin in range(0, len(data), RESPONSE):
            writer.write(data[begin : begin + RESPONSE])
            await writer.drain()


async def status(reader: asyncio.StreamReader) -> int:
    """Return the status of the response, 0 if the connection ends without one."""
    with suppress(OSError, asyncio.TimeoutError):
        line = await asyncio.wait_for(reader.readline(), TIMEOUT)
        if line.startswith(b"HTTP/1.1 ") and line[9:12].isdigit():
            return int(line[9:12])
    return 0


async def close(writer: asyncio.StreamWriter) -> None:
    """Close a connection in any state."""
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


def request(body: bytes = HONEST, head: str = JSON, line: str = "POST /lookup HTTP/1.1") -> bytes:
    """Return a request as it goes over the wire."""
    return f"{line}\r\nhost: x\r\n{head}content-length: {len(body)}\r\n\r\n".encode("latin-1") + body


async def all_of(responses: Iterable[Awaitable[int]], together: int = 32) -> Statuses:
    """Await responses, at most `together` at a time."""
    slots = asyncio.Semaphore(together)

    async def one(response: Awaitable[int]) -> int:
        async with slots:
            return await response

    return Counter(await asyncio.gather(*map(one, responses)))


async def half_closed(target: Target, data: bytes) -> int:
    """Send bytes and the end of the stream; return the status of the response."""
    with suppress(OSError):
        reader, writer = await target.connect()
        with suppress(OSError):
            writer.write(data)
            writer.write_eof()
        received = await asyncio.wait_for(status(reader), TIMEOUT)
        await close(writer)
        return received
    return 0


async def read_to_end(reader: asyncio.StreamReader) -> int:
    """Return the status of the response once the server has closed the connection."""
    received = await status(reader)
    with suppress(OSError):
        while await reader.read(RESPONSE):
            pass
    return received


async def send_and_wait(target: Target, data: bytes) -> int:
    """Send bytes; return the status of the first response once the server has closed the connection."""
    with suppress(OSError):
        reader, writer = await target.connect()
        sending = asyncio.ensure_future(push(writer, data))
        try:
            return await read_to_end(reader)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            await close(writer)
    return 0


async def repeat(target: Target, data: bytes, connections: int, seconds: float) -> Statuses:
    """Send a request again and again over many connections; return the statuses of all responses."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    statuses: Statuses = Counter()

    async def flood() -> None:
        while loop.time() < end:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                reader, writer = await target.connect()
                try:
                    while loop.time() < end:
                        received = await target.exchange(reader, writer, data)
                        statuses[received] += 1
                        head = await reader.readuntil(b"\r\n\r\n")
                        length = re.search(rb"content-length: (\d+)", head)
                        if not received or length is None or b"connection: close" in head:
                            break
                        await reader.readexactly(int(length[1]))
                finally:
                    await close(writer)

    await asyncio.gather(*(flood() for _ in range(connections)))
    return statuses
