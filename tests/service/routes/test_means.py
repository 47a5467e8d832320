"""Means of models under ``oov: "mean"``: computed once, by few requests at a time."""

import asyncio
import threading
from types import SimpleNamespace

import numpy as np
import pytest

import smallfry
from service.errors import QueueTimeout, TooManyRequests
from service.routes.means import WAITING, Means


class SlowStore:
    """A store whose mean is computed when `finish` is set."""

    def __init__(self):
        self.computed = 0
        self.finish = threading.Event()

    def compute_mean(self):
        self.finish.wait(30)
        self.computed += 1
        yield 1


@pytest.fixture
def model():
    return SimpleNamespace(name="slow", derived={}, store=SlowStore())


def test_few_requests_wait_for_one_computation(model):
    async def ask():
        means = Means(30)
        requests = [asyncio.ensure_future(means.compute(model)) for _ in range(20)]
        await asyncio.sleep(0)
        model.store.finish.set()
        return await asyncio.gather(*requests, return_exceptions=True)

    results = asyncio.run(ask())
    assert results[:WAITING] == [None] * WAITING
    assert {type(each) for each in results[WAITING:]} == {TooManyRequests}
    assert model.store.computed == 1


def test_computation_continues_after_a_timeout(model):
    async def ask():
        with pytest.raises(QueueTimeout, match="'slow' was not computed within 0"):
            await Means(0.01).compute(model)
        model.store.finish.set()
        await Means(30).compute(model)

    asyncio.run(ask())
    assert model.store.computed == 1


def test_first_request_gets_the_mean(files, start):
    server = start(files["large"])
    response = server.lookup({"tokens": ["no such token"], "oov": "mean"}).json()
    with smallfry.open(files["large"]) as store:
        assert np.array_equal(np.float32(response["vectors"][0]), store.mean)
