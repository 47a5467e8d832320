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
