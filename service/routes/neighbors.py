"""``POST /neighbors``: the nearest rows of a token, a row or a vector."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidValue, SearchTimeout, UnknownToken, quoted
from service.http.limits import RETRY, ConcurrencyLimiter
from service.http.request import RequestBody
from service.http.response import DeferredResponse, Response, json_response
from service.http.validation import kind, read_json
from service.models.model import Model
from service.models.registry import Models
from service.routes.batch import row_range, whole_numbers
from service.routes.endpoint import Endpoint
from service.routes.formats import digest_header
from service.routes.schema import NeighborsRequest, NeighborsResponse
from service.server import Server
from smallfry import InputError
from smallfry.media_types import JSON
from smallfry.neighbors import nearest
from smallfry.table import MAX_DIM

#: Searches that may wait in a worker while one runs; further ones are rejected.
WAITING = 8
#: Values in a JSON body, which may hold a vector, and other fields.
_MAX_VALUES = MAX_DIM + 16
#: Bytes of the tokens in a response.
MAX_TOKEN_BYTES = 1 << 22

_QUERIES = ("token", "id", "vector")


class NearestQuery(NamedTuple):
    """A vector, the field that it comes from, and the row to leave out if it is a row's."""

    model: Model
    field: str
    vector: NDArray[np.float32]
    row: int | None
    k: int


class NeighborsEndpoint(Endpoint):
    """``POST /neighbors``.

    A search reads a whole table. It runs in a thread, without the interpreter's lock, and each worker runs
    one at a time: concurrent lookups lose one core, but do not wait. Searches hold no slot of the lookups.
    """

    name = "find_neighbors"
    request_model = NeighborsRequest
    response_model = NeighborsResponse

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._thread = ThreadPoolExecutor(1, "neighbors")
        self._timeout = server.config.request_timeout
        self._slot = ConcurrencyLimiter(1, WAITING, self._timeout, self._meter.count_queued, "searches", "")

    async def respond(
        self, headers: Mapping[bytes, bytes], query_string: bytes, body: RequestBody
    ) -> Response:
        """Find the rows nearest to a token, a row or a vector, by cosine: exactly, among all rows."""
        self._slot.check()
        query = parse(await read_json(NeighborsRequest, headers, body, _MAX_VALUES), self._models)
        return DeferredResponse(lambda: self._search(query))

    async def _search(self, query: NearestQuery) -> Response:
        """Search when the slot is free; end the search if this is cancelled, or after the timeout."""
        if not self._slot.acquire():
            await self._slot.wait()
        cancelled = bytearray(1)
        try:
            search = asyncio.get_running_loop().run_in_executor(self._thread, _search, query, cancelled)
            return await asyncio.wait_for(search, self._timeout)
        except asyncio.TimeoutError:
            raise SearchTimeout(
                f"the search did not end within {self._timeout:g} s (--request-timeout)", headers=RETRY
            ) from None
        finally:
            cancelled[0] = 1
            self._slot.release()

    def request_content(self) -> dict[str, Any]:
        """Return the description of a request's body by media type, with examples for the shown models."""
        fields = self.example_fields(1)
        tokens = fields.pop("tokens", None)
        query: dict[str, Any] = {"id": 0} if tokens is None else {"token": tokens[0]}
        schema = {"$ref": "#/components/schemas/NeighborsRequest"}
        return {JSON: {"schema": schema, "example": query | fields | {"k": 10}}}


def parse(request: NeighborsRequest, models: Models) -> NearestQuery:
    """Find the vector of a request.

    Raises
    ------
    InvalidValue
        The request has none or several queries, or one that the model cannot resolve.
    UnknownModel, UnknownToken
        There is no model, or no token, of this name.
    """
    held = [name for name in _QUERIES if getattr(request, name) is not None]
    if len(held) != 1:
        names = " and ".join(held) if held else f"none of {', '.join(_QUERIES)}"
        raise InvalidValue(
            f"the request holds {names}; give one of them: {NeighborsRequest.example}",
            param=(held or _QUERIES)[0],
        )
    model = models.find(request.model)
    if request.vector is not None:
        return NearestQuery(model, "vector", _vector(request.vector, model), None, request.k or 10)
    if request.token is not None:
        row = _row_of(request.token, model)
    else:
        row = int(whole_numbers([request.id], row_range(model), "id", None)[0])
    return NearestQuery(model, held[0], model.store.rows([row])[0], row, request.k or 10)


def _row_of(token: str, model: Model) -> int:
    if model.store.vocabulary is None:
        raise InvalidValue(f"{model.name!r} has no vocabulary; give an id", param="token")
    row = int(model.store.find([token])[0])
    if row < 0:
        raise UnknownToken(f"not in the vocabulary of {model.name!r}: {quoted(token)}", param="token")
    return row


def _vector(values: list[Any], model: Model) -> NDArray[np.float32]:
    if len(values) != model.store.dim:
        raise InvalidValue(
            f"the vector has {len(values)} values; {model.name!r} has {model.store.dim} dimensions",
            param="vector",
        )
    wrong = next((i for i, value in enumerate(values) if type(value) not in (int, float)), None)
    if wrong is not None:
        raise InvalidValue(f"vector[{wrong}] is {kind(values[wrong])}; it has to be a number", param="vector")
    with np.errstate(over="ignore"):
        return np.array([float(value) for value in values]).astype(np.float32)


def _search(query: NearestQuery, cancelled: bytearray) -> Response:
    table = query.model.store.table
    try:
        found = nearest(table, query.vector, query.k, exclude=query.row, threads=1, cancelled=cancelled)
    except InputError as error:
        raise InvalidValue(str(error), param=query.field) from None
    return _encode(query.model, *found)


def _encode(model: Model, ids: NDArray[np.int64], scores: NDArray[np.float32]) -> Response:
    vocabulary = model.store.vocabulary
    nbytes = 0 if vocabulary is None else int(vocabulary.lengths(ids).sum())
    if nbytes > MAX_TOKEN_BYTES:
        raise InvalidValue(
            f"the tokens of {len(ids)} neighbors take {nbytes} bytes, at most {MAX_TOKEN_BYTES} are sent; "
            "ask for fewer",
            param="k",
        )
    tokens = [None] * len(ids) if vocabulary is None else vocabulary.select(ids)
    neighbors = [
        {"token": token, "row": row, "score": score}
        for token, row, score in zip(tokens, ids.tolist(), scores, strict=True)
    ]
    return json_response({"model": model.name, "neighbors": neighbors}, digest_header(model))
