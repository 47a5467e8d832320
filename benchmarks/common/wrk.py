"""Load from wrk: its scripts, and the rates that it reports."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from smallfry.media_types import PACKED

CONNECTIONS = 8
SCRIPTED = 50
"""Number of different requests that wrk sends in turn."""


def script(bodies: list[bytes], accept: str = PACKED) -> bytes:
    """Return the Lua script with which wrk sends these bodies in turn."""
    # A long bracket of Lua holds any bytes except its own end.
    listed = b",\n".join(b"[==[" + body + b"]==]" for body in bodies)
    return (
        b"local bodies = {" + listed + b"}\nlocal requests, turn = {}, 0\n"
        b"function init()\n"
        b'  wrk.headers["Content-Type"] = "application/json"\n'
        b'  wrk.headers["Accept"] = "' + accept.encode() + b'"\n'
        b'  for i, body in ipairs(bodies) do requests[i] = wrk.format("POST", nil, nil, body) end\n'
        b"end\n"
        b"function request()\n  turn = turn % #requests + 1\n  return requests[turn]\nend\n"
    )


def load(lua: Path, target: str, seconds: float, connections: int = CONNECTIONS) -> tuple[int, float]:
    """Run wrk; return the number of responses, and how many came per second."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", str(lua), target]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        raise RuntimeError(f"wrk reported errors:\n{output}")
    found = re.search(r"(\d+) requests in .*Requests/sec:\s+([\d.]+)", output, re.DOTALL)
    if found is None:
        raise RuntimeError(f"wrk printed no rate:\n{output}")
    return int(found[1]), float(found[2])
