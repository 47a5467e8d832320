"""The two clients: one that waits, and one for asyncio."""

from __future__ import annotations

import asyncio
import ssl
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from numpy.typing import ArrayLike, NDArray

from smallfry.client.address import Address
from smallfry.client.base import BaseClient, ModelInfo
from smallfry.client.errors import TransportError
from smallfry.client.lookup import Dtype, Lookup, Oov, Tokens
from smallfry.client.messages import Request, Response
from smallfry.pooling import Pool

if TYPE_CHECKING:
    from smallfry.client.async_connection import AsyncPool
    from smallfry.client.connection import Pool as ConnectionPool
    from smallfry.client.remote import Steps

T = TypeVar("T")

CONNECTIONS = 32
"""Connections that a client keeps; the asynchronous one opens no more."""


class Client(BaseClient):
    """Vectors from a server, or from a file that this process maps itself.

    Threads may share a client, and a forked process may go on using it.

    Parameters
    ----------
    url : str
        Where the vectors are: ``http://host:port``, ``https://host``, ``unix:///path.sock``, or
        ``file:///path/to.sfq`` for a file, without a server.
    model : str, optional
        The model of requests that name none. A server of one model needs no name.
    api_key : str, optional
        Sent as ``Authorization: Bearer``.
    format : {"packed", "safetensors", "json"}
        How vectors travel: as codes, which are decoded here; as float32; or as text. The values are the same.
    timeout : float
        Seconds that connecting may take, and then each answer.
    retries : int
        How often a request is sent again when the connection fails, or the server is full or not ready
        (429, 503), after pauses that double from 0.1 s, or last as long as the server asks for.
    batch_size : int
        Most tokens in one request; longer lookups are split. Where a server takes fewer (413), it is halved.
    distinct : bool
        Send a token or id that is asked for repeatedly once. This takes about 0.1 ms for 1,000 tokens and
        saves bytes on the way: worth it between machines, and for batches with many repetitions.
    cache_bytes : int
        Size of a cache of the tokens used most; 0 for none.
    cache_seconds : float
        How long vectors come from the cache without a word from the server that its model is still the same.
    ssl_context : ssl.SSLContext, optional
        For ``https``, instead of the system's certificate authorities.

    Raises
    ------
    AddressError
        The URL has another form.
    InputError
        An option is out of range.

    Examples
    --------
    >>> from smallfry.client import Client
    >>> with Client("http://127.0.0.1:8000") as client:  # doctest: +SKIP
    ...     answer = client.lookup(["list", "string", "no-such-word"])
    >>> answer.vectors.shape, answer.found.tolist()  # doctest: +SKIP
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
        """Return the vectors of tokens, all from one content of the model.

        Parameters
        ----------
        tokens : list of str, or list of lists of str
            Any strings, any number of times.
        model : str, optional
            Instead of the client's own.
        oov : {"zero", "mean", "error", "skip"}
            What an unknown token gets: zeros, the mean of all rows, an error, or, in pools, no place.
        pool : {"mean", "sum"}, optional
            Return one vector for each inner list.
        dtype : {"float32", "float16"}

        Raises
        ------
        OutOfVocabularyError
            Tokens are unknown and `oov` is ``"error"``; it names all of them.
        InputError, TypeError
            The arguments are no lookup.
        ClientError
            No answer came, or no good one; see `smallfry.client.errors`.
        """
        return self._run(self._lookup(tokens, model, oov, pool, dtype))

    def rows(self, ids: ArrayLike, *, model: str | None = None, dtype: Dtype = "float32") -> NDArray[Any]:
        """Return rows by number.

        Parameters
        ----------
        ids : array of integers, shape [n]
            In any order, any number of times.
        model : str, optional
            Instead of the client's own.
        dtype : {"float32", "float16"}

        Returns
        -------
        ndarray of float32 or float16, shape [n, dim]

        Raises
        ------
        InputError
            `ids` are no row numbers.
        Unprocessable
            The model has no row of such a number.
        ClientError
            No answer came, or no good one; see `smallfry.client.errors`.
        """
        return self._run(self._rows(ids, model, dtype))

    def models(self) -> list[ModelInfo]:
        """Return what the server has loaded; of a file, the file."""
        return self._run(self._models())

    def stats(self) -> dict[str, Any]:
        """Return what ``GET /stats`` answers: bytes by part, what they replace, the memory of the server."""
        return self._run(self._stats())

    def close(self) -> None:
        """Close the connections, or let go of the file."""
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
        from smallfry.client.connection import Pool

        self._pool = Pool(address, timeout, context, CONNECTIONS)

    def _run(self, steps: Steps[T]) -> T:
        try:
            request = next(steps)
            while True:
                try:
                    answer = self._carry(request)
                except TransportError as error:
                    request = steps.throw(error)
                else:
                    request = steps.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _carry(self, request: Request) -> Response:
        assert self._pool is not None
        if request.pause:
            time.sleep(request.pause)
        return self._pool.send(request.encode(self._common))


class AsyncClient(BaseClient):
    """`Client` for asyncio: the same arguments, methods and answers, awaited."""

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

    async def models(self) -> list[ModelInfo]:
        """See `Client.models`."""
        return await self._run(self._models())

    async def stats(self) -> dict[str, Any]:
        """See `Client.stats`."""
        return await self._run(self._stats())

    async def close(self) -> None:
        """Close the connections, or let go of the file."""
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
        from smallfry.client.async_connection import AsyncPool

        self._pool = AsyncPool(address, timeout, context, CONNECTIONS)

    async def _run(self, steps: Steps[T]) -> T:
        try:
            request = next(steps)
            while True:
                try:
                    answer = await self._carry(request)
                except TransportError as error:
                    request = steps.throw(error)
                else:
                    request = steps.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result

    async def _carry(self, request: Request) -> Response:
        assert self._pool is not None
        if request.pause:
            await asyncio.sleep(request.pause)
        return await self._pool.send(request.encode(self._common))
