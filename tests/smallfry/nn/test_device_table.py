"""Tables for a GPU: on one under `make test-gpu`, else on the CPU with the kernels in the interpreter."""

import os
import sys

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

import torch

from smallfry import store
from smallfry.errors import InputError
from smallfry.nn import DeviceTable
from smallfry.nn.device_table import device_table, gather_to_device
from smallfry.nn.kernels import dispatch
from smallfry.sfq import file as sfq
from tests.helpers.tables import random_table

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("the GPU kernels were requested, but torch finds no GPU", allow_module_level=True)

ROWS = 150
HEADS = [0, 100, ROWS]
LOCAL = torch.tensor([[99, 0], [0, 49], [99, 49]])
MEMORIES = ["file", "host", "device"]


@pytest.fixture(params=[None, HEADS], ids=["rows", "heads"])
def opened(tmp_path, request):
    table = random_table(ROWS, 31, 3, "trellis", parts=("mean", "column_scale", "row_scale", "zero_rows"))
    sfq.write(tmp_path / "table.sfq", table.paged(request.param))
    return store.open(tmp_path / "table.sfq")


@pytest.fixture
def plain(tmp_path):
    sfq.write(tmp_path / "plain.sfq", random_table(ROWS, 31, 2, "uniform"))
    return store.open(tmp_path / "plain.sfq")


def gathered(opened, memory, ids, dtype=torch.float32):
    out = torch.empty(*ids.shape, opened.dim, dtype=dtype, device=DEVICE)
    DeviceTable(opened, DEVICE, memory).gather(ids, out)
    return out.cpu()


def expected_rows(opened, ids):
    out = torch.empty(*ids.shape, opened.dim)
    opened.gather(ids, out=out)
    return out


@pytest.mark.parametrize("ids_on", ["cpu", DEVICE])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("memory", MEMORIES)
def test_rows_are_those_of_the_store(opened, memory, dtype, ids_on):
    ids = LOCAL.to(dtype)
    assert torch.equal(gathered(opened, memory, ids.to(ids_on)), expected_rows(opened, ids))


def test_rows_of_no_ids_are_empty(opened):
    assert gathered(opened, "file", LOCAL[:0]).shape == (0, 2, 31)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_table_that_is_not_paged_is_decoded_by_the_cpu(plain, dtype):
    assert torch.equal(gathered(plain, "file", LOCAL, dtype), expected_rows(plain, LOCAL).to(dtype))


def test_id_on_the_cpu_out_of_range_is_an_index_error(opened):
    with pytest.raises(IndexError, match="150"):
        gathered(opened, "file", torch.tensor([[0, 1], [2, 150]]))


@pytest.mark.parametrize("memory", ["host", "device"])
def test_id_on_the_device_out_of_range_gives_a_row_of_nan(opened, memory):
    rows = gathered(opened, memory, torch.tensor([[0, 1], [2, 150]], device=DEVICE))
    assert rows.isnan().all(-1).tolist() == [[False, False], [False, True]]


def test_latest_table_of_a_device_is_used(opened):
    assert device_table(opened, DEVICE).memory == "file"
    assert device_table(opened, DEVICE) is device_table(opened, DEVICE)
    table = DeviceTable(opened, DEVICE, "device")
    assert device_table(opened, DEVICE) is table


@pytest.mark.parametrize("memory", ["host", "device"])
def test_table_that_is_not_paged_is_rejected_by_name(plain, memory):
    with pytest.raises(InputError, match=r"plain\.sfq is not paged.*from_sfq"):
        DeviceTable(plain, DEVICE, memory)


def test_unknown_memory_is_rejected(opened):
    with pytest.raises(InputError, match="memory is 'disk', expected 'file', 'host' or 'device'"):
        DeviceTable(opened, DEVICE, "disk")


@pytest.mark.parametrize(
    ("ids", "out", "error", "message"),
    [
        (LOCAL.float(), torch.empty(3, 2, 31), TypeError, "ids are torch.float32"),
        (LOCAL, torch.empty(3, 2, 31, dtype=torch.float64), InputError, "out is torch.float64"),
        (LOCAL, torch.empty(3, 31), InputError, r"out has shape \[3, 31\], expected \[3, 2, 31\]"),
        (LOCAL, torch.empty(31, 2, 3).transpose(0, 2), InputError, "not contiguous"),
    ],
    ids=["ids", "dtype", "shape", "strides"],
)
def test_wrong_tensors_are_rejected(opened, ids, out, error, message):
    with pytest.raises(error, match=message):
        DeviceTable(opened, DEVICE).gather(ids, out.to(DEVICE))


@pytest.mark.parametrize("opened", [HEADS], indirect=True, ids=["heads"])
@pytest.mark.parametrize("ids", [LOCAL[:, :1], torch.tensor(3)], ids=["another number", "no axis"])
def test_last_axis_of_ids_is_the_head(opened, ids):
    with pytest.raises(InputError, match=r"expected \[\.\.\., 2\]: the last axis is the head"):
        DeviceTable(opened, DEVICE, "device").gather(ids, torch.empty(*ids.shape, 31, device=DEVICE))


def test_store_gathers_into_a_tensor_of_a_device(opened):
    out = torch.empty(3, 2, 31, device=DEVICE)
    assert gather_to_device(opened, LOCAL.numpy(), out) is out
    assert torch.equal(out.cpu(), expected_rows(opened, LOCAL))


def test_without_triton_the_cpu_decodes(opened, monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    dispatch.triton_module.cache_clear()
    try:
        assert torch.equal(gathered(opened, "file", LOCAL), expected_rows(opened, LOCAL))
        with pytest.raises(InputError, match="needs Triton"):
            DeviceTable(opened, DEVICE, "device")
    finally:
        dispatch.triton_module.cache_clear()
