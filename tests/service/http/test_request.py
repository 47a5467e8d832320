"""Negotiation of the response format."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import HeadTooLarge, NotAcceptable
from service.http.request import FORMATS, negotiate
from smallfry.media_types import JSON, PACKED, RAW, SAFETENSORS
from tests.helpers.errors import error_of


@pytest.mark.parametrize(
    ("accept", "formats"),
    [
        (None, [JSON]),
        (b"", [JSON]),
        (b"*/*", [JSON, RAW, SAFETENSORS, PACKED]),
        (b"application/*", [JSON, RAW, SAFETENSORS, PACKED]),
        (PACKED.encode(), [PACKED]),
        (b"Application/JSON; charset=utf-8", [JSON]),
        (b"application/vnd.safetensors;q=0.5, application/octet-stream", [RAW, SAFETENSORS]),
        (b"application/octet-stream, application/vnd.safetensors", [RAW, SAFETENSORS]),
        (b"application/vnd.safetensors, application/octet-stream", [SAFETENSORS, RAW]),
        (b"*/*;q=0.1, application/octet-stream;q=0.2", [RAW, JSON, SAFETENSORS, PACKED]),
        (b"*/*, application/json;q=0", [RAW, SAFETENSORS, PACKED]),
        (b"application/json;q=0.1, */*", [RAW, SAFETENSORS, PACKED, JSON]),
        (b"text/html, application/xhtml+xml, */*;q=0.8", [JSON, RAW, SAFETENSORS, PACKED]),
    ],
)
def test_formats_are_ordered_by_preference(accept, formats):
    assert list(negotiate(accept)) == formats


@pytest.mark.parametrize("accept", [b"text/html", b"application/json;q=0", b"*/*;q=nonsense", b";", b"json"])
def test_an_unsupported_format_is_rejected(accept):
    with pytest.raises(NotAcceptable):
        negotiate(accept)


@given(st.binary(max_size=60))
def test_any_header_gives_formats_or_an_error(accept):
    try:
        formats = negotiate(accept)
    except NotAcceptable:
        return
    assert formats and set(formats) <= set(FORMATS) and len(set(formats)) == len(formats)


def test_the_length_of_accept_is_limited(server):
    assert negotiate(b"," * 1014 + b"*/*, a/b;c")
    with pytest.raises(HeadTooLarge):
        negotiate(b"," * 1025)
    error = error_of(server.lookup({"tokens": ["the"]}, accept="," * 1025), 431)
    assert (error["param"], "1024" in error["message"]) == ("Accept", True)


@pytest.mark.parametrize(
    ("name", "values", "status"),
    [
        ("accept", ("text/html", JSON), 200),
        ("accept", ("text/html", "text/plain"), 406),
        ("content-type", (JSON, JSON), 415),
        ("content-type", ("text/plain", JSON), 415),
        ("content-encoding", ("identity", "gzip"), 415),
    ],
)
def test_repeated_headers_are_joined_with_commas(server, name, values, status):
    headers = [(name, value) for value in values]
    response = server.client.post("/lookup", content=b'{"tokens":["the"]}', headers=headers)
    assert response.status_code == status


def test_any_of_repeated_tags_matches(server):
    tag = server.client.get("/models/small").headers["etag"]
    headers = [("if-none-match", tag), ("if-none-match", '"other"')]
    assert server.client.get("/models/small", headers=headers).status_code == 304
