"""Repeated heads are recognized as the parser would read them."""

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.http.repeat import RepeatedHead

HEAD = b"POST /lookup HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nAccept: */*\r\n\r\n"
FIRST = HEAD % 5 + b"first"
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def repeated(request):
    return RepeatedHead(request, lambda body, fields, write: False)


class Parsed:
    """What the parser finds in one request."""

    def __init__(self, data):
        self.url, self.body, self.complete, self.headers = b"", b"", 0, {}
        parser = httptools.HttpRequestParser(self)
        parser.feed_data(data)
        self.method, self.version = parser.get_method(), parser.get_http_version()

    def on_url(self, url):
        self.url += url

    def on_header(self, name, value):
        self.headers[name.lower()] = value

    def on_body(self, body):
        self.body += body

    def on_message_complete(self):
        self.complete += 1

    def __eq__(self, other):
        return vars(self) == vars(other)


@pytest.mark.parametrize("body", [b"", b"x", b"first", b"a\r\n\r\nb", bytes(16000)])
def test_the_body_after_a_repeated_head_is_returned(body):
    fields = {b"content-length": b"%d" % len(body)}
    assert repeated(FIRST).match(HEAD % len(body) + body) == (body, 0, fields)
    assert repeated(FIRST).match(HEAD % len(body) + body[:3]) == (body[:3], len(body[3:]), fields)


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [(b"X-Request-ID", b"1", b"~" * 128), (b"traceparent", TRACE, TRACE[::-1])],
)
def test_fields_that_identify_a_request_may_differ(name, first, second):
    requests = [FIRST.replace(b"Accept", b"%b:  %b\r\nAccept" % (name, value)) for value in (first, second)]
    for one, other in (requests, requests[::-1]):
        assert repeated(one).match(other)[2][name.lower()] in (first, second)
        assert repeated(one).match(other)[0] == b"first"
        assert repeated(one).match(other.replace(b"\r\nAccept", b" x\r\nAccept")) is None
        assert repeated(one).match(FIRST) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"x-request-id", b""),
        (b"x-request-id", b"a b"),
        (b"x-request-id", b"a "),
        (b"x-request-id", b"x" * 129),
        (b"traceparent", b"00-1"),
    ],
)
def test_fields_of_another_form_have_to_be_the_same(name, value):
    request = FIRST.replace(b"Accept", b"%b: %b\r\nAccept" % (name, value))
    assert repeated(request).match(request)[0] == b"first"
    assert repeated(request).match(request.replace(value + b"\r\n", value + b"1\r\n")) is None


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        HEAD[:-1] % 5,
        HEAD % 5 + b"longer",
        HEAD % 5 + b"first" + FIRST,
        FIRST.replace(b"/lookup", b"/lookups"),
        FIRST.replace(b"Accept", b"accept"),
        FIRST.replace(b": 5", b": +5"),
        FIRST.replace(b": 5", b": 5 "),
        FIRST.replace(b": 5", b": 5, 5"),
        FIRST.replace(b": 5", b": "),
        FIRST.replace(b": 5", b": " + b"0" * 5000 + b"5"),
        FIRST.replace(b": 5", b": \xb2"),
        FIRST.replace(b": 5\r", b": 5"),
        FIRST[:-12],
    ],
)
def test_other_data_is_left_to_the_parser(request_):
    assert repeated(FIRST).match(request_) is None


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        b"\r\n\r\n" + FIRST,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nX: content-length: 1\r\n\r\nx",
        FIRST.replace(b"Accept", b"X-Request-ID: 1\r\nx-request-id: 2\r\nAccept"),
        FIRST.replace(b"Accept", b"X-Request-ID: 1\r\nx-request-id: 2 3\r\nAccept"),
        FIRST.replace(b": 5", b": 5 "),
        FIRST.replace(b"Accept", b"Expect: 100-continue\r\nAccept"),
        FIRST.replace(b": 5", b": 123456789"),
        b"POST / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 4096 + b"\r\nContent-Length: 1\r\n\r\nx",
    ],
)
def test_heads_that_are_long_or_without_one_length_are_not_kept(request_):
    with pytest.raises(ValueError, match="not followed by a body"):
        repeated(request_)


@example(b"Content-Length:5\r\ncontent-lengt: 7", 30, 1, b"\r\n")
@given(
    line=st.binary(max_size=20).filter(lambda line: b"\r" not in line and b"\n" not in line),
    begin=st.integers(0, len(HEAD) + 8),
    removed=st.integers(0, 4),
    inserted=st.binary(max_size=4) | st.sampled_from([b"\r\n", b"0", b"1", b"12", b"x: y\r\n"]),
)
def test_what_is_taken_as_repeated_is_what_the_parser_would_read(line, begin, removed, inserted):
    first = FIRST.replace(b"Accept", line + b": 1\r\nAccept")
    data = first[:begin] + inserted + first[begin + removed :]
    try:
        expected, head = Parsed(first), repeated(first)
    except (httptools.HttpParserError, ValueError):
        return
    match = head.match(data)
    if match is not None and expected.complete:
        expected.body, missing, fields = match
        expected.headers |= fields
        expected.complete = not missing
        assert Parsed(data) == expected
