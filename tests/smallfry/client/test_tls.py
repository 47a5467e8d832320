"""Servers whose certificate is trusted, and is not."""

import shutil
import ssl
import subprocess

import pytest

from smallfry.client import ConnectFailed
from tests.helpers.scripted_server import ScriptedServer, rows


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: it makes the certificate of the test")
    folder = tmp_path_factory.mktemp("certificate")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=test".split()
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key", "-out", "pem"]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    return folder


@pytest.fixture
def serving(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "pem", certificate / "key")
    return context


def test_trusted_certificate_is_accepted(connect, serving, certificate):
    trusting = ssl.create_default_context(cafile=certificate / "pem")
    with ScriptedServer(rows(1.0), rows(2.0), context=serving) as server:
        client = connect(server.url, ssl_context=trusting)
        assert [client.lookup(["a"]).vectors[0, 0] for _ in range(2)] == [1.0, 2.0]
    assert server.connections == 1


def test_untrusted_certificate_is_rejected(connect, serving):
    with (
        ScriptedServer(rows(1.0), context=serving) as server,
        pytest.raises(ConnectFailed, match="certificate"),
    ):
        connect(server.url, retries=0).lookup(["a"])
    assert server.requests == []
