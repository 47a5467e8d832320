"""One worker under wrk, against the same server without a lookup: how much of its ceiling it reaches."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import orjson

from benchmarks.common import wrk
from benchmarks.common.processes import cpu_seconds, free_port, listening, module, running
from smallfry.client.transport.address import parse_address
from smallfry.client.transport.connection import Pool
from smallfry.client.transport.messages import Request
from smallfry.media_types import JSON, PACKED


def compare(
    folder: Path, url: str, service: int, requests: dict[int, list[list[str]]], rounds: int, seconds: float
) -> dict[int, dict[str, Any]]:
    """Load the service and a server that sends the same bytes without a lookup, in turns.

    Parameters
    ----------
    folder : Path
        For scripts and responses.
    url : str
        The service.
    service : int
        Its process. If wrk is slower than a server, processor time tells more than rates.
    requests : dict of int to list of lists of str
        By size.
    rounds, seconds
        As for `timing.take_turns`.
    """
    responses = folder / "responses"
    responses.mkdir()
    scripts = {}
    for size, of_size in requests.items():
        bodies = [orjson.dumps({"tokens": tokens}) for tokens in of_size[: wrk.SCRIPTED]]
        (responses / str(size)).write_bytes(_look_up(url, bodies[0]))
        scripts[size] = folder / f"wrk-{size}.lua"
        scripts[size].write_bytes(wrk.script(bodies))
    port = free_port()
    echo = module("benchmarks.server.echo", str(responses), str(port))
    rates: dict[tuple[str, int], list[float]] = {}
    costs: dict[tuple[str, int], list[float]] = {}
    with running(echo, listening(port)) as other:
        for _ in range(rounds):
            for size, lua in scripts.items():
                for side, pid, target in (
                    ("service", service, f"{url}/v1/lookup"),
                    ("echo", other.pid, f"http://127.0.0.1:{port}/{size}"),
                ):
                    before = cpu_seconds(pid)
                    count, rate = wrk.load(lua, target, seconds)
                    rates.setdefault((side, size), []).append(rate)
                    costs.setdefault((side, size), []).append((cpu_seconds(pid) - before) / count * 1e6)
    return {
        size: _summary(size, rates["service", size], rates["echo", size])
        | {f"{side}_us": statistics.median(costs[side, size]) for side in ("service", "echo")}
        for size in requests
    }


def _summary(size: int, service: list[float], echo: list[float]) -> dict[str, Any]:
    rate = statistics.median(service)
    return {
        "requests_per_second": rate,
        "lowest": min(service),
        "highest": max(service),
        "tokens_per_second": rate * size,
        "without_lookup": statistics.median(echo),
        "shares": [mine / other for mine, other in zip(service, echo, strict=True)],
    }


def _look_up(url: str, body: bytes) -> bytes:
    pool = Pool(parse_address(url), 10, None, 1)
    response = pool.send(Request("/v1/lookup", PACKED, body, JSON).encode("Host: localhost\r\n"))
    pool.close()
    return bytes(response.body)
