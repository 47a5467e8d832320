"""Hostile requests, sent as bytes over sockets; each attack returns the statuses of the responses.

A status of 0 is a connection that was closed without a response.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.common.dataset import write_random_file
from tests.attacks import bodies, connections, floods, heads
from tests.attacks.target import MAX_BODY, Statuses, Target

__all__ = ["ATTACKS", "MAX_BODY", "Target", "is_fault", "write_models"]

ATTACKS: dict[str, Callable[[Target], Awaitable[Statuses]]] = {
    attack.__name__: attack
    for attack in (
        heads.malformed,
        heads.lying_lengths,
        heads.long_heads,
        heads.tiny_fields,
        heads.long_fields,
        heads.pipelining,
        heads.pipelined_heads,
        heads.path_tricks,
        heads.headers_that_mislead,
        heads.guessed_keys,
        bodies.chunked_bombs,
        bodies.gzip_bombs,
        bodies.many_tokens,
        bodies.deep_json,
        bodies.nested_lists,
        bodies.large_numbers,
        bodies.unfinished_bodies,
        floods.search_flood,
        floods.statistics_flood,
        floods.wide_tables,
        connections.slow_heads,
        connections.slow_bodies,
        connections.slow_readers,
        connections.idle,
        connections.resets,
    )
}


def is_fault(status: int) -> bool:
    """Whether a response is a fault of the server; 504 is that of a request that has waited too long."""
    return status >= 500 and status != 504


def write_models(folder: Path) -> None:
    """Write the files of the models that the attacks use."""
    write_random_file(folder / "small.sfq", 12)
    write_random_file(folder / "large.sfq", 5000)
    write_random_file(folder / "wide.sfq", 2000, 20_000)
