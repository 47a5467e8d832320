"""Requests, retries, statuses and batches, with a scripted server."""

import json
import pickle

import pytest

from smallfry.client import (
    BadGateway,
    BadRequest,
    Forbidden,
    GatewayTimeout,
    MalformedResponse,
    MixedModels,
    NotAcceptable,
    NotFound,
    Overloaded,
    ServerError,
    ServerTimeout,
    StatusError,
    TooLarge,
    Unauthorized,
    Unavailable,
    UnknownModel,
    Unprocessable,
)
from tests.helpers.scripted_server import ScriptedServer, error_response, response, rows, values


def test_full_server_is_retried_after_the_requested_pause(connect, pauses):
    with ScriptedServer(error_response(429, Retry_After="2"), error_response(503), rows(1.0)) as server:
        assert values(connect(server.url).lookup(["a"])) == [1.0]
    assert len(server.requests) == 3
    assert len(set(server.requests)) == 1
    assert pauses == pytest.approx([3.0, 0.3])


def test_pauses_double(connect, pauses):
    with ScriptedServer(*[error_response(503)] * 4) as server, pytest.raises(Unavailable):
        connect(server.url).lookup(["a"])
    assert pauses == pytest.approx([0.15, 0.3, 0.6])


@pytest.mark.parametrize(
    "when",
    [
        "Thu, 01 Jan 1970 00:00:00 GMT",
        *("Mon, 01 Jan 99999999999 00:00:00 GMT", "Mon, 99 Jan 2024 99:99:99", "soon", "-1"),
    ],
)
def test_past_or_invalid_retry_date_has_the_default_pause(connect, pauses, when):
    with ScriptedServer(error_response(503, Retry_After=when), rows(1.0)) as server:
        assert values(connect(server.url).lookup(["a"])) == [1.0]
    assert pauses == pytest.approx([0.15])


def test_long_retry_after_is_not_waited_for(connect, pauses):
    script = error_response(429, Retry_After="3600")
    with ScriptedServer(script) as server, pytest.raises(Overloaded) as caught:
        connect(server.url).lookup(["a"])
    assert caught.value.retry_after == 3600
    assert pauses == []


def test_without_retries_the_first_error_is_raised(connect, pauses):
    with ScriptedServer(error_response(429)) as server, pytest.raises(Overloaded):
        connect(server.url, retries=0).lookup(["a"])
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, BadRequest),
        (401, Unauthorized),
        (403, Forbidden),
        (404, NotFound),
        (406, NotAcceptable),
        (408, ServerTimeout),
        (409, StatusError),
        (413, TooLarge),
        (422, Unprocessable),
        (500, ServerError),
        (504, ServerTimeout),
        (302, StatusError),
    ],
)
def test_each_status_has_its_error_and_is_not_retried(connect, status, error):
    with ScriptedServer(error_response(status)) as server, pytest.raises(StatusError) as caught:
        connect(server.url).lookup(["a"])
    assert type(caught.value) is error
    assert len(server.requests) == 1
    assert (caught.value.status, caught.value.message) == (status, "no")
    assert str(caught.value) == f"POST {server.url}/v1/lookup: status {status}: no"
    assert (caught.value.type, caught.value.param, caught.value.code) == ("t", "p", "some_code")


def test_unknown_model_differs_from_unknown_route(connect):
    with ScriptedServer(error_response(404, "model_not_found")) as server, pytest.raises(UnknownModel):
        connect(server.url).lookup(["a"])


@pytest.mark.parametrize(
    ("status", "error"),
    [(429, Overloaded), (502, BadGateway), (503, Unavailable), (504, GatewayTimeout)],
)
def test_error_page_of_a_proxy_is_retried_and_finally_quoted(connect, pauses, status, error):
    page = b"<html><style>h1 { color: red }</style>\r\n<h1>Sorry</h1>\r\n<p>try later</html>" + b" " * 9999
    script = [response(page, status, "text/html", Retry_After="2")] * 3
    with ScriptedServer(*script, rows(1.0)) as server:
        assert values(connect(server.url).lookup(["a"])) == [1.0]
    assert pauses == pytest.approx([3.0, 3.0, 3.0])
    with ScriptedServer(*script) as server, pytest.raises(error) as caught:
        connect(f"{server.url}/emb", retries=2).lookup(["a"])
    assert str(caught.value) == (
        f"POST {server.url}/emb/v1/lookup: status {status}: the response is from a proxy or another server, "
        "not from smallfry: 'Sorry try later'. Please check the base URL, and the server behind the proxy."
    )


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (
            response(b"\0\1", 404, "image/png"),
            "/models: status 404: the response is from a proxy or another server",
        ),
        (response(b'{"detail":"Not Found"}', 404), "detail.*check the base URL"),
        (response(b"x" * 10_000, 418, "text/plain"), "418.*'x{200}'"),
        (response(b"", 301, Location="https://there/models"), "'https://there/models'.*correct the base URL"),
        (response(b"", 204), "status 204: the response is from"),
    ],
)
def test_responses_of_other_servers_are_described(connect, page, message):
    with ScriptedServer(page) as server, pytest.raises(StatusError, match=message):
        connect(server.url).models()
    assert len(server.requests) == 1


def test_texts_of_a_server_are_shortened_and_escaped(connect):
    message = "no\x1b[2J\n\u202e" + "x" * 5000
    error = {"message": message, "type": ["t"], "param": "\x1b" * 500, "code": 1}
    with (
        ScriptedServer(response(json.dumps({"error": error}).encode(), 422)) as server,
        pytest.raises(Unprocessable) as caught,
    ):
        connect(server.url).models()
    assert caught.value.message == r"no\x1b[2J\n\u202e" + "x" * 992 + "…"
    assert (caught.value.type, caught.value.param, caught.value.code) == (None, r"\x1b" * 200 + "…", None)


def test_rows_of_another_model_are_an_error(connect):
    with ScriptedServer(rows(1.0, model="n")) as server, pytest.raises(MalformedResponse, match="model 'n'"):
        connect(server.url).lookup(["a"], model="m")


def test_status_errors_can_be_pickled():
    error = UnknownModel("no", status=404, request="GET file:x", code="c")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (UnknownModel, str(error), vars(error))


def test_batches_of_a_lookup_have_one_digest(connect):
    script = [rows(1.0), rows(2.0, digest="d1"), rows(3.0, digest="d1"), rows(4.0, digest="d1")]
    with ScriptedServer(*script) as server:
        result = connect(server.url, batch_size=1).lookup(["a", "b"])
    assert values(result) == [3.0, 4.0]
    assert result.digest == "d1"


def test_model_that_keeps_changing_is_an_error(connect):
    script = [rows(1.0, digest=f"d{i}") for i in range(10)]
    with ScriptedServer(*script) as server, pytest.raises(MixedModels):
        connect(server.url, batch_size=1).lookup(["a", "b"])


def test_batches_are_halved_if_the_server_accepts_less(connect):
    script = [error_response(413), error_response(413), rows(1.0), rows(2.0), rows(3.0), rows(4.0), rows(5.0)]
    with ScriptedServer(*script) as server:
        client = connect(server.url)
        assert values(client.lookup(list("abcd"))) == [1.0, 2.0, 3.0, 4.0]
        assert values(client.lookup(["a"])) == [5.0]
    assert len(server.requests) == 7


def test_the_request_is_what_the_server_expects(connect):
    answer = rows(1.0, model="my model")
    with ScriptedServer(answer, response(b'{"models": []}'), answer) as server:
        client = connect(f"{server.url}/prefix", model="my model", api_key="key")
        client.lookup(["ü"], oov="mean")
        client.models()
        client.rows([258])
        lookup, models, by_number = server.requests
    head, _, body = lookup.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /prefix/v1/lookup HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nAuthorization: Bearer key\r\n" in head
    assert b"\r\nAccept: application/vnd.smallfry.packed\r\nContent-Type: application/json\r\n" in head
    assert body.decode() == '{"tokens":["ü"],"model":"my model","oov":"mean"}'
    assert models.startswith(b"GET /prefix/models HTTP/1.1\r\n")
    assert by_number.startswith(b"POST /prefix/v1/lookup?model=my%20model HTTP/1.1\r\n")
    assert by_number.endswith(b"\r\n\r\n\x02\x01\x00\x00")
