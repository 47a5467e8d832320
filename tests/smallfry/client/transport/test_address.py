import pytest

from smallfry.client import AddressError, Client
from smallfry.client.transport.address import Address, parse_address
from smallfry.errors import InputError


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost", Address("http", "localhost", 80, "")),
        ("http://localhost:8000/", Address("http", "localhost", 8000, "")),
        ("https://vectors.example.org/embed/v2/", Address("https", "vectors.example.org", 443, "/embed/v2")),
        ("http://[::1]:8000", Address("http", "::1", 8000, "")),
        ("unix:///run/smallfry.sock", Address("unix", "", 0, "/run/smallfry.sock")),
        ("unix:/run/smallfry.sock", Address("unix", "", 0, "/run/smallfry.sock")),
        ("unix://smallfry.sock", Address("unix", "", 0, "smallfry.sock")),
        ("file:///data/with%20space.sfq", Address("file", "", 0, "/data/with space.sfq")),
        ("file:///data/what?.sfq", Address("file", "", 0, "/data/what?.sfq")),
    ],
)
def test_base_url_is_parsed(url, expected):
    assert parse_address(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000",
        "ftp://localhost",
        "http://",
        "http:///lookup",
        "http://host:99999",
        "http://host:eight",
        "http://host/?a=1",
        "http://host/#a",
        "http://user:password@host",
        "http://host/a b",
        "http://host\r\nX-Evil: 1",
        "http://hüst",
        "unix://",
        "file:",
        "file:///a%00b",
    ],
)
def test_invalid_base_url_is_rejected(url):
    with pytest.raises(AddressError, match="base URL"):
        Client(url)


def test_error_does_not_repeat_the_password():
    with pytest.raises(AddressError) as caught:
        parse_address("http://user:secret@host")
    assert "secret" not in str(caught.value)


def test_the_host_header_names_host_and_port():
    assert parse_address("http://[::1]:8000").authority == "[::1]:8000"
    assert parse_address("https://host").authority == "host:443"
    assert parse_address("unix:///a.sock").authority == "localhost"


@pytest.mark.parametrize(
    "options",
    [
        {"format": "xml"},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"retries": -1},
        {"batch_size": 0},
        {"api_key": "a\r\nX-Evil: 1"},
    ],
)
def test_invalid_option_is_rejected(options):
    with pytest.raises(InputError):
        Client("http://localhost", **options)
