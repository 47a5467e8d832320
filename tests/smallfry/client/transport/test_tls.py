"""Certificates and handshakes that are accepted, and not."""

import ssl

import pytest

from smallfry.client import ConnectionLost, TlsError
from tests.helpers.certificates import make_certificate
from tests.helpers.scripted_server import ScriptedServer, rows


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("certificate"))


def serving(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


def trusting(certificate):
    return ssl.create_default_context(cafile=certificate[0])


def test_trusted_certificate_is_accepted(connect, certificate):
    with ScriptedServer(rows(1.0), rows(2.0), context=serving(certificate)) as server:
        client = connect(server.url, ssl_context=trusting(certificate))
        assert [client.lookup(["a"]).vectors[0, 0] for _ in range(2)] == [1.0, 2.0]
    assert server.connections == 1


def test_certificate_of_an_unknown_authority_is_rejected(connect, certificate):
    with (
        ScriptedServer(rows(1.0), context=serving(certificate)) as server,
        pytest.raises(TlsError, match=r"self-signed certificate.*pass ssl_context="),
    ):
        connect(server.url).lookup(["a"])
    assert (server.connections, server.requests) == (1, [])


def test_certificate_of_another_host_is_rejected(connect, certificate):
    with (
        ScriptedServer(rows(1.0), context=serving(certificate)) as server,
        pytest.raises(TlsError, match=r"not valid for 'localhost'. Please use a host"),
    ):
        url = server.url.replace("127.0.0.1", "localhost")
        connect(url, ssl_context=trusting(certificate)).lookup(["a"])
    assert server.connections == 1


def test_expired_certificate_is_rejected(connect, tmp_path):
    expired = make_certificate(tmp_path, days=-1)
    with (
        ScriptedServer(rows(1.0), context=serving(expired)) as server,
        pytest.raises(TlsError, match=r"certificate has expired. Please renew"),
    ):
        connect(server.url, ssl_context=trusting(expired)).lookup(["a"])
    assert server.connections == 1


def test_missing_client_certificate_is_reported(connect, certificate):
    context = serving(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = (
        ssl.TLSVersion.TLSv1_2
    )  # TLS 1.3 may reset the connection before the reason is read
    with (
        ScriptedServer(rows(1.0), context=context) as server,
        pytest.raises(TlsError, match="if it requires a client certificate"),
    ):
        connect(server.url, ssl_context=trusting(certificate)).lookup(["a"])
    assert server.connections == 1


def test_port_that_requires_tls_is_reported(connect, certificate):
    with (
        ScriptedServer(context=serving(certificate)) as server,
        pytest.raises(ConnectionLost, match=r"Does the port require https://\?"),
    ):
        connect(server.url.replace("https:", "http:"), retries=0).lookup(["a"])


def test_port_that_speaks_plain_http_is_reported(connect):
    class PlainServer(ScriptedServer):
        def _read(self, connection):
            return bool(connection.recv(1000))

    with (
        PlainServer(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n") as server,
        pytest.raises(TlsError, match="use http://"),
    ):
        connect(server.url.replace("http:", "https:")).lookup(["a"])
    assert server.connections == 1
