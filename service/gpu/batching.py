"""Dynamic batching for one model on the GPU; small batches run on the CPU."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smallfry.offsets import offsets_of
from smallfry.table import Table

if TYPE_CHECKING:
    from service.gpu.device import DeviceTable

logger = logging.getLogger("smallfry.device")

Vectors = NDArray[np.float32]
Ids = NDArray[np.int64]


class Job(NamedTuple):
    """One request's part of a batch: ids (-1 if unknown), and bag offsets if they are summed."""

    ids: Ids
    offsets: Ids | None
    result: asyncio.Future[Vectors]


class BreakEven(NamedTuple):
    """Batch sizes, in ids, from which the device is faster than the CPU; infinity if it never is."""

    rows: float
    sums: float


class Batcher:
    """One model's copy on a device.

    Requests that arrive in one turn of the event loop, or while a batch is running, form one batch: one
    launch. Batches below the break-even size run on the CPU. The waiter waits for the device, so that the
    event loop does not; `count` is called with the number of ids that the device has looked up.
    """

    def __init__(
        self,
        table: Table,
        device: DeviceTable,
        break_even: BreakEven,
        name: str,
        waiter: ThreadPoolExecutor,
        count: Callable[[int], None],
    ) -> None:
        self._table = table
        self._device = device
        self._break_even = break_even
        self._waiter = waiter
        self._count = count
        self._queue: list[Job] = []
        self._busy = False
        self.name = name
        self.nbytes = device.nbytes
        self.failed = False

    async def rows(self, ids: Ids, fill: Vectors | None) -> Vectors:
        """Return rows as float32 [n, dim]; id -1 becomes `fill`, or zeros if it is None."""
        rows = await self._submit(ids, None)
        unknown = ids < 0
        if unknown.any():
            rows[unknown] = 0 if fill is None else fill
        return rows

    async def sums(self, ids: Ids, offsets: Ids) -> Vectors:
        """Return the sum of each bag's known rows, float32 [bags, dim]."""
        return await self._submit(ids, offsets)

    def _submit(self, ids: Ids, offsets: Ids | None) -> asyncio.Future[Vectors]:
        loop = asyncio.get_running_loop()
        result: asyncio.Future[Vectors] = loop.create_future()
        self._queue.append(Job(ids, offsets, result))
        if len(self._queue) == 1 and not self._busy:
            loop.call_soon(self._start)
        return result

    def _start(self) -> None:
        """Take the queue as one batch of rows and one of sums, each run by the faster side."""
        jobs, self._queue = self._queue, []
        large = []
        for batch, break_even in (
            ([job for job in jobs if job.offsets is None], self._break_even.rows),
            ([job for job in jobs if job.offsets is not None], self._break_even.sums),
        ):
            total = sum(len(job.ids) for job in batch)
            if total and total >= break_even and not self.failed:
                large.append(batch)
            else:
                self._run_on_cpu(batch)
        if large:
            self._busy = True
            self._task = asyncio.get_running_loop().create_task(self._run(large))

    async def _run(self, batches: Sequence[list[Job]]) -> None:
        for batch in batches:
            try:
                results, wait = self._launch(batch)
                await asyncio.get_running_loop().run_in_executor(self._waiter, wait)
            except Exception as error:
                # Out of device memory, or the device is lost: the CPU has all the data it needs.
                logger.error("%s failed, falling back to the CPU: %s", self.name, error)
                self.failed = True
                self._run_on_cpu(batch)
                continue
            self._count(sum(len(job.ids) for job in batch))
            for job, result in zip(batch, results, strict=True):
                if not job.result.done():
                    job.result.set_result(result)
        self._busy = False
        if self._queue:
            self._start()

    def _launch(self, batch: list[Job]) -> tuple[list[Vectors], Callable[[], None]]:
        ids = np.concatenate([job.ids for job in batch])
        if batch[0].offsets is None:
            rows, wait = self._device.rows(np.maximum(ids, 0))
            return np.split(rows, np.cumsum([len(job.ids) for job in batch])[:-1]), wait
        # Unknown ids are dropped from the sums, which shifts the bags' offsets.
        known = offsets_of(ids >= 0)
        starts, before = [], 0
        for job in batch:
            assert job.offsets is not None
            starts.append(known[job.offsets[:-1] + before])
            before += len(job.ids)
        offsets = np.concatenate([*starts, known[-1:]])
        sums, wait = self._device.sums(ids[ids >= 0], offsets)
        return np.split(sums, np.cumsum([len(bags) for bags in starts])[:-1]), wait

    def _run_on_cpu(self, batch: list[Job]) -> None:
        for job in batch:
            if job.result.done():
                continue
            try:
                job.result.set_result(self._compute(job))
            except Exception as error:
                job.result.set_exception(error)

    def _compute(self, job: Job) -> Vectors:
        if job.offsets is None:
            return self._table.decode(job.ids, fill=np.zeros(self._table.dim, np.float32))
        return self._table.bag(job.ids, job.offsets[:-1], "sum")
