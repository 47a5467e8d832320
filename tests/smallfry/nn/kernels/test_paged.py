"""The Triton kernel of paged tables: on a GPU under `make test-gpu`, else in the interpreter."""

import os
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("triton", reason="Triton is not installed")

import torch

from smallfry.nn.kernels import paged_launch
from smallfry.nn.kernels.paged_launch import Decoding
from smallfry.paging import Paging
from smallfry.table import STATE_BITS
from tests.helpers.tables import KINDS, plain_decode, random_table

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("the GPU kernels were requested, but torch finds no GPU", allow_module_level=True)

ROWS = 150
PARTS = ("mean", "column_scale", "row_scale", "zero_rows")
WIDTHS = [(nbit, kind) for nbit in KINDS for kind in KINDS[nbit] if kind != "float"]
# Duplicates, the first and the last row.
IDS = torch.tensor([0, ROWS - 1, 5, 5, 117, ROWS - 1, 66])


def paged_table(nbit, kind=None, dim=13, parts=PARTS, state_bits=8, rows=ROWS):
    return random_table(rows, dim, nbit, kind or KINDS[nbit][0], parts=parts, state_bits=state_bits).paged()


def gather(ids, table, dtype=torch.float32, codes=None):
    records = torch.from_numpy(table.codes if codes is None else codes).to(DEVICE)
    out = torch.empty(*ids.shape, table.dim, dtype=dtype, device=DEVICE)
    paged_launch.gather(ids.to(DEVICE), records, Decoding.of(table, DEVICE), out)
    return out.cpu()


def expected_rows(ids, table, dtype=torch.float32):
    paging, rows = table.paging, np.arange(table.rows)
    scale = paging.scales(table.codes, rows)
    codes, zero_rows = paging.codes(table.codes, rows), np.flatnonzero(scale == 0).astype(np.uint32)
    plain = replace(table, codes=codes, row_scale=scale, zero_rows=zero_rows, paged_rows=None)
    rows = torch.from_numpy(plain_decode(plain))[ids]
    if dtype == torch.bfloat16 and INTERPRETED:
        # Triton's interpreter cuts float32 off where the hardware rounds it.
        return (rows.view(torch.int32) >> 16).to(torch.int16).view(torch.bfloat16)
    return rows.to(dtype)


def same_bits(left, right):
    return left.dtype == right.dtype and torch.equal(left.view(torch.uint8), right.view(torch.uint8))


@pytest.mark.parametrize("dim", [1, 7, 160, 301])
@pytest.mark.parametrize(("nbit", "kind"), WIDTHS)
def test_rows_have_the_bits_of_the_table(nbit, kind, dim):
    for parts in ((), PARTS):
        table = paged_table(nbit, kind, dim, parts)
        assert same_bits(gather(IDS, table), expected_rows(IDS, table))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dim", [13, 160])
@pytest.mark.parametrize(("nbit", "kind"), WIDTHS)
def test_rows_are_rounded_to_half_precision(nbit, kind, dim, dtype):
    table = paged_table(nbit, kind, dim)
    assert same_bits(gather(IDS, table, dtype), expected_rows(IDS, table, dtype))


@pytest.mark.parametrize("state_bits", STATE_BITS)
@pytest.mark.parametrize("nbit", [1, 2, 3, 4])
def test_windows_of_a_trellis_wrap_at_the_last_bit_of_the_ring(nbit, state_bits):
    for dim in (-(-state_bits // nbit), 300, 301):
        table = paged_table(nbit, "trellis", dim, state_bits=state_bits)
        assert same_bits(gather(IDS, table), expected_rows(IDS, table))


@pytest.mark.parametrize("dim", [2047, 2048, 5000])
def test_records_may_fill_a_page_or_exceed_it(dim):
    table = paged_table(16, "exact", dim, rows=9)
    ids = torch.tensor([8, 0, 3])
    assert same_bits(gather(ids, table), expected_rows(ids, table))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (2, 3)])
def test_rows_come_in_the_shape_of_ids_of_either_width(shape, dtype):
    table, ids = paged_table(2), torch.full(shape, 3, dtype=dtype)
    expected = expected_rows(ids, table)
    assert same_bits(gather(ids, table), expected)


def test_ids_need_not_be_contiguous():
    table, ids = paged_table(4), torch.arange(ROWS).reshape(10, 15).T
    assert same_bits(gather(ids, table), gather(ids.contiguous(), table))


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_scale_of_zero_is_a_row_of_positive_zeros(zero):
    table = paged_table(2, parts=("mean",))
    codes = table.codes.copy()
    table.paging.records(codes)[0, 5, -2:] = np.frombuffer(np.float16(zero).tobytes(), np.uint8)
    rows = gather(torch.tensor([4, 5]), replace(table, codes=codes))
    assert (rows[1].view(torch.int32) == 0).all()
    assert rows[0].all()


@pytest.mark.parametrize("bad", [-1, ROWS, 2**31 - 1, -(2**31)])
def test_id_out_of_range_gives_a_row_of_nan_and_leaves_the_others(bad):
    table = paged_table(3)
    rows = gather(torch.tensor([3, bad, 5], dtype=torch.int32), table)
    assert rows[1].isnan().all()
    assert same_bits(rows[::2].contiguous(), expected_rows(torch.tensor([3, 5]), table))


def test_ids_are_local_to_a_head():
    offsets = np.array([0, 100, 100, ROWS], np.uint64)
    table = replace(paged_table(3), head_offsets=offsets)
    rows = gather(torch.tensor([[99, 0, 49], [100, -1, 50], [0, 1, -1]]), table)
    assert same_bits(rows[0, [0, 2]], expected_rows(torch.tensor([99, ROWS - 1]), table))
    assert same_bits(rows[2, 0], expected_rows(torch.tensor([0]), table)[0])
    assert rows.isnan().all(-1).tolist() == [[False, True, False], [True, True, True], [False, True, True]]


def test_records_without_ids_are_decoded_in_order():
    table = paged_table(3, dim=160)
    records = table.paging.records(table.codes).reshape(-1, table.paging.record)[:20]
    out = torch.empty(20, table.dim, device=DEVICE)
    decoding = Decoding.of(table, DEVICE).of_records()
    paged_launch.gather(None, torch.from_numpy(records.copy()).to(DEVICE), decoding, out)
    assert same_bits(out.cpu(), expected_rows(torch.arange(20), table))


def test_uneven_codebook_of_16_bits_is_loaded():
    table = paged_table(16, "uniform")
    codebook = table.codebook.copy()
    codebook[12345] += 1
    table = replace(table, codebook=codebook)
    assert not Decoding.of(table, DEVICE).even
    assert same_bits(gather(IDS, table), expected_rows(IDS, table))


def test_rows_beyond_two_to_the_32_are_addressed(tmp_path):
    if not INTERPRETED and torch.cuda.mem_get_info()[0] < 16 << 30:
        pytest.skip("less than 16 GiB are free on the GPU")
    rows, table = (1 << 32) + 100, paged_table(8, dim=1, rows=3)
    paging, last = Paging(rows, table.stride), np.arange(rows - 3, rows)
    codes = np.memmap(tmp_path / "codes", np.uint8, "w+", shape=paging.shape)  # sparse
    codes.reshape(-1)[paging.starts(last)[:, None] + np.arange(3)] = table.paging.records(table.codes)[0, :3]
    found = gather(torch.tensor([rows - 1, rows, rows - 3]), replace(table, codes=codes, paged_rows=rows))
    assert same_bits(found[::2].contiguous(), expected_rows(torch.tensor([2, 0]), table))
    assert found[1].isnan().all()
