"""Base class of the two clients: everything except the I/O."""

from __future__ import annotations

import ssl
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import ArrayLike, NDArray

import smallfry
from smallfry.client.cache import TokenCache
from smallfry.client.errors import MalformedResponse
from smallfry.client.local import LocalFile
from smallfry.client.lookup import (
    Dtype,
    Lookup,
    Oov,
    Tokens,
    as_dtype,
    check_dtype,
    check_ids,
    check_texts,
    make_query,
)
from smallfry.client.transport.address import Address, parse_address
from smallfry.client.transport.messages import FORMATS
from smallfry.errors import InputError
from smallfry.pooling import Pool
from smallfry.table import NBITS

if TYPE_CHECKING:
    from smallfry.client.remote import RemoteServer, Steps

Format = Literal["packed", "safetensors", "json"]


@dataclass(frozen=True)
class ModelInfo:
    """A model of a server.

    Attributes
    ----------
    name : str
    rows, dim, nbit : int
        Shape of the table, and bits per value.
    digest : str
        Digest of the content.
    has_vocabulary : bool
        Whether tokens can be looked up, or only row numbers.
    has_tokenizer : bool
        Whether texts can be encoded.
    bytes : mapping of str to int
        Bytes of the mapped file by part.
    metadata : mapping of str to str
        Metadata of the file.
    """

    name: str
    rows: int
    dim: int
    nbit: int
    digest: str
    has_vocabulary: bool
    has_tokenizer: bool
    bytes: Mapping[str, int]
    metadata: Mapping[str, str]


def model_info(fields: Mapping[str, Any]) -> ModelInfo:
    """Return the description of a model in a response, or raise MalformedResponse."""
    try:
        info = ModelInfo(*(fields[name] for name in ModelInfo.__annotations__))
    except (KeyError, TypeError) as error:
        raise MalformedResponse(f"the description of a model is malformed: {error!r}") from None
    texts, sizes = (info.name, info.digest), (info.rows, info.dim, info.nbit)
    if (
        not all(isinstance(text, str) for text in texts)
        or not all(type(size) is int and size >= 0 for size in sizes)
        or info.nbit not in NBITS
        or type(info.has_vocabulary) is not bool
        or type(info.has_tokenizer) is not bool
        or not _is_mapping(info.bytes, int)
        or not _is_mapping(info.metadata, str)
    ):
        raise MalformedResponse("the description of a model has fields of other types than expected")
    return info


def _is_mapping(value: object, kind: type) -> bool:
    return isinstance(value, dict) and {*map(type, value.values())} <= {kind}


class BaseClient(ABC):
    """Options and methods of a client; subclasses send the requests."""

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        api_key: str | None = None,
        format: Format = "packed",
        timeout: float = 10.0,
        retries: int = 3,
        batch_size: int = 16384,
        distinct: bool = False,
        cache_bytes: int = 0,
        cache_seconds: float = 60.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        if format not in FORMATS:
            raise InputError(f"format is {format!r}, expected one of {', '.join(FORMATS)}")
        for name, value, least in (
            ("timeout", timeout, 1e-3),
            ("retries", retries, 0),
            ("batch_size", batch_size, 1),
        ):
            if not value >= least:
                raise InputError(f"{name} is {value}, expected {least:g} or more")
        address = parse_address(url)
        self._model = model
        self._common = _common_headers(address, api_key)
        self._source: RemoteServer | LocalFile
        if address.scheme == "file":
            self._source = LocalFile(address.path)
        else:
            try:
                from smallfry.client.remote import RemoteServer
            except ModuleNotFoundError as error:
                raise ImportError(
                    f"{error}: connecting to a server requires further packages. "
                    "Please install them: pip install 'smallfry[client]'"
                ) from error
            cache = TokenCache(cache_bytes, cache_seconds) if cache_bytes else None
            self._source = RemoteServer(address, format, retries, batch_size, distinct, cache)
            self._connect(address, timeout, ssl_context)

    @abstractmethod
    def _connect(self, address: Address, timeout: float, context: ssl.SSLContext | None) -> None:
        """Create the connection pool."""

    def _lookup(
        self, tokens: Tokens, model: str | None, oov: Oov, pool: Pool | None, dtype: Dtype
    ) -> Steps[Lookup]:
        query = make_query(tokens, oov, pool, dtype)
        rows = yield from self._source.tokens(query.tokens, model or self._model, oov == "mean")
        return query.finish(rows)

    def _rows(self, ids: ArrayLike, model: str | None, dtype: Dtype) -> Steps[NDArray[Any]]:
        rows = yield from self._source.ids(check_ids(ids), model or self._model)
        return as_dtype(rows.vectors, dtype)

    def _encode(self, texts: Sequence[str], model: str | None, dtype: Dtype) -> Steps[NDArray[Any]]:
        check_dtype(dtype)
        rows = yield from self._source.texts(check_texts(texts), model or self._model)
        return as_dtype(rows.vectors, dtype)

    def _models(self) -> Steps[list[ModelInfo]]:
        body = yield from self._source.models()
        models = body.get("models") if isinstance(body, dict) else None
        if not isinstance(models, list):
            raise MalformedResponse("the response has no list of models. Is this a smallfry server?")
        return [model_info(fields) for fields in models]

    def _stats(self) -> Steps[dict[str, Any]]:
        body = yield from self._source.stats()
        if not isinstance(body, dict):
            raise MalformedResponse(f"/stats returned a JSON {type(body).__name__}, expected an object")
        return body


def _common_headers(address: Address, api_key: str | None) -> str:
    """Return the header lines shared by all requests of a client."""
    lines = f"Host: {address.authority}\r\nUser-Agent: smallfry/{smallfry.__version__}\r\n"
    if api_key is None:
        return lines
    if not (api_key.isascii() and api_key.isprintable()):
        raise InputError(
            "the API key contains a character not allowed in headers. Was it read with a line break?"
        )
    return f"{lines}Authorization: Bearer {api_key}\r\n"
