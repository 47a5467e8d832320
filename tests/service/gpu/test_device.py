"""Lookups on a device: the same results as on the CPU. torch on the CPU replaces the GPU."""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event

import httpx
import numpy as np
import pytest

from tests.helpers.servers import write_sfq
from tests.helpers.tables import KINDS
from tests.helpers.text_models import TEXTS, write_text_model

pytest.importorskip("torch")

import torch

import smallfry
from service.app import create_app
from service.config import Config
from service.errors import ConfigError
from service.gpu.batching import Batcher, BreakEven
from service.gpu.calibration import break_even_size, measure
from service.gpu.device import Device, DeviceTable
from service.gpu.placement import DeviceManager, check_device
from service.server import Server as ServiceParts

ALWAYS, NEVER = BreakEven(1, 1), BreakEven(float("inf"), float("inf"))
WORDS = [["the", "cat", "no-such-word"], [], ["<pad>", "🎉"], ["no-such-word"]]


class Service:
    """One worker's application, in this process."""

    def __init__(self, *paths, **options):
        config = Config(**({"device": "cuda", "embeddings": tuple(map(str, paths))} | options))
        server, device = ServiceParts.open(config), Device(torch.device("cpu"))
        self.models = server.models
        self.devices = DeviceManager(config, server.meter, lambda name: device)
        self.app = create_app(replace(server, devices=self.devices))
        self.loop = asyncio.new_event_loop()

    def load(self):
        self.devices.load(self.models.values())
        self.devices.wait()

    def post(self, *requests):
        """Send requests at the same time."""

        async def post():
            async with self._client() as client:
                sent = (
                    client.post(path, json=body, headers={"accept": accept})
                    for path, body, accept in requests
                )
                return await asyncio.gather(*sent)

        return self.loop.run_until_complete(post())

    def get(self, path):
        async def get():
            async with self._client() as client:
                return await client.get(path)

        return self.loop.run_until_complete(get())

    def _client(self):
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://test")


@pytest.fixture
def serve():
    services = []

    def start(*paths, **options):
        services.append(Service(*paths, **options))
        return services[-1]

    yield start
    for service in services:
        service.loop.close()


FORMATS = (
    "application/json",
    "application/octet-stream",
    "application/vnd.safetensors",
    "application/vnd.smallfry.packed",
)
QUERIES = (
    {"tokens": ["the", "no-such-word", "cat"]},
    {"tokens": ["the", "no-such-word"], "oov": "mean"},
    {"tokens": ["the", "<pad>"], "dtype": "float16"},
    {"tokens": WORDS},
    {"tokens": WORDS, "pool": "sum"},
    {"tokens": WORDS, "pool": "mean", "oov": "mean"},
    {"tokens": WORDS, "pool": "mean", "oov": "skip", "dtype": "float16"},
    {"tokens": []},
    {"tokens": [], "pool": "sum"},
    {"ids": [3, 3, 0]},
)


def check_responses(service, requests):
    """Check that loading the models on the device changes no response."""
    before = service.post(*requests)
    service.load()
    after = service.post(*requests)
    assert [response.status_code for response in after] == [response.status_code for response in before]
    assert [response.content for response in after] == [response.content for response in before]


def test_every_query_has_the_same_response_on_the_device(serve, files):
    service = serve(files["small"])
    check_responses(service, [("/lookup", query, accept) for query in QUERIES for accept in FORMATS])
    assert service.devices.device_of(service.models.find(None)) == "cpu"  # torch's, here
    assert service.get("/metrics").text.count("smallfry_device_rows_total 0") == 0


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings_are_the_same_on_the_device(serve, files, encoding):
    texts = ["the cat sat, a mat", "", "no such", "the"]
    body = {"input": texts, "encoding_format": encoding}
    check_responses(serve(files["small"]), [("/v1/embeddings", body, "application/json")])


def test_texts_are_the_same_on_the_device(serve, tmp_path):
    ids = {"input": [[5, 6], []], "tokenizer": "model"}
    check_responses(
        serve(write_text_model(tmp_path / "text.sfq", nbit=4)),
        [("/lookup", {"texts": list(TEXTS)}, accept) for accept in FORMATS[:3]]
        + [("/v1/embeddings", body, "application/json") for body in ({"input": list(TEXTS)}, ids)],
    )


def test_tables_of_every_kind_and_width_run_on_the_device(serve, tmp_path):
    codings = [(kind, nbit) for nbit, kinds in KINDS.items() for kind in kinds]
    paths = [write_sfq(tmp_path / f"{kind}{nbit}.sfq", 40, 301, nbit, kind) for kind, nbit in codings]
    service = serve(*paths)
    check_responses(
        service, [("/lookup", {"ids": [0, 39, 10, 10], "model": name}, FORMATS[1]) for name in service.models]
    )


def test_metrics_include_device_memory(serve, files):
    service = serve(files["large"])
    service.load()
    stats = service.get("/stats").json()
    nbytes = service.models.find(None).store.table.codes.nbytes
    assert nbytes <= stats["memory"]["gpu"] < nbytes + 1000
    assert f"smallfry_device_bytes {stats['memory']['gpu']}" in service.get("/metrics").text


def test_a_model_over_the_budget_stays_on_the_cpu(serve, files, caplog):
    service = serve(files["small"], files["large"], gpu_memory=5000)
    service.load()
    assert service.devices.get(service.models["small"]) is not None
    assert service.devices.get(service.models["large"]) is None
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "'large'" in record.getMessage()
    assert "--gpu-memory" in record.getMessage()


def test_a_model_that_fails_to_load_does_not_stop_the_others(serve, files, caplog, monkeypatch):
    service = serve(files["large"], files["small"])
    load, large = Device.load, service.models["large"].store.table

    def full(self, table):
        if table is large:
            raise RuntimeError("out of memory")
        return load(self, table)

    monkeypatch.setattr(Device, "load", full)
    service.load()
    assert service.devices.get(service.models["large"]) is None
    assert service.devices.get(service.models["small"]) is not None
    assert "loading model 'large' fails: out of memory; it runs on the CPU" in caplog.text


def test_kernels_are_warmed_up_before_requests_reach_a_model(serve, files, monkeypatch):
    service = serve(files["small"])
    loaded = []
    for name in ("rows", "sums"):
        look_up = getattr(DeviceTable, name)

        def watched(self, *args, look_up=look_up):
            loaded.append(service.devices.get(service.models.find(None)) is not None)
            return look_up(self, *args)

        monkeypatch.setattr(DeviceTable, name, watched)
    service.load()
    assert loaded == [False, False]


def test_workers_share_the_budget(serve, files):
    nbytes = sum(serve(files["large"]).models.find(None).store.table.nbytes.values())
    for workers, fits in ((1, True), (2, False)):
        service = serve(files["large"], gpu_memory=nbytes, workers=workers)
        service.load()
        assert (service.devices.get(service.models.find(None)) is not None) is fits


def test_a_removed_model_leaves_the_device(serve, files):
    service = serve(files["small"], files["large"])
    service.load()
    before = service.get("/stats").json()["memory"]["gpu"]
    service.models.remove("large")
    service.load()
    assert 0 < service.get("/stats").json()["memory"]["gpu"] < before


def test_an_added_model_is_loaded(serve, files):
    service = serve(files["small"])
    service.load()
    service.models.put(service.models.open("new", files["large"]))
    service.load()
    assert service.devices.get(service.models["new"]) is not None


def test_auto_loads_only_models_that_the_device_is_faster_for(serve, files, monkeypatch):
    for measured, loaded in ((NEVER, False), (BreakEven(float("inf"), 512), True)):
        monkeypatch.setattr("service.gpu.placement.measure", lambda *args, result=measured: result)
        service = serve(files["small"], device="auto")
        service.load()
        assert (service.devices.get(service.models.find(None)) is not None) is loaded


@pytest.mark.parametrize("wins_from", [64, 256, 4096, None])
def test_break_even_is_the_size_from_which_the_device_wins(wins_from):
    now = 0.0

    def takes(seconds):
        def call(size):
            nonlocal now
            now += seconds(size)

        return call

    device_wins = takes(lambda size: 1.0 if wins_from is not None and size >= wins_from else 3.0)
    found = break_even_size(takes(lambda size: 2.0), device_wins, [64, 256, 1024, 4096], lambda: now)
    assert found == (float("inf") if wins_from is None else wins_from)


def test_calibration_measures_both_sides(files):
    table = smallfry.open(files["large"]).table
    device = Device(torch.device("cpu")).load(table)
    with ThreadPoolExecutor(1) as waiter:
        assert all(size >= 64 for size in measure(table, device, waiter, 1024))


class Gated:
    """A device table whose results wait for an event, and which records the sizes of batches."""

    def __init__(self, device, *, fails=False):
        self.device = device
        self.nbytes = device.nbytes
        self.fails = fails
        self.opened = Event()
        self.batches = []

    def rows(self, ids):
        self.batches.append(len(ids))
        if self.fails:
            raise RuntimeError("out of memory")
        rows, _ = self.device.rows(ids)
        return rows, lambda: self.opened.wait(30)


@pytest.fixture
def waiter():
    with ThreadPoolExecutor(1) as executor:
        yield executor


def batching(files, waiter, break_even, *, fails=False):
    table = smallfry.open(files["large"]).table
    device = Gated(Device(torch.device("cpu")).load(table), fails=fails)
    counted = []
    batcher = Batcher(table, device, break_even, "cuda:0", waiter, counted.append)  # type: ignore[arg-type]
    return table, device, batcher, counted


def run(*lookups):
    async def all_of():
        return await asyncio.gather(*lookups)

    return asyncio.run(all_of())


def test_concurrent_lookups_form_one_batch(files, waiter):
    table, device, batcher, counted = batching(files, waiter, BreakEven(100, 1))
    device.opened.set()
    batches = [np.arange(start, start + 40) for start in (0, 1000, 2000)]
    results = run(*(batcher.rows(ids, None) for ids in batches))
    assert device.batches == counted == [120]
    for ids, rows in zip(batches, results, strict=True):
        np.testing.assert_array_equal(rows, table.decode(ids))


def test_lookups_during_a_batch_form_the_next_batch(files, waiter):
    _, device, batcher, _ = batching(files, waiter, ALWAYS)

    async def look_up():
        first = asyncio.ensure_future(batcher.rows(np.arange(3), None))
        while not device.batches:
            await asyncio.sleep(0)
        later = [asyncio.ensure_future(batcher.rows(np.arange(count), None)) for count in (5, 7)]
        await asyncio.sleep(0)
        device.opened.set()
        await asyncio.gather(first, *later)

    asyncio.run(look_up())
    assert device.batches == [3, 12]


def test_a_small_batch_runs_on_the_cpu(files, waiter):
    table, device, batcher, counted = batching(files, waiter, BreakEven(100, 100))
    ids = np.array([5, -1, 7])
    fill = np.full(table.dim, 3, np.float32)
    (rows,) = run(batcher.rows(ids, fill))
    np.testing.assert_array_equal(rows, table.decode(ids, fill=fill))
    assert device.batches == counted == []


def test_lookups_fall_back_to_the_cpu_when_the_device_fails(files, waiter, caplog):
    table, _, batcher, counted = batching(files, waiter, ALWAYS, fails=True)
    (rows,) = run(batcher.rows(np.arange(5), None))
    np.testing.assert_array_equal(rows, table.decode(np.arange(5)))
    assert batcher.failed
    assert counted == []
    assert "out of memory" in caplog.text


def test_a_cancelled_lookup_does_not_affect_its_batch(files, waiter):
    table, device, batcher, _ = batching(files, waiter, ALWAYS)

    async def look_up():
        leaves, stays = (asyncio.ensure_future(batcher.rows(np.arange(3), None)) for _ in range(2))
        while not device.batches:
            await asyncio.sleep(0)
        leaves.cancel()
        device.opened.set()
        return await stays

    np.testing.assert_array_equal(asyncio.run(look_up()), table.decode(np.arange(3)))


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "CUDA"])
def test_an_unknown_device_is_rejected(device):
    with pytest.raises(ConfigError, match=f"--device is '{device}'; it has to be auto, cpu, cuda or cuda:N"):
        check_device(Config(device=device))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(("device", "level"), [("auto", "INFO"), ("cuda:0", "WARNING")])
def test_without_a_gpu_models_run_on_the_cpu_and_torch_is_not_loaded(files, start, device, level):
    server = start(files["small"], "--device", device)
    assert server.lookup({"tokens": ["the"]}).status_code == 200
    stats = server.client.get("/stats").json()
    assert (stats["memory"]["gpu"], stats["models"][0]["device"]) == (0, "cpu")
    assert "torch" not in Path(f"/proc/{server.process.pid}/maps").read_text()
    _, log = server.stop()
    assert any(level in line and "no GPU driver found" in line for line in log.splitlines())
