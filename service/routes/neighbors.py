"""The route that finds the nearest rows of a token, a row or a vector."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from starlette.types import Receive, Scope

from service.errors import InvalidValue, UnknownToken
from service.http.limits import Limits
from service.http.negotiation import JSON, negotiate
from service.http.request import check_names, kind, media_type, parse_json, read_body
from service.http.response import Endpoint, Reply, json_reply
from service.models.model import Model
from service.models.registry import Models
from service.routes.formats import digest_header
from service.routes.query import row_numbers
from smallfry import InputError
from smallfry.neighbors import nearest

EXAMPLE = '{"token": "the", "k": 10}'
DEFAULT_K = 10
MAX_K = 1000

_QUERIES = ("token", "id", "vector")
_FIELDS = frozenset({*_QUERIES, "model", "k"})


class NearestQuery(NamedTuple):
    """What is searched for: a vector, the field that gave it, and the row to leave out, if it is a row's."""

    model: Model
    field: str
    vector: NDArray[np.float32]
    row: int | None
    k: int


class NeighborsEndpoint(Endpoint):
    """Answer ``POST /neighbors``.

    A search passes over a whole table. It runs in a thread, with the interpreter's lock let go, and each
    worker runs one after the other: lookups meanwhile lose one core, not their turn.

    Parameters
    ----------
    models, limits
        As for `service.routes.lookup.LookupEndpoint`.
    """

    def __init__(self, models: Models, limits: Limits) -> None:
        self._models = models
        self._limits = limits
        self._thread = ThreadPoolExecutor(1, "neighbors")

    async def answer(self, headers: Mapping[bytes, bytes], scope: Scope, receive: Receive) -> Reply:
        """Answer one request."""
        negotiate(headers.get(b"accept"), (JSON,))
        media_type(headers, (JSON,))
        fields = parse_json(await read_body(receive, headers, self._limits), EXAMPLE)
        query = parse(fields, self._models)
        search = asyncio.get_running_loop().run_in_executor(self._thread, _search, query)
        return _encode(query.model, *await search)


def parse(fields: dict[str, Any], models: Models) -> NearestQuery:
    """Check the fields of a request and find the vector that it is about.

    Raises
    ------
    InvalidValue
        A field is unknown, missing, or holds what it cannot.
    UnknownModel, UnknownToken
        No model, or no token, has the name asked for.
    """
    check_names(fields, _FIELDS)
    given = [name for name in _QUERIES if fields.get(name) is not None]
    if len(given) != 1:
        held = " and ".join(given) if given else f"none of {', '.join(_QUERIES)}"
        raise InvalidValue(
            f"the request holds {held}; give one of them: {EXAMPLE}", param=(given or _QUERIES)[0]
        )
    k = fields.get("k", DEFAULT_K)
    if type(k) is not int or not 1 <= k <= MAX_K:
        shown = k if type(k) is int else kind(k)
        raise InvalidValue(f"k is {shown}; it has to be a whole number from 1 to {MAX_K}", param="k")
    model = models.find(fields.get("model"))
    if "vector" in given:
        return NearestQuery(model, "vector", _vector(fields["vector"], model), None, k)
    if "token" in given:
        row = _row_of(fields["token"], model)
    else:
        row = int(row_numbers([fields["id"]], model, "id", None)[0])
    return NearestQuery(model, given[0], model.store.rows([row])[0], row, k)


def _row_of(token: Any, model: Model) -> int:  # noqa: ANN401 - any JSON value
    if not isinstance(token, str):
        raise InvalidValue(f"token is {kind(token)}; it has to be a string", param="token")
    if model.store.vocabulary is None:
        raise InvalidValue(f"{model.name!r} has no vocabulary; ask for an id", param="token")
    row = int(model.store.find([token])[0])
    if row < 0:
        raise UnknownToken(f"not in the vocabulary of {model.name!r}: {token!r}", param="token")
    return row


def _vector(values: Any, model: Model) -> NDArray[np.float32]:  # noqa: ANN401 - any JSON value
    if type(values) is not list:
        expected = f"a list of {model.store.dim} numbers"
        raise InvalidValue(f"vector is {kind(values)}; it has to be {expected}", param="vector")
    wrong = next((i for i, value in enumerate(values) if type(value) not in (int, float)), None)
    if wrong is not None:
        raise InvalidValue(f"vector[{wrong}] is {kind(values[wrong])}; it has to be a number", param="vector")
    with np.errstate(over="ignore"):
        return np.array([float(value) for value in values]).astype(np.float32)


def _search(query: NearestQuery) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    try:
        return nearest(query.model.store.table, query.vector, query.k, exclude=query.row, threads=1)
    except InputError as error:
        raise InvalidValue(str(error), param=query.field) from None


def _encode(model: Model, ids: NDArray[np.int64], scores: NDArray[np.float32]) -> Reply:
    named = model.store.vocabulary is not None
    neighbors = [
        {"token": model.store.token(row) if named else None, "row": row, "score": score}
        for row, score in zip(ids.tolist(), scores, strict=True)
    ]
    return json_reply({"model": model.name, "neighbors": neighbors}, digest_header(model))
