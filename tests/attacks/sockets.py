"""Hostile requests, sent as bytes over sockets; each attack returns the statuses of the responses.

A status of 0 is a connection that was closed without a response.
"""

from __future__ import annotations

import asyncio
import gzip
import random
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

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


async def malformed(target: Target) -> Statuses:
    """Random bytes, and requests with some bytes changed."""
    chance = random.Random(0)
    sent = []
    for number in range(200 * target.scale):
        if number % 4 == 0:
            data = chance.randbytes(chance.randrange(1, 300))
        else:
            data = bytearray(request())
            for _ in range(chance.randrange(1, 6)):
                data[chance.randrange(len(data))] = chance.randrange(256)
        sent.append(bytes(data) + b"\r\n\r\n")
    first = all_of(half_closed(target, data) for data in sent[::2])
    return await first + await all_of(target.send(data) for data in sent[1::2])


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


async def lying_lengths(target: Target) -> Statuses:
    """Content lengths that differ from the body, occur twice, or are not lengths."""
    line = "POST /lookup HTTP/1.1\r\nhost: x\r\n" + JSON
    lengths = ["1", "25", "27", str(MAX_BODY + 1), "18446744073709551616", "9" * 5000]
    lengths += ["-1", "+26", "0x1A", "2 6", "26, 26", ""]
    heads = [
        *(f"content-length: {length}\r\n" for length in lengths),
        "content-length: 26\r\ncontent-length: 27\r\n",
        "content-length: 26\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked, gzip\r\n",
        "transfer-encoding: \x0bchunked\r\ncontent-length: 26\r\n",
    ]
    sent = [f"{line}{head}\r\n".encode("latin-1") + HONEST for head in heads]
    return await all_of(target.send(data) for data in sent * target.scale)


async def chunked_bombs(target: Target) -> Statuses:
    """Chunked bodies without end, in large and in small chunks; trailers; chunks with wrong sizes."""
    head = f"POST /lookup HTTP/1.1\r\nhost: x\r\n{JSON}transfer-encoding: chunked\r\n\r\n".encode()
    large = head + (b"10000\r\n" + b"x" * 0x10000 + b"\r\n") * 1024
    small = head + b"1\r\nx\r\n" * (1 << 18)
    trailers = head + b"0\r\n" + b"x: y\r\n" * (1 << 20)
    sizes = (b"FFFFFFFFFFFFFFFF", b"F" * 17, b"-1", b"1;" + b"e" * 99999)
    lying = [head + size + b"\r\n" + HONEST for size in sizes]
    sent = [target.send(large), target.send(trailers)]
    sent += [half_closed(target, data) for data in (small, *lying)]
    sent += [target.send(large) for _ in range(4 * (target.scale - 1))]
    return await all_of(sent, together=4)


async def gzip_bombs(target: Target) -> Statuses:
    """Compressed bodies that would decompress to a thousand times their size."""
    bomb = gzip_bomb()
    encodings = (
        "content-encoding: gzip\r\n",
        "transfer-encoding: gzip, chunked\r\n",
        "content-type: application/gzip\r\n",
    )
    sent = [request(bomb, JSON + encoding) for encoding in encodings]
    return await all_of(target.send(data) for data in sent * target.scale)


@cache
def gzip_bomb() -> bytes:
    """Return 200 MB of zeros, compressed."""
    return gzip.compress(bytes(200 << 20), 9)


async def many_tokens(target: Target) -> Statuses:
    """A million tokens of one letter, empty lists or numbers; one token of 10 MB, and one of 7."""
    bodies = [b'{"tokens":[' + b'"a",' * 10**6 + b'"a"]}', b'{"tokens":[' + b"[]," * 10**6 + b"[]]}"]
    bodies += [b'{"ids":[' + b"1," * 10**6 + b"1]}", b'{"ids":[[' + b"1," * 10**6 + b'1]],"pool":"sum"}']
    bodies += [b'{"tokens":["' + b"a" * size + b'"]}' for size in (10**7, 7 * 10**6)]
    # Also with a model, so that they are not rejected only because it is missing.
    bodies += [body.replace(b"{", b'{"model":"large",', 1) for body in bodies]
    bodies += [b'{"model":"large","pool":"sum","ids":[' + b"[]," * 10**6 + b"[]]}"]
    return await all_of((target.send(request(body)) for body in bodies * target.scale), together=4)


async def deep_json(target: Target) -> Statuses:
    """JSON that is nested as deep as a body is long, and numbers that long."""
    bodies = [
        b"[" * (4 << 20),
        b'{"tokens":' * (1 << 18),
        b'{"tokens":' + b"[" * (1 << 20) + b'"\\ud800"' + b"]" * (1 << 20),
    ]
    bodies += [b'{"tokens":["\\ud800"],"ids":' + b"9" * 4000 + b"}", b'{"ids":[' + b"9" * (4 << 20) + b"]}"]
    bodies += [b'{"ids":[' + b"1e999," * 1000 + b"-1]}"]
    bodies += [b'{"tokens":["\\ud800"],"x":' + b"[" * 50_000 + b"1e5"]
    bodies += [b'{"tokens":["a"],"tokens":["b"],"model":null,"' + b"\\u0000" * 10**6 + b'":1}']
    return await all_of((target.send(request(body)) for body in bodies * target.scale), together=4)


async def long_heads(target: Target) -> Statuses:
    """Heads without end: many headers, one endless header, an endless path, empty lines."""
    line = b"GET /livez HTTP/1.1\r\nhost: x\r\n"
    endless = [line + b"x: y\r\n" * (1 << 20), line + b"x: " + b"y" * (8 << 20), b"GET /" + b"a" * (8 << 20)]
    endless += [b"\r\n" * (4 << 20), line + b"x" * (8 << 20)]
    return await all_of((target.send(data) for data in endless * target.scale), together=4)


async def pipelining(target: Target) -> Statuses:
    """Thousands of pipelined requests at once, also after one that does not end."""
    many = b"GET /stats HTTP/1.1\r\nhost: x\r\n\r\n" * 20_000
    behind = f"POST /lookup HTTP/1.1\r\nhost: x\r\n{JSON}transfer-encoding: chunked\r\n\r\n".encode()
    sent = [many, behind + b"1\r\n{\r\n" * 10, request() * 5_000]
    return await all_of((target.send(data) for data in sent * target.scale), together=4)


async def path_tricks(target: Target) -> Statuses:
    """Paths that lead out of every served folder, in many encodings."""
    ups = ("..", "%2e%2e", "%252e%252e", "..%00", "..;", "%c0%ae%c0%ae", "..\\", "....//")
    roots = ("/", "/dashboard/", "/models/", "/models/x/", "//", "/v1/")
    paths = [
        root + f"{up}/" * 9 + "etc/passwd" + tail for root in roots for up in ups for tail in ("", "/file")
    ]
    paths += ["*", "x:443", "http://a/../b", "/%", "/%ff%fe", "/\xff", "/models/%00"]
    paths += ["/?" + "&" * 9999, "/" * 9999]
    paths += ["/models/" + "%2e" * 2000 + "/file", "/dashboard/%2e%2e%2fapp.py", "/dashboard/..%2fauth.py"]
    methods = ("GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "CONNECT", "TRACE", "PRI")
    sent = [request(b"", "", f"{methods[0]} {path} HTTP/1.1") for path in paths]
    sent += [request(b"", "", f"{method} /models/.. HTTP/1.1") for method in methods]
    ranges = ("0-" + "9" * 5000, "-" + "9" * 5000, "-0", "9-1", "0-1," * 9999)
    sent += [request(b"", f"range: bytes={span}\r\n", "GET /models/small/file HTTP/1.1") for span in ranges]
    return await all_of(target.send(data) for data in sent * target.scale)


async def headers_that_mislead(target: Target) -> Statuses:
    """Invalid header values, and too many of them."""
    heads = (
        "accept: " + "*/*;q=0.1," * 5000,
        "accept: application/json;q=1e999",
        "x-request-id: " + "a" * 60_000,
        "content-type: " + "a/b;" * 9999,
        "upgrade: websocket\r\nconnection: upgrade",
        "expect: 200-maybe",
        "upgrade: h2c\r\nconnection: upgrade, http2-settings",
        "authorization: Bearer \xff\xfe",
        "cookie: " + "a=b;" * 9999,
        "if-none-match: " + '"a",' * 9999,
        "traceparent: 00-" + "f" * 999,
        "host: \x00",
        "origin: " + "a" * 60_000,
    )
    sent = [request(head=f"{head}\r\n") for head in heads]
    sent += [request(b"", f"{head}\r\n", "GET /models/small HTTP/1.1") for head in heads]
    return await all_of(target.send(data) for data in sent * target.scale)


async def guessed_keys(target: Target) -> Statuses:
    """Routes that need the admin key, requested with guessed keys."""
    chance = random.Random(1)
    sent = []
    for _ in range(100 * target.scale):
        key = "".join(chance.choices("abcdefghijklmnopqrstuvwxyz-", k=chance.randrange(0, 40)))
        head = chance.choice((f"authorization: Bearer {key}\r\n", f"x-api-key: {key}\r\n"))
        sent.append(request(b"", head, "DELETE /models/small HTTP/1.1"))
    return await all_of(target.send(data) for data in sent)


async def slow_heads(target: Target) -> Statuses:
    """Heads that arrive one byte at a time, slowly."""
    return await all_of((trickle(target, request()[:60]) for _ in range(100 * target.scale)), together=10**6)


async def slow_bodies(target: Target) -> Statuses:
    """Bodies that arrive one byte at a time, slowly, some of them after the response."""
    endless = request(b"{" + b" " * 1000)
    refused = request(b"{" + b" " * 1000, "content-type: text/html\r\n")
    sent = [endless[:-900], refused[:-900]] * (50 * target.scale)
    return await all_of((trickle(target, data) for data in sent), together=10**6)


async def trickle(target: Target, data: bytes) -> int:
    """Send most bytes, then single ones slowly, until the server closes the connection."""
    with suppress(OSError):
        reader, writer = await target.connect()
        with suppress(OSError):
            writer.write(data)
        received = asyncio.ensure_future(read_to_end(reader))
        while not received.done():
            with suppress(OSError):
                writer.write(b" ")
            await asyncio.wait((received,), timeout=target.patience / 3)
        await close(writer)
        return received.result()
    return 0


async def read_to_end(reader: asyncio.StreamReader) -> int:
    """Return the status of the response once the server has closed the connection."""
    received = await status(reader)
    with suppress(OSError):
        while await reader.read(RESPONSE):
            pass
    return received


async def slow_readers(target: Target) -> Statuses:
    """Large responses that nobody reads."""
    ids = b'{"model":"large","ids":[' + b"1," * 16_000 + b"1]}"
    data = request(ids, JSON + "accept: application/octet-stream\r\n") * 2
    return await all_of((no_reader(target, data) for _ in range(20 * target.scale)), together=10**6)


async def no_reader(target: Target, data: bytes) -> int:
    """Request and never read, until the server closes the connection; return -1 if it does not."""
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await loop.sock_connect(client, (target.host, target.port))
        with suppress(OSError):
            await loop.sock_sendall(client, data)
            # Reading would let the server continue. Writing to a closed connection fails with a reset.
            end = loop.time() + 4 * target.patience + 4
            while loop.time() < end:
                await asyncio.sleep(target.patience / 10)
                await loop.sock_sendall(client, b"\r\n")
            return -1
    return 0


async def idle(target: Target) -> Statuses:
    """Connections that send nothing, as many as file descriptors allow, up to 10,000."""
    count = min(250 * target.scale, 10_000)
    opened = await asyncio.gather(
        *(target.connect(f"127.0.0.{1 + number // 5000}") for number in range(count)), return_exceptions=True
    )
    connections = [pair for pair in opened if not isinstance(pair, BaseException)]
    received = await all_of((read_to_end(reader) for reader, _ in connections), together=10**6)
    await asyncio.gather(*(close(writer) for _, writer in connections))
    return received + Counter({-1: count - len(connections)})


async def resets(target: Target) -> Statuses:
    """Connections that are reset during a request, or during its response."""
    ids = request(b'{"model":"large","ids":[' + b"1," * 4000 + b"1]}")
    for number in range(200 * target.scale):
        reader, writer = await target.connect()
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.write(ids[: 20 + number * 97 % len(ids)] if number % 2 else ids)
        if number % 4 == 0:
            await reader.read(100)
        writer.transport.abort()
    return Counter()


ATTACKS: dict[str, Callable[[Target], Awaitable[Statuses]]] = {
    attack.__name__: attack
    for attack in (
        malformed,
        lying_lengths,
        chunked_bombs,
        gzip_bombs,
        many_tokens,
        deep_json,
        long_heads,
        pipelining,
        path_tricks,
        headers_that_mislead,
        guessed_keys,
        slow_heads,
        slow_bodies,
        slow_readers,
        idle,
        resets,
    )
}
