"""The Unix socket: its permissions, and who removes its file."""

import signal
import socket
import stat

import pytest

from service.config import Config
from service.process.listener import listen
from tests.helpers.servers import eventually, forking

# Not how a server starts, but what it does with its socket.
start = pytest.fixture(scope="module", name="start")(forking)

#: Far more than a test takes; a second SIGTERM ends the delay.
SLOW = ("--drain-delay", "60", "--shutdown-timeout", "90")


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(
    ("options", "expected"), [((), 0o666), (("--uds-mode", "660"), 0o660), (("--uds-mode", "0600"), 0o600)]
)
def test_the_mode_of_the_socket_is_independent_of_the_umask(files, start, tmp_path, options, expected):
    path = tmp_path / "socket"
    start(files["small"], "--uds", str(path), *options)
    assert mode(path) == expected


def test_the_socket_has_its_mode_when_it_appears(tmp_path, monkeypatch):
    path = tmp_path / "socket"
    modes = []
    monkeypatch.setattr(socket.socket, "listen", lambda *_: modes.append(mode(path)))
    listen(Config(uds=str(path), uds_mode="600")).close()
    assert modes == [0o600]


class Connection:
    """A request on a Unix socket whose last byte has not been sent."""

    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30)
        self._socket.connect(str(path))
        body = b'{"tokens": ["the"]}'
        head = b"POST /lookup HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
        self._socket.sendall(head + body[:-1])
        self._rest = body[-1:]

    def finish(self):
        self._socket.sendall(self._rest)
        with self._socket:
            return b"".join(iter(lambda: self._socket.recv(1 << 16), b""))


@pytest.mark.parametrize("workers", ["1", "3"])
def test_a_new_server_takes_over_the_path_of_one_that_drains(files, start, tmp_path, workers):
    path = tmp_path / "socket"
    old = start(files["small"], "--uds", str(path), "--workers", workers, "--shutdown-timeout", "60")
    slow = Connection(path)
    assert old.client.get("/livez").status_code == 200  # the slow request has been accepted
    old.process.send_signal(signal.SIGTERM)
    eventually(lambda: not path.exists())
    new = start(files["small"], "--uds", str(path), "--workers", workers)
    assert old.process.poll() is None
    assert slow.finish().startswith(b"HTTP/1.1 200 ")
    assert old.stop()[0] == 0
    assert path.exists()
    assert new.lookup({"tokens": ["the"]}).json()["found"] == [True]
    assert new.stop()[0] == 0
    assert not path.exists()


@pytest.mark.parametrize("workers", ["1", "3"])
def test_the_socket_of_another_server_is_never_removed(files, start, tmp_path, workers):
    path = tmp_path / "socket"
    old = start(files["small"], "--uds", str(path), "--workers", workers)
    old.client.close()
    path.unlink()
    new = start(files["small"], "--uds", str(path))
    assert old.stop()[0] == 0
    assert new.client.get("/livez").status_code == 200


@pytest.mark.parametrize("workers", ["1", "3"])
def test_the_socket_is_served_until_the_end_of_the_drain_delay(files, start, tmp_path, workers):
    path = tmp_path / "socket"
    server = start(files["small"], "--uds", str(path), "--workers", workers, *SLOW)
    server.process.send_signal(signal.SIGTERM)
    eventually(lambda: server.client.get("/readyz").status_code == 503)
    assert server.lookup({"tokens": ["the"]}).status_code == 200
    assert path.exists()
    assert server.stop()[0] == 0
    assert not path.exists()
