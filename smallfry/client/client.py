"""The synchronous and the asynchronous client."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from numpy.typing import ArrayLike, NDArray

from smallfry.client.base import BaseClient, ModelInfo
from smallfry.client.errors import TransportError
from smallfry.client.lookup import Dtype, Lookup, Oov, Tokens
from smallfry.client.transport.address import Address
from smallfry.client.transport.messages import Request, Response
from smallfry.pooling import Pool

if TYPE_CHECKING:
    from smallfry.client.remote import Steps
    from smallfry.client.transport.async_connection import AsyncPool
    from smallfry.client.transport.connection import Pool as ConnectionPool

T = TypeVar("T")

MAX_CONNECTIONS = 32
"""Keep-alive connections of a client; the asynchronous client opens no more."""


class Client(BaseClient):
    """Client of a server, or of a memory-mapped file without a server.

    Threads may share a client; a forked process may continue to use it.

    Parameters
    ----------
    url : str
        ``http://host:port``, ``https://host``, ``unix:///path.sock``, or ``file:///path/to.sfq``.
    model : str, optional
        Default model of requests. Optional for a server of one model.
    api_key : str, optional
        Sent as ``Authorization: Bearer``.
    format : {"packed", "safetensors", "json"}
        Transfer format: codes, decoded by the client; float32; or text. The values are the same.
    timeout : float
        Seconds to connect, to each address of the host, and again for each response.
    retries : int
        Retries when the connection fails or the server is overloaded or unavailable (429, 502, 503, and 504
        from a proxy), with exponential backoff from 0.1 s, or after the time in Retry-After.
    batch_size : int
        Maximum number of tokens in a request; longer lookups are split. Halved on a 413 response. Texts are
        split at twice as many characters.
    distinct : bool
        Send repeated tokens, ids and texts once. This takes about 0.1 ms for 1,000 tokens and saves
        bandwidth: worth it between machines, and for batches with many repetitions.
    cache_bytes : int
        Size of an LRU cache of token vectors; 0 disables it.
    cache_seconds : float
        Time after the last response of a model during which its cache entries are valid.
    ssl_context : ssl.SSLContext, optional
        For ``https``; by default the system's certificate authorities are trusted.

    Raises
    ------
    AddressError
        The URL is not valid.
    FileError
        The file of a ``file:`` URL cannot be opened, or is not a valid ``.sfq`` file.
    InputError
        An option is out of range.

    Examples
    --------
    >>> from smallfry.client import Client
    >>> with Client("http://127.0.0.1:8000") as client:  # doctest: +SKIP
    ...     result = client.lookup(["list", "string", "no-such-word"])
    >>> result.vectors.shape, result.found.tolist()  # doctest: +SKIP
    ((3, 300), [True, True, False])
    """

    _pool: ConnectionPool | None = None

    def lookup(
        self,
        tokens: Tokens,
        *,
        model: str | None = None,
        oov: Oov = "zero",
        pool: Pool | None = None,
        dtype: Dtype = "float32",
    ) -> Lookup:
        """Return the vectors of tokens, all from one version of the model.

        Parameters
        ----------
        tokens : list of str, or list of lists of str
        model : str, optional
            Overrides the client's model.
        oov : {"zero", "mean", "error", "skip"}
            Treatment of unknown tokens: zeros, the mean of all rows, an error, or omission from pools.
        pool : {"mean", "sum"}, optional
            Return one vector for each inner list.
        dtype : {"float32", "float16"}

        Raises
        ------
        OutOfVocabularyError
            Tokens are unknown and `oov` is ``"error"``; the error lists all of them.
        InputError, TypeError
            The arguments are not valid.
        ClientError
            The request failed; see `smallfry.client.errors`.
        """
        return self._run(self._lookup(tokens, model, oov, pool, dtype))

    def rows(self, ids: ArrayLike, *, model: str | None = None, dtype: Dtype = "float32") -> NDArray[Any]:
        """Return rows by number.

        Parameters
        ----------
        ids : array of integers, shape [n]
        model : str, optional
            Overrides the client's model.
        dtype : {"float32", "float16"}

        Returns
        -------
        ndarray of float32 or float16, shape [n, dim]

        Raises
        ------
        InputError
            `ids` are not row numbers.
        Unprocessable
            The model has no such row.
        ClientError
            The request failed; see `smallfry.client.errors`.
        """
        return self._run(self._rows(ids, model, dtype))

    def encode(
        self, texts: Sequence[str], *, model: str | None = None, dtype: Dtype = "float32"
    ) -> NDArray[Any]:
        """Return the vectors of texts, all from one version of a model with a tokenizer.

        Parameters
        ----------
        texts : sequence of str, length n
        model : str, optional
            Overrides the client's model.
        dtype : {"float32", "float16"}

        Returns
        -------
        ndarray of float32 or float16, shape [n, dim]
            Zeros for a text without tokens.

        Raises
        ------
        InputError, TypeError
            The arguments are not valid: a text has a lone surrogate, or `texts` is one string.
        Unprocessable
            The model has no tokenizer.
        TooLarge
            One text has more tokens than the server takes.
        ClientError
            The request failed; see `smallfry.client.errors`.
        """
        return self._run(self._encode(texts, model, dtype))

    def models(self) -> list[ModelInfo]:
        """Return the loaded models; for a local file, the file."""
        return self._run(self._models())

    def stats(self) -> dict[str, Any]:
        """Return the body of ``GET /stats``: bytes by part and memory of the server."""
        return self._run(self._stats())

    def close(self) -> None:
        """Close the connections or the file."""
        if self._pool is not None:
            self._pool.close()
        self._source.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connect(self, address: Address, timeout: float, context: ssl.SSLContext | None) -> None:
        from smallfry.client.transport.connection import Pool

        self._pool = Pool(address, timeout, context, MAX_CONNECTIONS)

    def _run(self, steps: Steps[T]) -> T:
        try:
            request = next(steps)
            while True:
                try:
                    response = self._send(request)
                except TransportError as error:
                    request = steps.throw(error)
                else:
                    request = steps.send(response)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _send(self, request: Request) -> Response:
        assert self._pool is not None
        if request.pause:
            time.sleep(request.pause)
        return self._pool.send(request.encode(self._common), request.limit)


class AsyncClient(BaseClient):
    """`Client` for asyncio, with the same arguments and methods."""

    _pool: AsyncPool | None = None

    async def lookup(
        self,
        tokens: Tokens,
        *,
        model: str | None = None,
        oov: Oov = "zero",
        pool: Pool | None = None,
        dtype: Dtype = "float32",
    ) -> Lookup:
        """See `Client.lookup`."""
        return await self._run(self._lookup(tokens, model, oov, pool, dtype))

    async def rows(
        self, ids: ArrayLike, *, model: str | None = None, dtype: Dtype = "float32"
    ) -> NDArray[Any]:
        """See `Client.rows`."""
        return await self._run(self._rows(ids, model, dtype))

    async def encode(
        self, texts: Sequence[str], *, model: str | None = None, dtype: Dtype = "float32"
    ) -> NDArray[Any]:
        """See `Client.encode`."""
        return await self._run(self._encode(texts, model, dtype))

    async def models(self) -> list[ModelInfo]:
        """See `Client.models`."""
        return await self._run(self._models())

    async def stats(self) -> dict[str, Any]:
        """See `Client.stats`."""
        return await self._run(self._stats())

    async def close(self) -> None:
        """Close the connections or the file."""
        if self._pool is not None:
            self._pool.close()
        self._source.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _connect(self, address: Address, timeout: float, context: ssl.SSLContext | None) -> None:
        from smallfry.client.transport.async_connection import AsyncPool

        self._pool = AsyncPool(address, timeout, context, MAX_CONNECTIONS)

    async def _run(self, steps: Steps[T]) -> T:
        try:
            request = next(steps)
            while True:
                try:
                    response = await self._send(request)
                except TransportError as error:
                    request = steps.throw(error)
                else:
                    request = steps.send(response)
        except StopIteration as stop:
            result: T = stop.value
            return result

    async def _send(self, request: Request) -> Response:
        assert self._pool is not None
        if request.pause:
            await asyncio.sleep(request.pause)
        return await self._pool.send(request.encode(self._common), request.limit)
