"""Rows gathered into memory of the caller, against the decoded rows, on every instruction set."""

import array
import dataclasses
import threading

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from smallfry import kernels
from smallfry.errors import InputError
from smallfry.kernels.numpy import decode as fallback
from tests.smallfry.kernels.test_decode import random_table, same_bytes

# The bits of bfloat16 are uint16.
DTYPES = (np.float32, np.float16, np.uint16)
DIMS = (1, 7, 31, 32, 33, 63, 64, 65, 96, 127, 160, 301)
KINDS = [
    *[(kind, nbit) for kind in ("uniform", "exact") for nbit in (1, 2, 4, 8, 16)],
    *[("trellis", nbit) for nbit in (1, 2, 3, 4)],
]


@pytest.fixture(params=[kernels.Decoder, fallback.Decoder], ids=["kernel", "numpy"])
def decoder(request, monkeypatch):
    monkeypatch.setattr(kernels, "Decoder", request.param)


def make_table(kind, nbit, dim, rows=37, state_bits=8, **parts):
    """Make a table whose trellis codebook has values of bfloat16, as those with a kernel of its own."""
    table = random_table(nbit, dim, rows, kind, state_bits=state_bits, **parts)
    if kind == "trellis":
        table.codebook.view(np.uint32)[:] &= 0xFFFF0000
        scale = np.random.default_rng(2).uniform(0.5, 2, table.dim).astype(np.float32)
        table = dataclasses.replace(table, column_scale=scale)
    return table


def scaled(table, mean=False):
    """Add row scales of all sizes, ±0 among them, to a table."""
    rng = np.random.default_rng(3)
    scale = np.exp(rng.uniform(-9, 9, table.rows)).astype(np.float16)
    scale[:4] = 0, -0.0, 6e-8, 65504
    values = rng.normal(size=table.dim).astype(np.float32) if mean else None
    return dataclasses.replace(table, row_scale=scale, mean=values)


def rounded(values, dtype):
    if dtype == np.uint16:
        bits = values.view(np.uint32)
        down = bits >> 16
        low, high = ((near << 16).view(np.float32).astype(np.float64) for near in (down, down + 1))
        high = np.where(np.isinf(high), np.copysign(2.0**128, low), high)
        below, above = np.abs(values - low), np.abs(high - values)
        return (down + ((below > above) | ((below == above) & (down & 1 == 1)))).astype(np.uint16)
    with np.errstate(over="ignore"):
        return values.astype(dtype)


def gathers_what_it_decodes(table, ids=None):
    ids = np.random.default_rng(4).integers(0, table.rows, 150) if ids is None else ids
    rows = table.decode(ids)
    for dtype in DTYPES:
        out = np.empty((len(ids), table.dim), dtype)
        assert table.gather(ids, out) is out
        assert same_bytes(out, rounded(rows, dtype)), (table.nbit, table.dim, dtype)


@pytest.mark.parametrize(("kind", "nbit"), KINDS)
def test_values_are_those_of_decode_rounded_to_nearest_even(level, kind, nbit):
    for dim in DIMS:
        table = make_table(kind, nbit, dim)
        for part in (table, scaled(table), scaled(table, mean=True)):
            gathers_what_it_decodes(part)
            gathers_what_it_decodes(part.paged())


@pytest.mark.parametrize("state_bits", [9, 12, 16])
def test_codebooks_of_more_values_are_gathered(level, state_bits):
    gathers_what_it_decodes(scaled(make_table("trellis", 3, 65, state_bits=state_bits), mean=True).paged())


def test_tables_of_float32_are_gathered(level):
    gathers_what_it_decodes(random_table(32, 65))


@pytest.mark.parametrize(("kind", "nbit"), KINDS)
def test_rows_of_more_than_a_page_are_gathered(level, kind, nbit):
    table = scaled(make_table(kind, nbit, 33000 // nbit, rows=5), mean=True).paged()
    gathers_what_it_decodes(table, np.array([4, 0, 3, 3, 1, 2]))


def test_zero_rows_are_positive_zeros(level):
    mean = np.full(65, -1, np.float32)
    table = random_table(2, 65, mean=mean, zero_rows=np.array([0, 3], np.uint32))
    for part in (table, table.paged()):
        for dtype in DTYPES:
            out = part.gather(np.array([3, 1, 0]), np.empty((3, 65), dtype))
            assert not out[::2].view(np.uint8).any()
            assert out[1].any()


@pytest.mark.parametrize(("kind", "nbit"), [("uniform", 2), ("uniform", 8), ("trellis", 3)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_fallback_gathers_the_same_bytes(monkeypatch, kind, nbit, dtype):
    ids = np.arange(37)[::-1].copy()
    native = scaled(make_table(kind, nbit, 65), mean=True).paged().gather(ids, np.empty((37, 65), dtype))
    monkeypatch.setattr(kernels, "Decoder", fallback.Decoder)
    table = scaled(make_table(kind, nbit, 65), mean=True).paged()
    assert same_bytes(native, table.gather(ids, np.empty((37, 65), dtype)))


@given(arrays(np.uint32, 40))
@pytest.mark.parametrize("name", ["scalar", "avx2", "avx512"])
def test_all_finite_values_are_rounded_alike(name, bits):
    bits[bits & 0x7F800000 == 0x7F800000] = 0
    edges = [0x477FEFFF, 0x477FF000, 0x387FFFFF, 0x33000000, 0x33000001, 0x7F7FFFFF, 0x00000001, 0x00018000]
    values = np.concatenate([bits, np.array(edges, np.uint32)]).view(np.float32)[None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SMALLFRY_SIMD", name)
        table = dataclasses.replace(random_table(32, values.size), codes=values)
        for dtype in DTYPES:
            out = table.gather(np.zeros(1, np.int64), np.empty(values.shape, dtype))
            assert same_bytes(out, rounded(values, dtype))


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("shape", [(), (0,), (5,), (0, 3), (2, 3), (2, 1, 4)])
def test_ids_have_any_shape(decoder, dtype, shape):
    table = random_table(4, 9)
    ids = np.random.default_rng(5).integers(0, 37, shape).astype(dtype)
    out = table.gather(ids)
    assert out.dtype == np.float32
    assert out.shape == (*shape, 9)
    assert same_bytes(out.reshape(-1, 9), table.decode(ids.reshape(-1)))


def test_lists_of_ids_are_gathered(decoder):
    table = random_table(4, 9)
    assert same_bytes(table.gather([[1, 2], [3, 4]])[1, 0], table.decode([3])[0])
    assert table.gather([]).shape == (0, 9)


def with_heads(table, offsets):
    return dataclasses.replace(table, head_offsets=np.array(offsets, np.uint64))


def test_ids_are_local_to_the_head_of_the_last_axis(decoder):
    table = with_heads(random_table(2, 33).paged(), [0, 10, 37])
    ids = np.array([[[0, 19], [9, 0]], [[5, 5], [1, 2]]])
    assert same_bytes(table.gather(ids).reshape(-1, 33), table.decode((ids + np.array([0, 10])).reshape(-1)))


@pytest.mark.parametrize("shape", [(), (3,), (2, 1)])
def test_ids_without_an_axis_of_heads_are_rejected(decoder, shape):
    table = with_heads(random_table(2, 33), [0, 10, 37])
    with pytest.raises(
        InputError, match=r"ids are int64 .*, expected \[..., 2\]: the last axis of ids is the"
    ):
        table.gather(np.zeros(shape, np.int64))


def test_threads_and_heads_do_not_change_the_result(level):
    table = with_heads(scaled(make_table("trellis", 3, 160, rows=9000)).paged(), [0, 1000, 4000, 9000])
    ids = np.random.default_rng(2).integers(0, 1000, (7000, 3)).astype(np.int32)
    for dtype in DTYPES:
        first, second = (np.empty((7000, 3, 160), dtype) for _ in range(2))
        assert same_bytes(table.gather(ids, first, threads=1), table.gather(ids, second, threads=5))
        assert same_bytes(first[:, 2], rounded(table.decode(ids[:, 2] + 4000), dtype))


def aligned(shape, dtype, offset):
    """Allocate an array whose address is `offset` modulo 64."""
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.empty(nbytes + 128, np.uint8)
    start = -memory.ctypes.data % 64 + offset
    return memory[start : start + nbytes].view(dtype).reshape(shape)


@pytest.mark.parametrize(
    ("kind", "nbit", "dim"), [("trellis", 3, 160), ("uniform", 2, 160), ("trellis", 2, 96)]
)
def test_outputs_larger_than_the_caches_are_the_same(level, kind, nbit, dim):
    table = scaled(make_table(kind, nbit, dim, rows=500), mean=kind == "trellis").paged()
    ids = np.random.default_rng(2).integers(0, 500, 9 * 2**19 // dim)
    first, last = table.decode(ids[:500]), table.decode(ids[-500:])
    for dtype in DTYPES:
        for offset in (0, 16, 4):  # stores past the caches need an alignment
            out = aligned((len(ids), dim), dtype, offset)
            table.gather(ids, out, threads=2)
            assert same_bytes(out[:500], rounded(first, dtype))
            assert same_bytes(out[-500:], rounded(last, dtype))


@pytest.mark.parametrize("wrong", [37, -1, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_first_id_out_of_range_is_named_before_anything_is_written(decoder, wrong, dtype):
    ids = np.zeros((50, 3), dtype)
    ids[40, 1] = wrong
    ids[41] = 99
    out = np.full((50, 3, 9), 7, np.float32)
    message = rf"^row id {wrong} is out of range for a table of 37 rows, at position 121$"
    with pytest.raises(IndexError, match=message):
        random_table(4, 9).gather(ids, out)
    assert (out == 7).all()


def test_id_outside_its_head_is_named_with_the_head(decoder):
    table = with_heads(random_table(2, 33), [0, 10, 10, 37])
    with pytest.raises(IndexError, match=r"^row id 0 is out of range for head 1 of 0 rows, at position 1$"):
        table.gather(np.array([[3, 0, 26]]))


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.zeros(2), r"ids are float64 \[2\], expected int32 or int64"),
        (np.zeros(2, np.uint32), r"ids are uint32 \[2\], expected int32 or int64"),
        (np.zeros(2, np.int16), r"ids are int16 \[2\], expected int32 or int64"),
        (np.zeros(2, bool), r"ids are .*, expected int32 or int64"),
        (np.zeros(2, np.dtype(np.int64).newbyteorder()), r"ids are .*>.*\[2\], expected int32 or int64"),
        (np.zeros(4, np.int64)[::2], "ids is not C-contiguous"),
        (np.zeros(17, np.uint8)[1:].view(np.int64), "ids is not aligned, expected an address"),
    ],
)
def test_unsuitable_ids_are_rejected(decoder, ids, message):
    with pytest.raises(InputError, match=message):
        random_table(4, 9).gather(ids, np.empty((2, 9), np.float32))


def read_only(values):
    values.flags.writeable = False
    return values


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.empty((2, 8), np.float32), r"out is float32 \[2, 8\], expected shape \[2, 9\]"),
        (np.empty(18, np.float16), r"out is float16 \[18\], expected shape \[2, 9\]"),
        (np.empty((2, 9)), r"out is float64 \[2, 9\], expected float32, float16 or bfloat16"),
        (np.empty((2, 9), np.int16), r"out is int16 \[2, 9\], expected float32, float16 or bfloat16"),
        (np.empty((4, 9), np.float32)[::2], "out is not C-contiguous"),
        (np.empty((9, 2), np.float16).T, "out is not C-contiguous"),
        (
            np.empty(73, np.uint8)[1:].view(np.float32).reshape(2, 9),
            "out is not aligned, expected an address",
        ),
        (read_only(np.empty((2, 9), np.float32)), "out is read-only"),
        ("out", "out is str, expected a writable array of NumPy, torch or another library with DLPack"),
    ],
)
def test_unsuitable_out_is_rejected(decoder, out, message):
    with pytest.raises(InputError, match=message):
        random_table(4, 9).gather(np.zeros(2, np.int64), out)


def test_ids_in_the_memory_of_out_are_rejected(decoder):
    memory = np.zeros(22, np.float32)
    for at in (0, 16):
        with pytest.raises(InputError, match="ids and out share memory, expected separate arrays"):
            random_table(4, 9).gather(memory[at : at + 4].view(np.int64), memory[:18].reshape(2, 9))
    ids, out = memory[18:].view(np.int64), memory[:18].reshape(2, 9)
    assert random_table(4, 9).gather(ids, out) is out


def test_arrays_of_bfloat16_are_gathered(decoder):
    table = random_table(4, 9)
    out = np.empty((2, 9), ml_dtypes.bfloat16)
    assert table.gather([1, 2], out) is out
    assert same_bytes(out, table.decode([1, 2]).astype(out.dtype))


class WithDlpack:
    """An array of another library, which has DLPack and nothing else."""

    def __init__(self, values):
        self._values = values

    def __dlpack__(self, **options):
        return self._values.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._values.__dlpack_device__()


def test_arrays_of_any_library_with_dlpack_are_gathered(decoder):
    table, out = random_table(4, 9), np.empty((2, 9), np.float32)
    table.gather(WithDlpack(np.array([4, 2])), WithDlpack(out))
    assert same_bytes(out, table.decode([4, 2]))
    assert same_bytes(table.gather(WithDlpack(np.array([4, 2]))), out)


def test_buffers_are_gathered():
    table, out = random_table(4, 9), array.array("f", bytes(72))
    table.decoder.gather(array.array("q", [4, 2]), memoryview(out).cast("B").cast("f", (2, 9)), None, 1)
    assert bytes(out) == table.decode([4, 2]).tobytes()


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
def test_tensors_of_torch_are_gathered(decoder, name):
    torch = pytest.importorskip("torch")
    table, ids = random_table(4, 9), torch.tensor([[4, 2], [0, 36]], dtype=torch.int32)
    out = torch.empty(2, 2, 9, dtype=getattr(torch, name))
    assert table.gather(ids, out) is out
    assert torch.equal(out, torch.from_numpy(table.decode(ids.reshape(-1))).reshape(2, 2, 9).to(out.dtype))
    with pytest.raises(InputError, match="out is not C-contiguous"):
        table.gather(ids[0], torch.empty(9, 2, dtype=out.dtype).T)
    for wrong in (torch.zeros(2, dtype=torch.bool), ids.to("meta"), ids.to_sparse()):
        with pytest.raises(InputError, match=r"^ids (are bool|is (torch\.)?Tensor, expected an array)"):
            table.gather(wrong)


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
def test_fake_tensors_are_rejected():
    torch = pytest.importorskip("torch")
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        ids, out = torch.zeros(2, dtype=torch.int64), torch.empty(2, 9)
    for name, passed in (("ids", [ids]), ("out", [np.zeros(2, np.int64), out])):
        with pytest.raises(InputError, match=rf"^{name} has no memory, expected an array in host memory"):
            random_table(4, 9).gather(*passed)


def test_ids_that_another_thread_changes_stay_inside_the_table():
    table = scaled(make_table("trellis", 3, 160, rows=2000)).paged()
    ids, done = np.zeros(40000, np.int64), threading.Event()

    def change():
        while not done.is_set():
            ids[:] = 2**40
            ids[:] = 0

    writer = threading.Thread(target=change)
    writer.start()
    out = np.empty((len(ids), 160), np.uint16)
    for _ in range(20):
        try:
            table.gather(ids, out)
        except IndexError as error:
            assert "row id" in str(error)
    done.set()
    writer.join()


@pytest.mark.parametrize("heads", [None, [0, 20, 37]])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("dim", [1, 160, 3000])
def test_records_are_those_of_the_blocks(decoder, dim, dtype, heads):
    table = scaled(make_table("uniform", 16, dim)).paged(heads)
    paging, rows = table.paging, np.array([[19, 20], [3, 36], [3, 20]])
    ids = (rows - (0 if heads is None else heads[:-1])).astype(dtype)
    out = np.empty((3, 2, paging.record), np.uint8)
    table.decoder.gather_records(ids, out, table.head_offsets, 2)
    expected = table.codes.reshape(-1)[paging.starts(rows)[:, :, None] + np.arange(paging.record)]
    assert np.array_equal(out, expected)


def test_arguments_of_records_are_checked(decoder):
    decoder = scaled(make_table("trellis", 2, 32)).paged().decoder
    ids, out = np.array([3, 37]), np.empty((2, 10), np.uint8)
    with pytest.raises(IndexError, match="row id 37 is out of range for a table of 37 rows, at position 1"):
        decoder.gather_records(ids, out, None, 1)
    for wrong, message in (
        (out[:, 1:].copy(), r"expected shape \[2, 10\]"),
        (out.view("i1"), "expected uint8"),
    ):
        with pytest.raises(InputError, match=message):
            decoder.gather_records(ids, wrong, None, 1)
