"""Measure what requests cost one worker: time of its event loop per byte, and memory per connection.

Each request of ``tests/attacks/costly.py`` is sent again and again over 16 connections: to an open server,
without a key to one with 100 keys, and the GET requests to one with 100 models. Then 300 connections hold
what they can. Lines over a limit of ``tests/attacks/measuring.py`` begin with ``!``.

    python -m tests.stress.bounds [PART OF A NAME ...]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks.common.dataset import write_random_file
from benchmarks.common.processes import free_port, listening, running, server, unshared_bytes
from tests.attacks.costly import COSTLY, HELD
from tests.attacks.measuring import (
    MEMORY,
    PER_BYTE,
    WAIT,
    Wrap,
    handshakes,
    measure_cost,
    measure_memory,
    shake_hands,
)
from tests.attacks.sockets import is_fault, write_models

#: Seconds for which connections hold, and until their memory is returned.
HOLD, SETTLE = 3.0, 30.0
#: Requests of which other kinds are sent over TLS too.
TLS = ("nothing", "head of tiny fields", "body, 100 KB", "unread: JSON")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("only", nargs="*", help="only rows whose name contains one of these")
    only = parser.parse_args().only

    def chosen(rows: Mapping[str, bytes]) -> dict[str, bytes]:
        return {name: sent for name, sent in rows.items() if not only or any(part in name for part in only)}

    costly = chosen(COSTLY)
    held = chosen({f"held: {name}": sent for name, sent in HELD.items()})
    unfinished = chosen({f"held: {name}": sent for name, sent in handshakes().items()})
    encrypted = chosen({f"held: TLS, {name}": HELD[name] for name in TLS})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_models(folder)
        if costly:
            with serving(folder) as (pid, port):
                report_costs("open", pid, port, costly)
            with serving(folder, SMALLFRY_API_KEYS=",".join(f"key-{n}" for n in range(100))) as (pid, port):
                report_costs("without a key", pid, port, costly)
            many = folder / "many"
            many.mkdir()
            for number in range(100):
                write_random_file(many / f"model-{number}.sfq", 12)
            write_models(many)
            with serving(many) as (pid, port):
                gets = {name: sent for name, sent in costly.items() if name.startswith("/")}
                report_costs("100 models", pid, port, gets)
        if held:
            with serving(folder) as (pid, port):
                report_memory(pid, port, held)
        if unfinished or encrypted:
            certificate = make_certificate(folder)
            with serving(folder, "--ssl-certfile", certificate, "--ssl-keyfile", certificate) as (pid, port):
                report_memory(pid, port, unfinished)
                report_memory(pid, port, encrypted, shake_hands)


@contextmanager
def serving(folder: Path, *options: str, **environ: str) -> Iterator[tuple[int, int]]:
    """Run a server with one worker; yield its process and port."""
    port = free_port()
    os.environ |= environ
    with tempfile.TemporaryFile() as log:
        command = server(folder, "--port", str(port), "--log-level", "critical", *options)
        with running(command, listening(port), stderr=log) as process:
            for name in environ:
                del os.environ[name]
            yield process.pid, port
        log.seek(0)
        text = log.read().decode()
        if process.returncode or text:
            print(f"! the server exited with {process.returncode}: {text[-2000:]}", flush=True)


def report_costs(state: str, pid: int, port: int, requests: Mapping[str, bytes]) -> None:
    """Measure and print the costs of requests."""
    titles = ("sent", "received", "loop us", "us/byte", "other us", "wait p99")
    print(f"\n{state:33}", *(f"{title:>10}" for title in titles), " statuses", flush=True)
    for name, sent in requests.items():
        cost = measure_cost(pid, port, sent)
        over = cost.per_byte > PER_BYTE or cost.wait > WAIT or any(map(is_fault, cost.statuses))
        numbers = f"{cost.sent:11,} {cost.received:10,.0f} {cost.loop:10,.0f}"
        numbers += f" {cost.per_byte:10.2f} {cost.others:10,.0f} {cost.wait:10.1f}"
        print(f"{'!' if over else ' '}{name:32}{numbers}  {dict(cost.statuses)}", flush=True)


def report_memory(pid: int, port: int, held: Mapping[str, bytes], wrap: Wrap = lambda raw: raw) -> None:
    """Measure and print the memory of connections, above that of the idle server."""
    idle = unshared_bytes(pid)
    for name, sent in held.items():
        most = measure_memory(pid, port, sent, HOLD, wrap) - idle
        end = time.monotonic() + SETTLE
        while (after := unshared_bytes(pid) - idle) > 8 << 20 and time.monotonic() < end:
            time.sleep(0.2)
        mark = "!" if max(most, after) > MEMORY else " "
        print(
            f"{mark}{name:32}{len(sent):11,} bytes: {most / 2**20:6.1f} MB, then {after / 2**20:6.1f}",
            flush=True,
        )


def make_certificate(folder: Path) -> str:
    """Write a certificate and its key into one file; return its path."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=test -keyout {key} -out {certificate}"
    subprocess.run(command.split(), check=True, capture_output=True)
    certificate.write_bytes(certificate.read_bytes() + key.read_bytes())
    return str(certificate)


if __name__ == "__main__":
    main()
