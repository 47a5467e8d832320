"""Fields of JSON requests."""

import pytest

from tests.helpers.errors import error_of

#: A valid request to each route, and its fields.
REQUESTS = {
    "/lookup": ({"tokens": [["the"]], "pool": "mean"}, ("tokens", "ids", "model", "pool", "oov", "dtype")),
    "/v1/embeddings": ({"input": "the"}, ("input", "model", "encoding_format", "dimensions")),
    "/neighbors": ({"token": "the"}, ("token", "id", "vector", "k", "model")),
}
FIELDS = [(route, field) for route, (_, fields) in REQUESTS.items() for field in fields]
#: Values that are false or nearly so, and the fields for which they are valid.
VALUES = [
    ({}, ()),
    (False, ()),
    (True, ()),
    (0, ("id",)),
    (0.5, ()),
    ("", ("token", "input")),
    ([], ("tokens", "ids", "input", "vector")),
]
WRONG = [(*field, value) for field in FIELDS for value, valid in VALUES if field[1] not in valid]


@pytest.mark.parametrize(("route", "field", "value"), WRONG)
def test_wrong_types_are_rejected_even_if_false(server, route, field, value):
    request, _ = REQUESTS[route]
    response = server.client.post(route, json=request | {field: value})
    status = 404 if (field, value) == ("model", "") else 422
    assert error_of(response, status)["param"] == field


@pytest.mark.parametrize(("route", "field"), FIELDS)
def test_null_is_the_same_as_no_field(server, route, field):
    request, _ = REQUESTS[route]
    absent = {name: value for name, value in request.items() if name != field}
    one, other = (server.client.post(route, json=each) for each in (request | {field: None}, absent))
    assert one.status_code == other.status_code
    if one.status_code == 200:
        assert one.content == other.content
    else:
        assert error_of(one, 422)["param"] == error_of(other, 422)["param"]


@pytest.mark.parametrize("route", ["/lookup", "/neighbors"])
def test_unknown_fields_are_rejected(server, route):
    request, fields = REQUESTS[route]
    error = error_of(server.client.post(route, json=request | {"tokes": None}), 422)
    assert error["param"] == "tokes"
    assert all(field in error["message"] for field in fields)


ROUTES = {
    "/lookup": (b'{"tokens":[', b"]}"),
    "/v1/embeddings": (b'{"input":[', b"]}"),
    "/neighbors": (b'{"vector":[', b"]}"),
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("value", [b"1", b"[]", b"{}", b'""', b"[" * 100 + b"]" * 100])
def test_more_values_than_a_route_uses_are_rejected_before_they_are_built(server, route, value):
    first, last = ROUTES[route]
    body = first + b",".join([value] * (10**6 // len(value))) + last
    response = server.client.post(route, content=body)
    error = error_of(response, 413)
    assert "values and lists" in error["message"]


def test_commas_and_brackets_in_strings_are_not_values(server):
    word = r",[{\\\"" * 50_000
    response = server.client.post("/lookup", content=b'{"tokens":["%b"]}' % word.encode())
    assert response.json()["found"] == [False]


def test_the_most_tokens_in_lists_of_their_own_are_accepted(server):
    response = server.lookup({"tokens": [["the"]] * 16384, "pool": "mean"}, accept="application/octet-stream")
    assert response.status_code == 200


def test_a_million_unknown_fields_are_one_error(server):
    fields = {f"field-{number}": 1 for number in range(40_000)}
    assert error_of(server.lookup(fields), 422)["param"] == "field-0"


def test_numbers_next_to_lone_surrogates_are_those_of_other_bodies(server):
    surrogate = r'{"tokens": ["\ud800"], "ids": [%s]}'
    for number in ("1", "1e400", "9" * 5000, "0." + "9" * 5000, "-1"):
        one, other = (
            server.client.post("/lookup", content=(text % number).encode())
            for text in (surrogate, surrogate.replace(r"\ud800", "x"))
        )
        assert one.status_code == other.status_code
