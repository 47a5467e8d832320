"""JSON bodies: parsing them, and validating their fields with pydantic models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar, get_args

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from service.errors import BatchTooLarge, InvalidValue, RequestError, quoted
from service.http.request import RequestBody, media_type, negotiate
from smallfry.kernels import count_values
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


async def read_json(model: type[M], headers: Mapping[bytes, bytes], body: RequestBody, max_values: int) -> M:
    """Return the validated body of a request to a route that takes and returns only JSON."""
    negotiate(headers.get(b"accept"), (JSON,))
    media_type(headers, (JSON,))
    return validate(model, parse_json(await body.read(), model.example, max_values))


def parse_json(body: bytes, example: str, max_values: int) -> dict[str, Any]:
    """Parse a body that has to be an object; strings may hold lone surrogates, which orjson rejects.

    Raises
    ------
    BatchTooLarge
        The body holds more than `max_values` values and lists; they are counted before they are built,
        because a million of them takes the event loop half a second.
    RequestError
        The body is not JSON; the message shows the example.
    InvalidValue
        It is JSON, but not an object.
    """
    if len(body) > max_values and (count := count_values(body)) > max_values:
        raise BatchTooLarge(
            f"the body holds {count} values and lists, and this route takes {max_values}: split the request"
        )
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
    known = model.__pydantic_fields__
    try:
        if len(fields) <= len(known) or model.model_config["extra"] == "ignore":
            return model.__pydantic_validator__.validate_python(fields)  # type: ignore[no-any-return]
    except ValidationError as error:
        # Its frames refer to it: a cycle.
        invalid = error.with_traceback(None)
    # Pydantic would report each of a million unknown fields.
    unknown = fields.keys() - known.keys()
    if unknown and model.model_config["extra"] == "forbid":
        name = min(unknown)
        raise InvalidValue(
            f"there is no field {quoted(name)}; fields: {', '.join(sorted(known))}", param=name
        )
    problem = invalid.errors(include_url=False)[0]
    name = str(problem["loc"][0])
    if problem["type"] == "missing":
        raise InvalidValue(f"the request has no {name}; send an object such as {model.example}", param=name)
    texts = [text for text in known[name].metadata if isinstance(text, str)]
    # A field without a text is an optional `Literal`.
    expected = texts[0] if texts else "one of " + ", ".join(get_args(get_args(known[name].annotation)[0]))
    value = problem["input"]
    shown = kind(value)
    if type(value) in (str, int) and problem["type"] not in _TYPE_ERRORS:
        shown = quoted(value) if type(value) is str else str(value)
    raise InvalidValue(f"{name} is {shown}; it has to be {expected}", param=name)


def kind(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """Name the JSON type of a value, for messages."""
    names = {type(None): "null", dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return names.get(type(value), "a number")


_TYPE_ERRORS = frozenset({"int_type", "list_type", "is_instance_of"})


def _parse_surrogates(body: bytes, problem: Exception, example: str) -> Any:  # noqa: ANN401 - any JSON value
    if b"\\u" in body:
        try:
            # Python's own parsers of numbers take quadratic time.
            return json.loads(
                body, parse_int=orjson.loads, parse_float=orjson.loads, parse_constant=_reject_constant
            )
        except (ValueError, RecursionError) as error:
            problem = error
    raise RequestError(f"the body is not JSON: {problem}; send an object such as {example}")


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
