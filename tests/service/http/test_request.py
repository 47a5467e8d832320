"""Negotiation of the response format."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import NotAcceptable
from service.http.request import FORMATS, negotiate
from smallfry.media_types import JSON, PACKED, RAW, SAFETENSORS


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
