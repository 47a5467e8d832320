"""The health check of the images."""

import os
import signal
import subprocess
import sys

from tests.helpers.certificates import make_certificate

PROXIES = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")


def check(**environ):
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SMALLFRY_")}
    command = [sys.executable, "-m", "service.process.healthcheck"]
    return subprocess.run(command, env=inherited | PROXIES | environ, capture_output=True, text=True)


def port_of(server):
    return {"SMALLFRY_HOST": "0.0.0.0", "SMALLFRY_PORT": server.address.rpartition(":")[2]}


def test_a_ready_server_is_healthy_whatever_the_proxies(server):
    done = check(**port_of(server))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_unix_socket_is_checked(files, start, tmp_path):
    path = tmp_path / "socket"
    start(files["small"], "--uds", str(path))
    assert check(SMALLFRY_UDS=str(path)).returncode == 0


def test_a_server_with_tls_is_checked(files, start, tmp_path):
    certificate, key = make_certificate(tmp_path)
    server = start(files["small"], "--ssl-certfile", certificate, "--ssl-keyfile", key)
    assert check(**port_of(server), SMALLFRY_SSL_CERTFILE=certificate).returncode == 0


def test_a_draining_server_is_unhealthy(files, start):
    server = start(files["small"], "--drain-delay", "60", "--shutdown-timeout", "90")
    server.process.send_signal(signal.SIGTERM)
    while (done := check(**port_of(server))).returncode == 0:
        pass
    assert done.stderr == "/readyz returned 503\n"


def test_no_server_is_unhealthy(tmp_path):
    done = check(SMALLFRY_UDS=str(tmp_path / "socket"))
    assert done.returncode == 1 and "No such file" in done.stderr


def test_imports_neither_numpy_nor_the_server():
    code = "import sys, service.process.healthcheck; sys.exit(len({'numpy', 'uvicorn'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
