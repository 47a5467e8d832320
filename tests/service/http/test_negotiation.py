"""Which format a request gets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import NotAcceptable
from service.http.negotiation import FORMATS, JSON, PACKED, RAW, SAFETENSORS, negotiate


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
        (b"text/html, application/xhtml+xml, */*;q=0.8", [JSON, RAW, SAFETENSORS, PACKED]),
    ],
)
def test_the_best_comes_first(accept: bytes | None, formats: list[str]) -> None:
    assert list(negotiate(accept)) == formats


@pytest.mark.parametrize("accept", [b"text/html", b"application/json;q=0", b"*/*;q=nonsense", b";", b"json"])
def test_none_of_the_four_is_refused(accept: bytes) -> None:
    with pytest.raises(NotAcceptable):
        negotiate(accept)


@given(st.binary(max_size=60))
def test_any_header_is_answered_or_refused(accept: bytes) -> None:
    try:
        formats = negotiate(accept)
    except NotAcceptable:
        return
    assert formats and set(formats) <= set(FORMATS) and len(set(formats)) == len(formats)
