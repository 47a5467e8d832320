"""JSON bodies: parsing them, and validating their fields with pydantic models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar, get_args

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from service.errors import InvalidValue, RequestError
from service.http.request import RequestBody, media_type, negotiate
from smallfry.media_types import JSON


class RequestModel(BaseModel):
    """Base of the models that validate requests.

    A string in a field's `Annotated` says in error messages what the field has to be.

    Attributes
    ----------
    example : str
        A body that error messages show.
    """

    model_config = ConfigDict(extra="forbid", strict=True)
    example: ClassVar[str]


M = TypeVar("M", bound=RequestModel)


async def read_json(model: type[M], headers: Mapping[bytes, bytes], body: RequestBody) -> M:
    """Return the validated body of a request to a route that takes and returns only JSON."""
    negotiate(headers.get(b"accept"), (JSON,))
    media_type(headers, (JSON,))
    return validate(model, parse_json(await body.read(), model.example))


def parse_json(body: bytes, example: str) -> dict[str, Any]:
    """Parse a body that has to be an object; strings may hold lone surrogates, which orjson rejects.

    Raises
    ------
    RequestError
        The body is not JSON; the message shows the example.
    InvalidValue
        It is JSON, but not an object.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        value = _parse_surrogates(body, error, example)
    if type(value) is not dict:
        raise InvalidValue(f"the body is {kind(value)}; it has to be an object such as {example}")
    return value


def validate(model: type[M], fields: dict[str, Any]) -> M:
    """Return the fields of a request as a model.

    Raises
    ------
    InvalidValue
        A field is unknown, is missing, or has a wrong type or value.
    """
    try:
        return model.__pydantic_validator__.validate_python(fields)  # type: ignore[no-any-return]
    except ValidationError as error:
        problems = error.errors(include_url=False)
    known = model.model_fields
    unknown = fields.keys() - known.keys()
    if unknown:
        name = min(unknown)
        raise InvalidValue(f"there is no field {name!r}; fields: {', '.join(sorted(known))}", param=name)
    problem = problems[0]
    name = str(problem["loc"][0])
    if problem["type"] == "missing":
        raise InvalidValue(f"the request has no {name}; send an object such as {model.example}", param=name)
    texts = [text for text in known[name].metadata if isinstance(text, str)]
    # A field without a text is an optional `Literal`.
    expected = texts[0] if texts else "one of " + ", ".join(get_args(get_args(known[name].annotation)[0]))
    value = problem["input"]
    quoted = type(value) in (str, int) and problem["type"] not in _TYPE_ERRORS
    raise InvalidValue(
        f"{name} is {repr(value) if quoted else kind(value)}; it has to be {expected}", param=name
    )


def kind(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """Name the JSON type of a value, for messages."""
    names = {type(None): "null", dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return names.get(type(value), "a number")


_TYPE_ERRORS = frozenset({"int_type", "list_type", "is_instance_of"})


def _parse_surrogates(body: bytes, problem: Exception, example: str) -> Any:  # noqa: ANN401 - any JSON value
    if b"\\u" in body:
        try:
            return json.loads(body, parse_constant=_reject_constant)
        except (ValueError, RecursionError) as error:
            problem = error
    raise RequestError(f"the body is not JSON: {problem}; send an object such as {example}")


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
