"""Compare HTTP client libraries: the cost of a request apart from its lookup.

The server sends prepared bytes (see ``echo.py``), so that the client is what is measured. Needs the packages
of the extra ``bench``.

    python -m benchmarks.server.clients
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import aiohttp
import httpx
import orjson
import urllib3
import urllib3.connection

from benchmarks.common.processes import free_port, listening, module, running
from benchmarks.common.timing import Timing, take_turns
from smallfry.client.transport.address import parse_address
from smallfry.client.transport.async_connection import AsyncPool
from smallfry.client.transport.connection import Pool
from smallfry.client.transport.messages import Request
from smallfry.media_types import JSON, PACKED

SIZES = (1, 32, 1000)
CONCURRENT = 16
HEADERS = {"Accept": PACKED, "Content-Type": JSON}
HEADER_BYTES = 600
ROW_BYTES = 75

BODIES = {size: orjson.dumps({"tokens": [f"word-{i}" for i in range(size)]}) for size in SIZES}

Send = Callable[[int], bytes | bytearray]
SendAsync = Callable[[int], Awaitable[bytes | bytearray]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side (5)")
    parser.add_argument("--seconds", type=float, default=0.5, help="time of each side in each round (0.5)")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        responses = folder / "responses"
        responses.mkdir()
        for size in SIZES:
            (responses / str(size)).write_bytes(bytes(HEADER_BYTES + ROW_BYTES * size))
        port, path = free_port(), str(folder / "echo.sock")
        echo = module("benchmarks.server.echo", str(responses))
        stack.enter_context(running([*echo, str(port)], listening(port)))
        stack.enter_context(running([*echo, path], listening(path)))
        url = f"http://127.0.0.1:{port}"
        synchronous = {
            "smallfry, tcp": send_smallfry(url),
            "smallfry, unix": send_smallfry(f"unix://{path}"),
            "http.client, tcp": send_http_client(http.client.HTTPConnection("127.0.0.1", port)),
            "http.client, unix": send_http_client(UnixConnection(path)),
            "urllib3, tcp": send_urllib3(urllib3.HTTPConnectionPool("127.0.0.1", port)),
            "httpx, tcp": send_httpx(httpx.Client(base_url=url)),
            "httpx, unix": send_httpx(
                httpx.Client(base_url="http://localhost", transport=httpx.HTTPTransport(uds=path))
            ),
        }
        print_table("one request at a time", synchronous, options.rounds, options.seconds)
        with asynchronous(url) as concurrent:
            title = f"asyncio, {CONCURRENT} requests at a time"
            print_table(title, concurrent, options.rounds, options.seconds, CONCURRENT)


def print_table(title: str, sides: dict[str, Send], rounds: int, seconds: float, concurrent: int = 1) -> None:
    """Time every side at every size; print requests per second, with the lowest and highest round."""
    timings: dict[int, dict[str, Timing]] = {
        size: take_turns(
            {name: lambda send=send, size=size: send(size) for name, send in sides.items()}, rounds, seconds
        )
        for size in SIZES
    }
    print(f"\n{title}: requests/s (lowest-highest round)")
    print(f"{'':20}" + "".join(f"{f'{size:,} tokens':>24}" for size in SIZES))
    for name in sides:
        cells = []
        for size in SIZES:
            timing = timings[size][name]
            low, middle, high = (
                concurrent * rate for rate in (timing.lowest, timing.requests_per_second, timing.highest)
            )
            cells.append(f"{middle:,.0f} ({low:,.0f}-{high:,.0f})")
        print(f"{name:20}" + "".join(f"{cell:>24}" for cell in cells))


def send_smallfry(url: str) -> Send:
    """Use `smallfry.client`'s connections."""
    pool = Pool(parse_address(url), 10, None, 1)
    return lambda size: pool.send(_request(size)).body


def send_http_client(connection: http.client.HTTPConnection) -> Send:
    """Use the standard library."""

    def send(size: int) -> bytes:
        connection.request("POST", f"/{size}", BODIES[size], HEADERS)
        return connection.getresponse().read()

    return send


class UnixConnection(http.client.HTTPConnection):
    """The standard library's connection over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def send_urllib3(pool: urllib3.HTTPConnectionPool) -> Send:
    """Use urllib3, which does not support unix sockets."""
    return lambda size: pool.urlopen("POST", f"/{size}", BODIES[size], HEADERS, retries=False).data


def send_httpx(client: httpx.Client) -> Send:
    """Use httpx."""
    return lambda size: client.post(f"/{size}", content=BODIES[size], headers=HEADERS).content


@contextmanager
def asynchronous(url: str) -> Iterator[dict[str, Send]]:
    """Yield calls that send `CONCURRENT` requests at a time with each library, in one event loop."""
    loop = asyncio.new_event_loop()
    pool = AsyncPool(parse_address(url), 10, None, CONCURRENT)
    asynchronous_httpx = httpx.AsyncClient(base_url=url)

    async def open_session() -> aiohttp.ClientSession:
        return aiohttp.ClientSession(url)

    session = loop.run_until_complete(open_session())

    async def smallfry(size: int) -> bytearray:
        return (await pool.send(_request(size))).body

    async def with_httpx(size: int) -> bytes:
        return (await asynchronous_httpx.post(f"/{size}", content=BODIES[size], headers=HEADERS)).content

    async def with_aiohttp(size: int) -> bytes:
        async with session.post(f"/{size}", data=BODIES[size], headers=HEADERS) as response:
            return await response.read()

    def concurrently(send: SendAsync) -> Send:
        async def gather(size: int) -> bytes:
            await asyncio.gather(*[send(size) for _ in range(CONCURRENT)])
            return b""

        return lambda size: loop.run_until_complete(gather(size))

    yield {
        "smallfry": concurrently(smallfry),
        "httpx": concurrently(with_httpx),
        "aiohttp": concurrently(with_aiohttp),
    }
    pool.close()
    loop.run_until_complete(session.close())
    loop.run_until_complete(asynchronous_httpx.aclose())
    loop.close()


def _request(size: int) -> bytes:
    return Request(f"/{size}", PACKED, BODIES[size], JSON).encode("Host: localhost\r\n")


if __name__ == "__main__":
    main()
