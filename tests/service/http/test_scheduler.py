"""The scheduler of large requests: which one runs, and when."""

import asyncio

from service.http.scheduler import Scheduler


async def work(scheduler, name, slices, log):
    for taken in range(slices):
        await scheduler.turn(taken)
        log.append(name)


def test_one_slice_runs_in_each_iteration_of_the_event_loop():
    async def run():
        scheduler, log, iterations = Scheduler(), [], 0
        tasks = [asyncio.ensure_future(work(scheduler, name, 3, log)) for name in "abcd"]
        while not all(task.done() for task in tasks):
            before = len(log)
            await asyncio.sleep(0)
            iterations += 1
            assert len(log) <= before + 1
        # All but the first two and the last iteration run a slice: none waits for nothing.
        assert iterations <= len(log) + 3

    asyncio.run(run())


def test_small_requests_run_between_slices():
    async def run():
        scheduler, log = Scheduler(), []
        large = asyncio.ensure_future(work(scheduler, "large", 100, log))
        await asyncio.sleep(0)
        for _ in range(5):
            before = len(log)
            await asyncio.create_task(asyncio.sleep(0))
            assert len(log) <= before + 3
        large.cancel()

    asyncio.run(run())


def test_a_short_request_passes_long_ones_and_none_starves():
    async def run():
        scheduler, log = Scheduler(), []
        long = [asyncio.ensure_future(work(scheduler, name, 50, log)) for name in "abcde"]
        while len(log) < 100:
            await asyncio.sleep(0)
        del log[:]
        await work(scheduler, "short", 4, log)
        # Every other slice is its own.
        assert len(log) <= 8
        # New short requests do not keep the long ones from their turns.
        del log[:]
        for _ in range(10):
            await work(scheduler, "short", 2, log)
        assert all(log.count(name) >= 3 for name in "abcde")
        await asyncio.gather(*long)

    asyncio.run(run())


def test_equal_requests_take_turns():
    async def run():
        scheduler, log = Scheduler(), []
        await asyncio.gather(*(work(scheduler, name, 20, log) for name in "abc"))
        counts = [log[:30].count(name) for name in "abc"]
        assert max(counts) - min(counts) <= 1

    asyncio.run(run())


def test_a_cancelled_request_takes_no_slice():
    async def run():
        scheduler, log = Scheduler(), []
        tasks = [asyncio.ensure_future(work(scheduler, name, 3, log)) for name in "ab"]
        await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert log == ["b"] * 3
        # It runs again after it was idle.
        await asyncio.wait_for(work(scheduler, "c", 2, log), 5)
        assert log[3:] == ["c"] * 2

    asyncio.run(run())
