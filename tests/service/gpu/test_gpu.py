"""A server on a real GPU; run by `make test-gpu`."""

import os

import pytest

from tests.helpers.servers import eventually

pytest.importorskip("torch")

import torch

if "SMALLFRY_TEST_GPU" not in os.environ:
    pytest.skip("tests on a GPU are run by `make test-gpu`", allow_module_level=True)
if not torch.cuda.is_available():
    pytest.skip(f"torch {torch.__version__} sees no CUDA device", allow_module_level=True)

QUERIES = (
    {"ids": list(range(5000))},
    {"tokens": [["the", "cat"], ["no-such-word"], []], "pool": "mean"},
    {"tokens": ["the", "no-such-word"], "oov": "mean", "dtype": "float16"},
)


def device(server):
    named = server.client.get("/stats").json()["models"][0]["device"]
    return named


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_gpu_returns_the_same_bits_as_the_cpu(files, start, server, workers):
    on_cpu = start(files["large"])
    on_gpu = start(files["large"], "--device", "cuda:0", "--workers", workers)
    eventually(lambda: device(on_gpu) == "cuda:0", 120)
    for query in QUERIES:
        responses = [each.lookup(query, accept="application/octet-stream") for each in (on_cpu, on_gpu)]
        assert responses[0].content == responses[1].content
    eventually(lambda: "smallfry_device_rows_total 0" not in on_gpu.client.get("/metrics").text)
    assert on_gpu.client.get("/stats").json()["memory"]["gpu"] > 0


def test_a_model_over_the_budget_stays_on_the_cpu(files, start):
    server = start(files["large"], files["small"], "--device", "cuda", "--gpu-memory", "5000")

    def devices():
        models = server.client.get("/stats").json()["models"]
        return {model["name"]: model["device"] for model in models}

    # Models are loaded in order: once the second is loaded, the first was rejected.
    eventually(lambda: devices() == {"large": "cpu", "small": "cuda:0"}, 120)
    assert server.lookup({"tokens": ["the"], "model": "large"}).status_code == 200
