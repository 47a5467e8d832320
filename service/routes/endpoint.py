"""Routes that are dispatched without the router."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel

from service.http.request import RequestBody
from service.http.response import Response
from service.server import Server


class Endpoint(ABC):
    """A POST route that the middleware calls directly: the router would cost more than a small lookup.

    Parameters
    ----------
    server : Server

    Attributes
    ----------
    name : str
        The operation's name in the API description; the docstring of `respond` is its text.
    request_model, response_model : type of BaseModel
        The JSON body of a request and of its response.
    """

    name: ClassVar[str]
    request_model: ClassVar[type[BaseModel]]
    response_model: ClassVar[type[BaseModel]]

    def __init__(self, server: Server) -> None:
        self._models = server.models
        #: Models that the API description may show: it needs no key.
        self._shown = {} if server.keys.required else server.models
        self._devices = server.devices
        self._meter = server.meter
        self._limits = server.limits

    @abstractmethod
    async def respond(
        self, headers: Mapping[bytes, bytes], query_string: bytes, body: RequestBody
    ) -> Response:
        """Return the response to a request; errors are raised as `ServiceError`."""

    @abstractmethod
    def request_content(self) -> dict[str, Any]:
        """Return the description of a request's body by media type, with examples for the shown models."""

    def response_content(self) -> dict[str, Any]:
        """Return the description of a response's body by media type, besides that of `response_model`."""
        return {}

    def example_fields(self, tokens: int) -> dict[str, Any]:
        """Return fields of a request for the shown models: up to `tokens` tokens, and the model."""
        model = next(iter(self._shown.values()), None)
        if model is None:
            return {"tokens": ["the", "cat"][:tokens]}
        found = model.examples[:tokens]
        fields: dict[str, Any] = {"tokens": found} if found else {}
        return fields | ({"model": model.name} if len(self._shown) > 1 else {})

    def takes_texts(self) -> bool:
        """Whether the model of the examples has a tokenizer."""
        model = next(iter(self._shown.values()), None)
        return model is not None and model.store.has_tokenizer
