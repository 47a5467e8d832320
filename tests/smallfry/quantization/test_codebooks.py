import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smallfry import kernels
from smallfry.kernels.numpy import codebook as fallback
from smallfry.quantization.codebooks import encode, grouped, lloyd_max


def test_levels_of_normal_values_are_the_known_ones():
    values = np.random.default_rng(0).standard_normal(1_000_000)
    assert lloyd_max(values, 2) == pytest.approx(np.array([-1, 1]) * np.sqrt(2 / np.pi), abs=2e-3)
    assert lloyd_max(values, 4) == pytest.approx([-1.510, -0.453, 0.453, 1.510], abs=1e-2)


def test_few_distinct_values_are_their_own_levels():
    assert lloyd_max(np.array([3.0, 1.0, 1.0, 3.0]), 4).tolist() == [1, 3, 3, 3]
    assert lloyd_max(np.full(5, 7.0), 2).tolist() == [7, 7]


@given(
    st.integers(0, 40), st.integers(1, 20), st.sampled_from([2, 4, 8]), st.integers(0, 2**32), st.booleans()
)
def test_native_nearest_centroid_equals_numpy(rows, dim, group, seed, coarse):
    random = np.random.default_rng(seed)
    x, codebook = (random.standard_normal(s).astype(np.float32) for s in ((rows, dim), (256, group)))
    if coarse:  # equal distances, where the first has to win
        x, codebook = x.round(), codebook.round()
    native, plain = (np.empty((rows, -(-dim // group)), np.uint8) for _ in range(2))
    kernels.encode_groups(x, codebook, native, 2)
    fallback.encode_groups(x, codebook, plain, 1)
    np.testing.assert_array_equal(native, plain)


@pytest.mark.parametrize("level", ["scalar", "avx2", "avx512"])
@pytest.mark.parametrize("group", [2, 4, 8])
def test_every_instruction_set_gives_the_same_bytes(level, group, monkeypatch):
    random = np.random.default_rng(0)
    x, codebook = (random.standard_normal(s).astype(np.float32).round(1) for s in ((37, 13), (256, group)))
    plain = np.empty((37, -(-13 // group)), np.uint8)
    fallback.encode_groups(x, codebook, plain, 1)
    monkeypatch.setenv("SMALLFRY_SIMD", level)
    np.testing.assert_array_equal(encode(x, codebook), plain)


def test_nearest_centroid_has_the_smallest_distance():
    random = np.random.default_rng(0)
    x, codebook = (random.standard_normal(s).astype(np.float32) for s in ((50, 8), (256, 4)))
    distances = np.square(x.reshape(-1, 1, 4) - codebook).sum(axis=2)
    np.testing.assert_array_equal(encode(x, codebook).ravel(), distances.argmin(axis=1))


def test_short_last_group_is_compared_by_its_own_values():
    codebook = np.full((256, 4), 9, np.float32)
    codebook[5] = [1, 2, 100, 100]
    assert encode(np.array([[9, 9, 9, 9, 1, 2]], np.float32), codebook).tolist() == [[0, 5]]


@pytest.mark.parametrize("shape", [(255, 4), (256, 3), (256,)])
def test_codebook_of_another_shape_is_rejected(shape):
    if not kernels.native:
        pytest.skip("the native module checks the shapes that Python built")
    with pytest.raises(ValueError, match="codebook"):
        kernels.encode_groups(
            np.ones((2, 4), np.float32), np.ones(shape, np.float32), np.empty((2, 1), np.uint8), 1
        )


def test_codes_of_another_size_are_rejected():
    if not kernels.native:
        pytest.skip("the native module checks the shapes that Python built")
    with pytest.raises(ValueError, match="size of codes is 3, expected 4"):
        kernels.encode_groups(
            np.ones((2, 7), np.float32), np.ones((256, 4), np.float32), np.empty(3, np.uint8), 1
        )


def test_groups_of_normal_values_lose_less_than_single_values():
    rows = np.random.default_rng(0).standard_normal((2000, 40)).astype(np.float32)
    codebook = grouped(rows, 4, seed=0)
    error = np.square(rows - codebook[encode(rows, codebook)].reshape(rows.shape)).mean()
    levels = lloyd_max(rows, 4)
    scalar = np.square(rows[..., None] - levels).min(axis=2).mean()
    assert error < 0.85 * scalar


def test_at_most_256_distinct_groups_lose_little():
    random = np.random.default_rng(0)
    distinct = random.standard_normal((100, 4)).astype(np.float32)
    rows = distinct[random.integers(0, 100, 6000)].reshape(-1, 12)
    codebook = grouped(rows, 4, seed=0)
    lost = np.square(rows - codebook[encode(rows, codebook)].reshape(rows.shape)).sum()
    assert lost < 0.01 * np.square(rows).sum()


def test_same_seed_gives_the_same_codebook():
    rows = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
    np.testing.assert_array_equal(grouped(rows, 2, seed=3), grouped(rows, 2, seed=3))


def test_rows_shorter_than_a_group_are_fitted():
    rows = np.random.default_rng(0).standard_normal((300, 3)).astype(np.float32)
    codebook = grouped(rows, 8, seed=0)
    assert np.square(rows - codebook[encode(rows, codebook)][:, 0, :3]).mean() < 0.1
