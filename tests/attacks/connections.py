"""Attacks that hold, or break, connections."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from contextlib import suppress

from tests.attacks.target import JSON, Statuses, Target, all_of, close, read_to_end, request


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
