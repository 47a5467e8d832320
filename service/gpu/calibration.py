"""From which size of a batch on a device is faster than the CPU: measured, not assumed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from service.gpu.batching import BreakEven
from smallfry.table import Table

if TYPE_CHECKING:
    from service.gpu.device import DeviceTable

_ROUNDS = 5
_FACTOR = 4
_LEAST = 64
#: Rows of a bag while sums are measured.
_BAG = 20


def measure(table: Table, device: DeviceTable, waiter: ThreadPoolExecutor, most: int) -> BreakEven:
    """Measure both sides at sizes up to `most` ids, the whole way: from ids in memory to vectors in memory.

    Parameters
    ----------
    table : Table
        What the CPU looks up in.
    device : DeviceTable
    waiter : ThreadPoolExecutor
        Waits for the device, as it does for requests.
    most : int
        The largest batch that a request may ask for.
    """
    draw = np.random.default_rng(0)
    ids = draw.integers(0, table.rows, most)

    def host_rows(count: int) -> None:
        table.decode(ids[:count])

    def device_rows(count: int) -> None:
        waiter.submit(device.rows(ids[:count])[1]).result()

    def host_sums(count: int) -> None:
        table.bag(ids[:count], np.arange(0, count, _BAG), "sum")

    def device_sums(count: int) -> None:
        offsets = np.append(np.arange(0, count, _BAG), count)
        waiter.submit(device.sums(ids[:count], offsets)[1]).result()

    sizes = _sizes(most)
    return BreakEven(
        least_size(host_rows, device_rows, sizes),
        least_size(host_sums, device_sums, sizes),
    )


def least_size(
    host: Callable[[int], None],
    device: Callable[[int], None],
    sizes: list[int],
    clock: Callable[[], float] = perf_counter,
) -> float:
    """Return the least size from which the device wins at every larger one; infinity where there is none.

    Measured from the largest size down, and no further than the first that the CPU wins.
    """
    least = float("inf")
    for size in reversed(sizes):
        if _time(device, size, clock) >= _time(host, size, clock):
            break
        least = size
    return least


def _time(call: Callable[[int], None], size: int, clock: Callable[[], float]) -> float:
    call(size)
    times = []
    for _ in range(_ROUNDS):
        started = clock()
        call(size)
        times.append(clock() - started)
    return float(np.median(times))


def _sizes(most: int) -> list[int]:
    sizes = [most]
    while sizes[0] > _LEAST:
        sizes.insert(0, max(_LEAST, sizes[0] // _FACTOR))
    return sizes
