"""The decode kernels against a plain NumPy decode, on every instruction set."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smallfry import kernels
from smallfry.errors import InputError
from smallfry.kernels.numpy import decode as fallback
from smallfry.table import NBITS, STATE_BITS, Table

DIMS = (1, 3, 7, 8, 63, 64, 65, 299, 300, 301)


def uniform_codebook(nbit, step=0.37):
    return ((np.arange(2**nbit) - (2**nbit - 1) / 2) * np.float32(step)).astype(np.float32)


def random_table(nbit, dim, rows=37, kind=None, seed=0, state_bits=8, **parts):
    rng = np.random.default_rng(seed)
    kind = kind or ("trellis" if nbit == 3 else "uniform")
    if kind == "trellis":
        dim = max(dim, -(-state_bits // nbit))
    if nbit == 32:
        return Table(rng.normal(size=(rows, dim)).astype(np.float32), dim, 32, "float", None, 5.0, **parts)
    codes = rng.integers(0, 256, (rows, -(-dim * nbit // 8)), dtype=np.uint8)
    if kind == "uniform":
        codebook = uniform_codebook(nbit)
    else:
        codebook = rng.normal(size=2 ** (state_bits if kind == "trellis" else nbit)).astype(np.float32)
    return Table(codes, dim, nbit, kind, codebook, 1.0, **parts)


def plain_decode(table):
    """Decode bit by bit, independently of the kernels."""
    if table.nbit == 32:
        return np.array(table.codes)
    bits = np.unpackbits(table.codes, axis=1, bitorder="little")[:, : table.dim * table.nbit]
    window = len(table.codebook).bit_length() - 1
    codes = sum(
        np.roll(bits, -k, axis=1)[:, :: table.nbit].astype(np.uint32) << np.uint32(k) for k in range(window)
    )
    values = table.codebook[codes]
    return values if table.column_scale is None else values * table.column_scale


def same_bytes(a, b):
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


@pytest.fixture
def numpy_decoder(monkeypatch):
    monkeypatch.setattr(kernels, "Decoder", fallback.Decoder)


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("nbit", NBITS)
def test_decode_equals_plain_numpy(level, nbit, dim):
    table = random_table(nbit, dim)
    assert same_bytes(table.decode(), plain_decode(table))


@pytest.mark.parametrize("nbit", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("dim", [1, 13, 300])
def test_decode_supports_any_codebook(level, nbit, dim):
    table = random_table(nbit, dim, kind="exact")
    assert same_bytes(table.decode(), plain_decode(table))


@pytest.fixture(params=["float32", "bfloat16"])
def trellis(request):
    """Make random trellis tables, with values that take two bytes or four."""

    def make(nbit, dim, state_bits, *, scaled=True, rows=37):
        table = random_table(nbit, dim, rows, "trellis", state_bits=state_bits)
        if request.param == "bfloat16":
            table.codebook.view(np.uint32)[:] &= 0xFFFF0000
        scale = np.random.default_rng(2).uniform(0.5, 2, table.dim).astype(np.float32)
        return dataclasses.replace(table, column_scale=scale if scaled else None)

    return make


# Besides whole blocks: the shortest rows, and ends at every bit of a byte.
TRELLIS_DIMS = (1, 9, 11, 13, 15, 16, 17, 63, 64, 65, 66, 127, 128, 129, 299, 300, 301, 302)


@pytest.mark.parametrize("state_bits", STATE_BITS)
@pytest.mark.parametrize("nbit", [1, 2, 3, 4])
def test_windows_of_the_ring_index_a_trellis_codebook(level, trellis, nbit, state_bits):
    for dim in (*TRELLIS_DIMS, state_bits // nbit + 1):
        table = trellis(nbit, dim, state_bits)
        assert same_bytes(table.decode(), plain_decode(table))


@pytest.mark.parametrize("state_bits", STATE_BITS)
@pytest.mark.parametrize("nbit", [1, 2, 3, 4])
def test_fallback_decodes_windows_to_the_same_bytes(numpy_decoder, trellis, nbit, state_bits):
    for dim in (*TRELLIS_DIMS, state_bits // nbit + 1):
        table = trellis(nbit, dim, state_bits)
        assert same_bytes(table.decode(), plain_decode(table))


@pytest.mark.parametrize("state_bits", [8, 12])
def test_columns_without_scales_are_not_scaled(level, trellis, state_bits):
    table = trellis(2, 65, state_bits, scaled=False)
    assert same_bytes(table.decode(), plain_decode(table))


@pytest.mark.parametrize("state_bits", [8, 12])
@pytest.mark.parametrize("nbit", [1, 2, 3, 4])
def test_bits_after_the_ring_do_not_matter(level, trellis, nbit, state_bits):
    for dim in (13, 15, 17, 301):
        table = trellis(nbit, dim, state_bits)
        before = table.decode()
        table.codes[:, -1] ^= (0xFF << table.dim * nbit % 8) & 0xFF if table.dim * nbit % 8 else 0
        assert same_bytes(dataclasses.replace(table).decode(), before)


@pytest.mark.parametrize("nbit", NBITS)
def test_fallback_decodes_the_same_bytes(numpy_decoder, nbit):
    table = random_table(nbit, 301)
    assert same_bytes(table.decode(), plain_decode(table))


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint32])
def test_ids_of_each_type_select_rows(level, dtype):
    table = random_table(2, 30)
    ids = np.array([36, 0, 5, 5, 17], dtype)
    assert same_bytes(table.decode(ids), plain_decode(table)[ids])


@given(st.lists(st.integers(0, 36)), st.sampled_from(NBITS), st.sampled_from(DIMS))
def test_any_order_of_rows_decodes(ids, nbit, dim):
    table = random_table(nbit, dim)
    assert same_bytes(table.decode(ids), plain_decode(table)[np.array(ids, np.int64)])


def scaled_table(nbit, dim=301):
    rng = np.random.default_rng(1)
    return random_table(
        nbit,
        dim,
        column_scale=rng.uniform(0.5, 2, dim).astype(np.float32) if nbit == 3 else None,
        mean=rng.normal(size=dim).astype(np.float32),
        row_scale=np.concatenate([rng.normal(size=33), [6e-8, 1e-5, -0.0, 65504.0]]).astype(np.float16),
        zero_rows=np.array([0, 3, 36], np.uint32),
    )


@pytest.mark.parametrize("nbit", NBITS)
def test_scale_then_mean_each_round_once_and_zero_rows_stay_zero(level, nbit):
    table = scaled_table(nbit)
    expected = plain_decode(table) * table.row_scale.astype(np.float32)[:, None] + table.mean
    expected[[0, 3, 36]] = 0
    assert same_bytes(table.decode(), expected)


@pytest.mark.parametrize("nbit", NBITS)
def test_fallback_scales_and_centers_the_same(monkeypatch, nbit):
    native = scaled_table(nbit).decode([3, 35, -1, 8], fill=np.ones(301, np.float32))
    monkeypatch.setattr(kernels, "Decoder", fallback.Decoder)
    assert same_bytes(native, scaled_table(nbit).decode([3, 35, -1, 8], fill=np.ones(301, np.float32)))


def test_threads_do_not_change_the_result():
    table = random_table(2, 300, rows=9000)
    ids = np.random.default_rng(2).integers(0, 9000, 9001)
    assert same_bytes(table.decode(ids, threads=1), table.decode(ids, threads=5))


def test_out_receives_the_rows():
    table = random_table(4, 9)
    out = np.empty((2, 9), np.float32)
    assert table.decode([1, 2], out=out) is out
    assert same_bytes(out, plain_decode(table)[1:3])


@pytest.mark.parametrize(
    "out", [np.empty((2, 8), np.float32), np.empty((2, 9)), np.empty((4, 9), np.float32)[::2]]
)
def test_unsuitable_out_is_rejected(out):
    with pytest.raises((InputError, BufferError, ValueError)):
        random_table(4, 9).decode([1, 2], out=out)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_fill_replaces_missing_rows(dtype):
    table = random_table(2, 5)
    fill = np.arange(5, dtype=np.float32)
    expected = plain_decode(table)[[4, 0, 6]]
    expected[1] = fill
    assert same_bytes(table.decode(np.array([4, -1, 6], dtype), fill=fill), expected)


@pytest.mark.parametrize("ids", [[37], [-1], [0, 5, -2], np.array([4294967295], np.uint32), [2**40]])
@pytest.mark.parametrize("decoder", [kernels.Decoder, fallback.Decoder])
def test_id_out_of_range_is_reported_with_the_row_count(monkeypatch, decoder, ids):
    monkeypatch.setattr(kernels, "Decoder", decoder)
    table = random_table(2, 5)
    message = rf"^row id {ids[-1]} is out of range for a table of 37 rows, at position {len(ids) - 1}$"
    with pytest.raises(IndexError, match=message):
        table.decode(ids)


def test_empty_ids_decode_to_no_rows():
    assert random_table(2, 5).decode([]).shape == (0, 5)


@pytest.mark.parametrize("ids", [[0.5], [[1]], [True], np.array([1], np.uint64)])
def test_non_integer_ids_are_rejected(ids):
    with pytest.raises(InputError, match="ids"):
        random_table(2, 5).decode(ids)


@pytest.mark.parametrize("nbit", NBITS)
@pytest.mark.parametrize("decoder", [kernels.Decoder, fallback.Decoder])
def test_gathered_codes_are_the_packed_rows(monkeypatch, decoder, nbit):
    monkeypatch.setattr(kernels, "Decoder", decoder)
    table = random_table(nbit, 11)
    expected = table.codes.view(np.uint8)[[3, 0, 36]]
    expected[1] = 0
    assert same_bytes(table.gather_codes([3, -1, 36]), expected)


@pytest.mark.parametrize("decoder", [kernels.Decoder, fallback.Decoder])
@pytest.mark.parametrize("is_paged", [False, True])
@pytest.mark.parametrize("nbit", NBITS[:-1])
def test_known_rows_are_their_codes_and_a_byte_each(monkeypatch, decoder, nbit, is_paged):
    monkeypatch.setattr(kernels, "Decoder", decoder)
    table, known = scaled_table(nbit, 11), np.array([5, 1, 34, 5])
    expected = table.gather_codes(known).tobytes() + b"\1" * 4
    table = table.paged() if is_paged else table
    for dtype in (np.int64, np.int32, np.uint32):
        assert table.decoder.gather_known(known.astype(dtype)) == expected
        assert table.decoder.gather_known(np.append(known, 36).astype(dtype)) is None  # a row of zeros
    assert table.decoder.gather_known(np.append(known, -1)) is None
    assert table.decoder.gather_known(known[:0]) == b""
    with pytest.raises(IndexError, match="row id 37 is out of range"):
        table.decoder.gather_known(np.array([0, 37]))


@pytest.mark.parametrize("nbit", NBITS)
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_pool_in_the_order_of_ids(level, nbit, mode):
    table = scaled_table(nbit, 19)
    rows = table.decode()
    bags = [[4, 9, 9], [], [0], [-1, -1], [36, 5, -1, 1, 2]]
    expected = np.zeros((len(bags), 19), np.float32)
    for total, bag in zip(expected, bags, strict=True):
        kept = [i for i in bag if i >= 0]
        for position, i in enumerate(kept):
            if mode == "max":
                total[:] = rows[i] if position == 0 else np.maximum(total, rows[i])
            else:
                total += rows[i]
        if mode == "mean" and kept:
            total /= np.float32(len(kept))
    offsets = np.cumsum([0] + [len(bag) for bag in bags[:-1]])
    assert same_bytes(table.bag(np.concatenate(bags).astype(np.int64), offsets, mode), expected)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("count", [700, 40000])
def test_fallback_pools_the_same_bytes(monkeypatch, mode, count):
    rng = np.random.default_rng(3)
    ids = rng.integers(-1, 37, count)
    offsets = np.concatenate([[0], np.sort(rng.integers(0, count, count // 9))])
    weights = rng.normal(size=count) if mode == "sum" else None
    native = scaled_table(2, 33).bag(ids, offsets, mode, weights, threads=3)
    monkeypatch.setattr(kernels, "Decoder", fallback.Decoder)
    assert same_bytes(native, scaled_table(2, 33).bag(ids, offsets, mode, weights))


@pytest.mark.parametrize("offsets", [[1, 2], [0, 3, 2], [0, 5], [-1], [0, -1]])
def test_offsets_outside_the_ids_are_rejected(offsets):
    with pytest.raises(InputError, match=r"offsets\[\d\] is -?\d, but offsets must start at 0"):
        random_table(2, 5).bag([1, 2, 3, 4], offsets)


@pytest.mark.parametrize("offsets", [None, [0, 3], [0, 3, 6]], ids=["equal", "without end", "with end"])
@pytest.mark.parametrize("decoder", [kernels.Decoder, fallback.Decoder])
def test_bags_end_where_offsets_say(monkeypatch, decoder, offsets):
    monkeypatch.setattr(kernels, "Decoder", decoder)
    table = random_table(4, 5)
    ids, out = np.array([3, 1, 4, 1, 5, 9]), np.empty((2, 5), np.float32)
    for dtype in (np.int32, np.int64):
        bounds = None if offsets is None else np.array(offsets, dtype)
        table.decoder.bag(ids, bounds, None, "max", None, out, 1)
        rows = plain_decode(table)
        assert same_bytes(out, np.stack([rows[ids[:3]].max(axis=0), rows[ids[3:]].max(axis=0)]))


@pytest.mark.parametrize("decoder", [kernels.Decoder, fallback.Decoder])
def test_bags_skip_one_id_only(monkeypatch, decoder):
    monkeypatch.setattr(kernels, "Decoder", decoder)
    table, out = random_table(4, 5), np.empty((1, 5), np.float32)
    table.decoder.bag(np.array([7, 3, 7]), None, None, "mean", 7, out, 1)
    assert same_bytes(out[0], plain_decode(table)[3])
    with pytest.raises(IndexError, match="row id -1 is out of range"):
        table.decoder.bag(np.array([7, -1]), None, None, "sum", 7, out, 1)


def products(table, inputs, threads=1):
    out = np.empty((len(inputs), table.rows), np.float32)
    table.decoder.multiply(inputs, out, threads)
    return out


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("nbit", NBITS)
def test_products_are_those_of_the_decoded_rows(level, nbit, dim):
    table = random_table(nbit, dim)
    inputs = np.random.default_rng(4).normal(size=(5, table.dim)).astype(np.float32)
    rows, factors = plain_decode(table).astype(np.float64), inputs.astype(np.float64)
    error = np.abs(products(table, inputs) - factors @ rows.T)
    assert (error <= 2e-6 * (np.abs(factors) @ np.abs(rows).T)).all()


@pytest.mark.parametrize("dim", [1, 33, 301])
@pytest.mark.parametrize("count", [0, 1, 4, 7])
def test_fallback_multiplies_to_the_same_bytes(level, monkeypatch, dim, count):
    inputs = np.random.default_rng(5).normal(size=(count, dim)).astype(np.float32)
    native = products(scaled_table(4, dim), inputs)
    monkeypatch.setattr(kernels, "Decoder", fallback.Decoder)
    assert same_bytes(native, products(scaled_table(4, dim), inputs))


@pytest.mark.parametrize("decoder", [kernels.Decoder, fallback.Decoder])
def test_ids_and_inputs_have_any_shape(monkeypatch, decoder):
    monkeypatch.setattr(kernels, "Decoder", decoder)
    table, ids = random_table(4, 5), np.array([[3, 1], [4, 1], [5, 9]])
    rows, out = np.empty((3, 2, 5), np.float32), np.empty((3, 2, 37), np.float32)
    table.decoder.decode(ids, rows, None, 1)
    assert same_bytes(rows, plain_decode(table)[ids])
    table.decoder.multiply(rows, out, 1)
    np.testing.assert_allclose(out, rows @ plain_decode(table).T, rtol=1e-5, atol=1e-5)


def test_threads_do_not_change_products():
    table = random_table(2, 300, rows=9001)
    inputs = np.random.default_rng(6).normal(size=(3, 300)).astype(np.float32)
    assert same_bytes(products(table, inputs), products(table, inputs, threads=5))


def test_weights_need_mode_sum():
    with pytest.raises(InputError, match="weights need mode 'sum'"):
        random_table(2, 5).bag([1], [0], "mean", [2.0])


def test_empty_table_fills_missing_rows():
    table = random_table(2, 5, rows=0)
    assert same_bytes(table.decode([-1], fill=np.ones(5, np.float32)), np.ones((1, 5), np.float32))


def test_unknown_instruction_set_is_rejected(monkeypatch):
    if not kernels.native:
        pytest.skip("the NumPy path has no instruction sets")
    monkeypatch.setenv("SMALLFRY_SIMD", "mmx")
    with pytest.raises(ValueError, match="'mmx', expected scalar, avx2 or avx512"):
        random_table(2, 5).decode([1])


@given(st.data(), st.sampled_from(NBITS[:-1]), st.integers(1, 40), st.integers(0, 5))
def test_pack_and_unpack_are_inverse(data, nbit, dim, rows):
    values = np.array(
        data.draw(st.lists(st.integers(0, 2**nbit - 1), min_size=rows * dim, max_size=rows * dim)), np.uint16
    ).reshape(rows, dim)
    packed = kernels.pack(values, nbit)
    assert packed.shape == (rows, -(-dim * nbit // 8))
    assert same_bytes(kernels.unpack(packed, dim, nbit), values)


@pytest.mark.parametrize("state_bits", [8, 12, 16])
@pytest.mark.parametrize("nbit", [1, 2, 3, 4])
@pytest.mark.parametrize("module", [kernels, fallback])
def test_unpack_returns_the_positions_of_windows(module, nbit, state_bits):
    table = random_table(nbit, 21, kind="trellis", state_bits=state_bits)
    positions = module.unpack(table.codes, table.dim, nbit, state_bits)
    assert same_bytes(table.codebook[positions], plain_decode(table))
    assert same_bytes(positions & (2**nbit - 1), module.unpack(table.codes, table.dim, nbit))


@pytest.mark.parametrize("nbit", [1, 2, 3, 4, 8, 16])
@pytest.mark.parametrize("dim", [1, 2, 3, 5, 13, 300])
def test_fallback_packs_the_same_bytes(nbit, dim):
    values = np.random.default_rng(7).integers(0, 2**nbit, (5, dim)).astype(np.uint16)
    packed = kernels.pack(values, nbit)
    assert same_bytes(packed, fallback.pack(values, nbit))
    assert same_bytes(fallback.unpack(packed, dim, nbit), values)
