"""The compression kernels: native on every instruction set, NumPy, all the same bytes."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smallfry import kernels
from smallfry.errors import InputError
from smallfry.kernels.numpy import quantize as fallback

BINS = 1 << 16


def matrix(rows=57, dim=13, scale=1.0, seed=0):
    x = (np.random.default_rng(seed).standard_t(3, (rows, dim)) * scale).astype(np.float32)
    x[3] = 0
    x[5, -1] = 0
    x[7] = -0.0
    return x


def scan(module, x):
    zero, counts, lows = np.zeros(len(x), np.uint8), np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
    return *module.scan(x, zero, counts, lows, 3), zero.tolist(), counts.tobytes(), lows.tobytes()


@pytest.mark.parametrize(("rows", "dim"), [(57, 13), (9, 1), (8, 2500), (9000, 300)])
def test_native_scan_equals_numpy(rows, dim):
    x = matrix(rows, dim)
    assert scan(kernels, x) == scan(fallback, x)


def test_scan_counts_every_value_once():
    x = matrix()
    zero, counts, lows = np.zeros(len(x), np.uint8), np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
    peak, bad = kernels.scan(x, zero, counts, lows, 1)
    assert (peak, bad) == (np.abs(x).max(), -1)
    assert np.flatnonzero(zero).tolist() == [3, 7]
    assert counts.sum() == x.size
    assert (counts[:-1] * (np.arange(BINS - 1) << 15) + lows[:-1]).sum() == (
        x.view(np.uint32).astype(np.int64) & 0x7FFFFFFF
    ).sum()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("module", [kernels, fallback])
def test_scan_finds_the_first_non_finite_value(module, bad):
    x = matrix()
    x[11, 4] = x[20, 0] = bad
    assert scan(module, x)[:2] == (float("inf"), 11 * 13 + 4)


@pytest.mark.parametrize("levels", [2, 3, 4, 16, 256, 65536, 2**24])
@pytest.mark.parametrize("scale", [1e-38, 1e-3, 1.0, 1e30])
def test_grid_sums_are_the_same_on_every_path(level, levels, scale):
    x = matrix(scale=scale)
    steps = np.maximum(np.array([0.5, 1.0, 3.7]) * scale / levels, 1e-45).astype(np.float32)
    native, plain = np.empty((6, 3, 3)), np.empty((6, 3, 3))
    kernels.grid_sums(x, steps, levels, 10, native, 2)
    fallback.grid_sums(x, steps, levels, 10, plain, 1)
    assert native.tobytes() == plain.tobytes()


@pytest.mark.parametrize("nbit", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("seed", [None, 0, 2**64 - 1])
@pytest.mark.parametrize("dim", [1, 8, 13, 300])
def test_encoded_grids_are_the_same_on_every_path(level, nbit, seed, dim):
    x = matrix(dim=max(dim, 3))[:, :dim].copy()
    zero = (~x.any(axis=1)).astype(np.uint8)
    results = []
    for module in (kernels, fallback):
        codes, sums = np.full((57, -(-dim * nbit // 8)), 255, np.uint8), np.empty((6, 2))
        module.encode_grid(x, zero, float(np.float32(3 / 2**nbit)), nbit, 10, codes, sums, seed, 1000, 2)
        results.append((codes.tobytes(), sums.tobytes()))
    assert results[0] == results[1]


@pytest.mark.parametrize("module", [kernels, fallback])
def test_encoding_rounds_to_the_nearest_level(module):
    x = matrix()
    codes, sums, zero = np.empty((57, 4), np.uint8), np.empty((1, 2)), np.zeros(57, np.uint8)
    module.encode_grid(x, zero, 0.75, 2, 57, codes, sums, None, 0, 1)
    levels = (np.arange(4) - 1.5) * 0.75
    nearest = np.abs(x[:, :, None] - levels).min(axis=2)
    decoded = levels[kernels.unpack(codes, 13, 2)]
    assert np.allclose(np.abs(x - decoded), nearest)
    assert np.allclose(sums[0], [np.square(x - decoded).sum(), np.square(x, dtype=np.float64).sum()])


@pytest.mark.parametrize("module", [kernels, fallback])
def test_stochastic_rounding_is_unbiased(module):
    x = np.full((400, 500), 0.3, np.float32)
    codes, sums, zero = np.empty((400, 500), np.uint8), np.empty((1, 2)), np.zeros(400, np.uint8)
    module.encode_grid(x, zero, 1.0, 8, 400, codes, sums, 7, 0, 1)
    assert set(np.unique(codes)) == {127, 128}
    # 0.3 lies 0.8 of the way from -0.5 to 0.5; the deviation of the mean is 0.4 / sqrt(200,000).
    assert abs(codes.mean() - 127.8) < 5 * 0.4 / 200_000**0.5


@pytest.mark.parametrize("module", [kernels, fallback])
def test_values_are_collected_in_order_up_to_the_limit(module):
    x = np.array([[2.0, -1.0], [0.0, 0.0], [-0.0, 2.0]], np.float32)
    zero = np.array([0, 1, 0], np.uint8)
    values = module.ValueSet(3)
    assert values.add(x, zero)
    assert values.values().tolist() == [-1.0, 0.0, 2.0]
    assert not module.ValueSet(2).add(x, zero)


@pytest.mark.parametrize("nbit", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("dim", [1, 7, 600])
def test_known_values_encode_to_their_position(nbit, dim):
    rng = np.random.default_rng(nbit)
    known = np.unique(rng.normal(size=2**nbit).astype(np.float32))
    numbers = rng.integers(0, len(known), (30, dim)).astype(np.uint16)
    numbers[4] = 0
    x = known[numbers]
    x[4] = 0
    zero = (~x.any(axis=1)).astype(np.uint8)
    results = []
    for module in (kernels, fallback):
        values = module.ValueSet(2**nbit)
        assert values.add(known[None], np.zeros(1, np.uint8))
        values.values()
        codes = np.empty((30, -(-dim * nbit // 8)), np.uint8)
        assert values.encode(x, zero, nbit, codes, 2)
        assert not values.encode(x, np.zeros(30, np.uint8), nbit, codes.copy(), 2)
        assert (kernels.unpack(codes, dim, nbit) == numbers).all()
        results.append(codes.tobytes())
    assert results[0] == results[1]


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=40))
def test_few_values_round_trip_exactly(values):
    x = np.array([values], np.float32)
    found = kernels.ValueSet(256)
    assert found.add(x, np.zeros(1, np.uint8))
    book, codes = found.values(), np.empty((1, len(values)), np.uint8)
    assert found.encode(x, np.zeros(1, np.uint8), 8, codes, 1)
    assert (book[codes] == x).all()


@pytest.mark.parametrize("text", ["0", "-1", "two", ""])
def test_invalid_thread_count_is_rejected(monkeypatch, text):
    monkeypatch.setenv("SMALLFRY_THREADS", text)
    with pytest.raises(InputError, match="SMALLFRY_THREADS"):
        kernels.default_threads()


def test_threads_variable_is_used(monkeypatch):
    monkeypatch.setenv("SMALLFRY_THREADS", "3")
    assert kernels.default_threads() == 3


def test_numpy_path_warns_once():
    code = (
        "import warnings, numpy as np\n"
        "from smallfry import kernels\n"
        "assert not kernels.native\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    for _ in range(3): kernels.pack(np.zeros((1, 8), np.uint16), 1)\n"
        "assert [w.category for w in caught] == [RuntimeWarning], caught\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={"SMALLFRY_NATIVE": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
