"""Packed modules on a GPU: what only a real one shows. `make test-gpu` runs this, and says what it skips."""

import copy
import os

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from smallfry import QuantEmbedding, QuantEmbeddingBag, quantize_embed, store
from smallfry.nn import DeviceTable, StoreEmbedding
from smallfry.nn.kernels import dispatch
from smallfry.nn.packed import Packed
from smallfry.sfq import file as sfq
from smallfry.table import NBITS
from tests.helpers.tables import quantize_options, random_table

if "SMALLFRY_TEST_GPU" not in os.environ:
    pytest.skip("tests on a GPU are run by `make test-gpu`", allow_module_level=True)
if not torch.cuda.is_available():
    pytest.skip(f"torch {torch.__version__} sees no CUDA device", allow_module_level=True)

needs_triton = pytest.mark.skipif(
    dispatch.triton_module() is None, reason="Triton does not work here: see the log"
)


@pytest.fixture
def embedding():
    return QuantEmbedding(1000, 300, _weight=torch.randn(1000, 300), nbit=2)


def same_bits(left, right):
    return torch.equal(left.cpu().view(torch.int32), right.cpu().view(torch.int32))


@pytest.mark.parametrize("nbit", NBITS)
def test_module_moved_to_the_gpu_returns_the_same_bits(nbit):
    weight = torch.randn(1000, 300)
    embedding = QuantEmbedding(1000, 300, _weight=weight, nbit=nbit, **quantize_options(nbit))
    ids = torch.randint(0, 1000, (64, 20))
    expected = embedding(ids)
    assert same_bits(embedding.cuda()(ids.cuda()), expected)


def test_model_on_the_gpu_is_quantized_there():
    model = nn.Sequential(nn.Embedding(1000, 64), nn.Linear(64, 3)).cuda()
    packed = quantize_embed(model, nbit=4)
    assert packed[0].codes.is_cuda
    assert packed(torch.arange(5, device="cuda")).is_cuda


def test_building_a_table_takes_no_float32_matrix_on_the_gpu():
    weight = torch.randn(200_000, 256, device="cuda", dtype=torch.float16)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    embedding = QuantEmbedding(200_000, 256, _weight=weight, nbit=2)
    assert torch.cuda.max_memory_allocated() - before < weight.numel()  # float32 takes four times that
    assert embedding.codes.is_cuda


@needs_triton
@pytest.mark.parametrize("kind", ["rows", "bags"])
def test_a_lookup_is_one_launch(embedding, kind):
    embedding = embedding.cuda()
    ids = torch.randint(0, 1000, (512, 20), device="cuda")
    module = embedding
    if kind == "bags":
        module = QuantEmbeddingBag.from_packed(embedding.packed, mode="sum")
    offsets = torch.arange(0, ids.numel(), 20, device="cuda")
    arguments = (ids,) if kind == "rows" else (ids.flatten(), offsets)
    module(*arguments)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as record:
        module(*arguments)
        torch.cuda.synchronize()
    kernels = [event for event in record.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    assert len(kernels) == 1


@needs_triton
def test_a_lookup_waits_for_nothing(embedding):
    embedding = embedding.cuda()
    ids = torch.randint(0, 1000, (512,), device="cuda")
    embedding(ids)
    torch.cuda.set_sync_debug_mode("error")
    try:
        embedding(ids)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_triton
@pytest.mark.parametrize("nbit", [2, 3, 16])
def test_a_captured_graph_looks_up_the_ids_of_each_replay(nbit):
    weight = torch.randn(1000, 300)
    embedding = QuantEmbedding(1000, 300, _weight=weight, nbit=nbit, **quantize_options(nbit)).cuda()
    ids = torch.zeros(128, dtype=torch.int64, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        embedding(ids)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        rows = embedding(ids)
    ids.copy_(torch.randint(0, 1000, (128,)))
    graph.replay()
    assert same_bits(rows, embedding(ids))


@needs_triton
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_modules_return_the_same(embedding, mode):
    embedding = embedding.cuda()
    compiled = torch.compile(lambda ids: embedding(ids) * 2, fullgraph=True, mode=mode)
    for count in (16, 16, 33):
        ids = torch.randint(0, 1000, (count,), device="cuda")
        assert same_bits(compiled(ids), embedding(ids) * 2)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_on_the_gpu_are_those_of_the_cpu_to_float_rounding(mode):
    bag = QuantEmbeddingBag(1000, 300, mode=mode, _weight=torch.randn(1000, 300), nbit=4)
    ids, offsets = torch.randint(0, 1000, (500,)), torch.tensor([0, 3, 3, 200])
    expected = bag(ids, offsets)
    pooled = copy.deepcopy(bag).cuda()(ids.cuda(), offsets.cuda()).cpu()
    torch.testing.assert_close(pooled, expected)


@needs_triton
def test_a_table_past_two_to_the_32_values_is_addressed():
    rows, dim = 1 << 20, 8192
    if torch.cuda.mem_get_info()[0] < 8 << 30:
        pytest.skip("less than 8 GiB are free on the GPU")
    codes = torch.zeros(rows, dim // 8, dtype=torch.uint8, device="cuda")
    codes[-1] = 255
    packed = Packed(codes, torch.tensor([-1.0, 1.0], device="cuda"), None, None, None, dim, 1)
    rows = QuantEmbedding.from_packed(packed)(torch.tensor([0, rows - 1], device="cuda"))
    assert rows.unique(dim=1).flatten().tolist() == [-1, 1]


@needs_triton
def test_output_of_more_than_two_to_the_31_values_is_written():
    if torch.cuda.mem_get_info()[0] < 24 << 30:
        pytest.skip("less than 24 GiB are free on the GPU")
    packed = Packed.from_table(random_table(64, 4096, 1, "exact")).to("cuda")
    ids = torch.randint(0, 64, ((1 << 19) + 3,), device="cuda")
    rows = QuantEmbedding.from_packed(packed.astype(torch.float16))(ids)
    assert torch.equal(rows[-5:], QuantEmbedding.from_packed(packed.astype(torch.float16))(ids[-5:]))


@pytest.fixture
def opened(tmp_path):
    table = random_table(5000, 160, 3, "trellis", parts=("row_scale", "zero_rows"))
    sfq.write(tmp_path / "table.sfq", table.paged([0, 2000, 5000]))
    return store.open(tmp_path / "table.sfq")


HEAD_IDS = torch.randint(0, 2000, (512, 2))


def gathered(opened, memory, ids):
    table = DeviceTable(opened, "cuda", memory)
    out = torch.empty(*ids.shape, 160, dtype=torch.bfloat16, device="cuda")
    table.gather(ids, out)
    return table, out


@needs_triton
@pytest.mark.parametrize("ids_on", ["cpu", "cuda"])
@pytest.mark.parametrize("memory", ["file", "host", "device"])
def test_store_gathers_into_a_tensor_on_the_gpu(opened, memory, ids_on):
    expected = torch.empty(512, 2, 160, dtype=torch.bfloat16)
    opened.gather(HEAD_IDS, out=expected)
    table, _ = gathered(opened, memory, HEAD_IDS)
    out = torch.empty_like(expected, device="cuda")
    assert opened.gather(HEAD_IDS.to(ids_on), out=out) is out
    assert torch.equal(out.cpu().view(torch.int16), expected.view(torch.int16))
    with pytest.raises(IndexError, match="head 0 of 2000 rows"):
        table.gather(torch.tensor([[2000, 0]]), out[:1])


@needs_triton
@pytest.mark.parametrize("memory", ["file", "host", "device"])
def test_gather_of_ids_on_the_cpu_waits_for_nothing(opened, memory):
    table, out = gathered(opened, memory, HEAD_IDS)
    torch.cuda.set_sync_debug_mode("error")
    try:
        table.gather(HEAD_IDS, out)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_triton
@pytest.mark.parametrize("memory", ["host", "device"])
def test_captured_graph_gathers_the_ids_of_each_replay(opened, memory):
    ids = torch.zeros_like(HEAD_IDS, device="cuda")
    table, out = gathered(opened, memory, ids)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        table.gather(ids, out)
    ids.copy_(HEAD_IDS)
    graph.replay()
    assert torch.equal(out, gathered(opened, memory, ids)[1])


@pytest.mark.parametrize("ids_on", ["cpu", "cuda"])
def test_gather_by_the_cpu_is_not_captured(opened, ids_on):
    ids = HEAD_IDS.to(ids_on)
    table, out = gathered(opened, "file", ids)
    with pytest.raises(RuntimeError, match="a CUDA graph is being captured"):
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            out.zero_()
            table.gather(ids, out)


@needs_triton
@pytest.mark.parametrize("memory", ["file", "device"])
def test_compiled_model_gathers_between_its_cuda_graphs(opened, memory):
    embedding = StoreEmbedding(opened.path, device="cuda", dtype=torch.bfloat16, memory=memory)
    layer = nn.Linear(160, 160, device="cuda", dtype=torch.bfloat16)
    compiled = torch.compile(lambda ids: layer(embedding(ids)), fullgraph=True, mode="reduce-overhead")
    with torch.no_grad():
        for _ in range(3):
            ids = torch.randint(0, 2000, (16, 2))
            torch.testing.assert_close(compiled(ids), layer(embedding(ids)))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one GPU; this takes two")
def test_a_table_is_looked_up_on_its_own_gpu(embedding):
    ids = torch.arange(5)
    expected = embedding(ids)
    assert same_bits(embedding.to("cuda:1")(ids.to("cuda:1")), expected)


def _look_up(module, ids, queue):
    queue.put(module(ids.cuda()).cpu())


def test_another_process_looks_up_in_the_same_memory(embedding):
    embedding = embedding.cuda()
    ids = torch.arange(5)
    context = torch.multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_look_up, args=(embedding, ids, queue))
    process.start()
    rows = queue.get(timeout=120).clone()
    process.join(60)
    assert same_bits(rows, embedding(ids.cuda()))
