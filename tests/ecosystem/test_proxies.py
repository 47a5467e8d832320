"""nginx and HAProxy in front of the server, with the configuration files of ``docker/``."""

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import httpx
import numpy as np
import pytest

from smallfry.client import BadGateway, Unavailable
from smallfry.media_types import JSON, PACKED, RAW, SAFETENSORS
from tests.helpers.clients import CLIENTS
from tests.helpers.servers import eventually, starting, write_sfq

DOCKER = Path(__file__).resolve().parents[2] / "docker"
QUERY = {"ids": [0, 1, 2, 7999]}
#: Starts servers that end with each test.
start = pytest.fixture(name="start")(starting)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_sfq(tmp_path_factory.mktemp("models") / "large.sfq", 8000, 300, 2)


class Proxy:
    """A running nginx or HAProxy with its file of ``docker/``, in which some texts are replaced."""

    def __init__(self, name, folder, replacements):
        self.url = f"http://127.0.0.1:{free_port()}"
        address = self.url.removeprefix("http://")
        source = DOCKER / {"nginx": "nginx.conf", "haproxy": "haproxy.cfg"}[name]
        text = source.read_text()
        for old, new in {
            "listen 80;": f"listen {address};",
            "bind :80": f"bind {address}",
            **replacements,
        }.items():
            text = text.replace(old, new)
        path = folder / source.name
        path.write_text(text)
        # As root, nginx would run as another user, who cannot read the folders of tests.
        user = f"user {getpass.getuser()};" if os.getuid() == 0 else ""
        command = {
            "nginx": [
                "nginx",
                "-p",
                folder,
                "-c",
                path,
                "-e",
                "stderr",
                "-g",
                f"{user} daemon off; pid {folder}/pid;",
            ],
            "haproxy": ["haproxy", "-db", "-f", path],
        }[name]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self.client = httpx.Client(base_url=self.url, timeout=60)
        eventually(self.answers)

    def answers(self):
        assert self.process.poll() is None
        try:
            # HAProxy returns 503 until the first health check.
            return self.client.get("/livez").status_code in (200, 404)
        except httpx.ConnectError:
            return False

    def stop(self):
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(params=["nginx", "haproxy"])
def proxy(request, tmp_path):
    """Return a function that starts the proxy in front of two addresses, the second one optional."""
    if shutil.which(request.param) is None:
        pytest.skip(f"no {request.param}")
    proxies = []

    def starter(*addresses, **replacements):
        first, second = (*addresses, *addresses)[:2]
        texts = {"127.0.0.1:8000": first, "127.0.0.1:8001": second}
        proxies.append(Proxy(request.param, tmp_path, texts | replacements.get(request.param, {})))
        return proxies[-1]

    starter.name = request.param
    yield starter
    for each in proxies:
        each.stop()


def address_of(server):
    return server.address.removeprefix("http://")


def test_responses_pass_unchanged_in_every_format(file, start, proxy):
    server = start(file)
    behind = proxy(address_of(server)).client
    for accept in (JSON, RAW, SAFETENSORS, PACKED):
        for query in (QUERY, {"ids": list(range(8000))}):
            direct, passed = (
                client.post("/lookup", json=query, headers={"accept": accept})
                for client in (server.client, behind)
            )
            assert passed.status_code == 200
            assert passed.content == direct.content
            for name in ("content-type", "x-smallfry-digest", "x-smallfry-shape"):
                assert passed.headers.get(name) == direct.headers.get(name)


def test_the_server_limits_the_size_of_bodies(file, start, proxy):
    server = start(file, "--max-body", "8000000", "--max-batch-tokens", "2000000")
    behind = proxy(address_of(server)).client
    ids = np.arange(1_500_000, dtype=np.uint32) % 8000
    for size, status in ((1_500_000, 200), (3_000_000, 413)):
        body = np.resize(ids, size).tobytes()
        headers = {"content-type": RAW, "accept": PACKED}
        response = behind.post("/lookup", content=body, headers=headers)
        assert response.status_code == status
    assert "--max-body" in response.json()["error"]["message"]


def test_request_ids_and_addresses_of_clients_arrive(file, start, proxy):
    server = start(file, "--access-log", "--log-format", "json", "--forwarded-allow-ips", "127.0.0.1")
    url = proxy(address_of(server)).url
    # The client cannot choose its address.
    headers = {"x-request-id": "mine", "x-forwarded-for": "10.1.2.3", "x-forwarded-proto": "https"}
    with httpx.Client(base_url=url, transport=httpx.HTTPTransport(local_address="127.0.0.2")) as client:
        assert client.post("/lookup", json=QUERY, headers=headers).headers["x-request-id"] == "mine"
        other = client.post("/lookup", json=QUERY).headers["x-request-id"]
    lines = [json.loads(line) for line in server.stop()[1].splitlines()]
    clients = {line["http.request.id"]: line["client.address"] for line in lines if "http.request.id" in line}
    assert clients["mine"] == clients[other] == "127.0.0.2"


def test_a_connection_that_was_idle_is_reused(file, start, proxy):
    behind = proxy(address_of(start(file))).client
    assert behind.post("/lookup", json=QUERY).status_code == 200
    time.sleep(6)
    assert behind.post("/lookup", json=QUERY).status_code == 200


def test_no_request_is_lost_while_servers_are_restarted_or_killed(file, start, proxy):
    ports = [str(free_port()) for _ in range(2)]
    servers = [start(file, "--port", port, "--drain-delay", "2") for port in ports]
    behind = proxy(*map(address_of, servers))
    expected = servers[0].lookup(QUERY).content
    stopped = Event()

    def work():
        count = 0
        with httpx.Client(base_url=behind.url, timeout=60) as client:
            while not stopped.is_set():
                response = client.post("/lookup", json=QUERY)
                assert (response.status_code, response.content) == (200, expected)
                count += 1
        return count

    with ThreadPoolExecutor() as pool:
        counts = [pool.submit(work) for _ in range(4)]
        for server, port, end in zip(servers, ports, (signal.SIGTERM, signal.SIGKILL), strict=True):
            time.sleep(1)
            server.process.send_signal(end)
            server.process.wait(30)
            start(file, "--port", port, "--drain-delay", "2")
            time.sleep(2)
        stopped.set()
        assert all(count.result() > 10 for count in counts)


@pytest.mark.parametrize("removed", [True, False])
def test_routes_below_a_prefix(file, start, proxy, removed):
    server = start(file, "--root-path", "/emb")
    slash = "/" if removed else ""
    rule = "http-request replace-path /emb/(.*) /\\1\n    " if removed else ""
    behind = proxy(
        address_of(server),
        nginx={"location / {": "location /emb/ {", "http://smallfry;": f"http://smallfry{slash};"},
        haproxy={"balance ": f"{rule}balance "},
    ).client
    assert behind.post("/emb/lookup", json=QUERY).content == server.lookup(QUERY).content
    assert behind.get("/emb/openapi.json").json()["servers"] == [{"url": "/emb"}]
    for page in ("/emb/", "/emb/docs", "/emb/dashboard/page.js"):
        assert behind.get(page, headers={"accept": "text/html,*/*"}).status_code == 200


@pytest.mark.parametrize("kind", CLIENTS)
def test_our_client_works_below_a_prefix_and_names_the_proxy(file, start, proxy, kind):
    server = start(file)
    behind = proxy(
        address_of(server),
        nginx={"location / {": "location /emb/ {", "http://smallfry;": "http://smallfry/;"},
        haproxy={"balance ": "http-request replace-path /emb/(.*) /\\1\n    balance "},
    )
    client = CLIENTS[kind](f"{behind.url}/emb", retries=1)
    assert [model.name for model in client.models()] == ["large"]
    assert client.rows([0, 7999]).tobytes() == server.lookup({"ids": [0, 7999]}, accept=RAW).content
    server.stop()
    with pytest.raises((BadGateway, Unavailable), match=r"status 50[23]: the response is from a proxy"):
        client.rows([0])
    client.close()


def test_a_unix_socket(file, start, proxy, tmp_path):
    path = tmp_path / "socket"
    server = start(file, "--uds", str(path))
    address = f"unix:{path}" if proxy.name == "nginx" else f"unix@{path}"
    assert proxy(address).client.post("/lookup", json=QUERY).content == server.lookup(QUERY).content
