"""The break-even batch size between CPU and device, measured."""

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
_STEP = 4
_SMALLEST = 64
#: Most values that are looked up at once.
_VALUES = 1 << 23
#: Rows of a bag when sums are measured.
_BAG = 20


def measure(table: Table, device: DeviceTable, waiter: ThreadPoolExecutor, largest: int) -> BreakEven:
    """Time both sides at sizes up to `largest` ids, from ids in host memory to vectors in host memory.

    The waiter waits for the device, as it does for requests.
    """
    largest = max(_SMALLEST, min(largest, _VALUES // table.dim))
    ids = np.random.default_rng(0).integers(0, table.rows, largest)

    def host_rows(count: int) -> None:
        table.decode(ids[:count])

    def device_rows(count: int) -> None:
        waiter.submit(device.rows(ids[:count])[1]).result()

    def host_sums(count: int) -> None:
        table.bag(ids[:count], np.arange(0, count, _BAG), "sum")

    def device_sums(count: int) -> None:
        offsets = np.append(np.arange(0, count, _BAG), count)
        waiter.submit(device.sums(ids[:count], offsets)[1]).result()

    sizes = [largest]
    while sizes[0] > _SMALLEST:
        sizes.insert(0, max(_SMALLEST, sizes[0] // _STEP))
    return BreakEven(
        break_even_size(host_rows, device_rows, sizes),
        break_even_size(host_sums, device_sums, sizes),
    )


def break_even_size(
    host: Callable[[int], None],
    device: Callable[[int], None],
    sizes: list[int],
    clock: Callable[[], float] = perf_counter,
) -> float:
    """Return the smallest size from which the device wins at every larger one; infinity if none.

    Sizes are measured from the largest down, until the CPU wins.
    """
    found = float("inf")
    for size in reversed(sizes):
        if _time(device, size, clock) >= _time(host, size, clock):
            break
        found = size
    return found


def _time(call: Callable[[int], None], size: int, clock: Callable[[], float]) -> float:
    call(size)
    times = []
    for _ in range(_ROUNDS):
        started = clock()
        call(size)
        times.append(clock() - started)
    return float(np.median(times))
