"""Both clients with one blocking interface, so that one test covers both."""

import asyncio
from typing import Any

from smallfry.client import AsyncClient, Client


class Awaited:
    """An `AsyncClient` whose methods block."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._client = AsyncClient(*arguments, **options)
        self._loop = asyncio.new_event_loop()

    def lookup(self, *arguments: Any, **options: Any) -> Any:
        return self._loop.run_until_complete(self._client.lookup(*arguments, **options))

    def rows(self, *arguments: Any, **options: Any) -> Any:
        return self._loop.run_until_complete(self._client.rows(*arguments, **options))

    def encode(self, *arguments: Any, **options: Any) -> Any:
        return self._loop.run_until_complete(self._client.encode(*arguments, **options))

    def models(self) -> Any:
        return self._loop.run_until_complete(self._client.models())

    def stats(self) -> Any:
        return self._loop.run_until_complete(self._client.stats())

    def close(self) -> None:
        self._loop.run_until_complete(self._client.close())
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()


CLIENTS = {"sync": Client, "async": Awaited}
