"""Lookups in one model that lies on a device: put together, and answered by it where that is faster."""

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
Numbers = NDArray[np.int64]


class Job(NamedTuple):
    """One request's part of a batch: its ids, -1 for unknown ones, and, where they are summed, its bags."""

    ids: Numbers
    offsets: Numbers | None
    answer: asyncio.Future[Vectors]


class BreakEven(NamedTuple):
    """How many ids make a batch that the device answers faster than the CPU; infinity where none does."""

    rows: float
    sums: float


class Batcher:
    """One model's copy on a device.

    Requests that arrive in one turn of the event loop, or while a batch is under way, make one batch: one
    launch. A batch below the break-even is answered by the CPU.

    Parameters
    ----------
    table : Table
        The model's own table, on CPU.
    device : DeviceTable
    break_even : BreakEven
    name : str
        Of the device.
    waiter : ThreadPoolExecutor
        Waits for the device, so that the event loop does not.
    count : callable
        Takes the number of ids that the device has looked up.
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
        self._waiting: list[Job] = []
        self._busy = False
        self.name = name
        self.nbytes = device.nbytes
        self.failed = False

    async def rows(self, ids: Numbers, fill: Vectors | None) -> Vectors:
        """Return rows as float32 [n, dim]; id -1 gives `fill`, or zeros where there is none."""
        rows = await self._ask(ids, None)
        unknown = ids < 0
        if unknown.any():
            rows[unknown] = 0 if fill is None else fill
        return rows

    async def sums(self, ids: Numbers, offsets: Numbers) -> Vectors:
        """Return the sum of each bag's known rows, float32 [bags, dim]."""
        return await self._ask(ids, offsets)

    def _ask(self, ids: Numbers, offsets: Numbers | None) -> asyncio.Future[Vectors]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Vectors] = loop.create_future()
        self._waiting.append(Job(ids, offsets, answer))
        if len(self._waiting) == 1 and not self._busy:
            loop.call_soon(self._start)
        return answer

    def _start(self) -> None:
        """Answer what waits: rows and sums on their own, each by what is faster."""
        jobs, self._waiting = self._waiting, []
        large = []
        for batch, least in (
            ([job for job in jobs if job.offsets is None], self._break_even.rows),
            ([job for job in jobs if job.offsets is not None], self._break_even.sums),
        ):
            total = sum(len(job.ids) for job in batch)
            if total and total >= least and not self.failed:
                large.append(batch)
            else:
                self._answer_on_cpu(batch)
        if large:
            self._busy = True
            self._task = asyncio.get_running_loop().create_task(self._run(large))

    async def _run(self, batches: Sequence[list[Job]]) -> None:
        for batch in batches:
            try:
                answers, wait = self._launch(batch)
                await asyncio.get_running_loop().run_in_executor(self._waiter, wait)
            except Exception as error:
                # Memory is short, or the device is lost: the CPU has all that it takes.
                logger.error("%s failed, the CPU takes over: %s", self.name, error)
                self.failed = True
                self._answer_on_cpu(batch)
                continue
            self._count(sum(len(job.ids) for job in batch))
            for job, answer in zip(batch, answers, strict=True):
                if not job.answer.done():
                    job.answer.set_result(answer)
        self._busy = False
        if self._waiting:
            self._start()

    def _launch(self, batch: list[Job]) -> tuple[list[Vectors], Callable[[], None]]:
        ids = np.concatenate([job.ids for job in batch])
        if batch[0].offsets is None:
            rows, wait = self._device.rows(np.maximum(ids, 0))
            return np.split(rows, np.cumsum([len(job.ids) for job in batch])[:-1]), wait
        # Unknown ids are in no sum: they are left out, and the bags' bounds move up.
        known = offsets_of(ids >= 0)
        bounds, before = [], 0
        for job in batch:
            assert job.offsets is not None
            bounds.append(known[job.offsets[:-1] + before])
            before += len(job.ids)
        offsets = np.concatenate([*bounds, known[-1:]])
        sums, wait = self._device.sums(ids[ids >= 0], offsets)
        return np.split(sums, np.cumsum([len(starts) for starts in bounds])[:-1]), wait

    def _answer_on_cpu(self, batch: list[Job]) -> None:
        for job in batch:
            if job.answer.done():
                continue
            try:
                job.answer.set_result(self._on_cpu(job))
            except Exception as error:
                job.answer.set_exception(error)

    def _on_cpu(self, job: Job) -> Vectors:
        if job.offsets is None:
            return self._table.decode(job.ids, fill=np.zeros(self._table.dim, np.float32))
        return self._table.bag(job.ids, job.offsets[:-1], "sum")
