"""Compare plain uvicorn with Ray Serve in front of one and of two replicas: the cost of its proxy.

All sides run at the same time on one machine and take turns. Needs the extra ``ray``, wrk on the path, and
the real data in the folder ``SMALLFRY_DATA``.

    python -m benchmarks.ray.serve --out results.json        # 400,000 rows: about three minutes
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"

import orjson
import ray
from ray import serve

from benchmarks.common import wrk
from benchmarks.common.dataset import draw_requests, read_tokens, write_file
from benchmarks.common.processes import cpu_seconds, free_port, listening, pss, running, server
from benchmarks.common.timing import take_turns
from service.config import Config
from service.ray.serve import Replica
from smallfry.client import Client

SIZES = (1, 32, 1000)
REPLICAS = (1, 2)
CONNECTIONS = 16
PLAIN = "uvicorn"


def main() -> None:
    """Run the comparison and print it."""
    options = parse_options()
    tokens, frequencies = read_tokens(options.rows)
    requests = {size: draw_requests(tokens, frequencies, size, wrk.SCRIPTED) for size in SIZES}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        file = folder / "words.sfq"
        write_file(file, tokens, 2)
        port = free_port()
        plain = stack.enter_context(running(server(file, "--port", str(port)), listening(port)))
        addresses = {PLAIN: f"http://127.0.0.1:{port}"} | start_replicas(stack, file)
        single = {
            size: time_one_connection(addresses, requests[size], options.rounds, options.seconds)
            for size in SIZES
        }
        loaded = {
            size: load_sides(folder, addresses, plain.pid, requests[size], options.rounds, options.seconds)
            for size in SIZES
        }
        memory = {"uvicorn": pss(plain.pid)} | {
            name: sum(map(pss, pids)) // len(pids) for name, pids in ray_processes().items()
        }
    report(single, loaded, memory)
    if options.out:
        machine = {"system": platform.platform(), "cores": os.cpu_count(), "ray": ray.__version__}
        results = {"machine": machine, "single": single, "loaded": loaded, "memory": memory}
        options.out.write_text(json.dumps(results, indent=2) + "\n")


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=400_000, help="rows of the table (400,000)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side (5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="time of each side in each round (2)")
    parser.add_argument("--out", type=Path, help="JSON file of the results")
    return parser.parse_args()


def start_replicas(stack: ExitStack, file: Path) -> dict[str, str]:
    """Start Ray on this machine, with one application per number of replicas; return their addresses."""
    port = free_port()
    ray.init(
        address="local",
        num_cpus=sum(REPLICAS),
        object_store_memory=100 << 20,
        include_dashboard=False,
        log_to_driver=False,
    )
    stack.callback(ray.shutdown)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    stack.callback(serve.shutdown)
    addresses = {}
    for count in REPLICAS:
        name = f"ray-{count}"
        replicas = Replica.options(
            user_config={"embeddings": [str(file)]}, autoscaling_config=None, num_replicas=count
        )
        serve.run(replicas.bind(Config(dashboard=False), None, 0), name=name, route_prefix=f"/{name}")
        addresses[name] = f"http://127.0.0.1:{port}/{name}"
    return addresses


def time_one_connection(
    addresses: dict[str, str], requests: list[list[str]], rounds: int, seconds: float
) -> dict[str, dict[str, float]]:
    """Time sequential requests, in milliseconds."""

    def caller(address: str) -> object:
        client, following = Client(address), cycle(requests)
        return lambda: client.lookup(next(following))

    timings = take_turns({name: caller(address) for name, address in addresses.items()}, rounds, seconds)  # type: ignore[arg-type]
    return {name: {"p50_ms": timing.p50_ms, "p99_ms": timing.p99_ms} for name, timing in timings.items()}


def load_sides(
    folder: Path,
    addresses: dict[str, str],
    plain: int,
    requests: list[list[str]],
    rounds: int,
    seconds: float,
) -> dict[str, dict[str, float]]:
    """Load each side in turn over several connections; return rates, and processor time per request."""
    lua = folder / "requests.lua"
    lua.write_bytes(wrk.script([orjson.dumps({"tokens": tokens}) for tokens in requests]))
    rates: dict[str, list[float]] = {name: [] for name in addresses}
    costs: dict[str, list[float]] = {name: [] for name in addresses}
    for _ in range(rounds):
        for name, address in addresses.items():
            pids = [plain] if name == PLAIN else [pid for each in ray_processes().values() for pid in each]
            before = sum(map(cpu_seconds, pids))
            count, rate = wrk.load(lua, f"{address}/lookup", seconds, CONNECTIONS)
            rates[name].append(rate)
            costs[name].append((sum(map(cpu_seconds, pids)) - before) / count * 1e6)
    return {
        name: {
            "requests_per_second": statistics.median(rates[name]),
            "lowest": min(rates[name]),
            "highest": max(rates[name]),
            "of_uvicorn": statistics.median(
                mine / other for mine, other in zip(rates[name], rates[PLAIN], strict=True)
            ),
            "cpu_us": statistics.median(costs[name]),
        }
        for name in addresses
    }


def ray_processes() -> dict[str, list[int]]:
    """Return the serving processes: Serve's proxies and the replicas."""
    found: dict[str, list[int]] = {"ray proxy": [], "ray replica": []}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            title = path.read_bytes()
        except OSError:
            continue
        if title.startswith(b"ray::ProxyActor"):
            found["ray proxy"].append(int(path.parent.name))
        elif title.startswith(b"ray::ServeReplica"):
            found["ray replica"].append(int(path.parent.name))
    return found


def report(
    single: dict[int, dict[str, dict[str, float]]],
    loaded: dict[int, dict[str, dict[str, float]]],
    memory: dict[str, int],
) -> None:
    """Print the results."""
    for size in SIZES:
        print(f"\n{size:,} tokens per request; one connection, then {CONNECTIONS} under wrk")
        heads = ("p50 ms", "p99 ms", "requests/s", "(low-high round)", "of uvicorn", "processor µs")
        print(f"{'':10}{heads[0]:>9}{heads[1]:>9}{heads[2]:>12}{heads[3]:>20}{heads[4]:>12}{heads[5]:>14}")
        for name, row in loaded[size].items():
            alone, spread = single[size][name], f"({row['lowest']:,.0f}-{row['highest']:,.0f})"
            print(
                f"{name:10}{alone['p50_ms']:9.2f}{alone['p99_ms']:9.2f}{row['requests_per_second']:12,.0f}"
                f"{spread:>20}{row['of_uvicorn']:12.1%}{row['cpu_us']:14,.0f}"
            )
    print("\nproportional memory of a process")
    for name, size in memory.items():
        print(f"{name:12}{size / 1e6:8.1f} MB")


if __name__ == "__main__":
    main()
