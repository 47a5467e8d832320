"""The Triton kernels against the native ones: on a GPU under `make test-gpu`, else in the interpreter."""

import os
import sys

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

import torch
import triton

from smallfry.nn.kernels import dispatch, operators, torch_impl
from smallfry.nn.packed import Packed
from smallfry.table import KINDS as WIDTHS
from smallfry.table import NBITS, STATE_BITS
from tests.helpers.tables import DIMS, KINDS, random_table

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("the GPU kernels were requested, but torch finds no GPU", allow_module_level=True)

ROWS = 40
ALL_PARTS = ("mean", "column_scale", "row_scale", "zero_rows")
# Duplicates, the first and the last row.
IDS = torch.tensor([0, ROWS - 1, 5, 5, 17, ROWS - 1, 1])


def packed_table(nbit, kind=None, dim=13, parts=("zero_rows",), dtype=torch.float32, state_bits=8):
    kind = kind or KINDS[nbit][0]
    table = random_table(ROWS, dim, nbit, kind, parts=parts, state_bits=state_bits)
    return Packed.from_table(table).astype(dtype)


def decode(ids, packed):
    return operators._decode_cuda(ids.to(DEVICE), *packed.to(DEVICE)).cpu()


def pool(ids, offsets, weights, packed, *options):
    if INTERPRETED and tuple(map(int, triton.__version__.split(".")[:2])) < (3, 9):
        pytest.skip(f"the interpreter of Triton {triton.__version__} cannot loop as often as a tensor says")
    moved = (part if part is None else part.to(DEVICE) for part in (ids, offsets, weights))
    return operators._bag_cuda(*moved, *packed.to(DEVICE), *options).cpu()


def same_bits(left, right):
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    return left.numel() == 0 or torch.equal(left.view(torch.uint8), right.view(torch.uint8))


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize(("nbit", "kind"), [(nbit, kind) for nbit in NBITS for kind in KINDS[nbit][::-2]])
def test_gather_gives_the_bits_of_the_native_kernel(nbit, kind, dim):
    for parts in ((), ALL_PARTS):
        packed = packed_table(nbit, kind, dim, parts)
        assert same_bits(decode(IDS, packed), operators.decode(IDS, packed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("state_bits", STATE_BITS)
@pytest.mark.parametrize("nbit", WIDTHS["trellis"])
def test_windows_of_a_trellis_wrap_at_the_last_bit_of_the_ring(nbit, state_bits, dtype):
    shortest = -(-state_bits // nbit)
    for dim in (shortest, shortest + 1, 300, 301, 304):
        packed = packed_table(nbit, "trellis", dim, ALL_PARTS, dtype, state_bits)
        assert same_bits(decode(IDS, packed), operators.decode(IDS, packed))


@pytest.mark.parametrize("dim", [7, 299, 300, 304])
@pytest.mark.parametrize("nbit", NBITS)
def test_gather_rounds_to_half_precision_as_the_native_kernel(nbit, dim):
    packed = packed_table(nbit, None, dim, ALL_PARTS, torch.float16)
    assert same_bits(decode(IDS, packed), operators.decode(IDS, packed))


@pytest.mark.parametrize("nbit", NBITS)
def test_gather_rounds_to_bfloat16(nbit):
    plain_rows = packed_table(nbit, None, 300, (), torch.bfloat16)
    assert same_bits(decode(IDS, plain_rows), operators.decode(IDS, plain_rows))
    packed = packed_table(nbit, None, 300, ALL_PARTS, torch.bfloat16)
    ours, expected = decode(IDS, packed), operators.decode(IDS, packed)
    if INTERPRETED:
        # Triton's interpreter cuts float32 off where the hardware rounds it.
        torch.testing.assert_close(ours, expected, rtol=2**-7, atol=0)
    else:
        assert same_bits(ours, expected)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (2, 3)])
def test_rows_come_in_the_shape_of_ids_of_either_width(shape, dtype):
    packed, ids = packed_table(2), torch.full(shape, 3, dtype=dtype)
    assert same_bits(decode(ids, packed), operators.decode(ids, packed))


def test_ids_need_not_be_contiguous():
    packed, ids = packed_table(4), torch.arange(ROWS).reshape(8, 5).T
    assert same_bits(decode(ids, packed), operators.decode(ids, packed))


@pytest.mark.parametrize("nbit", [2, 4, 8, 16])
def test_codes_may_begin_anywhere(nbit):
    packed = packed_table(nbit, dim=16)
    shifted = torch.empty(packed.codes.numel() + 1, dtype=torch.uint8)
    shifted[1:] = packed.codes.flatten()
    moved = packed._replace(codes=shifted[1:].view_as(packed.codes))
    assert same_bits(decode(IDS, moved), operators.decode(IDS, packed))


def test_more_values_than_one_tile_decode():
    packed = packed_table(2, dim=301)
    ids = torch.randint(0, ROWS, (50,))
    assert same_bits(decode(ids, packed), operators.decode(ids, packed))


@pytest.mark.parametrize("nbit", [1, 8, 32])
@pytest.mark.parametrize("bad", [-1, ROWS, 2**31 - 1, -(2**31)])
def test_id_out_of_range_gives_a_row_of_nan_and_leaves_the_others(nbit, bad):
    packed = packed_table(nbit)
    rows = decode(torch.tensor([3, bad, 5], dtype=torch.int32), packed)
    assert rows[1].isnan().all()
    assert same_bits(rows[::2].contiguous(), operators.decode(torch.tensor([3, 5]), packed))


def test_nothing_is_read_from_an_empty_table():
    packed = packed_table(2, parts=())
    empty = packed._replace(codes=packed.codes[:0])
    assert decode(torch.tensor([0, -1]), empty).isnan().all()


def test_row_numbers_of_64_bits_are_looked_up(monkeypatch):
    packed = packed_table(2, parts=ALL_PARTS)
    expected = operators.decode(IDS, packed)
    monkeypatch.setattr(Packed, "rows", 1 << 33)
    assert same_bits(decode(IDS, packed), expected)


@pytest.mark.parametrize("listed", [[0], [39], [0, 1, 2], [5, 17, 39], list(range(40))])
def test_zero_rows_are_exact_zeros(listed):
    packed = packed_table(2, parts=("mean",))._replace(zero_rows=torch.tensor(listed))
    rows = decode(torch.arange(ROWS), packed)
    assert (rows == 0).all(1).nonzero().flatten().tolist() == listed


def test_uneven_codebook_of_16_bits_is_loaded():
    packed = packed_table(16, "uniform", parts=())
    packed.codebook[12345] += 1
    packed.codes.view(torch.int16)[5] = 12345
    assert same_bits(decode(IDS, packed), operators.decode(IDS, packed))


def test_codebook_written_to_is_looked_at_again():
    packed = packed_table(16, "uniform", parts=()).to(DEVICE)
    decode(IDS, packed)
    packed.codebook[:] = torch.randn(1 << 16)
    assert same_bits(decode(IDS, packed), operators.decode(IDS, packed.to("cpu")))


OFFSETS = torch.tensor([0, 2, 2, 6])


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize(("nbit", "kind", "dim"), [(1, "uniform", 7), (2, "trellis", 300), (16, "exact", 3)])
def test_bags_add_up_in_the_order_of_the_ids(nbit, kind, dim, mode):
    packed = packed_table(nbit, kind, dim, ALL_PARTS)
    arguments = (IDS, OFFSETS, None, packed, mode, -1, False)
    assert same_bits(pool(*arguments), operators.bag(*arguments))


@pytest.mark.parametrize("nbit", [2, 4, 8, 32])
def test_weighted_bags_multiply_each_row(nbit):
    arguments = (IDS, OFFSETS, torch.rand(len(IDS)), packed_table(nbit), "sum", -1, False)
    torch.testing.assert_close(pool(*arguments), operators.bag(*arguments))


HALF = {"dim": 300, "dtype": torch.float16}
LONG = torch.randint(0, ROWS, (31,)), torch.tensor([0, 30])


@pytest.mark.parametrize(
    ("ids", "offsets", "table", "options"),
    [
        (IDS, OFFSETS, {"parts": ("mean",)}, ("mean", 5, False)),
        (IDS, OFFSETS, {"parts": ("mean",)}, ("max", 5, False)),
        (IDS, OFFSETS, {"nbit": 4}, ("mean", -1, True)),
        (IDS.int(), OFFSETS.int(), HALF, ("mean", -1, False)),
        (*LONG, {"dim": 4}, ("sum", -1, False)),
    ],
    ids=[
        "padding, mean",
        "padding, max",
        "last offset",
        "32-bit ids in half precision",
        "long and short bags",
    ],
)
def test_bags_have_the_bits_of_the_native_kernel(ids, offsets, table, options):
    arguments = (ids, offsets, None, packed_table(**{"nbit": 2} | table), *options)
    assert same_bits(pool(*arguments), operators.bag(*arguments))


@pytest.mark.parametrize("mode", ["sum", "max"])
def test_id_out_of_range_makes_its_bag_nan(mode):
    ids = torch.tensor([1, -7, 2, 3])
    pooled = pool(ids, torch.tensor([0, 2]), None, packed_table(2), mode, -1, False)
    assert pooled[0].isnan().all()
    assert not pooled[1].isnan().any()


def test_offsets_outside_the_ids_are_brought_inside():
    packed = packed_table(2)
    pooled = pool(IDS, torch.tensor([-5, 3, 99]), None, packed, "sum", -1, True)
    expected = operators.bag(IDS, torch.tensor([0, 3, len(IDS)]), None, packed, "sum", -1, True)
    assert same_bits(pooled, expected)


@pytest.mark.parametrize("offsets", [[], [0]])
def test_no_bags_return_an_empty_tensor(offsets):
    arguments = (
        IDS[:0],
        torch.tensor(offsets, dtype=torch.int64),
        None,
        packed_table(2),
        "sum",
        -1,
        bool(offsets),
    )
    assert pool(*arguments).shape == (0, 13)


def test_float64_takes_plain_torch():
    packed = packed_table(2, dtype=torch.float64)
    assert dispatch.implementation(packed) is torch_impl
    assert same_bits(decode(IDS, packed), operators.decode(IDS, packed))


def test_kernels_are_registered_for_cuda():
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    assert all(has_kernel(f"smallfry::{name}", "CUDA") for name in ("decode", "bag"))


def test_plain_torch_stands_in_where_triton_is_missing(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "triton", None)
    dispatch.triton_module.cache_clear()
    try:
        packed = packed_table(4)
        assert dispatch.implementation(packed) is torch_impl
        assert same_bits(decode(IDS, packed), operators.decode(IDS, packed))
    finally:
        dispatch.triton_module.cache_clear()
    assert len(caplog.records) == 1
    assert "Triton does not work here" in caplog.text
