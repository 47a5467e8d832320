"""Responses that requests share."""

import asyncio
from itertools import count

import pytest

from service.routes.renderer import PAUSE, Renderer


class Slow:
    """A rendering that takes 10 ms; its results are numbered."""

    def __init__(self):
        self.running = 0
        self._numbers = count(1)

    async def __call__(self):
        self.running += 1
        assert self.running == 1
        await asyncio.sleep(0.01)
        self.running -= 1
        return next(self._numbers)


def test_requests_that_wait_share_one_rendering():
    async def ask():
        renderer, render = Renderer(), Slow()
        first = asyncio.ensure_future(renderer.share("a", render))
        await asyncio.sleep(0.005)  # it has begun: later requests get the next one
        later = await asyncio.gather(*(renderer.share("a", render) for _ in range(100)))
        return await first, later

    assert asyncio.run(ask()) == (1, [2] * 100)


def test_keys_are_rendered_one_at_a_time():
    async def ask():
        renderer, render = Renderer(), Slow()
        return await asyncio.gather(*(renderer.share(key, render) for key in "abcabc"))

    assert sorted(asyncio.run(ask())) == [1, 1, 2, 2, 3, 3]


def test_renderings_take_a_share_of_the_time():
    async def ask():
        renderer, render, results = Renderer(), Slow(), []

        async def client():
            while True:
                results.append(await renderer.share("a", render))

        clients = asyncio.gather(*(client() for _ in range(10)))
        await asyncio.sleep(0.5)
        clients.cancel()
        return max(results)

    assert asyncio.run(ask()) <= 1 + 0.5 / (0.01 * PAUSE)


def test_a_client_that_leaves_does_not_affect_the_others():
    async def ask():
        renderer, render = Renderer(), Slow()
        left, stays = (asyncio.ensure_future(renderer.share("a", render)) for _ in range(2))
        await asyncio.sleep(0)
        left.cancel()
        return await stays

    assert asyncio.run(ask()) == 1


def test_large_bodies_are_sent_in_slices():
    async def render():
        return bytes(1_000_000)

    response = asyncio.run(Renderer().respond("a", render))
    assert response.is_large
    assert [len(chunk) for chunk in response.chunks] == [*[1 << 16] * 15, 1_000_000 % (1 << 16)]


def test_errors_reach_the_waiting_requests_only():
    async def fail():
        raise ValueError("broken")

    async def ask():
        renderer = Renderer()
        with pytest.raises(ValueError, match="broken"):
            await renderer.share("a", fail)
        return await renderer.share("a", Slow())

    assert asyncio.run(ask()) == 1
