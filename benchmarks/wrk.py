"""The server alone, under wrk: tokens a second of one worker, beside what serving costs without a lookup."""

from __future__ import annotations

import re
import statistics
import subprocess
from pathlib import Path

import orjson
from processes import cpu_seconds, free_port, listening, python, running

from smallfry.client.address import parse_address
from smallfry.client.connection import Connection
from smallfry.client.messages import JSON, PACKED, Request

CONNECTIONS = 8
SCRIPTED = 50
"""How many different requests wrk sends in turn."""


def compare(
    folder: Path, url: str, server: int, requests: dict[int, list[list[str]]], rounds: int, seconds: float
) -> dict[int, dict[str, float]]:
    """Load the service and a server that answers the same bytes without a lookup, in turns.

    Parameters
    ----------
    folder : Path
        Where scripts and answers may be written.
    url : str
        The service.
    server : int
        Its process. Where wrk is slower than a server, the shares of processor time tell more than rates.
    requests : dict of int to list of lists of str
        By size.
    rounds, seconds
        As for `rounds.take_turns`.
    """
    answers = folder / "answers"
    answers.mkdir()
    scripts = {}
    for size, of_size in requests.items():
        bodies = [orjson.dumps({"tokens": tokens}) for tokens in of_size[:SCRIPTED]]
        (answers / str(size)).write_bytes(_ask(url, bodies[0]))
        scripts[size] = folder / f"wrk-{size}.lua"
        scripts[size].write_bytes(script(bodies))
    port = free_port()
    echo = python(str(Path(__file__).with_name("echo.py")), str(answers), str(port))
    rates: dict[tuple[str, int], list[float]] = {}
    costs: dict[tuple[str, int], list[float]] = {}
    with running(echo, listening(("127.0.0.1", port))) as other:
        for _ in range(rounds):
            for size, lua in scripts.items():
                for side, pid, target in (
                    ("service", server, f"{url}/v1/lookup"),
                    ("echo", other.pid, f"http://127.0.0.1:{port}/{size}"),
                ):
                    before = cpu_seconds(pid)
                    count, rate = load(lua, target, seconds)
                    rates.setdefault((side, size), []).append(rate)
                    costs.setdefault((side, size), []).append((cpu_seconds(pid) - before) / count * 1e6)
    return {
        size: _summary(size, rates["service", size], rates["echo", size])
        | {side: statistics.median(costs[side[: -len("_us")], size]) for side in ("service_us", "echo_us")}
        for size in requests
    }


def _summary(size: int, service: list[float], echo: list[float]) -> dict[str, float]:
    rate = statistics.median(service)
    return {
        "requests_per_second": rate,
        "lowest": min(service),
        "highest": max(service),
        "tokens_per_second": rate * size,
        "without_lookup": statistics.median(echo),
        "share": statistics.median(mine / other for mine, other in zip(service, echo, strict=True)),
    }


def _ask(url: str, body: bytes) -> bytes:
    connection = Connection(parse_address(url), 10, None)
    answer = connection.ask(Request("/v1/lookup", PACKED, body, JSON).encode("Host: localhost\r\n"))
    connection.close()
    return bytes(answer.body)


def script(bodies: list[bytes]) -> bytes:
    """Return what makes wrk ask for packed answers to these bodies in turn."""
    # A long bracket of Lua takes any bytes but its own end.
    listed = b",\n".join(b"[==[" + body + b"]==]" for body in bodies)
    return (
        b"local bodies = {" + listed + b"}\nlocal requests, turn = {}, 0\n"
        b"function init()\n"
        b'  wrk.headers["Content-Type"] = "application/json"\n'
        b'  wrk.headers["Accept"] = "' + PACKED.encode() + b'"\n'
        b'  for i, body in ipairs(bodies) do requests[i] = wrk.format("POST", nil, nil, body) end\n'
        b"end\n"
        b"function request()\n  turn = turn % #requests + 1\n  return requests[turn]\nend\n"
    )


def load(lua: Path, target: str, seconds: float, connections: int = CONNECTIONS) -> tuple[int, float]:
    """Return how many requests were answered, and how many a second."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", str(lua), target]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        raise RuntimeError(f"wrk met errors:\n{output}")
    found = re.search(r"(\d+) requests in .*Requests/sec:\s+([\d.]+)", output, re.DOTALL)
    if found is None:
        raise RuntimeError(f"wrk printed no rate:\n{output}")
    return int(found[1]), float(found[2])
