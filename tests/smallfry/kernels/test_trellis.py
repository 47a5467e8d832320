import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smallfry import kernels
from smallfry.kernels.numpy import trellis as fallback


def windows(codes, dim, nbit, state_bits):
    """Return the windows of rows of codes ``[rows, dim]``, bit by bit."""
    bits = np.unpackbits(codes, axis=1, bitorder="little")[:, : dim * nbit].astype(np.int64)
    at = (np.arange(dim)[:, None] * nbit + np.arange(state_bits)) % (dim * nbit)
    return (bits[:, at] << np.arange(state_bits)).sum(axis=2)


def encode(x, codebook, nbit, column_scale=None, kernel=kernels.encode_trellis, threads=2):
    codes = np.full((len(x), -(-x.shape[1] * nbit // 8)), 255, np.uint8)
    scale = np.ones(x.shape[1], np.float32) if column_scale is None else column_scale
    kernel(x, codebook, scale, nbit, codes, threads)
    return codes


def normals(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@settings(max_examples=60)
@given(
    st.integers(0, 20),
    st.integers(1, 30),
    st.integers(1, 4),
    st.integers(8, 10),
    st.integers(0, 99),
    st.booleans(),
)
def test_native_codes_equal_those_of_numpy(rows, dim, nbit, state_bits, seed, coarse):
    dim = max(dim, -(-state_bits // nbit))
    x, codebook, scale = (
        normals(rows, dim, seed=seed),
        normals(2**state_bits, seed=seed),
        normals(dim, seed=seed),
    )
    if coarse:  # equal distances, where the lowest bits have to win
        x, codebook, scale = x.round(), codebook.round(), np.ones(dim, np.float32)
    native = encode(x, codebook, nbit, scale)
    np.testing.assert_array_equal(native, encode(x, codebook, nbit, scale, fallback.encode_trellis))


@pytest.mark.parametrize("level", ["scalar", "avx2", "avx512"])
@pytest.mark.parametrize("nbit", [1, 2, 3, 4])
@pytest.mark.parametrize("dim", [11, 61])  # below and above six windows
def test_every_instruction_set_gives_the_same_codes(level, nbit, dim, monkeypatch):
    x, codebook = normals(37, dim).round(1), normals(256).round(1)
    plain = encode(x, codebook, nbit, kernel=fallback.encode_trellis)
    monkeypatch.setenv("SMALLFRY_SIMD", level)
    np.testing.assert_array_equal(encode(x, codebook, nbit), plain)


def test_long_rows_of_several_segments_equal_those_of_numpy():
    x, codebook = normals(3, 2500), normals(256)
    np.testing.assert_array_equal(
        encode(x, codebook, 1), encode(x, codebook, 1, kernel=fallback.encode_trellis)
    )


@pytest.mark.parametrize("threads", [1, 3, 100])
def test_codes_do_not_depend_on_the_threads(threads):
    x, codebook = normals(100, 20), normals(256)
    np.testing.assert_array_equal(encode(x, codebook, 2, threads=threads), encode(x, codebook, 2))


@pytest.mark.parametrize("nbit", [1, 2, 3, 4])
@pytest.mark.parametrize("state_bits", [8, 12])
def test_decoded_values_are_found_again(nbit, state_bits):
    bits = np.random.default_rng(0).integers(0, 2, (20, 40 * nbit)).astype(np.uint8)
    codes = np.packbits(bits, axis=1, bitorder="little")
    codebook = normals(2**state_bits)
    x = np.ascontiguousarray(codebook[windows(codes, 40, nbit, state_bits)])
    found = encode(x, codebook, nbit)
    assert (found == codes).all(axis=1).mean() > 0.9


@pytest.mark.parametrize("nbit", [2, 3])
def test_bits_past_the_last_value_are_zero(nbit):
    codes = encode(normals(30, 11), normals(256), nbit)
    assert not (codes[:, -1] >> (11 * nbit % 8)).any()


@pytest.mark.parametrize(("nbit", "dim"), [(1, 100), (2, 50), (4, 30)])
def test_loss_is_near_that_of_the_best_ring(nbit, dim):
    x, codebook = normals(16, dim), normals(256)
    found = codebook[windows(encode(x, codebook, nbit), dim, nbit, 8)]
    assert np.square(x - found).sum() < 1.02 * best_ring(x, codebook, nbit).sum()


@pytest.mark.parametrize("nbit", [1, 2, 3, 4])
@pytest.mark.parametrize("windows_in_row", [1, 2, 5])
def test_loss_of_short_rows_is_near_that_of_the_best_ring(nbit, windows_in_row):
    dim = -(-8 * windows_in_row // nbit)
    x, codebook = normals(32, dim), normals(256)
    found = codebook[windows(encode(x, codebook, nbit), dim, nbit, 8)]
    assert np.square(x - found).sum() < 1.02 * best_ring(x, codebook, nbit).sum()


def best_ring(x, codebook, nbit):
    """Return the least squared error of each row, over all bits that the first and last window share."""
    paths = 256 >> nbit
    costs = np.full((paths, len(x), paths), np.inf)
    costs[np.arange(paths), :, np.arange(paths)] = 0
    for column in x.T:
        reached = costs[:, :, np.arange(256) % paths] + np.square(column[:, None] - codebook)
        costs = reached.reshape(paths, len(x), paths, -1).min(axis=3)
    return costs[np.arange(paths), :, np.arange(paths)].min(axis=0)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"codebook": 255}, "codebook is 255, expected 256"),
        ({"codebook": 2**17}, "codebook is 131072, expected 65536"),
        ({"scale": 7}, "column_scale is 7, expected 8"),
        ({"codes": 3}, "codes is 3, expected 4"),
        ({"dim": 3, "scale": 3, "codes": 2}, "fewer bits than a window"),
        ({"nbit": 5}, "1, 2, 3 or 4 bits"),
    ],
)
def test_arrays_that_do_not_fit_are_rejected(sizes, message):
    if not kernels.native:
        pytest.skip("only the native module checks shapes")
    size = {"dim": 8, "codebook": 256, "scale": 8, "codes": 4, "nbit": 2} | sizes
    with pytest.raises(ValueError, match=message):
        kernels.encode_trellis(
            normals(2, size["dim"]),
            normals(size["codebook"]),
            normals(size["scale"]),
            size["nbit"],
            np.empty(size["codes"], np.uint8),
            1,
        )
